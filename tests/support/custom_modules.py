"""A module that torch knows nothing of, with the two classes that take it to int8."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Doubling(nn.Module):
    """A module that torch knows nothing of."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) * 2


class ObservedDoubling(nn.Module):
    def __init__(self, fc: nn.Module) -> None:
        super().__init__()
        self.fc = fc

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) * 2

    @classmethod
    def from_float(cls, module: Doubling) -> ObservedDoubling:
        observed = cls(module.fc)
        observed.qconfig = module.qconfig
        return observed


class Int8Doubling(nn.Module):
    def __init__(self, scale: float, zero_point: int) -> None:
        super().__init__()
        self.scale, self.zero_point = scale, zero_point

    def forward(self, x: Tensor) -> Tensor:
        plain = x.dequantize() if x.is_quantized else x
        return torch.quantize_per_tensor(plain * 2, self.scale, self.zero_point, torch.quint8)

    @classmethod
    def from_observed(cls, module: ObservedDoubling) -> Int8Doubling:
        scale, zero_point = module.activation_post_process.calculate_qparams()
        return cls(float(scale), int(zero_point))
