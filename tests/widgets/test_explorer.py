"""The explorer as a widget, without a page: every click is a message, every answer a trait."""

from __future__ import annotations

import time
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets
import pytest
import torch
from torch import nn

import qatexplorer as qx
from qatexplorer.quantizers.engine import available_engines
from qatexplorer.quantizers.engine_choice import default_backend
from qatexplorer.views.common.story import message_html
from qatexplorer.widgets.explorer import settings as settings_module
from qatexplorer.widgets.explorer.explorer import Explorer
from tests.support.engines import fake_machine, faked
from tests.support.models import NoStubs, image, loader


@pytest.fixture(autouse=True)
def runs_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QATEXPLORER_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


@pytest.fixture
def explorer(runs_folder: Path) -> Explorer:
    return qx.explore(example="digits_cnn")


SITE = "conv1.activation_post_process"


def click(explorer: Explorer, action: str, stage: str = "") -> None:
    explorer._on_action(action, stage)
    explorer.jobs.wait(60)
    until(lambda: explorer.jobs.current is None)


def until(holds: Callable[[], Any], timeout_s: float = 60.0) -> None:
    end = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def said(explorer: Explorer, finding: str) -> str:
    """What the line of news says of a finding, ``""`` if it does not."""
    return next((p["message"] for p in explorer.news.findings if p["name"] == finding), "")


def press_fix(explorer: Explorer, finding: str, index: int = 0) -> None:
    """What a click on a button of the line of news does."""
    key = next(p["key"] for p in explorer.news.findings if p["name"] == finding)
    explorer.news._handle_custom_msg({"action": "fix", "key": key, "index": index}, [])
    until(lambda: explorer.jobs.current is None)
    assert explorer.message.html == ""


def walk(explorer: Explorer, to: str) -> qx.Session:
    assert explorer.session is not None
    click(explorer, "goto", to)
    assert explorer.message.html == ""
    assert explorer.session.stage == to
    return explorer.session


def test_first_picture_is_there_without_a_click(explorer: Explorer) -> None:
    assert explorer.bar.stages[0]["state"] == "current"
    assert explorer.bar.stages[1]["state"] == "next"
    assert len(explorer.panes.tree.rows) > 10
    assert explorer.panes.graph.scene["nodes"]
    assert "with weights" in explorer.news.news
    assert explorer.news.findings == []


def test_next_back_goto_and_reset(explorer: Explorer) -> None:
    session = explorer.session
    assert session is not None
    click(explorer, "next")
    assert session.stage == "fuse"
    assert explorer.news.news == "3 conv-bn-relu groups became one module each"
    assert explorer.bar.stages[1]["summary"] == explorer.news.news
    assert "fuse_modules_qat" in explorer.news.story
    click(explorer, "goto", "insert")
    assert [s["state"] for s in explorer.bar.stages] == ["done"] * 4 + ["current", "next", "later"]
    click(explorer, "back")
    assert session.stage == "swap"
    assert "insert" in session.snapshots
    click(explorer, "reset")
    assert session.stage == "float"
    assert list(session.snapshots) == ["float"]


def test_a_selection_anywhere_is_seen_everywhere(explorer: Explorer) -> None:
    walk(explorer, "insert")
    explorer.panes.tree.selected = "module:conv1"
    assert explorer.selection == explorer.panes.graph.selected == "module:conv1"
    assert "conv1" in explorer.panes.inspector.panel.html
    explorer.panes.graph.selected = "site:conv1.weight_fake_quant"
    assert explorer.panes.tree.selected == "site:conv1.weight_fake_quant"
    until(lambda: explorer.panes.inspector.slots["histogram"].plot.figure.get("data"))
    assert "fake quant" in explorer.panes.inspector.details.html
    explorer.select("module:fc")
    assert explorer.panes.tree.selected == explorer.panes.inspector.selected == "module:fc"


