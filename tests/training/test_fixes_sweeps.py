"""Each fix for weights that cannot be followed, and for sweeps, done to the letter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import qatexplorer as qx
from qatexplorer.errors import QatExplorerError
from qatexplorer.runs.config import TrainingConfig
from qatexplorer.training.run import TrainingRun
from qatexplorer.training.trials import trials
from tests.support.training_models import SmallNet, batches, data, prepared


class Endless:
    def __iter__(self) -> Iterator[Any]:
        return iter(batches(2))


class Length(Endless):
    def __len__(self) -> int:
        return 2


def train(source: Any = None, model: nn.Module | None = None, **settings: Any) -> None:
    config = TrainingConfig(**{"epochs": 1, **settings})
    run = TrainingRun(model or prepared(), source or data(2), config).run()
    if run.error is not None:
        raise run.error


def sweep(over: dict[str, Any], qconfig: Any = "onednn", **settings: Any) -> None:
    session = qx.Session(SmallNet().train(), batches(1)[0][0], qconfig=qconfig, data=data(1))
    if "later" in settings:
        session.configure(qconfig=settings.pop("later"))
    session.sweep(over, **{"seeds": (0,), "epochs": 1, **settings})


def nine(key: Any, should_stop: Any) -> dict[str, int]:
    return {"is": 9}


OWN = torch.ao.quantization.QConfig(nn.Identity, nn.Identity)
CASES: list[tuple[str, Callable[[], Any], Callable[[], Any]]] = [
    (
        "two or three times oscillation_momentum= at least",
        lambda: train(freeze_weights=0.01),
        lambda: train(freeze_weights=0.02),
    ),
    (
        "Give freeze_weights= too",
        lambda: train(freeze_weights_from=0.5),
        lambda: train(freeze_weights_from=0.5, freeze_weights=0.1),
    ),
    (
        "Leave one of them out",
        lambda: train(freeze_weights=0.1, ema_decay=0.9),
        lambda: train(freeze_weights=0.1),
    ),
    (
        "Leave out dampen_weights, freeze_weights and oscillation='every step'",
        lambda: train(model=SmallNet(), oscillation="every step"),
        lambda: train(model=SmallNet()),
    ),
    (
        "Give the data a __len__",
        lambda: train((Endless(), batches(1)), dampen_weights=1.0),
        lambda: train((Length(), batches(1)), dampen_weights=1.0),
    ),
    (
        "Use 'sampled' or 'every step'",
        lambda: qx.watch(prepared(), oscillation="always"),  # type: ignore[arg-type]
        lambda: qx.watch(prepared(), oscillation="every step"),
    ),
    ("Pass seeds=(0,)", lambda: sweep({"lr": (1e-3,)}, seeds=()), lambda: sweep({"lr": (1e-3,)})),
    (
        "Name a backend: session.configure(qconfig='onednn')",
        lambda: sweep({"quantizers": ("learned",)}, OWN),
        lambda: sweep({"quantizers": ("learned",)}, OWN, later="onednn"),
    ),
    (
        "They are 'moving average' and 'learned'",
        lambda: sweep({"quantizers": ("lsq",)}),
        lambda: sweep({"quantizers": ("moving average", "learned")}),
    ),
    (
        "Sweep over fields of qatexplorer.TrainingConfig, or over 'quantizers'",
        lambda: sweep({"learning_rate": (1e-3,)}),
        lambda: sweep({"lr": (1e-3,)}),
    ),
    (
        "Use processes=1, or define what they need in a module that can be imported",
        lambda: trials([{"a": 1}, {"a": 2}], lambda key, should_stop: {}, processes=2),
        lambda: trials([{"a": 1}, {"a": 2}], lambda key, should_stop: {}, processes=1),
    ),
]


@pytest.mark.parametrize(("fix", "wrong", "right"), CASES, ids=[case[0] for case in CASES])
def test_a_fix_works(fix: str, wrong: Callable[[], Any], right: Callable[[], Any]) -> None:
    with pytest.raises(QatExplorerError) as caught:
        wrong()
    assert fix in caught.value.fix
    right()


def test_after_a_process_was_killed_the_rest_is_done_in_this_one(tmp_path: Path) -> None:
    """``test_trials`` kills one and reads: Try processes=1; what is in the folder is not done
    again. Here two are in the folder."""
    fix = "Try processes=1; what is in the folder is not done again"
    assert fix.endswith("not done again")
    jobs = [{"job": number} for number in range(3)]
    trials(jobs[:2], nine, tmp_path)
    assert [one.kept for one in trials(jobs, nine, tmp_path, processes=1)] == [True, True, False]
