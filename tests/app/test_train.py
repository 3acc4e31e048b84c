"""``qatexplorer train``: its options, its exit codes, and what it leaves in the run folder."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

import qatexplorer as qx
from qatexplorer.app import cli
from qatexplorer.app.train_options import add, option_of, settings_of
from qatexplorer.flows.qconfig_rules import QConfigRule
from qatexplorer.runs.config import TrainingConfig
from qatexplorer.runs.opened import list_runs, open_run
from qatexplorer.training.run import TrainingRun
from qatexplorer.widgets.training import runs as runs_panel
from tests.support.train_factory import FACTORY, make, share_of_zero, squares, without_stubs
from tests.support.train_factory import sgd as sgd_of
from tests.support.training_models import data, prepared
from tests.support.waiting import until, until_on_loop

ROOT = Path(qx.__file__).resolve().parents[1]
ENDLESS = ("--epochs", "100000", "--telemetry-every", "0")


def parsed(*arguments: str) -> dict[str, Any]:
    import argparse

    parser = argparse.ArgumentParser()
    add(parser.add_subparsers())
    return settings_of(parser.parse_args(["train", "a:b", *arguments]))


def train(*arguments: object, of: str = "make") -> int:
    try:
        return cli.main(["train", f"{FACTORY}:{of}", *map(str, arguments)])
    except SystemExit as wrong:
        return int(str(wrong.code))


# -- options ---------------------------------------------------------------------------------------

VALUES: dict[str, tuple[str, Any]] = {
    "epochs": ("7", 7),
    "lr": ("3e-4", 3e-4),
    "optimizer": ("sgd", "sgd"),
    "scheduler": ("cosine", "cosine"),
    "scheduler_interval": ("epoch", "epoch"),
    "warmup_steps": ("3", 3),
    "freeze_observer_epoch": ("none", None),
    "freeze_bn_epoch": ("2", 2),
    "fake_quant_start_epoch": ("1", 1),
    "label_smoothing": ("0.1", 0.1),
    "clip_grad_norm": ("1.5", 1.5),
    "ema_decay": ("0.99", 0.99),
    "dampen_weights": ("0.1", 0.1),
    "freeze_weights": ("0.02", 0.02),
    "freeze_weights_from": ("none", None),
    "oscillation": ("every step", "every step"),
    "oscillation_momentum": ("0.005", 0.005),
    "checkpoint_every": ("50", 50),
    "keep_checkpoints": ("2", 2),
    "metric_mode": ("min", "min"),
    "seed": ("11", 11),
    "telemetry_every": ("5", 5),
    "max_samples": ("100", 100),
    "telemetry_paths": ("conv1, fc", ("conv1", "fc")),
}


def test_every_field_is_an_option_and_none_is_given_unless_it_is() -> None:
    assert parsed() == {}
    assert set(VALUES) == {field.name for field in fields(TrainingConfig)}
    for name, (text, value) in VALUES.items():
        assert parsed(option_of(name), text) == {name: value}


def test_help_has_the_meaning_and_the_default_of_every_field(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    text = capsys.readouterr().out
    options = re.split(r"\n  (?=--)", text.partition("settings of the run:")[2])
    for field, shown in zip(fields(TrainingConfig), options[1:], strict=True):
        said = " ".join(shown.partition("\n\n")[0].split())
        default = "none" if field.default is None else field.default
        assert said.startswith(f"{option_of(field.name)} ")
        assert said.endswith(f"(default: {default})")
        assert len(said) > 50
    assert "130  stopped before the last epoch" in text


@pytest.mark.parametrize(
    "given", [("--epochs", "many"), ("--scheduler-interval", "day"), ("--calibrate", "-1")]
)
def test_an_option_that_cannot_be_read_is_wrong_usage(given: tuple[str, ...]) -> None:
    assert train(*given) == 2


# -- exit codes ------------------------------------------------------------------------------------


def test_trains_tells_how_far_it_is_and_what_came_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "a"
    assert train("--epochs", 2, "--calibrate", 2, "--run-dir", folder, "--seed", 4) == 0
    out, err = capsys.readouterr()
    opened = open_run(folder)
    metric = opened.history.epochs[1].metric
    assert f"epoch 2 of 2 is done: loss {opened.history.epochs[1].train_loss:.4g}, " in err
    assert f"accuracy {metric:.4g}" in err
    assert "running: epoch 1 of 2, step 0 of 12" in err
    assert "finished: " in err
    assert [line.split()[0] for line in out.splitlines()[1:5]] == [
        "float",
        "int8",
        "fake-quant",
        "int8",
    ]
    assert out.splitlines()[-1] == f"The run lies in {folder}"
    # It is what a session does.
    model, inputs, source = make()
    session = qx.Session(model, inputs, data=source)
    session.calibrate(2)
    own = session.train(2, seed=4, progress=False)
    assert [s.loss for s in opened.history.steps] == [s.loss for s in own.history.steps]


def test_goes_on_with_a_run_and_its_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rules, folder = tmp_path / "rules.toml", tmp_path / "a"
    model, inputs, source = make()
    session = qx.Session(model, inputs, flow="fx", data=source)
    session.set_qconfig("fc", to_float=True)
    session.save_qconfig(rules)
    sgd = ("--optimizer", f"{FACTORY}:sgd")
    given = ("--flow", "fx", "--qconfig", rules, "--loss", f"{FACTORY}:squares", *sgd)
    assert train("--epochs", 1, "--run-dir", folder, *given) == 0
    about = open_run(folder).about
    assert about["flow"] == "fx"
    kept = [QConfigRule.from_json(rule) for rule in about["session"]["rules"]]
    assert kept == list(session.qconfig_rules)
    assert about["config"]["optimizer"] == {"given": "sgd"}
    loss = ("--loss", f"{FACTORY}:squares")
    assert train("--epochs", 2, "--run-dir", folder, "--resume", *loss, *sgd) == 0
    opened = open_run(folder)
    assert [record.epoch for record in opened.history.epochs] == [0, 1]
    own = qx.Session(model, inputs, flow="fx", data=source, loss=squares)
    own.load_qconfig(rules)
    unbroken = own.train(2, optimizer=sgd_of, progress=False)
    assert [s.loss for s in opened.history.steps] == [s.loss for s in unbroken.history.steps]
    capsys.readouterr()
    assert train("--epochs", 3, "--run-dir", folder, "--resume", *loss) == 2
    assert "optimizer=sgd, a function of yours" in capsys.readouterr().err


def test_stubs_and_a_metric_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ("--stubs", "layers", "--metric", f"{FACTORY}:share_of_zero", "--metric-mode", "min")
    assert train("--epochs", 1, "--run-dir", tmp_path / "a", *given, of="without_stubs") == 0
    out, _ = capsys.readouterr()
    opened = open_run(tmp_path / "a")
    assert opened.about["metric"] == "share_of_zero"
    assert opened.about["session"]["stubs"] == "layers"
    assert "share_of_zero" in out.splitlines()[0]
    model, inputs, source = without_stubs()
    own = qx.Session(model, inputs, stubs="layers", data=source, metric=share_of_zero)
    run = own.train(1, metric_mode="min", progress=False)
    assert opened.history.epochs[0].metric == run.history.epochs[0].metric
    assert [s.loss for s in opened.history.steps] == [s.loss for s in run.history.steps]
    # Without stubs the int8 model has nothing that quantizes its input.
    assert train("--epochs", 1, "--run-dir", tmp_path / "b", of="without_stubs") == 0
    assert open_run(tmp_path / "b").about["session"]["stubs"] == "none"


WRONG: list[tuple[int, str, tuple[str, ...], str]] = [
    (2, "make", ("--lr", "-1"), "lr is -1.0"),
    (2, "make", ("--resume",), "--resume needs the folder"),
    (2, "make", ("--resume", "--run-dir", "nowhere"), "holds no run"),
    (3, "nothing", (), "has no 'nothing'"),
    (3, "without_data", (), "returned no data"),
    (3, "make", ("--qconfig", "none.toml"), "none.toml cannot be read"),
    (3, "make", ("--qconfig", "avx"), "avx"),
    (2, "make", ("--flow", "sideways"), "sideways"),
    (3, "make", ("--optimizer", f"{FACTORY}:adam"), "has no 'adam'"),
    (1, "make", ("--loss", f"{FACTORY}:raises"), "boom"),
]


@pytest.mark.parametrize(("code", "of", "given", "text"), WRONG)
def test_what_is_wrong_is_said_and_told_apart(
    code: int,
    of: str,
    given: tuple[str, ...],
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert train(*given, of=of) == code
    out, err = capsys.readouterr()
    assert text in err
    assert "Traceback" not in err
    assert not out


def test_a_run_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--epochs", 1, "--run-dir", tmp_path) == 0
    before = (tmp_path / "run.json").read_bytes()
    assert train("--epochs", 1, "--run-dir", tmp_path) == 2
    assert "holds a run already" in capsys.readouterr().err
    assert (tmp_path / "run.json").read_bytes() == before


def test_a_run_of_another_version_is_left_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("--epochs", 1, "--run-dir", tmp_path) == 0
    about = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps({**about, "format": about["format"] + 1}))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    capsys.readouterr()
    for more in ((), ("--resume", "--epochs", 2)):
        assert train("--run-dir", tmp_path, *more) == 2
        out, err = capsys.readouterr()
        assert not out
        assert "Traceback" not in err
        assert ("in format" if more else "holds a run already") in err
    assert {path: path.read_bytes() for path in before} == before


# -- while it trains -------------------------------------------------------------------------------


def started(folder: Path, *arguments: str, processes: int = 1) -> subprocess.Popen[str]:
    command = [sys.executable, "-m"]
    if processes > 1:
        command += ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
    command += ["qatexplorer.app.cli", "train", f"{FACTORY}:make", "--run-dir", str(folder)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, *arguments],
        env=env,
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def open_when_it_trains(folder: Path, running: subprocess.Popen[str]) -> Any:
    def trains() -> bool:
        assert running.poll() is None, running.communicate()
        return (folder / "run.json").exists() and bool(open_run(folder).checkpoints)

    until(trains, 90)
    return open_run(folder)


def sees_it_grow(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page in this process shows the steps that the run in ``folder`` makes meanwhile."""
    monkeypatch.setenv("QATEXPLORER_RUNS", str(folder.parent))
    monkeypatch.setattr(runs_panel, "FOLLOW_S", 0.05)

    async def page() -> None:
        model, inputs, _ = make()
        explorer = qx.explore(model, inputs)
        runs, live = explorer.runs, explorer.live
        assert runs.list.value == str(folder)
        await until_on_loop(lambda: not runs.inside.disabled)
        runs.inside.click()
        assert explorer.drawer.in_sight(live)
        await until_on_loop(lambda: live.multiples.rows.value)
        rows, first = live.multiples.rows, live.telemetry
        assert first is not None
        assert folder.name in live.words.value
        await until_on_loop(lambda: live.telemetry.steps[-1] > first.steps[-1])  # type: ignore[union-attr]
        await until_on_loop(lambda: live.multiples.rows != rows)
        runs.list.value = None  # it follows nothing any more
        await until_on_loop(lambda: not drawing(), 60)

    training = set(threading.enumerate())

    def drawing() -> list[threading.Thread]:
        found = set(threading.enumerate()) - training
        return [one for one in found if one.name.startswith("qatexplorer-")]

    asyncio.run(page())


