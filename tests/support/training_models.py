"""Small models and data for the tests of training and deploy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.ao.quantization import (
    DeQuantStub,
    QuantStub,
    fuse_modules_qat,
    get_default_qat_qconfig,
    prepare_qat,
)

Batches = list[tuple[Tensor, Tensor]]


class SmallNet(nn.Module):
    """Conv-bn-relu, dropout (so that random numbers matter), linear."""

    def __init__(self) -> None:
        super().__init__()
        self.quant = QuantStub()
        self.conv = nn.Conv2d(1, 6, 3)
        self.bn = nn.BatchNorm2d(6)
        self.relu = nn.ReLU()
        self.drop = nn.Dropout(0.2)
        self.fc = nn.Linear(6 * 36, 4)
        self.dequant = DeQuantStub()

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn(self.conv(self.quant(x))))
        return self.dequant(self.fc(self.drop(x.flatten(1))))


def prepared(
    seed: int = 0, make: Callable[[], nn.Module] = SmallNet, qconfig: Any = None
) -> nn.Module:
    """A prepared model, the same for the same seed; the caller's random state is not used."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = make().train()
        net.qconfig = qconfig or get_default_qat_qconfig("onednn")
        if isinstance(net, SmallNet):
            fuse_modules_qat(net, [["conv", "bn", "relu"]], inplace=True)
        return prepare_qat(net)


def batches(count: int = 6, size: int = 8, seed: int = 1) -> Batches:
    """Images (size, 1, 8, 8) whose brightest quadrant is the class."""
    generator = torch.Generator().manual_seed(seed)
    made: Batches = []
    for _ in range(count):
        y = torch.randint(0, 4, (size,), generator=generator)
        x = torch.rand(size, 1, 8, 8, generator=generator)
        for index, label in enumerate(y.tolist()):
            row, column = 4 * (label // 2), 4 * (label % 2)
            x[index, 0, row : row + 4, column : column + 4] += 1.0
        made.append((x, y))
    return made


def data(count: int = 6) -> tuple[Batches, Batches]:
    return batches(count), batches(2, seed=2)


def state(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the state dict."""
    return {key: value.clone() for key, value in model.state_dict().items()}


def same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    """Equal bit for bit (NaN is equal to NaN)."""
    return one.keys() == two.keys() and all(
        torch.equal(torch.nan_to_num(one[k].double()), torch.nan_to_num(two[k].double()))
        and one[k].shape == two[k].shape
        for k in one
    )


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny tensors: a second thread costs more than it brings. Import it to use it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
