"""A multi-layer perceptron as most people write one: no stubs, functional operations."""

from __future__ import annotations

from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import nn

from qatexplorer.zoo.base import Example, with_weights
from qatexplorer.zoo.digits import digits_data, example_images

TITLE = "MLP without stubs (what goes wrong)"


class GatedBlock(nn.Module):
    """Layer norm, a gated hidden layer, and the input added back."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, width)
        self.gate = nn.Linear(width, width)
        self.down = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(x)
        y = F.relu(self.up(y)) * torch.sigmoid(self.gate(y))
        out: torch.Tensor = x + self.down(y)
        return out


class DigitsMLP(nn.Module):
    """(N, 1, 8, 8) float32 → (N, 10) logits."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.embed = nn.Linear(64, width)
        self.block1 = GatedBlock(width)
        self.block2 = GatedBlock(width)
        self.head = nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.embed(x.flatten(1)))
        logits: torch.Tensor = self.head(self.block2(self.block1(x)))
        return logits


def example() -> Example:
    """The trained network with the digits data."""
    return Example(
        name="digits_mlp",
        title=TITLE,
        description=(
            "An MLP as most people write one: no QuantStub, and `+`, `*`, relu and sigmoid as "
            "plain functions. Eager quantization prepares, trains and converts it without a word, "
            "and then int8 does not run: the first layer gets a float tensor. A QuantWrapper "
            "around the whole moves the failure to the first `*` on quantized tensors. "
            "add_quant_dequant around each layer reaches int8, at the price of more fake quants "
            "and a float island between each two layers."
        ),
        model=with_weights(DigitsMLP(), "digits_mlp"),
        example_inputs=(example_images(),),
        data=digits_data(),
        factory="qatexplorer.zoo.digits_mlp:example",
        suggested=MappingProxyType(
            {"epochs": 4, "lr": 5e-4, "freeze_observer_epoch": 3, "freeze_bn_epoch": None}
        ),
    )