def test_the_inspector_comes_before_what_else_follows_a_selection(explorer: Explorer) -> None:
    walk(explorer, "insert")
    panes, seen = explorer.panes, []
    until(lambda: explorer.session is not None and explorer.session.has_histogram(SITE))
    plot = panes.inspector.slots["histogram"].plot
    for name, widget, trait in (
        ("page", panes.inspector.panel, "html"),
        ("figure", plot, "figure"),
        ("graph", panes.graph, "selected"),
        ("ledger", explorer.ledger.sites, "selected"),
    ):
        widget.observe(lambda _change, name=name: seen.append(name), trait)
    panes.tree.selected = f"site:{SITE}"
    assert seen == ["page", "figure", "graph", "ledger"]


def test_an_inspector_that_fails_leaves_the_selection_marked(
    explorer: Explorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    walk(explorer, "insert")

    def fails(*_args: Any) -> Any:
        raise RuntimeError("on purpose")

    monkeypatch.setattr(explorer.panes, "_inspected", fails)
    explorer.panes.tree.selected = "module:conv1"
    assert explorer.panes.graph.selected == "module:conv1"


def test_selection_survives_steps(explorer: Explorer) -> None:
    explorer.select("site:fc.weight_fake_quant")
    walk(explorer, "insert")
    assert explorer.selection == explorer.panes.graph.selected == "site:fc.weight_fake_quant"
    explorer.select("")
    assert explorer.selection == ""


def test_train_pause_resume_stop_and_convert(explorer: Explorer) -> None:
    session = walk(explorer, "train")
    explorer.training.epochs.value = 500
    explorer.training.train.click()
    until(lambda: session.run is not None and session.run.state == "running")
    run = session.run
    assert run is not None
    until(lambda: explorer.training.pause.disabled is False and len(run.history.steps) > 2)
    explorer.training.pause.click()
    until(lambda: run.state == "paused")
    explorer.training.resume.click()
    until(lambda: run.state == "running")
    click(explorer, "next")
    assert "while a training run is going on" in explorer.message.html
    explorer.training.stop.click()
    until(lambda: run.state == "stopped" and explorer.training.train.disabled is False)
    until(lambda: "stopped" in explorer.training.words.value)
    until(lambda: explorer.training.curves.plot.figure.get("data"))
    assert session.snapshots["train"].sites[0].scale != (1.0,)
    assert walk(explorer, "convert").int8 is explorer.session.int8  # type: ignore[union-attr]


def test_a_run_is_kept_listed_and_seen_from_inside(explorer: Explorer, runs_folder: Path) -> None:
    session = walk(explorer, "train")
    explorer.training.epochs.value = 2
    explorer.training.train.click()
    until(lambda: session.run is not None and session.run.state == "finished")
    session.run.wait(30)  # type: ignore[union-attr]
    until(lambda: len(explorer.runs.list.options) == 1)
    assert [p.parent for p in runs_folder.iterdir()] == [runs_folder]
    explorer.drawer.show_panel(explorer.live)
    until(lambda: "conv1" in str([row["path"] for row in explorer.live.multiples.rows]))
    opened = qx.open_run(next(runs_folder.iterdir()))
    assert len(opened.history.epochs) == 2


def test_the_ledger_is_made_when_it_is_looked_at(explorer: Explorer) -> None:
    walk(explorer, "insert")
    assert explorer.ledger.sites.rows == []
    explorer.drawer.show_panel(explorer.ledger)
    until(lambda: explorer.ledger.sites.rows)
    assert any("fc.weight_fake_quant" in str(r) for r in explorer.ledger.sites.rows)
    assert "two" in explorer.ledger.answers.html


def test_the_other_flow_is_chosen_in_the_settings(explorer: Explorer) -> None:
    session = walk(explorer, "insert")
    explorer.settings.flow.value = "fx"
    explorer.settings.apply.click()
    until(lambda: explorer.jobs.current is None)
    assert explorer.message.html == ""
    assert session.flow.name == "fx"
    assert [s["name"] for s in explorer.bar.stages][-2:] == ["convert", "lower"]
    walk(explorer, "insert")
    assert any(s.mechanism == "node" for s in session.snapshot.sites)


def test_scales_in_the_snapshot_move_while_it_trains(explorer: Explorer) -> None:
    session = walk(explorer, "train")
    before = session.snapshots["train"]
    session.start_training(epochs=500)
    until(lambda: session.snapshots["train"].sites[0].scale != before.sites[0].scale)
    assert session.running
    session.run.stop()  # type: ignore[union-attr]


def test_evaluation_fills_the_table(explorer: Explorer) -> None:
    walk(explorer, "train")
    explorer.training.calibrate.click()
    until(lambda: explorer.jobs.current is None)
    explorer.results.start()
    until(lambda: explorer.jobs.current is None)
    assert explorer.results.table.html.count("<tr") == 5
    assert explorer.results.job.bar.layout.display == "none"


def test_settings_try_each_way_and_start_again(explorer: Explorer) -> None:
    session = walk(explorer, "insert")
    settings = explorer.settings
    settings.compare.click()
    until(lambda: explorer.jobs.current is None)
    assert settings.outcome.html.count("<tr") == 4
    settings.check.click()
    until(lambda: explorer.jobs.current is None)
    assert "✓" in settings.outcome.html
    settings.fusion.value = "conv1, bn1"
    settings.apply.click()
    until(lambda: explorer.jobs.current is None)
    assert session.fusion == (("conv1", "bn1"),)
    assert session.stage == "float"
    settings.fusion.value = "conv1, fc"
    settings.apply.click()
    until(lambda: explorer.jobs.current is None)
    assert "cannot fuse" in explorer.message.html
    assert session.fusion == (("conv1", "bn1"),)


def test_settings_show_the_probe_of_every_engine(explorer: Explorer) -> None:
    html = explorer.settings.engines.html
    assert html.count("<tr") == len(available_engines()) + 1
    assert f"{default_backend().engine} (in use)" in html
    assert escape(default_backend().reason) in html
    assert not any(p["name"].startswith("engine") for p in explorer.news.findings)
    assert escape(default_backend().reason) in explorer.settings.words.html


@pytest.mark.filterwarnings("ignore::qatexplorer.errors.EngineWarning")
def test_an_engine_that_saturates_is_reported_on_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    probes = tuple(faked(name, 0 if name == "qnnpack" else 63) for name in available_engines())
    fake_machine(monkeypatch, *probes)
    monkeypatch.setattr(settings_module, "probe_engines", lambda: probes)
    explorer = qx.explore(example="digits_cnn")
    session = explorer.session
    assert session.options.qconfig.backend == "qnnpack"
    assert not said(explorer, "engine-saturates")
    settings = explorer.settings
    assert settings.engines.html.count("up to 63 of 127 steps off") == len(probes) - 1
    settings.qconfig.value = "onednn"
    settings.apply.click()
    until(lambda: explorer.jobs.current is None and said(explorer, "engine-saturates"))
    assert "engine onednn saturates on this CPU" in said(explorer, "engine-saturates")
    assert "engine onednn saturates on this CPU" in settings.words.html
    assert "onednn (in use)" in settings.engines.html
    walk(explorer, "train")
    explorer.training.calibrate.click()
    until(lambda: explorer.jobs.current is None)
    walk(explorer, "convert")
    assert "engine onednn saturates on this CPU" in explorer.news.story
    explorer.results.start()
    until(lambda: explorer.jobs.current is None and explorer.results.table.html)
    rows = explorer.results.table.html.split("<tr")[2:]
    saturates = ["engine onednn saturates on this CPU" in row for row in rows]
    assert saturates == [False, True, False, True]  # float, PTQ, fake-quant, int8
    # What the message tells to do: another engine, the qconfig as it is.
    settings.qconfig.value, settings.engine.value = "as given", "qnnpack"
    settings.apply.click()
    until(lambda: explorer.jobs.current is None and not said(explorer, "engine-saturates"))
    plan = session.options.qconfig
    assert (plan.name, plan.backend, plan.concern) == ("onednn", "qnnpack", None)
    settings.qconfig.value, settings.engine.value = "chosen for this CPU", "that of the qconfig"
    settings.apply.click()
    until(lambda: explorer.jobs.current is None)
    assert session.options.qconfig.reason == default_backend().reason


def test_settings_change_the_flow(explorer: Explorer) -> None:
    session = walk(explorer, "insert")
    settings = explorer.settings
    assert settings.flow.value == "eager"
    settings.flow.value = "fx"
    hidden = (settings.stubs, settings.compare, settings.fusion, settings.auto)
    assert all(control.layout.display == "none" for control in hidden)
    settings.apply.click()
    until(lambda: explorer.jobs.current is None)
    assert session.flow.name == "fx"
    assert [s["name"] for s in explorer.bar.stages] == list(session.stages)
    walk(explorer, "trace")
    assert "GraphModule" in explorer.news.story
    walk(explorer, "insert")
    assert "insert_observers_for_model" in explorer.news.story
    nodes = explorer.panes.graph.scene["nodes"]
    assert any(mark["role"] == "tail" for node in nodes for mark in node["marks"])
    assert not any("activation_post_process" in node["id"] for node in nodes)
    walk(explorer, "lower")
    settings.flow.value = "eager"
    settings.apply.click()
    until(lambda: explorer.jobs.current is None)
    assert session.stages[-1] == "convert"
    assert settings.stubs.layout.display == ""


def test_a_bad_freeze_epoch_is_reported_and_nothing_starts(explorer: Explorer) -> None:
    session = walk(explorer, "train")
    explorer.training.schedules.freeze_bn.value = "soon"
    explorer.training.train.click()
    assert "&#x27;soon&#x27;" in explorer.message.html
    assert session.run is None


@pytest.mark.parametrize(
    ("model", "inputs", "words"),
    [
        (3, None, "not a torch.nn.Module"),
        (nn.Linear, None, "is a class"),
        (nn.Linear(4, 4), torch.randn(2, 5), "forward raises on the example inputs"),
        (nn.Linear(4, 4), None, "o example inputs were given"),
        (nn.Linear(4, 4).half(), torch.randn(2, 4), "float16"),
    ],
)
def test_bad_input_is_reported_in_the_widget(model: Any, inputs: Any, words: str) -> None:
    explorer = qx.explore(model, inputs)
    assert words in explorer.message.html
    assert explorer.session is None
    assert "Traceback" not in explorer.message.html
    explorer._on_action("next", "")
    explorer.training.train.click()
    explorer.results.measure.click()


def test_eval_mode_is_reported_with_a_button_that_helps() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU()).eval()
    explorer = qx.explore(model, torch.randn(1, 1, 8, 8))
    click(explorer, "next")
    assert "eval mode" in explorer.message.html
    assert "eval mode" in said(explorer, "eval-mode")
    press_fix(explorer, "eval-mode")
    assert not said(explorer, "eval-mode")
    click(explorer, "next")
    assert explorer.session is not None
    assert explorer.session.stage == "fuse"
    assert model.training is False


