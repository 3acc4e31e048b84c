"""The panel "qconfig": scope, fields, preview, apply, undo and redo, save and load."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import qatexplorer as qx
from qatexplorer.forward.noise import noise_of
from qatexplorer.widgets.explorer.explorer import Explorer
from qatexplorer.widgets.qconfig.form import QUANTIZED
from qatexplorer.widgets.qconfig.scope import ScopeFields


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten()).train()


def session() -> qx.Session:
    return qx.Session(net(), torch.randn(8, 1, 8, 8), qconfig="onednn", stubs="model")


def test_the_scope_follows_the_selection() -> None:
    changes: list[bool] = []
    fields = ScopeFields(lambda: changes.append(True))
    fields.use(session())
    assert fields.scope is None
    assert "Select modules" in fields.words.html
    fields.follow(["module:0"])
    assert fields.scope is not None
    assert fields.scope.paths == ("0",)
    fields.choice.value = next(key for _, key in fields.choice.options if "Conv2d" in key)
    assert fields.scope.paths == ("0", "2")
    assert "2 modules: 0, 2" in fields.words.html
    fields.follow(["module:2"])  # the kind of scope stays what was chosen
    assert fields.scope.paths == ("0", "2")
    fields.follow(["module:1"])
    assert fields.scope.paths == ("1",)
    fields.follow([])
    assert fields.scope is None
    assert len(changes) == 4


def test_a_pattern_counts_what_it_matches_while_it_is_written() -> None:
    fields = ScopeFields(lambda: None)
    fields.use(session())
    fields.choice.value = "pattern"
    for written, said, paths in (
        ("[02]", "2 modules: 0, 2", ("0", "2")),
        ("9", "matches no module", None),
        ("(", "This is no regular expression", None),
        ("<b>", "matches no module", None),
    ):
        fields.pattern.value = written
        assert said in fields.words.html
        assert (fields.scope.paths if fields.scope else None) == paths
    fields.pattern.value = "0"
    fields.follow(["module:2"])  # what is being written stays
    assert fields.scope is not None
    assert fields.scope.paths == ("0",)


@pytest.fixture(autouse=True)
def runs_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QATEXPLORER_RUNS", str(tmp_path / "runs"))


def opened(**settings: Any) -> Explorer:
    inputs = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    explorer = qx.explore(net(), inputs, qconfig="onednn", stubs="model", **settings)
    explorer.drawer.show_panel(explorer.qconfig)
    return explorer


def choose(explorer: Explorer, *paths: str) -> None:
    """Select modules in the tree, as a browser does."""
    rows = [f"module:{path}" for path in paths]
    explorer.panes.tree.set_state({"selected": rows[-1], "chosen": rows})


def four_bits(explorer: Explorer) -> None:
    weight = explorer.qconfig.weight
    weight.what.value = QUANTIZED
    weight.bits.value = 4


def uploaded(name: str, content: bytes) -> tuple[dict[str, Any], ...]:
    """What a browser sends of a file that was chosen."""
    now = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
    of_file = {"type": "", "size": len(content), "last_modified": now}
    return ({"name": name, "content": memoryview(content), **of_file},)


def marks(explorer: Explorer) -> dict[str, str]:
    return {row["path"]: row["rule"] for row in explorer.panes.tree.rows.value if row["rule"]}


def rounded(explorer: Explorer) -> dict[str, int]:
    """Codes of each weight's fake quant at the stage with all of them."""
    session = explorer.session
    assert session is not None
    session.goto("insert")
    sites = [site for site in session.snapshot.sites if site.kind == "weight"]
    return {site.owner: site.quant_max - site.quant_min + 1 for site in sites}


def test_two_modules_get_four_bits_and_are_marked() -> None:
    explorer = opened()
    panel = explorer.qconfig
    assert panel.apply.disabled  # nothing is asked for
    choose(explorer, "0", "2")
    assert panel.apply.disabled
    four_bits(explorer)
    assert not panel.apply.disabled
    panel.apply.click()
    explorer.jobs.wait()
    assert marks(explorer) == {"0": "w4", "2": "w4"}
    assert "int4" in panel.rules.html
    assert rounded(explorer) == {"module.0": 16, "module.2": 16}
    assert marks(explorer) == {"module.0": "w4", "module.2": "w4"}


def test_the_preview_says_what_it_costs_before_it_is_applied() -> None:
    explorer = opened()
    session, panel = explorer.session, explorer.qconfig
    assert session is not None
    choose(explorer, "0")
    four_bits(explorer)
    session.goto("insert")
    site = session.snapshot.sites_of("module.0")
    weight = next(s for s in site if s.kind == "weight")
    before = noise_of(session.model, session.options.example_inputs)[weight.path]
    assert f"{before:.1f} dB" in panel.preview.table.html
    figure = panel.preview.slots[0].plot.figure
    assert len(figure["data"]) > 1
    assert "▼ worse by" in panel.preview.table.html
    said = panel.preview.table.html
    panel.apply.click()
    explorer.jobs.wait()
    session.goto("insert")
    after = noise_of(session.model, session.options.example_inputs)[weight.path]
    assert f"{after:.1f} dB" in said
    assert after < before


