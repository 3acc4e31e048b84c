"""Small nets and sessions for the tests of cures."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.ao.quantization import DeQuantStub, QuantStub

import qatexplorer as qx
from tests.support.training_models import data

FLOWS = ("eager", "fx")
SETTINGS: dict[str, dict[str, Any]] = {
    "ranges": {"activation": "min-max"},
    "biases": {"batches": 4},
    "batch_norms": {"batches": 4},
    "equalization": {},
}
"""Of each cure, for a test of what all have in common."""


class Chain(nn.Module):
    """``layers`` between stubs, then the mean of each channel and a linear layer."""

    def __init__(self, *layers: nn.Module, channels: int = 6) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.body = nn.Sequential(*layers)
        self.fc = nn.Linear(channels, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(self.quant(x))
        result: Tensor = self.dequant(self.fc(x.mean((2, 3))))
        return result


def chain(*layers: nn.Module, channels: int = 6) -> Chain:
    """In train mode, with batch norms that have seen something."""
    model = Chain(*layers, channels=channels)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
            module.weight.data.uniform_(0.1, 2)
    return model.train()


def usual() -> Chain:
    """Conv-bn-relu, conv-bn."""
    torch.manual_seed(0)
    return chain(
        nn.Conv2d(1, 6, 3, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3, bias=False),
        nn.BatchNorm2d(6),
    )


def session_of(model: nn.Module, flow: str, **settings: Any) -> qx.Session:
    train, evaluation = data()
    given = {"qconfig": "qnnpack", "data": (train, evaluation), **settings}
    session = qx.Session(model, (train[0][0],), flow=flow, **given)
    session.warns = False
    return session


def work_of(session: qx.Session) -> nn.Module:
    """A copy of the working model."""
    return session.copy_model(session.flow.train_stage)


def offer(session: qx.Session, name: str) -> str:
    """Why the cure does not apply."""
    return {one.name: one.why_not for one in session.cures}[name]
