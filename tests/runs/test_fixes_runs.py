"""Each fix for a run folder that cannot be written, read or gone on with, done to the letter."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas
import pytest
import torch
from torch import nn

import qatexplorer as qx
from qatexplorer.errors import CheckpointError, QatExplorerError
from qatexplorer.runs import checkpoint, files
from qatexplorer.runs.config import TrainingConfig
from qatexplorer.training.run import TrainingRun
from tests.support.training_models import batches, data, prepared
from tests.support.waiting import PATIENCE_S, until

X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
BATCH = (X, torch.tensor([0, 1, 2, 3]))


def net(width: int = 6) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 4)).train()


class Slowly:
    """Batches of which each takes its time, so that a run is still going on."""

    def __iter__(self) -> Iterator[Any]:
        for _ in range(500):
            time.sleep(0.02)
            yield BATCH


def session(model: nn.Module | None = None, train: Any = None, **settings: Any) -> qx.Session:
    settings = {"stubs": "model", **settings}
    return qx.Session(model or net(), X, data=(train or [BATCH] * 3, [BATCH]), **settings)


def refused(call: Callable[[], Any]) -> str:
    with pytest.raises(QatExplorerError) as caught:
        call()
    return caught.value.fix


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    session().train(epochs=2, run_dir=tmp_path / "run", progress=False)
    return tmp_path / "run"


def resume(path: Path, model: nn.Module | None = None, **changes: Any) -> qx.TrainingRun:
    settings = {k: changes.pop(k) for k in ("qconfig", "stubs", "fusion") if k in changes}
    train = changes.pop("train", None)
    return session(model, train, **settings).resume(
        path, background=False, **{"epochs": 9, **changes}
    )


def test_a_damaged_checkpoint(kept: Path) -> None:
    tensors = qx.open_run(kept).checkpoints[-1].path / "tensors.safetensors"
    tensors.write_bytes(b"x" * tensors.stat().st_size)
    fix = refused(lambda: resume(kept))
    assert "Take an earlier one: open_run(path).checkpoints lists them" in fix
    assert "session.resume(path, checkpoint=…) goes on from it" in fix
    earlier = qx.open_run(kept).checkpoints[-2]
    assert resume(kept, checkpoint=earlier, epochs=3).state == "finished"


def test_a_run_without_a_checkpoint(kept: Path) -> None:
    shutil.rmtree(kept / "checkpoints")
    fix = refused(lambda: resume(kept))
    assert "Train again with another run_dir=" in fix
    assert "with checkpoint_every= (in steps)" in fix
    again = kept.with_name("again")
    session().train(1, run_dir=again, checkpoint_every=1, progress=False)
    assert len(qx.open_run(again).checkpoints) == 3


@pytest.mark.parametrize("raising", ["checkpoint", "curves"])
def test_a_full_disk(raising: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once there is room, the next checkpoint is written, and the lines that waited."""
    full, real = [True], checkpoint._write_tensors
    write = os.write

    def tensors(path: Path, values: Any) -> None:
        if full[0] and raising == "checkpoint":
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, values)

    def lines(file: int, text: bytes) -> int:
        if full[0] and raising == "curves":
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, text)

    monkeypatch.setattr(checkpoint, "_write_tensors", tensors)
    monkeypatch.setattr(files.os, "write", lines)
    config = TrainingConfig(epochs=3)
    run = TrainingRun(prepared(), data(), config, run_dir=tmp_path / "run")
    troubles: list[CheckpointError] = []

    def make_room(progress: Any) -> None:
        if run.trouble is not None:
            troubles.append(run.trouble)
            full[0] = False

    run.signal.subscribe(make_room)
    run.run()
    fix = troubles[0].fix
    assert f"Make room in {tmp_path / 'run'}" in fix
    assert "Earlier checkpoints are kept" in fix
    if raising == "checkpoint":
        assert "training goes on and the next checkpoint is tried again" in fix
    else:
        assert "training goes on and what waits is written then" in fix
    assert (run.state, run.trouble) == ("finished", None)
    opened = qx.open_run(tmp_path / "run")
    assert opened.last_checkpoint is not None
    assert opened.last_checkpoint.position.step == 18
    assert [s.loss for s in opened.history.steps] == [s.loss for s in run.history.steps]