def slowly(output: Tensor, target: Tensor) -> Tensor:
    """A loss that leaves the page some time."""
    time.sleep(0.01)
    return squares(output, target)


def test_a_page_shows_the_steps_of_a_run_that_is_not_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TrainingConfig(epochs=100_000, telemetry_every=2)
    run = TrainingRun(prepared(), data(), config, loss=slowly, run_dir=tmp_path / "a")
    run.start()
    try:
        until(lambda: (tmp_path / "a" / "run.json").exists())
        sees_it_grow(tmp_path / "a", monkeypatch)
    finally:
        run.stop(timeout=60)
    assert run.state == "stopped", run.error


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_another_process_sees_it_pauses_it_and_it_goes_on_after_ctrl_c(
    processes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a"
    running = started(folder, "--epochs", "100000", "--telemetry-every", "20", processes=processes)
    try:
        opened = open_when_it_trains(folder, running)
        assert [(line.path.name, line.state) for line in list_runs(tmp_path)] == [("a", "running")]
        assert opened.about["processes"] == processes
        done = len(opened.history.steps)
        until(lambda: len(open_run(folder).history.steps) > done)
        sees_it_grow(folder, monkeypatch)
        opened.request("pause")
        until(lambda: open_run(folder).state == "paused")
        opened.request("run")
        until(lambda: open_run(folder).state == "running")
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=60)
    finally:
        running.kill()
    opened = open_run(folder)
    assert opened.state == "stopped", err
    assert running.returncode != 0
    assert "Stopped at step" in out
    last = opened.last_checkpoint
    assert last is not None
    assert last.position.step == opened.status["step"]
    if processes > 1:
        return  # how they go on together: tests/training/test_distributed.py
    epochs = str(last.position.epoch + 2)
    again = started(folder, "--resume", "--epochs", epochs, processes=processes)
    out, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    assert f"The run lies in {folder}" in out
    assert open_run(folder).state == "finished"


@pytest.mark.slow
def test_a_stop_from_another_process_has_a_code_of_its_own(tmp_path: Path) -> None:
    running = started(tmp_path / "a", *ENDLESS)
    try:
        open_when_it_trains(tmp_path / "a", running).request("stop")
        running.communicate(timeout=60)
    finally:
        running.kill()
    assert running.returncode == 130
    assert open_run(tmp_path / "a").state == "stopped"
