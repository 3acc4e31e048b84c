"""Small models whose one block is what a test puts there, for torch's errors on int8."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.ao.quantization import (
    DeQuantStub,
    FakeQuantize,
    MovingAverageMinMaxObserver,
    QConfig,
    QuantStub,
    convert,
    default_weight_fake_quant,
    get_default_qat_qconfig,
    prepare_qat,
)

ROWS = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
IMAGES = torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(0))


class Block(nn.Module):
    """Calls ``function(self, x)``: where the user's own code would stand."""

    def __init__(self, function: Callable[[Any, Tensor], Any], **parts: Any) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


class Net(nn.Module):
    """Stub, a layer, the block under test, stub."""

    def __init__(self, layer: nn.Module, block: nn.Module) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.layer, self.block = layer, block

    def forward(self, x: Tensor) -> Tensor:
        return self.dequant(self.block(self.layer(self.quant(x))))


def linear(function: Callable[[Any, Tensor], Any], **parts: Any) -> nn.Module:
    return Net(nn.Linear(8, 8), Block(function, **parts))


def conv(function: Callable[[Any, Tensor], Any], **parts: Any) -> nn.Module:
    return Net(nn.Conv2d(3, 8, 3), Block(function, **parts))


class MyLinear(nn.Linear):
    pass


class MyConv(nn.Conv2d):
    pass


def qint8_activations() -> QConfig:
    activation = FakeQuantize.with_args(
        observer=MovingAverageMinMaxObserver, quant_min=-128, quant_max=127, dtype=torch.qint8
    )
    return QConfig(activation=activation, weight=default_weight_fake_quant)


def to_int8(model: nn.Module, x: Tensor, qconfig: Any = None) -> nn.Module:
    model.train()
    model.qconfig = qconfig or get_default_qat_qconfig("onednn")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ready = prepare_qat(model)
        ready(x)
        return convert(ready.eval())


def weights(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.ones(*shape))
