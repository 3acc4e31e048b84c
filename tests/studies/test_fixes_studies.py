"""What errors of studies say to do is done, and works."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from qatexplorer.errors import InputError, RunFolderError
from qatexplorer.studies import STUDIES, chosen, run
from tests.studies.fake import FAKE
from tests.support.rooms import ROOT


def test_a_study_that_there_is_not() -> None:
    with pytest.raises(InputError) as raised:
        chosen("R2")
    fix = raised.value.fix
    assert fix.startswith("The studies are ")
    named = fix.removeprefix("The studies are ").rstrip(".")
    assert chosen(named) == STUDIES


def test_optuna_that_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with monkeypatch.context() as missing:
        missing.setitem(sys.modules, "optuna", None)
        with pytest.raises(InputError) as raised:
            run([FAKE], seeds=1, storage=str(tmp_path / "jobs"))
    assert raised.value.fix == 'Install it: pip install "qatexplorer[optuna]".'
    assert re.search(r'^optuna = \[\n  "optuna>=', (ROOT / "pyproject.toml").read_text(), re.M)
    pytest.importorskip("optuna")
    assert run([FAKE], seeds=1, storage=str(tmp_path / "jobs")).done == 2


def test_a_storage_that_cannot_be_opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    monkeypatch.setattr("qatexplorer.studies.shared._ASK_EVERY_S", 0.0)
    with pytest.raises(RunFolderError) as raised:
        run([FAKE], seeds=1, storage=f"sqlite:///{tmp_path}/none/studies.db")
    assert raised.value.fix == (
        "Give a URL such as sqlite:///studies.db, or a journal file, in a folder that is there."
    )
    monkeypatch.chdir(tmp_path)
    assert run([FAKE], seeds=1, storage="sqlite:///studies.db").done == 2
    assert run([FAKE], seeds=1, storage="studies.journal").done == 2
