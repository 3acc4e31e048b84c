"""The page at a glance in the explorer: what its buttons ask for is done, and it keeps up."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import qatexplorer as qx
from qatexplorer.widgets.explorer.explorer import Explorer
from tests.support.page_text import visible_text


@pytest.fixture
def explorer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Explorer:
    monkeypatch.setenv("QATEXPLORER_RUNS", str(tmp_path / "runs"))
    return qx.explore(example="digits_cnn")


def until(holds: Callable[[], Any], timeout_s: float = 60.0) -> None:
    end = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def words(explorer: Explorer) -> str:
    return visible_text(explorer.panes.inspector.panel.html)


def ask(explorer: Explorer, wanted: str) -> None:
    """As the browser sends it when a button is clicked."""
    panel = explorer.panes.inspector.panel
    panel._handle_custom_msg({"ask": wanted}, [])
    explorer.jobs.wait(60)
    until(lambda: explorer.jobs.current is None)


def test_macs_come_off_the_loop_and_stay_known(explorer: Explorer) -> None:
    session = explorer.session
    assert session is not None
    until(lambda: "multiply-accumulates" in words(explorer))
    assert f"All {session.macs()['']:,} multiply-accumulates are float" in words(explorer)
    ask(explorer, "stage:insert")
    assert session.stage == "insert"
    until(lambda: f"{session.macs()['']:,} multiply-accumulates (100 %)" in words(explorer))


def test_buttons_search_open_panels_and_put_findings_right(explorer: Explorer) -> None:
    ask(explorer, "search:type:Conv2d")
    assert explorer.panes.tree.query == "type:Conv2d"
    ask(explorer, "stage:insert")
    ask(explorer, "panel:ledger")
    assert explorer.drawer.in_sight(explorer.ledger)
    ask(explorer, "panel:training")
    assert explorer.drawer.in_sight(explorer.training)
    session = explorer.session
    assert session is not None
    session.goto("convert")
    (found,) = [p for p in session.findings(try_int8=False) if p.name == "never-observed"]
    index = [fix.call for fix in found.fixes].index("calibrate")
    ask(explorer, f"fix:{found.key}:{index}")
    assert session.observed
    ask(explorer, "nonsense")  # what it does not know it leaves alone


def test_a_ledger_that_has_been_made_is_on_the_page(explorer: Explorer) -> None:
    ask(explorer, "stage:insert")
    assert "Not looked for yet" in words(explorer)
    ask(explorer, "panel:ledger")
    until(lambda: "No value is fake-quantized twice." in words(explorer))


def test_the_tree_says_what_its_states_are(explorer: Explorer) -> None:
    assert explorer.panes.tree.state_label == "Qconfig"
    ask(explorer, "stage:insert")
    assert explorer.panes.tree.state_label == "Prepared for"
    session = explorer.session
    assert session is not None
    session.calibrate(1)
    ask(explorer, "stage:convert")
    assert explorer.panes.tree.state_label == "Computes in"