def test_no_data_is_reported_when_training_is_asked_for() -> None:
    explorer = qx.explore(nn.Sequential(nn.Linear(4, 4)), torch.randn(2, 4))
    click(explorer, "goto", "train")
    explorer.training.train.click()
    until(lambda: explorer.jobs.current is None)
    assert "needs data" in explorer.message.html


def test_examples_can_be_changed_but_not_under_a_run(explorer: Explorer) -> None:
    explorer.examples.value = "digits_mlp"
    assert explorer.session is not None
    assert explorer.session.snapshot.modules[0].type_name == "DigitsMLP"
    explorer.examples.value = "digits_cnn"
    session = explorer.session
    session.start_training(epochs=500)
    explorer.examples.value = "digits_depthwise"
    assert explorer.session is session
    assert "Stop it" in explorer.message.html
    assert explorer.examples.value == "digits_cnn"
    session.run.stop()  # type: ignore[union-attr]


def test_an_unknown_example_is_reported_and_the_first_one_shown() -> None:
    explorer = qx.explore(example="digits_rnn")
    assert "digits_rnn" in explorer.message.html
    assert explorer.session is not None


def test_names_in_a_message_are_escaped() -> None:
    error = qx.errors.StageError("<script>alert(1)</script>", where="<b>", why="&", fix="'")
    html = message_html(error)
    assert "<script>" not in html
    assert "<b></code>" not in html