def test_a_preview_is_made_only_in_sight(monkeypatch: pytest.MonkeyPatch) -> None:
    explorer = opened()
    explorer.drawer.close_drawer()
    asked: list[bool] = []
    monkeypatch.setattr(qx.Session, "preview_rules", lambda *_: asked.append(True) or ())
    choose(explorer, "0")
    four_bits(explorer)
    assert not asked
    explorer.drawer.show_panel(explorer.qconfig)
    assert asked
    assert "no fake quants there" in explorer.qconfig.preview.words.html


def test_a_conflict_is_said_at_the_form_and_cannot_be_applied() -> None:
    explorer = opened()
    panel = explorer.qconfig
    choose(explorer, "0")
    four_bits(explorer)
    panel.weight.symmetry.value = False
    assert "no kernel" in panel.reason.html
    assert panel.apply.disabled
    panel.weight.symmetry.value = True
    assert panel.reason.html == ""
    assert not panel.apply.disabled
    panel.weight.learned.value = True
    assert panel.request is not None
    assert panel.request.weight is not None
    assert panel.request.weight.learned
    panel.weight.reduce_range.value = True
    assert "takes no reduce_range" in panel.reason.html
    assert panel.apply.disabled
    panel.weight.reduce_range.value = False
    assert panel.reason.html == ""
    panel.weight.learned.value = False
    panel.weight.observer.value = "MinMaxObserver"  # which the fused kernel does not take
    assert panel.reason.html == ""
    assert not panel.apply.disabled


def test_undo_redo_and_delete() -> None:
    explorer = opened()
    session, panel = explorer.session, explorer.qconfig
    assert session is not None
    assert panel.undo.disabled
    assert panel.redo.disabled
    choose(explorer, "0")
    four_bits(explorer)
    panel.apply.click()
    explorer.jobs.wait()
    choose(explorer, "2")
    panel.to_float.value = True
    panel.apply.click()
    explorer.jobs.wait()
    assert marks(explorer) == {"0": "w4", "2": "float"}
    panel.undo.click()
    explorer.jobs.wait()
    assert marks(explorer) == {"0": "w4"}
    panel.redo.click()
    explorer.jobs.wait()
    assert marks(explorer) == {"0": "w4", "2": "float"}
    assert panel.redo.disabled
    panel._on_ask("delete:1")
    explorer.jobs.wait()
    assert marks(explorer) == {"2": "float"}
    panel.undo.click()
    explorer.jobs.wait()
    panel.undo.click()
    explorer.jobs.wait()
    panel.undo.click()
    explorer.jobs.wait()
    assert marks(explorer) == {}
    assert panel.undo.disabled
    assert rounded(explorer) == {"module.0": 256, "module.2": 256}


@pytest.mark.parametrize("which", [0, 1])
def test_rules_are_saved_and_loaded(which: int) -> None:
    explorer = opened()
    session, panel = explorer.session, explorer.qconfig
    assert session is not None
    assert panel.downloads[which].text == ""
    choose(explorer, "0", "2")
    four_bits(explorer)
    panel.apply.click()
    explorer.jobs.wait()
    rules, text = session.qconfig_rules, panel.downloads[which].text
    other = opened()
    other.qconfig.load.value = uploaded(panel.downloads[which].filename, text.encode())
    other.jobs.wait()
    assert other.session is not None
    assert other.session.qconfig_rules == rules
    assert marks(other) == {"0": "w4", "2": "w4"}
    assert other.qconfig.load.value == ()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\x80\x04\x95", "is not UTF-8 text"),
        (b"{", "is not TOML"),
        (b"rules = 1", "is no part of a file of rules"),
        (b"x" * 1_000_001, "1,000,001 bytes"),
        (b'format = 1\n[[rule]]\npath = "nowhere"\nfloat = true', "the model does not have"),
        (b'format = 1\n[[rule]]\npath = "0"\nweight = { bits = "<i>" }', "rule 1: weight: bits is"),
    ],
)
def test_a_bad_file_is_a_sentence(content: bytes, said: str) -> None:
    explorer = opened()
    explorer.qconfig.load.value = uploaded("<i>.toml", content)
    explorer.jobs.wait()
    shown = explorer.qconfig.reason.html + explorer.message.html
    assert said in shown
    assert "<i>" not in shown
    assert explorer.session is not None
    assert explorer.session.qconfig_rules == ()


def test_a_trained_model_is_not_left_without_asking() -> None:
    batch = (torch.randn(8, 1, 8, 8), torch.randint(0, 64, (8,)))
    explorer = opened(data={"train": [batch], "eval": [batch]})
    session, panel = explorer.session, explorer.qconfig
    assert session is not None
    session.train(epochs=1, progress=False)
    run = session.run
    assert run is not None
    choose(explorer, "module.0")
    four_bits(explorer)
    panel.apply.click()
    explorer.jobs.wait()
    assert panel.confirm.layout.display == ""
    assert "There is a trained model" in panel.confirm.words.html
    assert session.qconfig_rules == ()
    panel.confirm.no.click()
    assert panel.confirm.layout.display == "none"
    assert session.stage == "train"
    panel.apply.click()
    explorer.jobs.wait()
    panel.confirm.yes.click()
    explorer.jobs.wait()
    assert [rule.where for rule in session.qconfig_rules] == ["0"]
    assert session.run is run  # what the page has promised
    assert run.model is not None
