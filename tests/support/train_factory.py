"""What ``qatexplorer train`` is given in tests: models with data, and functions of a user's."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tests.support.training_models import SmallNet, batches, data

FACTORY = "tests.support.train_factory"


def make() -> tuple[nn.Module, Tensor, Any]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SmallNet().train(), batches(1)[0][0], data()


def without_data() -> tuple[nn.Module, Tensor]:
    return make()[:2]


def without_stubs() -> tuple[nn.Module, Tensor, Any]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4))
        return model.train(), batches(1)[0][0], data(2)


def share_of_zero(output: Tensor, target: Tensor) -> float:
    """A metric of a user's: how often the answer is the first class."""
    return float((output.argmax(1) == 0).float().mean())


def sgd(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=1e-3)


def squares(output: Tensor, target: Tensor) -> Tensor:
    return output.square().mean()


_asked: list[int] = []


def failing_late(output: Tensor, target: Tensor) -> Tensor:
    """A loss that fails in the second epoch of the second process as long as the file ``$FAILS`` is
    there."""
    _asked.append(1)
    late = len(_asked) > len(data()[0])
    if late and os.environ.get("RANK") == "1" and Path(os.environ["FAILS"]).exists():
        raise ValueError("the disk of this machine is on fire")
    return nn.functional.cross_entropy(output, target)


def raises(output: Tensor, target: Tensor) -> Tensor:
    raise ValueError("boom")
