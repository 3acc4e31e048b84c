"""Each fix of watch and of what it is built into, done to the letter."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from torch import nn

import qatexplorer as qx
from qatexplorer.errors import QatExplorerError
from qatexplorer.telemetry import to_tensorboard
from qatexplorer.telemetry.integrations.trainers import lightning_callback, transformers_callback
from tests.support.training_models import SmallNet, batches, prepared


def watched(model: nn.Module | None = None, **settings: Any) -> Any:
    model = prepared() if model is None else model
    with qx.watch(model, every=1, **settings) as watch:
        for x, _ in batches(3):
            model(x).sum().backward()
            watch.step()
    assert watch.telemetry.steps == (0, 1, 2)
    return watch.telemetry


def sites() -> list[str]:
    """Paths from the sites of a snapshot of the prepared model."""
    session = qx.Session(SmallNet().train(), batches(1)[0][0])
    return [site.path for site in session.goto("insert").sites]


def refused(call: Callable[[], Any]) -> str:
    with pytest.raises(QatExplorerError) as caught:
        call()
    return caught.value.fix


CASES: list[tuple[str, Callable[[], Any], Callable[[], Any]]] = [
    (
        "Watch the model that prepare_qat (or prepare_qat_fx) returns",
        lambda: watched(SmallNet()),
        watched,
    ),
    (
        "Take the paths from the sites of a snapshot of the prepared model",
        lambda: watched(paths=["conv.weight"]),
        lambda: watched(paths=sites()),
    ),
    (
        "The default of 0.02 allows 2 %",
        lambda: watched(budget=2),
        lambda: watched(budget=0.02),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=[c[0][:40] for c in CASES])
def test_the_fix_works(case: Any) -> None:
    text, before, after = case
    fix = refused(before)
    assert text in fix
    assert after().paths


@pytest.mark.parametrize(
    ("make", "package", "module", "base"),
    [
        (transformers_callback, "transformers", "transformers", "TrainerCallback"),
        (lightning_callback, "lightning", "lightning.pytorch", "Callback"),
    ],
)
def test_a_trainer_that_is_not_installed(
    make: Any, package: str, module: str, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = qx.watch(prepared(), every=1)
    for name in (module, "pytorch_lightning"):
        monkeypatch.setitem(sys.modules, name, None)
    fix = refused(lambda: make(watch))
    assert f"pip install {package}, or call watch.step() after each training step" in fix
    watched()  # which calls it after each
    installed = ModuleType(module)
    setattr(installed, base, type(base, (), {}))
    for name in {package, module}:
        monkeypatch.setitem(sys.modules, name, installed)
    assert isinstance(make(watch), getattr(installed, base))


def test_a_tensorboard_that_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Writer:
        def __init__(self, log_dir: str | None = None) -> None:
            self.scalars: list[str] = []

        def add_scalar(self, tag: str, value: float, step: int) -> None:
            self.scalars.append(tag)

        def add_histogram_raw(self, tag: str, **what: Any) -> None:
            self.scalars.append(tag)

        def close(self) -> None:
            self.closed = True

    telemetry = watched()
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    fix = refused(lambda: to_tensorboard(telemetry, tmp_path))
    assert "pip install tensorboard, or pass a writer of your own" in fix
    assert to_tensorboard(telemetry, writer=Writer()).scalars
    installed = ModuleType("torch.utils.tensorboard")
    installed.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", installed)
    assert to_tensorboard(telemetry, tmp_path).closed
