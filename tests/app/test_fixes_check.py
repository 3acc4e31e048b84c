"""Each fix of ``qatexplorer check``, done to the letter."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from qatexplorer.app.cli import main
from qatexplorer.app.load_model import load_model

SOURCE = """
import sys
import torch
from torch import nn
class Leaving(nn.Module):
    def __init__(self, leave): super().__init__(); self.leave = leave; self.fc = nn.Linear(4, 2)
    def forward(self, x):
        if self.leave: sys.exit(5)
        return self.fc(x)
def leaving(): return Leaving(True), torch.zeros(2, 4)
def factory(): return Leaving(False), torch.zeros(2, 4)
"""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "fixes_of_check.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("fixes_of_check", None)


def says(capsys: pytest.CaptureFixture[str], fix: str) -> bool:
    return fix in capsys.readouterr().err


def test_name_the_model(capsys: pytest.CaptureFixture[str]) -> None:
    fix = "Write qatexplorer check package.module:factory"
    assert main(["check"]) == 2
    assert says(capsys, fix)
    words = fix.replace("package.module", "fixes_of_check").split()[2:]
    assert main([*words, "--stubs", "model"]) == 0


def test_leave_stubs_away_or_take_eager(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["check", "fixes_of_check:factory", "--flow", "fx"]
    assert main([*command, "--stubs", "model"]) == 2
    assert says(capsys, "Leave --stubs away, or take --flow eager")
    assert main(command) == 0
    assert main([*command, "--stubs", "model", "--flow", "eager"]) == 0


def test_name_a_file_in_a_folder_that_is_there(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["check", "fixes_of_check:factory", "--flow", "fx", "--output"]
    assert main([*command, "nowhere/result.txt"]) == 2
    assert says(capsys, "Name a file in a folder that is there")
    (project / "somewhere").mkdir()
    assert main([*command, "somewhere/result.txt"]) == 0


def test_run_the_model_yourself(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "fixes_of_check:leaving"]) == 3
    error = capsys.readouterr().err
    assert "Run the model on its example inputs yourself; if that works, report this" in error
    loaded = load_model("fixes_of_check:leaving")
    with pytest.raises(SystemExit):
        loaded.model(loaded.example_inputs)
    assert main(["check", "fixes_of_check:factory", "--flow", "fx"]) == 0
