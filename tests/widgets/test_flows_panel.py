"""The tab "Flows": made when first seen, in the background, stopped, and what its rows select."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch

import qatexplorer as qx
from qatexplorer.snapshot.records import Snapshot
from qatexplorer.views.migration.words import GONE, NO_FLOW, NOTHING, STOPPED
from qatexplorer.widgets.explorer.explorer import Explorer
from qatexplorer.widgets.migration.panel import WORTH, MigrationPanel
from tests.migration.nets import Deciding, Scores, batches
from tests.support.page_text import visible_text
from tests.support.waiting import until


@pytest.fixture(autouse=True)
def runs_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QATEXPLORER_RUNS", str(tmp_path / "runs"))


def opened(model: torch.nn.Module) -> tuple[Explorer, MigrationPanel]:
    data = batches(8, 6)
    explorer = qx.explore(model, data[0][0], data=(data, data), flow="eager", stubs="model")
    panel = explorer.migration
    assert panel.children == ()  # a page that does not open the tab does not pay for it
    explorer.drawer.show_panel(panel)
    panel.flows["pt2e"].value = False
    return explorer, panel


def press(explorer: Explorer, panel: MigrationPanel) -> None:
    panel.begin.click()
    until(lambda: explorer.jobs.current is None)


def test_places_outputs_and_a_row_that_selects() -> None:
    explorer, panel = opened(Scores())
    assert visible_text(panel.status.html) == NOTHING
    explorer._on_action("goto", "insert")
    until(lambda: explorer.jobs.current is None)
    press(explorer, panel)
    assert [column["label"] for column in panel.table.columns[1:3]] == ["eager", "fx"]
    assert len(panel.table.rows) == 6
    assert visible_text(panel.summary.html).startswith("6 places rounded:")
    panel.table.selected = "weight:first::0"
    assert explorer.selection == "site:module.first.weight_fake_quant"
    panel.pages.value = WORTH
    assert (panel.parts.layout.display, panel.worth.layout.display) == ("none", "")
    assert "dB" in visible_text(panel.worth.html)
    assert panel.download.held
    assert panel.download.filename == "Scores-migration.html"
    assert panel.download.text == ""  # it is in no saved notebook

    assert explorer.session is not None
    explorer.session.configure(qconfig="fbgemm")
    until(lambda: visible_text(panel.status.html) == GONE)
    assert panel.table.rows == []


def test_a_flow_that_refuses_and_one_at_least() -> None:
    explorer, panel = opened(Deciding())
    press(explorer, panel)
    assert "fx refuses this model." in visible_text(panel.summary.html)
    assert "Refuses this model" in visible_text(panel.worth.html)
    for box in panel.flows.values():
        box.value = False
    panel.begin.click()
    assert visible_text(panel.status.html) == NO_FLOW


def test_it_can_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    explorer, panel = opened(Scores())
    begun, go_on = threading.Event(), threading.Event()
    calibrate = qx.Session.calibrate

    def waiting(session: qx.Session, batches: int) -> Snapshot:
        begun.set()
        assert go_on.wait(30)
        return calibrate(session, batches)

    monkeypatch.setattr(qx.Session, "calibrate", waiting)
    panel.begin.click()
    assert begun.wait(30)
    assert panel.begin.layout.display == "none"
    panel.halt.click()
    go_on.set()
    until(lambda: explorer.jobs.current is None)
    assert visible_text(panel.status.html) == STOPPED
    assert panel.table.rows == []
    assert panel.begin.layout.display == ""
