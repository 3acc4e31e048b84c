"""A residual, depthwise network whose channels differ in range by a factor of 1,024."""

from __future__ import annotations

from types import MappingProxyType

import torch
from torch import nn
from torch.ao.nn.quantized import FloatFunctional
from torch.ao.quantization import (
    DeQuantStub,
    FakeQuantize,
    FusedMovingAvgObsFakeQuantize,
    MovingAverageMinMaxObserver,
    QConfig,
    QuantStub,
)

from qatexplorer.zoo.base import Example, with_weights
from qatexplorer.zoo.digits import digits_data, example_images

TITLE = "Depthwise residual net (why QAT)"

STRETCH_OCTAVES = 10


class DepthwiseBlock(nn.Module):
    """Depthwise conv-bn-relu, pointwise conv-bn, and the input added to it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.pointwise = nn.Conv2d(channels, channels, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        # Plain `+` has no int8 kernel in eager mode; this has a module to hold the qparams.
        self.add = FloatFunctional()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu1(self.bn1(self.depthwise(x)))
        y = self.bn2(self.pointwise(y))
        return self.add.add(x, y)


class DigitsDepthwise(nn.Module):
    """(N, 1, 8, 8) float32 → (N, 10) logits."""

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        self.quant = QuantStub()
        self.stem = nn.Conv2d(1, channels, 3, padding=1, bias=False)
        self.stem_bn = nn.BatchNorm2d(channels)
        self.stem_relu = nn.ReLU()
        self.block1 = DepthwiseBlock(channels)
        self.block2 = DepthwiseBlock(channels)
        self.pool = nn.MaxPool2d(2)
        self.block3 = DepthwiseBlock(channels)
        self.average = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, 10)
        self.dequant = DeQuantStub()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.quant(x)
        x = self.stem_relu(self.stem_bn(self.stem(x)))
        x = self.block2(self.block1(x))
        x = self.block3(self.pool(x))
        x = self.average(x).flatten(1)
        logits: torch.Tensor = self.dequant(self.fc(x))
        return logits


@torch.no_grad()
def stretch_channels(model: DigitsDepthwise, seed: int = 1) -> None:
    """Make the channels inside the last block unequal without changing what the net computes.

    ReLU lets a positive factor through: batch norm gives each channel 1× to 1,024× its range, and
    the pointwise weights take it back. Factors are powers of two, so float results stay the same
    to the last bit. Larger networks grow such channels in training (MobileNets are known for it);
    this one is too small to.
    """
    generator = torch.Generator().manual_seed(seed)
    block = model.block3
    channels = block.bn1.num_features
    octaves = torch.linspace(0, STRETCH_OCTAVES, channels).round()
    factor = 2.0 ** octaves[torch.randperm(channels, generator=generator)]
    block.bn1.weight.mul_(factor)
    block.bn1.bias.mul_(factor)
    block.pointwise.weight.div_(factor.reshape(1, -1, 1, 1))


def per_tensor_qconfig() -> QConfig:
    """8-bit activations 0..255 and *one* scale for a whole weight tensor.

    torch's default gives each output channel of a weight a scale of its own, which hides half of
    the trouble with unequal channels; hardware and engines with one scale per tensor are common.
    The weight fake quant is the unfused one: the fused kernel divides by other constants than
    ``convert`` does (scales differ by 0.39 %), and under one scale for 1,024-fold ranges that
    moves the int8 accuracy away from the fake-quant one by several points.
    """
    activation = FusedMovingAvgObsFakeQuantize.with_args(
        observer=MovingAverageMinMaxObserver, quant_min=0, quant_max=255, dtype=torch.quint8
    )
    weight = FakeQuantize.with_args(
        observer=MovingAverageMinMaxObserver,
        quant_min=-128,
        quant_max=127,
        dtype=torch.qint8,
        qscheme=torch.per_tensor_symmetric,
    )
    return QConfig(activation=activation, weight=weight)


def example() -> Example:
    """The trained network with stretched channels, and the digits data."""
    return Example(
        name="digits_depthwise",
        title=TITLE,
        description=(
            "A residual, depthwise network. In its last block the channels differ in range by up "
            "to 1,024×, as they do in MobileNets, and each weight tensor has one scale. 8-bit "
            "codes are too coarse for the small channels: calibrating and converting the trained "
            "net (post-training quantization) drops from 99 to under 65 % right in real int8, and "
            "eight epochs of quantization-aware training bring back 97 % or more."
        ),
        model=with_weights(DigitsDepthwise(), "digits_depthwise"),
        example_inputs=(example_images(),),
        data=digits_data(),
        factory="qatexplorer.zoo.digits_depthwise:example",
        suggested=MappingProxyType(
            {
                "qconfig": per_tensor_qconfig(),
                "epochs": 8,
                "lr": 1e-3,
                "freeze_observer_epoch": 6,
                "freeze_bn_epoch": 6,
            }
        ),
    )
