"""A kept run taken over without training; what was measured is forgotten with the model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import qatexplorer as qx
from qatexplorer.errors import CheckpointError, FusionError, RunFolderError
from tests.support.training_models import (
    SmallNet,
    batches,
    data,
    one_thread,  # noqa: F401
    same,
    state,
)


def session(data_: object = None) -> qx.Session:
    return qx.Session(SmallNet().train(), batches(1)[0][0], qconfig="onednn", data=data_)


def test_weights_and_ranges_are_those_of_the_run(tmp_path: Path) -> None:
    torch.manual_seed(0)
    first = session(data(3))
    first.train(1, run_dir=tmp_path / "run", progress=False)
    torch.manual_seed(5)
    other = session()
    snapshot = other.load_run(tmp_path / "run")
    assert snapshot.stage == other.flow.train_stage
    assert same(state(other.copy_model()), state(first.copy_model()))
    ranges = [(s.path, s.scale) for s in snapshot.sites]
    assert ranges == [(s.path, s.scale) for s in first.snapshot.sites]
    for one in (first, other):
        one.goto(one.flow.int8_stage)
    x = batches(1, seed=3)[0][0]
    with torch.no_grad():
        assert torch.equal(first.int8(x), other.int8(x))
    assert other.run is None


def test_another_model_or_no_run(tmp_path: Path) -> None:
    session(data(1)).train(1, run_dir=tmp_path / "run", progress=False)
    wide = SmallNet().train()
    wide.fc = nn.Linear(6 * 36, 5)
    other = qx.Session(wide, batches(1)[0][0], qconfig="onednn")
    before = state(other.copy_model())
    with pytest.raises(CheckpointError):
        other.load_run(tmp_path / "run")
    assert same(state(other.copy_model(other.stages[0])), before)
    foreign = qx.Session(
        nn.Sequential(nn.Linear(4, 2)).train(), torch.zeros(2, 4), stubs="model", qconfig="onednn"
    )
    with pytest.raises(FusionError):
        foreign.load_run(tmp_path / "run")
    assert foreign.options.stubs == "model", "nothing has changed"
    with pytest.raises(RunFolderError):
        other.load_run(tmp_path)


def test_what_was_measured_is_kept_until_the_model_changes() -> None:
    one = session(data(2))
    assert one.last_evaluation is None
    assert one.last_benchmark is None
    one.calibrate(1)
    evaluation = one.evaluate(latency=False)
    benchmark = one.benchmark([1], seconds=0.1, compiled=False)
    assert one.last_evaluation is evaluation
    assert one.last_benchmark is benchmark
    one.goto(one.flow.int8_stage)
    assert one.last_evaluation is evaluation, "converting changes no number"
    one.calibrate(1)
    assert one.last_evaluation is None
    assert one.last_benchmark is None


def test_a_model_that_changes_meanwhile_is_not_what_was_measured() -> None:
    one = session(data(2))
    one.calibrate(1)

    def change(_what: str, _share: float) -> None:
        one.calibrate(1)

    one.evaluate(latency=False, progress=change)
    assert one.last_evaluation is None