@pytest.mark.slow
def test_a_state_that_cannot_be_kept(tmp_path: Path) -> None:
    class Own(torch.optim.SGD):
        held: Any = None

        def state_dict(self) -> dict[str, Any]:
            return {**super().state_dict(), "own": self.held}

    def train(held: Any, name: str) -> TrainingRun:
        def make(parameters: Any) -> Own:
            optimizer = Own(parameters, lr=1e-3)
            optimizer.held = held
            return optimizer

        config = TrainingConfig(epochs=1, optimizer=make)
        return TrainingRun(prepared(), data(), config, run_dir=tmp_path / name).run()

    trouble = train(object(), "object").trouble
    assert trouble is not None
    assert "Keep tensors, numbers, strings, lists and dicts in the state_dict" in trouble.fix
    good = train({"a": [torch.ones(2), 1.5, "text"]}, "data")
    assert good.trouble is None
    assert qx.open_run(tmp_path / "data").checkpoints


def test_a_folder_that_is_taken_or_cannot_be_written(kept: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    fix = refused(lambda: session().train(1, run_dir=tmp_path / "file" / "run"))
    assert "Choose another folder that you may write to" in fix
    assert session().train(1, run_dir=tmp_path / "another", progress=False).state == "finished"


def test_a_run_that_another_holds(tmp_path: Path) -> None:
    path = tmp_path / "run"
    first = session(train=Slowly()).start_training(2, run_dir=path, checkpoint_every=1)
    until(lambda: (path / "checkpoints").exists() and qx.open_run(path).checkpoints)
    fix = refused(lambda: resume(path))
    assert "or from here: open_run(path).request('stop'); then resume" in fix
    qx.open_run(path).request("stop")
    first.wait()
    assert first.state == "stopped"
    fix = refused(lambda: qx.open_run(path).request("pause"))
    assert "Go on with session.resume(path)" in fix
    again = session(train=Slowly()).resume(path)
    again.stop(timeout=PATIENCE_S)
    assert (again.state, again.error) == ("stopped", None)


def test_stop_it_there(tmp_path: Path) -> None:
    path = tmp_path / "run"
    run = session(train=Slowly()).start_training(2, run_dir=path, checkpoint_every=25)
    fix = refused(lambda: resume(path))
    assert "Wait for its first checkpoint and try again" in fix
    until(lambda: qx.open_run(path).checkpoints)
    assert "Stop it there, or from here" in refused(lambda: resume(path))
    run.stop(timeout=PATIENCE_S)
    again = session(train=Slowly()).resume(path)
    again.stop(timeout=PATIENCE_S)
    assert (again.state, again.error) == ("stopped", None)


def test_a_run_of_another_format(kept: Path) -> None:
    about = json.loads((kept / "run.json").read_text())
    (kept / "run.json").write_text(json.dumps({**about, "format": 99}))
    fix = refused(lambda: qx.open_run(kept))
    assert "Its .jsonl files are JSON lines, which pandas.read_json(path, lines=True) reads" in fix
    assert len(pandas.read_json(kept / "curves.jsonl", lines=True)) > 6
    assert "Open it with the release that wrote it" in fix
    (kept / "run.json").write_text(json.dumps(about))  # the format of this release
    assert qx.open_run(kept).history.steps


def test_a_run_whose_fake_quants_cannot_be_read(kept: Path) -> None:
    about = json.loads((kept / "run.json").read_text())
    (kept / "run.json").write_text(json.dumps({**about, "fake_quants": [{"name": 3}]}))
    fix = refused(lambda: qx.open_run(kept))
    assert "curves.jsonl and samples.jsonl beside it are JSON lines, which pandas" in fix
    for name in ("curves.jsonl", "samples.jsonl"):
        assert len(pandas.read_json(kept / name, lines=True))


@pytest.mark.slow
def test_another_model_than_the_run_was_made_with(kept: Path) -> None:
    fix = refused(lambda: resume(kept, net(width=8)))
    assert "Open the run with the model that it was made with" in fix
    deeper = nn.Sequential(*net(), nn.Linear(4, 4)).train()
    fix = refused(lambda: resume(kept, deeper))
    assert "Open the run with the model, qconfig, stubs and fusion that it was made with" in fix
    assert resume(kept).state == "finished"


@pytest.mark.slow
def test_a_qconfig_of_the_users_own(tmp_path: Path) -> None:
    def own() -> Any:
        return torch.ao.quantization.get_default_qat_qconfig("onednn")._replace(
            activation=torch.ao.quantization.FakeQuantize.with_args(
                observer=torch.ao.quantization.MovingAverageMinMaxObserver, quant_max=127
            )
        )

    path = tmp_path / "run"
    session(qconfig=own()).train(2, run_dir=path, progress=False)
    fix = refused(lambda: resume(path))
    assert "Make the session with the qconfig= that the run was made with" in fix
    assert resume(path, qconfig=own()).state == "finished"


@pytest.mark.slow
def test_functions_are_passed_again(tmp_path: Path) -> None:
    def make(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=1e-3)

    path = tmp_path / "run"
    session().train(2, run_dir=path, optimizer=make, progress=False)
    assert "Pass it again: optimizer=…" in refused(lambda: resume(path))
    assert resume(path, optimizer=make).state == "finished"


@pytest.mark.slow
def test_what_the_state_belongs_to(tmp_path: Path) -> None:
    """Another optimizer, or one whose state does not fit."""
    path = tmp_path / "run"
    session().train(2, run_dir=path, optimizer="sgd", progress=False)
    fix = refused(lambda: resume(path, optimizer="adamw"))
    assert "Pass optimizer= as it was, or begin a new run from this model" in fix

    def groups(count: int) -> Callable[[Any], torch.optim.Optimizer]:
        def make(parameters: Any) -> torch.optim.Optimizer:
            chosen = list(parameters)
            parts = [chosen[index::count] for index in range(count)]
            return torch.optim.SGD([{"params": part} for part in parts], lr=1e-3)

        return make

    fix = refused(lambda: resume(path, optimizer=groups(2)))
    assert "Pass the model and optimizer= that the run was made with" in fix
    assert resume(path, optimizer="sgd").state == "finished"
    new = session()
    new.train(1, optimizer="adamw", run_dir=tmp_path / "new", progress=False)


@pytest.mark.slow
def test_data_that_has_become_shorter(tmp_path: Path) -> None:
    path = tmp_path / "run"
    run = session(train=Slowly()).start_training(1, run_dir=path, checkpoint_every=1)
    until(lambda: len(run.history.steps) >= 5)
    run.stop(timeout=PATIENCE_S)
    fix = refused(lambda: resume(path, epochs=1))
    assert "Resume with the data that the run was made with" in fix
    again = session(train=Slowly()).resume(path)
    until(lambda: again.history.steps[-1].step >= 8 or again.state != "running")
    again.stop(timeout=PATIENCE_S)
    assert (again.state, again.error) == ("stopped", None)


@pytest.mark.slow
def test_a_run_of_watch_is_no_run_of_a_session(tmp_path: Path) -> None:
    def watched(folder: Path) -> None:
        model = prepared()
        with qx.watch(model, every=1, folder=folder) as watch:
            for x, _ in batches(3):
                model(x).sum().backward()
                watch.step()

    watched(tmp_path / "run")
    fix = refused(lambda: watched(tmp_path / "run"))
    assert "Give each watch a folder of its own" in fix
    watched(tmp_path / "own")
    opened = qx.open_run(tmp_path / "run")
    fix = refused(opened.read)
    assert "open_run(path).telemetry holds what was seen of the fake quants" in fix
    telemetry = qx.open_run(tmp_path / "run").telemetry
    assert telemetry is not None
    assert telemetry.steps == (0, 1, 2)
    fix = refused(lambda: telemetry.series(telemetry.paths[0], "skale"))
    assert fix.startswith("Choose one of ")
    for name in fix.removeprefix("Choose one of ").removesuffix(".").split(", "):
        telemetry.series(telemetry.paths[0], name)
