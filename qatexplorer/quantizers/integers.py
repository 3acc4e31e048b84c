"""Int8 tensors: their grids, their codes, and exact sums of products of codes.

Codes, their products and their sums are integers far below 2**53, so float64 holds them exactly,
and torch's own convolution in float64 gives their exact sums.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Geometry:
    """How a convolution walks, one number a dimension; ``groups`` and ``transposed`` of all."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    transposed: bool
    output_padding: tuple[int, ...]

    def rows(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """By torch's names, for a table."""
        found = [("stride", self.stride), ("padding", self.padding), ("dilation", self.dilation)]
        if self.transposed:
            found.append(("output_padding", self.output_padding))
        return (*found, ("groups", (self.groups,)))


def tensor_grid(tensor: Tensor) -> tuple[float, int] | None:
    """Scale and zero point, None for a float tensor or one with a scale per channel."""
    if not tensor.is_quantized:
        return None
    if tensor.qscheme() not in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        return None
    return float(tensor.q_scale()), int(tensor.q_zero_point())


def centred(tensor: Tensor) -> Tensor:
    """Codes of a tensor with one grid minus its zero point, float64."""
    grid = tensor_grid(tensor)
    assert grid is not None
    return tensor.int_repr().double() - grid[1]


def int8_weight(layer: nn.Module | None) -> Tensor | None:
    """The packed weight of an int8 layer, None for what is none."""
    get: Any = getattr(layer, "weight", None)
    weight = get() if callable(get) else None
    return weight if isinstance(weight, Tensor) and weight.is_quantized else None


def weight_grid(weight: Tensor, channels: int) -> tuple[Tensor, Tensor, bool] | None:
    """Scale (float64) and zero point (float64) of each output channel, and whether each has its
    own; None where they do not fit."""
    if weight.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        scale = torch.full((channels,), weight.q_scale(), dtype=torch.float64)
        return scale, torch.full((channels,), float(weight.q_zero_point())).double(), False
    scales = weight.q_per_channel_scales().double()
    zeros = weight.q_per_channel_zero_points().double()
    return (scales, zeros, True) if scales.numel() == channels else None


def weight_centred(weight: Tensor, zeros: Tensor, geometry: Geometry | None) -> Tensor:
    """Codes of the weight minus their zero points, float64."""
    codes = weight.int_repr().double()
    axis = 1 if geometry is not None and geometry.transposed else 0
    if not bool(zeros.any()):
        return codes
    if zeros.numel() != codes.shape[axis]:  # one for all, of a transposed one with groups
        return codes - zeros[0]
    return codes - zeros.view([-1 if i == axis else 1 for i in range(codes.dim())])


def sums(x: Tensor, weight: Tensor, zeros: Tensor, geometry: Geometry | None) -> Tensor:
    """Sums of products of all outputs, exact, float64.

    Args:
        x: centred codes. weight: int8. zeros: its zero points, one an output channel.
        geometry: of a convolution, None of a linear layer.
    """
    w, g = weight_centred(weight, zeros, geometry), geometry
    if g is None:
        return F.linear(x, w)
    dims = w.dim() - 2
    if g.transposed:
        up: Any = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[dims - 1]
        done: Tensor = up(x, w, None, g.stride, g.padding, g.output_padding, g.groups, g.dilation)
        return done
    conv: Any = (F.conv1d, F.conv2d, F.conv3d)[dims - 1]
    made: Tensor = conv(x, w, None, g.stride, g.padding, g.dilation, g.groups)
    return made
