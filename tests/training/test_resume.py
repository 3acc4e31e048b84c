"""A run that was stopped anywhere and goes on gives the same losses as an unbroken one."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Container, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from qatexplorer.errors import BusyError, CheckpointError, InputError, RunFolderError
from qatexplorer.runs.opened import OpenedRun, list_runs, open_run
from qatexplorer.runs.records import TrainingConfig
from qatexplorer.training.run import TrainingRun
from tests.support.everything import EVERYTHING, loaders, losses
from tests.support.training_models import SmallNet, batches, data, one_thread, prepared, same, state  # noqa: F401
from tests.support.waiting import PATIENCE_S, Gate, until

ROOT = Path(__file__).resolve().parents[2]


def stopped_after(step: int, run: TrainingRun) -> TrainingRun:
    """Run it, and ask for a stop once ``step`` steps are done."""
    report = run._report

    def watch() -> None:
        report()
        if run.progress.step >= step and run.state == "running":
            run.stop()

    run._loop._report = watch
    return run.run()


def resumed(path: Path, source: Any, model: nn.Module | None = None, **changes: Any) -> TrainingRun:
    opened = open_run(path)
    saved = opened.read()
    config = opened.config(**changes)
    return TrainingRun(model or prepared(5), source, config, run_dir=path, saved=saved)


def most_slow(values: Iterable[Any], kept: Container[Any]) -> list[Any]:
    """Parameters of which the inner loop takes those of ``kept`` only."""
    return [v if v in kept else pytest.param(v, marks=pytest.mark.slow) for v in values]


@pytest.mark.parametrize("step", most_slow([1, 5, 6, 7, 13, 18, 23], [7]))
def test_stop_and_resume_is_bit_for_bit_the_unbroken_run(step: int, tmp_path: Path) -> None:
    whole_model, model = prepared(), prepared()
    whole = TrainingRun(whole_model, loaders(), TrainingConfig(**EVERYTHING)).run()
    assert whole.state == "finished", whole.error
    config = TrainingConfig(**EVERYTHING)
    first = stopped_after(step, TrainingRun(model, loaders(), config, run_dir=tmp_path / "a"))
    assert first.state == "stopped", first.error
    torch.rand(3), random.random(), np.random.rand()
    again = prepared(7)
    second = resumed(tmp_path / "a", loaders(), again).run()
    assert second.state == "finished", second.error
    assert len(losses(whole)) == 24
    assert losses(second) == losses(whole)
    assert [e.metric for e in second.history.epochs] == [e.metric for e in whole.history.epochs]
    assert [e.train_loss for e in second.history.epochs] == [
        e.train_loss for e in whole.history.epochs
    ]
    assert [e.lr for e in second.history.epochs] == [e.lr for e in whole.history.epochs]
    assert same(state(whole_model), state(again))
    kinds = [m.kind for m in second.history.markers if m.kind not in ("stopped",)]
    kinds.remove("resumed from checkpoint")
    assert kinds == [m.kind for m in whole.history.markers]
    read_again = open_run(tmp_path / "a")
    assert read_again.state == "finished"
    assert [s.loss for s in read_again.history.steps] == losses(whole)
    assert read_again.history.epochs == second.history.epochs


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_stopped_again_and_again_at_random_steps(seed: int, tmp_path: Path) -> None:
    stops = sorted(random.Random(seed).sample(range(1, 24), 4))
    config = TrainingConfig(**EVERYTHING)
    whole = TrainingRun(prepared(), loaders(), config).run()
    stopped_after(stops[0], TrainingRun(prepared(), loaders(), config, run_dir=tmp_path / "a"))
    for step in stops[1:]:
        stopped_after(step, resumed(tmp_path / "a", loaders()))
    last = resumed(tmp_path / "a", loaders()).run()
    assert last.state == "finished", (stops, last.error)
    assert losses(last) == losses(whole), stops
    assert [e.metric for e in last.history.epochs] == [e.metric for e in whole.history.epochs]


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9, nesterov=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-3, centered=True, momentum=0.5),
    "amsgrad": lambda p: torch.optim.Adam(p, lr=torch.tensor(1e-3), amsgrad=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=1e-2),
    "rprop": lambda p: torch.optim.Rprop(p, lr=1e-3),
    "nadam": lambda p: torch.optim.NAdam(p, lr=1e-3),
    "asgd": lambda p: torch.optim.ASGD(p, lr=1e-2),
    "adafactor": lambda p: torch.optim.Adafactor(p, lr=1e-2),
}


@pytest.mark.parametrize("name", most_slow(OPTIMIZERS, ["sgd"]))
def test_any_optimizer_of_torch(name: str, tmp_path: Path) -> None:
    config = TrainingConfig(epochs=2, optimizer=OPTIMIZERS[name])
    whole = TrainingRun(prepared(), data(), config).run()
    assert whole.state == "finished", whole.error
    stopped_after(4, TrainingRun(prepared(), data(), config, run_dir=tmp_path / "a"))
    with pytest.raises(InputError, match="function of yours"):
        open_run(tmp_path / "a").config()
    second = resumed(tmp_path / "a", data(), optimizer=OPTIMIZERS[name]).run()
    assert losses(second) == losses(whole)


SCHEDULERS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "multistep": ("step", lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [2, 5, 9])),
    "onecycle": ("step", lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 1e-2, total_steps=18)),
    "plateau": ("step", lambda o: torch.optim.lr_scheduler.ReduceLROnPlateau(o, patience=0)),
    "exponential": ("epoch", lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.3)),
    "sequence": (
        "step",
        lambda o: torch.optim.lr_scheduler.SequentialLR(
            o,
            [
                torch.optim.lr_scheduler.LinearLR(o, 0.1, total_iters=4),
                torch.optim.lr_scheduler.CosineAnnealingLR(o, 12),
            ],
            [4],
        ),
    ),
}


@pytest.mark.parametrize("name", most_slow(SCHEDULERS, ["onecycle"]))
@pytest.mark.parametrize("step", most_slow([4, 11], [4]))
def test_any_scheduler_of_torch(name: str, step: int, tmp_path: Path) -> None:
    interval, make = SCHEDULERS[name]
    config = TrainingConfig(epochs=3, scheduler=make, scheduler_interval=interval)  # type: ignore[arg-type]
    whole = TrainingRun(prepared(), data(), config).run()
    assert whole.state == "finished", whole.error
    rates = [s.lr for s in whole.history.steps]
    if name != "plateau":
        assert len(set(rates)) > 1
    stopped_after(step, TrainingRun(prepared(), data(), config, run_dir=tmp_path / "a"))
    second = resumed(tmp_path / "a", data(), scheduler=make).run()
    assert [s.lr for s in second.history.steps] == rates
    assert losses(second) == losses(whole)


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "own"), [(0, True), (2, False), (2, True)])
def test_loader_workers_and_a_generator_of_ones_own(
    workers: int, own: bool, tmp_path: Path
) -> None:
    config = TrainingConfig(epochs=2)
    whole = TrainingRun(prepared(), loaders(workers, own), config).run()
    stopped_after(8, TrainingRun(prepared(), loaders(workers, own), config, run_dir=tmp_path / "a"))
    second = resumed(tmp_path / "a", loaders(workers, own)).run()
    assert second.state == "finished", second.error
    assert losses(second) == losses(whole)


@pytest.mark.slow
def test_stop_in_the_evaluation_evaluates_again(tmp_path: Path) -> None:
    stop: list[TrainingRun] = []

    def metric(output: Any, target: Any) -> Tensor:
        if stop and stop[0].progress.epoch == 1:
            stop[0].stop()
        return (output.argmax(1) == target).float().mean()

    config = TrainingConfig(epochs=3)
    whole = TrainingRun(prepared(), loaders(), config, metric=metric).run()
    first = TrainingRun(prepared(), loaders(), config, metric=metric, run_dir=tmp_path / "a")
    stop.append(first)
    first.run()
    assert first.state == "stopped"
    assert len(first.history.steps) == 12
    stop.clear()
    opened = open_run(tmp_path / "a")
    last = opened.last_checkpoint
    assert last is not None
    assert last.position.trained
    again = prepared(3)
    second = TrainingRun(
        again,
        loaders(),
        opened.config(),
        metric=metric,
        run_dir=tmp_path / "a",
        saved=opened.read(),
    ).run()
    assert losses(second) == losses(whole)
    assert [e.metric for e in second.history.epochs] == [e.metric for e in whole.history.epochs]


def test_pause_leaves_a_checkpoint_and_changes_nothing(tmp_path: Path) -> None:
    reference = TrainingRun(prepared(), data(), TrainingConfig(epochs=30)).run()
    model = prepared()
    gate = Gate(at=2)
    config = TrainingConfig(epochs=30)
    run = TrainingRun(model, data(), config, loss=gate, run_dir=tmp_path / "a").start()
    gate.then(run.pause, run, "paused")
    held = state(model)

    def last() -> Any:
        return open_run(tmp_path / "a").last_checkpoint

    until(lambda: last() is not None and last().position.step == run.progress.step)
    assert last().reason in ("paused", "end of epoch")
    assert same(state(open_run(tmp_path / "a").load_model(prepared(4))), held)
    run.resume()
    run.wait()
    assert run.state == "finished", run.error
    assert losses(run) == losses(reference)


@pytest.mark.slow
def test_more_epochs_after_the_end(tmp_path: Path) -> None:
    long = TrainingRun(prepared(), loaders(), TrainingConfig(epochs=4)).run()
    TrainingRun(prepared(), loaders(), TrainingConfig(epochs=2), run_dir=tmp_path / "a").run()
    with pytest.raises(InputError, match="no setting 'epoch'"):
        open_run(tmp_path / "a").config(epoch=4)
    second = resumed(tmp_path / "a", loaders(), epochs=4).run()
    assert losses(second) == losses(long)
    assert [e.epoch for e in second.history.epochs] == [0, 1, 2, 3]
    with pytest.raises(InputError, match="epochs is 1"):
        resumed(tmp_path / "a", loaders(), epochs=1)


def test_last_and_best_are_kept_and_no_more(tmp_path: Path) -> None:
    scores = iter([0.1, 0.9, 0.2, 0.3, 0.4, 0.5])

    def metric(output: Any, target: Any) -> float:
        return next(scores)

    config = TrainingConfig(epochs=6, keep_checkpoints=2, checkpoint_every=4)
    run = TrainingRun(prepared(), (batches(), batches(1)), config, metric=metric, run_dir=tmp_path)
    run.run()
    assert run.state == "finished", run.error
    opened = open_run(tmp_path)
    assert [c.position.step for c in opened.checkpoints] == [12, 32, 36]
    assert opened.best_checkpoint is not None
    assert opened.best_checkpoint.metric == 0.9
    assert [c.best for c in opened.checkpoints] == [True, False, False]
    assert not list((tmp_path / "checkpoints").glob(".*"))


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path) -> None:
    TrainingRun(prepared(), data(), TrainingConfig(epochs=2), run_dir=tmp_path).run()
    last = open_run(tmp_path).last_checkpoint
    assert last is not None
    with open(last.path / "tensors.safetensors", "r+b") as file:
        file.truncate(100)
    opened = open_run(tmp_path)
    assert opened.last_checkpoint is not None
    assert opened.last_checkpoint.position.step == 6
    with pytest.raises(CheckpointError, match="cannot be read"):
        opened.read(last)
    assert resumed(tmp_path, data()).run().state == "finished"


def test_a_folder_holds_one_run_and_one_process(tmp_path: Path) -> None:
    run = TrainingRun(prepared(), data(), TrainingConfig(epochs=10_000), run_dir=tmp_path / "a")
    with pytest.raises(RunFolderError, match="holds a run already"):
        TrainingRun(prepared(), data(), run_dir=tmp_path / "a")
    run.start()
    until(lambda: open_run(tmp_path / "a").checkpoints)
    opened = open_run(tmp_path / "a")
    assert opened.state == "running"
    with pytest.raises(BusyError):
        resumed(tmp_path / "a", data())
    # What another kernel would do: it has nothing but the folder.
    opened.request("pause")
    until(lambda: run.state == "paused")
    until(lambda: open_run(tmp_path / "a").state == "paused")
    opened.request("run")
    until(lambda: run.state == "running")
    opened.request("stop")
    until(lambda: run.state == "stopped")
    run.wait()
    assert open_run(tmp_path / "a").state == "stopped"
    with pytest.raises(RunFolderError, match="No process"):
        opened.request("stop")
    with pytest.raises(RunFolderError, match="holds no run"):
        open_run(tmp_path)
    assert [line.path.name for line in list_runs(tmp_path)] == ["a"]
    assert list_runs(tmp_path)[0].model == "SmallNet"


def test_a_run_that_cannot_be_made_leaves_the_folder_free(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        TrainingRun(prepared(), data(), TrainingConfig(telemetry_paths=("no",)), run_dir=tmp_path)
    TrainingRun(prepared(), data(), TrainingConfig(epochs=1), run_dir=tmp_path).run()


def test_another_model_is_refused_and_left_alone(tmp_path: Path) -> None:
    class Wider(SmallNet):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(6 * 36, 5)

    class Longer(SmallNet):
        def __init__(self) -> None:
            super().__init__()
            self.extra = nn.Linear(2, 2)

    TrainingRun(prepared(), data(), TrainingConfig(epochs=1), run_dir=tmp_path).run()
    for make, where in ((Wider, "fc"), (Longer, "extra")):
        model = prepared(make=make)
        before = state(model)
        with pytest.raises(CheckpointError, match="does not fit") as caught:
            resumed(tmp_path, data(), model, epochs=2)
        assert caught.value.where == where
        assert same(before, state(model))
    with pytest.raises(InputError, match="Adam, and SGD"):
        resumed(tmp_path, data(), epochs=2, optimizer="sgd")
    assert resumed(tmp_path, data(), epochs=2).run().state == "finished"


@pytest.mark.slow
def test_fewer_batches_than_before_are_reported(tmp_path: Path) -> None:
    stopped_after(5, TrainingRun(prepared(), data(), TrainingConfig(), run_dir=tmp_path))
    run = resumed(tmp_path, data(3)).run()
    assert run.state == "failed"
    assert "3 batches" in str(run.error)
    assert len(losses(resumed(tmp_path, data()).run())) == 18


CHILD = """
import json, sys, torch
torch.set_num_threads(1)
from pathlib import Path
from qatexplorer.runs.opened import open_run
from qatexplorer.runs.records import TrainingConfig
from qatexplorer.training.run import TrainingRun
from tests.support.everything import EVERYTHING, loaders, losses
from tests.support.training_models import prepared
path, what = Path(sys.argv[1]), sys.argv[2]
if what == "begin":
    config = TrainingConfig(**{**EVERYTHING, "epochs": 4000, "checkpoint_every": 5,
                               "telemetry_every": 2})
    run = TrainingRun(prepared(), loaders(), config, run_dir=path).run()