def test_an_unexpected_error_shows_no_traceback() -> None:
    html = message_html(ZeroDivisionError("division by zero"))
    assert "ZeroDivisionError: division by zero" in html
    assert "Traceback" not in html


def test_no_widget_overrides_what_ipywidgets_needs(explorer: Explorer) -> None:
    # A panel's method called _compare or open once broke the display in the page only.
    allowed = {"children", "layout", "comm", "keys", "add_class", "__init__"}
    # It adds the still picture, for a notebook whose page shows no widgets, to what ipywidgets
    # displays (see test_still.py). No other class may.
    on_purpose = {(Explorer, "_repr_mimebundle_")}
    overridden = set()
    seen = [explorer]
    for widget in seen:
        seen += [c for c in getattr(widget, "children", ()) if c not in seen]
    for widget in seen:
        for klass in type(widget).__mro__:
            if not klass.__module__.startswith("qatexplorer"):
                continue
            for name in vars(klass):
                if name.startswith(("__", "_trait")) or name in allowed:
                    continue
                taken = hasattr(ipywidgets.VBox, name) and not name.startswith(
                    ("_all_trait", "_static", "_traits", "_descriptors", "_instance_inits")
                )
                if taken and (klass, name) in on_purpose:
                    overridden.add((klass, name))
                    continue
                assert not taken, f"{klass.__name__}.{name}"
    assert overridden == on_purpose


