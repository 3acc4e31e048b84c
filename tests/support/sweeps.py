"""An explorer with its sweeps in sight."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch

import qatexplorer as qx
from qatexplorer.widgets.explorer.explorer import Explorer
from tests.support.page_text import visible_text
from tests.support.training_models import SmallNet, batches, data
from tests.support.waiting import until


def sweeping_explorer(runs: Path, monkeypatch: pytest.MonkeyPatch) -> Explorer:
    """A small net, calibrated, with the tab of the cures open; a training has one epoch."""
    monkeypatch.setenv("QATEXPLORER_RUNS", str(runs))
    torch.manual_seed(0)
    session = qx.Session(SmallNet().train(), batches(1)[0][0], qconfig="onednn", data=data(2))
    session.calibrate(1)
    explorer = qx.explore(session)
    assert explorer.sweeps.children == ()
    explorer.drawer.show_panel(explorer.cures)
    settled(explorer)
    explorer.training.epochs.value = 1
    explorer.sweeps.seeds.value = 2
    return explorer


def settled(explorer: Explorer) -> None:
    """Until no job is going on and nothing is being drawn."""
    until(lambda: explorer.jobs.current is None)
    until(lambda: not any(t.name.startswith("qatexplorer-") for t in threading.enumerate()))


def swept(explorer: Explorer) -> str:
    """Press the button; what the page then says."""
    explorer.sweeps.attempt.click()
    settled(explorer)
    return visible_text(explorer.sweeps.outcome.html)
