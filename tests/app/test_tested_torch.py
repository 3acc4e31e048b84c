"""Which releases of torch count as tested, and what is said about any other."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

import qatexplorer as qx
from qatexplorer import _tested
from qatexplorer.errors import UntestedTorchWarning
from tests.support.models import ConvBnRelu, image

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("version", [*_tested.TESTED, "2.13.1", "2.13.0+cpu", "2.13.0.post1+cu130"])
def test_releases_of_a_tested_line_count(version: str) -> None:
    assert _tested.is_tested(version)


@pytest.mark.parametrize(
    "version", ["1.13.1", "2.99.0", "2.1.0", "12.13.0", "2.13.0a0+nv26.01", "2.16.0.dev20261126"]
)
def test_others_and_unreleased_builds_do_not(version: str) -> None:
    assert not _tested.is_tested(version)


def test_the_running_torch_is_the_one_that_is_asked_about() -> None:
    assert _tested.running_torch() == torch.__version__
    assert _tested.is_tested() == _tested.is_tested(torch.__version__)


def sessions(count: int) -> list[warnings.WarningMessage]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(count):
            qx.Session(ConvBnRelu().train(), image())
    return [w for w in caught if issubclass(w.category, UntestedTorchWarning)]


def test_an_untested_torch_is_warned_of_once_at_the_first_session(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_tested, "_warned", False)
    monkeypatch.setattr(_tested, "TESTED", ("1.0.0", "1.1.0"))
    (warning,) = sessions(3)
    text = str(warning.message)
    assert torch.__version__ in text
    assert "1.0.0, 1.1.0" in text
    assert warning.filename == __file__


def test_a_tested_torch_is_not_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tested, "_warned", False)
    monkeypatch.setattr(_tested, "TESTED", (torch.__version__.partition("+")[0],))
    assert sessions(1) == []


def test_asking_loads_no_torch() -> None:
    code = (
        "import sys\n"
        "from qatexplorer import _tested\n"
        "print(_tested.running_torch(), _tested.is_tested(), 'torch' in sys.modules)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    version, tested, loaded = done.stdout.split()
    # The installed package leaves out the suffix that names the CUDA release.
    assert version.partition("+")[0] == torch.__version__.partition("+")[0]
    assert (tested, loaded) == (str(_tested.is_tested()), "False")
