"""A plain convolutional network, written for eager mode: all stages, with no surprise."""

from __future__ import annotations

from types import MappingProxyType

import torch
from torch import nn
from torch.ao.quantization import DeQuantStub, QuantStub

from qatexplorer.zoo.base import Example, with_weights
from qatexplorer.zoo.digits import digits_data, example_images

TITLE = "Plain CNN (three conv-bn-relu runs)"


class DigitsCNN(nn.Module):
    """(N, 1, 8, 8) float32 → (N, 10) logits."""

    def __init__(self) -> None:
        super().__init__()
        self.quant = QuantStub()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(32)
        self.relu2 = nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        self.conv3 = nn.Conv2d(32, 32, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(32)
        self.relu3 = nn.ReLU()
        self.average = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(32, 10)
        self.dequant = DeQuantStub()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.quant(x)
        x = self.relu1(self.bn1(self.conv1(x)))
        x = self.relu2(self.bn2(self.conv2(x)))
        x = self.pool(x)
        x = self.relu3(self.bn3(self.conv3(x)))
        x = self.average(x).flatten(1)
        logits: torch.Tensor = self.dequant(self.fc(x))
        return logits


def example() -> Example:
    """The trained network with the digits data."""
    return Example(
        name="digits_cnn",
        title=TITLE,
        description=(
            "A small convolutional network written for eager mode: QuantStub at the input, "
            "DeQuantStub at the output, three conv-bn-relu runs that fuse. Watch what each stage "
            "does to it. At 8 bits it loses nothing, so do not look for a gap here: float, "
            "fake-quant and int8 agree to within a few of the 540 evaluation images."
        ),
        model=with_weights(DigitsCNN(), "digits_cnn"),
        example_inputs=(example_images(),),
        data=digits_data(),
        factory="qatexplorer.zoo.digits_cnn:example",
        suggested=MappingProxyType(
            {"epochs": 4, "lr": 3e-4, "freeze_observer_epoch": 3, "freeze_bn_epoch": 2}
        ),
    )
