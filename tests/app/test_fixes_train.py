"""Each fix that ``qatexplorer train`` gives, done to the letter: then it trains."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from qatexplorer.app import cli
from tests.support.processes import ended, processes
from tests.support.train_factory import FACTORY

pytestmark = pytest.mark.slow

SHORT = ("--epochs", "1", "--telemetry-every", "0")


def train(*arguments: object, of: str = "make") -> int:
    return cli.main(["train", f"{FACTORY}:{of}", *map(str, arguments), *SHORT])


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().err.split())


def test_the_folder_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--run-dir", tmp_path / "a") == 0
    capsys.readouterr()
    assert train("--resume", "--epochs", 2) == 2
    assert "Name it with --run-dir." in said(capsys)
    assert train("--run-dir", tmp_path / "a") == 2
    assert "Go on with it with --resume, or name another --run-dir." in said(capsys)
    more = ("--run-dir", tmp_path / "a", "--resume", "--calibrate", 1)
    assert train(*more) == 2
    assert "Leave --calibrate out: what the observers saw is in the checkpoint." in said(capsys)
    resumed = ["--run-dir", str(tmp_path / "a"), "--resume", "--epochs", "2"]
    assert cli.main(["train", f"{FACTORY}:make", *resumed]) == 0
    assert train("--run-dir", tmp_path / "b") == 0


def test_a_factory_without_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--run-dir", tmp_path, of="without_data") == 3
    fix = "Return (model, example_inputs, data), data being (train, eval) loaders."
    assert fix in said(capsys)
    assert train("--run-dir", tmp_path, of="make") == 0


def test_processes_that_are_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert train("--run-dir", tmp_path) == 1
    fix = "Start them with torchrun, or unset WORLD_SIZE to train in one process."
    assert fix in said(capsys)
    monkeypatch.delenv("WORLD_SIZE")
    assert train("--run-dir", tmp_path) == 0


def test_a_process_that_was_lost_and_a_number_that_is_not_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fails, folder = tmp_path / "fails", tmp_path / "a"
    monkeypatch.setenv("FAILS", str(fails))
    code = "import sys; from qatexplorer.app.cli import main; sys.exit(main(sys.argv[1:]))"
    loss = ("--loss", f"{FACTORY}:failing_late")
    run = ("train", f"{FACTORY}:make", "--run-dir", folder, "--telemetry-every", 0, *loss)
    fails.touch()
    lost = processes(code, 2, *run, "--epochs", 3)
    first, second = ended(lost)
    assert [one.returncode for one in lost] == [1, 1]
    assert "on fire" in second
    fix = "See what that process says; then go on from the last checkpoint with --resume."
    assert fix in " ".join(first.split())
    fails.unlink()
    alone = [*map(str, run), "--resume", "--epochs", "3"]
    assert cli.main(alone) == 2
    fix = (
        "Go on with qatexplorer train --resume, started by torchrun with as many processes as the "
        "run was made by."
    )
    assert fix in said(capsys)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*torchrun, "--nproc-per-node=2", "-m", "qatexplorer.app.cli", *alone]
    assert subprocess.run(command, capture_output=True, timeout=120).returncode == 0
