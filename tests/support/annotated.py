"""Sessions of the PT2E flow on small models, for tests of what is shown of it."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

import qatexplorer as qx


class Plain(nn.Module):
    """No batch norm, so that converting is quick; a max pooling that shares, a dropout, a linear
    layer on two dimensions and one on three."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu = nn.Conv2d(3, 8, 3, padding=1), nn.ReLU()
        self.pool, self.last = nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, padding=1)
        self.drop, self.fc = nn.Dropout(0.2), nn.Linear(8, 4)
        self.wide = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Any:
        y = self.last(self.pool(self.relu(self.conv(x))))
        y = self.fc(self.drop(torch.tanh(y.mean((2, 3)))))
        return self.wide(y.unsqueeze(1))


class Normed(nn.Module):
    """Two convolutions with batch norms behind them, the second in a block with a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu1 = (
            nn.Conv2d(3, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
        )
        self.block = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4))
        self.relu2, self.fc = nn.ReLU(), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Any:
        x = self.relu1(self.bn1(self.conv1(x)))
        return self.fc(self.relu2(self.block(x) + x).mean((2, 3)))


IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def session_of(
    model: nn.Module, x: Any = IMAGES, stage: str = "insert", **given: Any
) -> qx.Session:
    """A session of the flow at ``stage``."""
    session = qx.Session(model.train(), x, flow="pt2e", **given)
    session.goto(stage)
    return session


@functools.cache
def plain() -> qx.Session:
    """Of :class:`Plain`, at the lowered stage; not to be changed."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return session_of(Plain(), stage="lower")


@functools.cache
def normed() -> qx.Session:
    """Of :class:`Normed`, at the stage with all fake quants; not to be changed."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return session_of(Normed())


def quantizer_of(annotate: Any) -> Any:
    """A quantizer of one's own, which annotates by ``annotate(graph module)``."""
    from torchao.quantization.pt2e.quantizer import Quantizer

    class Own(Quantizer):
        def annotate(self, model: Any) -> Any:
            annotate(model)
            return model

        def validate(self, model: Any) -> None:
            pass

    return Own()
