"""The panel of the cures without a browser: made when it is opened, tried, stopped, undone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import qatexplorer as qx
from qatexplorer.cures import CURES
from qatexplorer.widgets.cures.panel import CuresPanel
from qatexplorer.widgets.explorer.explorer import Explorer
from tests.cures.nets import session_of, usual
from tests.support.page_text import visible_text
from tests.support.waiting import until


@pytest.fixture(autouse=True)
def quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QATEXPLORER_RUNS", str(tmp_path / "runs"))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield  # type: ignore[misc]
    torch.set_num_threads(before)


def settled(explorer: Explorer) -> None:
    until(lambda: explorer.jobs.current is None)
    # Without a loop the job's own thread draws what it has found.
    until(lambda: not any(t.name.startswith("qatexplorer-") for t in threading.enumerate()))


def pressed(explorer: Explorer, button: Any) -> None:
    assert not button.disabled
    button.click()
    settled(explorer)


def opened(session: qx.Session) -> tuple[Explorer, CuresPanel]:
    explorer = qx.explore(session)
    explorer.drawer.show_panel(explorer.cures)
    settled(explorer)
    return explorer, explorer.cures


def test_it_is_made_when_it_is_opened_and_has_a_slot_on_top() -> None:
    explorer = qx.explore(session_of(usual(), "fx"))
    panel = explorer.cures
    assert "Cures" in explorer.drawer.titles
    assert panel.children == ()
    assert explorer.advice.children == ()
    explorer.drawer.show_panel(panel)
    settled(explorer)
    made = panel.children
    assert panel.slot.children == (explorer.advice,)
    assert explorer.advice.advice is not None
    assert made[0] is panel.slot
    assert set(panel.cards) == set(CURES)
    explorer.drawer.close_drawer()
    explorer.drawer.show_panel(panel)
    assert panel.children == made


def test_what_is_advised_is_done_by_its_button() -> None:
    session = session_of(usual(), "eager", qconfig="onednn")
    explorer, _panel = opened(session)
    advice = explorer.advice.advice
    assert advice is not None
    assert advice[0].action.call == "check"
    body: Any = explorer.advice.body
    body._handle_custom_msg({"ask": "do:0"}, [])
    settled(explorer)
    assert session.last_check is not None
    again = explorer.advice.advice
    assert again is not None
    assert again[0].action.call != "check"


def test_what_each_would_do_follows_the_stages() -> None:
    session = session_of(usual(), "fx")
    explorer, panel = opened(session)
    said = {name: visible_text(card.words.value) for name, card in panel.cards.items()}
    offers = {offer.name: offer for offer in session.cures}
    assert offers["equalization"].does in said["equalization"]
    assert f"Not now: {offers['biases'].why_not}" in said["biases"]
    assert panel.cards["biases"].attempt.disabled
    assert panel.undo.layout.display == "none"
    explorer.training.calibrate.click()
    settled(explorer)
    until(lambda: not panel.cards["biases"].attempt.disabled)
    assert "3 layers" in visible_text(panel.cards["biases"].words.value)
    session.data = None
    panel.refresh()
    assert panel.cards["biases"].attempt.disabled


def test_tried_and_undone_as_the_methods_do() -> None:
    session, other = session_of(usual(), "eager"), session_of(usual(), "eager")
    explorer, panel = opened(session)
    ranges = panel.cards["ranges"]
    ranges.fields["activation"].value = "percentile"
    ranges.fields["percentile"].value = 99.0
    pressed(explorer, ranges.attempt)
    pressed(explorer, panel.cards["equalization"].attempt)
    settings = {"activation": "percentile", "percentile": 99.0}
    by_method = [other.cure("ranges", **settings), other.cure("equalization")]
    assert [one.settings for one in session.cured] == [settings, {}]
    for mine, its in zip(session.cured, by_method, strict=True):
        assert (mine.before.value, mine.after.value) == (its.before.value, its.after.value)
        assert mine.layers == its.layers
    assert session.script() == other.script()
    said = visible_text(panel.outcome.html)
    assert said.startswith("Equalize layers: int8 after calibration alone has accuracy")
    assert "body.0 (output channels)" in said
    on = visible_text(panel.on.html)
    assert on.index("percentile") < on.index("Equalize layers")
    assert panel.halt.layout.display == "none"

    explorer.training.calibrate.click()
    settled(explorer)
    biases = panel.cards["biases"]
    biases.fields["batches"].value = 2
    pressed(explorer, biases.attempt)
    assert session.cured[-1].settings == {"batches": 2}
    for left in (2, 1, 0):
        pressed(explorer, panel.undo)
        assert len(session.cured) == left
        assert "taken back" in visible_text(panel.outcome.html) or left < 2
    assert panel.undo.layout.display == "none"
    assert visible_text(panel.on.html) == "No cure is on."
    assert session.script() == session_of(usual(), "eager").script()


def test_stopped_it_says_that_nothing_has_changed() -> None:
    session = session_of(usual(), "fx")
    explorer, panel = opened(session)
    cure = session.cure
    heard: list[str] = []

    def slowly(name: str, *, progress: Callable[[str, float], Any], **more: Any) -> Any:
        def report(what: str, share: float) -> None:
            progress(what, share)
            heard.append(visible_text(panel.status.html))
            if share >= 0.4:
                panel.halt.click()

        return cure(name, progress=report, **more)

    session.cure = slowly  # type: ignore[assignment, method-assign]
    pressed(explorer, panel.cards["equalization"].attempt)
    assert "float model …" in heard
    assert visible_text(panel.status.html) == "Stopped: the model is as it was."
    assert session.cured == ()
    assert session.edits == ()
    assert explorer.message.html == ""
    assert panel.halt.layout.display == "none"
    assert not panel.cards["equalization"].attempt.disabled


def test_an_error_is_shown_and_the_panel_goes_on() -> None:
    explorer, panel = opened(session_of(usual(), "fx", qconfig="onednn"))
    ranges = panel.cards["ranges"]
    ranges.fields["weight"].value = "histogram"  # torch has none with a scale per channel
    pressed(explorer, ranges.attempt)
    assert "per channel" in visible_text(explorer.message.html)
    assert panel.halt.layout.display == "none"
    assert not ranges.attempt.disabled


def test_a_trained_model_is_asked_for_before_it_leaves_the_stages() -> None:
    session = session_of(usual(), "fx")
    explorer, panel = opened(session)
    session.train(1, progress=False)
    settled(explorer)
    panel.refresh()
    settled(explorer)
    panel.cards["equalization"].attempt.click()
    assert session.cured == ()
    assert "There is a trained model" in visible_text(panel.confirm.words.html)
    pressed(explorer, panel.confirm.no)
    assert session.cured == ()
    panel.cards["equalization"].attempt.click()
    pressed(explorer, panel.confirm.yes)
    assert len(session.cured) == 1


def test_before_training_both_tabs_say_what_was_measured() -> None:
    example = qx.zoo.load("digits_depthwise")
    session = qx.Session(
        example.model,
        example.example_inputs,
        data=([next(iter(example.data.train))], example.data.eval),
        qconfig=example.suggested["qconfig"],
    )
    explorer = qx.explore(session)
    explorer.drawer.show_panel(explorer.training)
    settled(explorer)
    shown, panel = explorer.training.before, explorer.cures
    assert panel.children == ()
    assert "22 of the 32 channels of block3.depthwise" in visible_text(shown.value)
    assert "not measured yet" in visible_text(shown.value)
    explorer.drawer.show_panel(panel)
    settled(explorer)
    pressed(explorer, panel.cards["equalization"].attempt)
    said = visible_text(shown.value)
    (found,) = session.cured
    assert said.startswith("Training is not the first thing to try here: “Equalize layers”")
    assert f"{found.after.value:.4g}" in said
    assert f"{found.before.value:.4g}" in said
    assert visible_text(panel.before.html) == said
    session.goto(session.flow.train_stage)
    session.train(1, progress=False)
    settled(explorer)
    assert shown.value == ""
    assert shown.layout.display == "none"
    plain = qx.explore(example="digits_cnn")
    plain.drawer.show_panel(plain.training)
    settled(plain)
    assert plain.training.before.value == ""
