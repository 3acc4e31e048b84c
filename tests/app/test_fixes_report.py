"""Each fix of a report's errors, done to the letter."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import qatexplorer as qx
from qatexplorer import reports
from qatexplorer.app.cli import main
from qatexplorer.errors import ReportError
from tests.support.training_models import SmallNet, batches, one_thread  # noqa: F401

SOURCE = """
from tests.support.training_models import SmallNet, batches
def factory(): return SmallNet().train(), batches(1)[0][0]
"""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "fixes_of_report.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("fixes_of_report", None)


def session() -> qx.Session:
    return qx.Session(SmallNet().train(), batches(1)[0][0], qconfig="onednn")


def test_a_folder(project: Path) -> None:
    with pytest.raises(ReportError) as caught:
        session().report(project)
    assert caught.value.fix == "Give the name of a file, such as report.html."
    assert session().report("report.html").exists()


def test_a_file_that_is_there(project: Path) -> None:
    Path("report.html").write_text("mine")
    with pytest.raises(ReportError) as caught:
        session().report()
    fix = "Give another name, or pass overwrite=True (--force on the command line)."
    assert caught.value.fix == fix
    assert session().report("another.html").exists()
    assert session().report(overwrite=True).read_text(encoding="utf-8") != "mine"
    command = ["report", "fixes_of_report:factory", "--measure", "none", "--calibrate", "0"]
    assert main(command) == 2
    assert main([*command, "--force"]) == 0


def test_a_disk_without_room(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(reports.tempfile, "mkstemp", full)
    with pytest.raises(ReportError) as caught:
        session().report()
    fix = "Choose a file in a folder where you may write, on a disk with room."
    assert caught.value.fix == fix
    monkeypatch.undo()
    assert session().report(project / "report.html").exists()


def test_neither_a_run_nor_a_factory(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "nowhere"]) == 2
    fix = "Name a run's folder that is there, or write package.module:factory."
    assert fix in capsys.readouterr().err
    factory = fix.rpartition(" ")[2].rstrip(".").replace("package.module", "fixes_of_report")
    assert main(["report", factory, "--measure", "none"]) == 0