def test_a_ledger_in_the_making_says_how_far_it_is_and_can_be_stopped(
    explorer: Explorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, panel = walk(explorer, "insert"), explorer.ledger
    real = session.ledger

    def slow(*, progress: Any, should_stop: Any) -> Any:
        def tell(how_far: Any) -> None:
            progress(how_far)
            while how_far.done >= 1 and not should_stop():
                time.sleep(0.01)

        return real(progress=tell, should_stop=should_stop)

    monkeypatch.setattr(session, "ledger", slow)
    explorer.drawer.show_panel(explorer.ledger)
    until(lambda: "forward 2 of" in panel.message.html)
    assert "left" in panel.message.html
    assert (panel.halt.description, panel.halt.layout.display) == ("Stop", "")
    panel.halt.click()
    until(lambda: "Stopped before" in panel.message.html)
    assert panel.sites.rows == []
    assert panel.halt.description == "Account again"
    monkeypatch.undo()
    panel.halt.click()
    until(lambda: panel.sites.rows)
    assert panel.halt.layout.display == "none"


@pytest.mark.parametrize("index", [0, 1, 2])
def test_no_stub_is_said_before_any_click_at_every_stage_and_each_button_puts_it_right(
    index: int,
) -> None:
    model, x = NoStubs(), image()
    explorer = qx.explore(model.train(), x, data=[loader(x), loader(x)])
    session = explorer.session
    assert session is not None
    for stage in session.stages[:-1]:
        walk(explorer, stage)
        until(lambda: said(explorer, "no-stub"))
        assert "No QuantStub: the int8 model will not run" in said(explorer, "no-stub")
    entry = next(p for p in explorer.news.findings if p["name"] == "no-stub")
    assert (entry["mark"], entry["word"]) == ("✖", "error")
    assert len(entry["fixes"]) == 3
    press_fix(explorer, "no-stub", index)
    until(lambda: not said(explorer, "no-stub"))
    assert session.stage == "float"
    walk(explorer, session.flow.train_stage)
    explorer.training.calibrate.click()
    until(lambda: explorer.jobs.current is None)
    walk(explorer, session.flow.int8_stage)
    assert "layers compute in int8" in explorer.news.news
    assert model.training


def test_the_place_of_a_finding_is_selected() -> None:
    x = image()
    explorer = qx.explore(NoStubs().train(), x)
    until(lambda: said(explorer, "no-stub"))
    entry = next(p for p in explorer.news.findings if p["name"] == "no-stub")
    assert entry["select"] == "module:conv"
    explorer.news._handle_custom_msg({"action": "select", "selection": entry["select"]}, [])
    assert explorer.selection == "module:conv"


def test_what_a_model_is_called_cannot_break_the_line_of_news() -> None:
    evil = nn.ModuleDict({"<img src=x>": nn.Linear(4, 4)})

    class Evil(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside = evil

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inside["<img src=x>"](x)

    explorer = qx.explore(Evil().train(), torch.randn(2, 4), qconfig={nn.Linear: None})
    walk(explorer, "insert")
    assert "<img" not in explorer.news.story
    assert "<img" in explorer.news.news  # plain text, which the browser escapes