else:
    opened = open_run(path)
    config = opened.config()
    run = TrainingRun(prepared(8), loaders(), config, run_dir=path, saved=opened.read())
    end = run._loop.step + 9
    report = run._report
    def watch():
        report()
        if run.progress.step >= end: run.stop()
    run._loop._report = watch
    run.run()
    print(json.dumps([run.state, losses(run)]))
"""


def child(path: Path, what: str) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", CHILD, str(path), what]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True, cwd=ROOT)


@pytest.mark.slow
def test_killed_in_the_middle_of_an_epoch_it_goes_on_in_a_new_process(tmp_path: Path) -> None:
    path = tmp_path / "a"
    begun = child(path, "begin")
    try:
        until(lambda: (path / "run.json").exists())
        until(lambda: len(open_run(path).history.steps) > 20)
    finally:
        begun.send_signal(signal.SIGKILL)
        begun.wait()
    opened = open_run(path)
    assert opened.state == "interrupted"
    assert opened.last_checkpoint is not None
    at = opened.last_checkpoint.position.step
    steps = opened.history.steps
    assert len(steps) >= at >= 15
    site = opened.history.samples("conv.weight_fake_quant")
    assert any(s.histogram is not None and sum(s.histogram.counts) == 54 for s in site)
    done = child(path, "resume")
    out, _ = done.communicate(timeout=120)
    ended, found = json.loads(out.splitlines()[-1])
    assert ended == "stopped"
    # Against an unbroken run in this process.
    config = TrainingConfig(**{**EVERYTHING, "epochs": 4000})
    whole = stopped_after(at + 9, TrainingRun(prepared(), loaders(), config))
    assert found == losses(whole)
    assert [s.loss for s in open_run(path).history.steps] == found


def test_stop_returns_when_the_folder_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TrainingConfig(epochs=10_000)
    run = TrainingRun(prepared(), data(), config, run_dir=tmp_path / "a").start()
    writer: Any = run._writer
    close = writer.close
    monkeypatch.setattr(writer, "close", lambda: (time.sleep(0.5), close()))
    until(lambda: run.history.steps)
    run.stop(PATIENCE_S)
    assert resumed(tmp_path / "a", data()).state == "ready"


def test_opened_run_is_what_it_says(tmp_path: Path) -> None:
    run = TrainingRun(prepared(), data(), TrainingConfig(epochs=2), run_dir=tmp_path, baseline=0.75)
    run.run()
    opened = open_run(tmp_path)
    assert isinstance(opened, OpenedRun)
    assert opened.history.steps == run.history.steps
    assert opened.history.epochs == run.history.epochs
    assert opened.history.markers == run.history.markers
    assert opened.history.baseline == 0.75
    assert opened.config() == run.config
    newest = {p: s[-1] for p, s in run.history.sites.items()}
    assert {p: s[-1] for p, s in opened.history.sites.items()} == newest
    assert opened.status["step"] == 12
