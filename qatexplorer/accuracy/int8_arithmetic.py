"""Integer arithmetic of int8 layers: all outputs at once, and the window of one output."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from qatexplorer.accuracy.int8_operands import Operands
from qatexplorer.accuracy.int8_record import Agreement
from qatexplorer.quantizers.integers import Geometry, centred, sums, tensor_grid, weight_grid

MOST_PRODUCTS = 2e9
"""Products computed to compare all outputs; of more, only as many samples as that allows."""


def grid(tensor: Tensor) -> tuple[float, int]:
    """Scale and zero point of a tensor that has one of each."""
    found = tensor_grid(tensor)
    assert found is not None
    return found


TIE = 1e-4
"""Steps around the middle between two codes within which float32 may round either way."""


@dataclass(frozen=True)
class Channels:
    """What a sum of products needs of each output channel, float64.

    Attributes:
        scales: ``s_x * s_w``, the unit of a product. zeros: zero points of the weight.
        bias: float. bias_codes: rounded to multiples of ``scales``. multipliers: to output steps.
    """

    scales: Tensor
    weight_scales: Tensor
    zeros: Tensor
    per_channel: bool
    bias: Tensor | None
    bias_codes: Tensor | None
    multipliers: Tensor


def channels_of(operands: Operands) -> Channels | None:
    """For a layer of products; None where its weight's scales do not fit its channels."""
    assert operands.weight is not None
    found = weight_grid(operands.weight, operands.result.shape[operands.channel_axis])
    if found is None:
        return None
    weight_scales, zeros, per_channel = found
    scales = weight_scales * grid(operands.inputs[0])[0]
    bias = None if operands.bias is None else operands.bias.detach().double()
    codes = None if bias is None else torch.round(bias / scales)
    multipliers = scales / grid(operands.result)[0]
    return Channels(scales, weight_scales, zeros, per_channel, bias, codes, multipliers)


def compare(operands: Operands, channels: Channels | None) -> tuple[Agreement, ...]:
    """All outputs (or those of the first samples) against the kernel's codes."""
    samples = _samples(operands)
    kernel = operands.result.int_repr()[:samples].double()
    if operands.arithmetic != "products":
        return (_agreement("", operands, _others(operands)[:samples], kernel),)
    assert channels is not None
    assert operands.weight is not None
    x = centred(operands.inputs[0])[:samples]
    total = sums(x, operands.weight, channels.zeros, operands.geometry)
    across = [-1 if i == operands.channel_axis else 1 for i in range(total.dim())]
    multipliers = channels.multipliers.view(across)
    if channels.bias is None or channels.bias_codes is None:
        return (_agreement("", operands, total * multipliers, kernel),)
    whole = (total + channels.bias_codes.view(across)) * multipliers
    exact = (total + (channels.bias / channels.scales).view(across)) * multipliers
    return (
        _agreement("int32", operands, whole, kernel),
        _agreement("float", operands, exact, kernel),
    )


def _samples(operands: Operands) -> int:
    result = operands.result
    if operands.weight is None or result.dim() < 2:
        return int(result.shape[0]) if result.dim() else 1
    each = result[:1].numel() * operands.weight[:1].numel()
    return max(1, min(int(result.shape[0]), int(MOST_PRODUCTS // max(each, 1))))


def _agreement(
    bias: Literal["int32", "float", ""], operands: Operands, steps: Tensor, kernel: Tensor
) -> Agreement:
    """Values in steps of the output's grid, rounded, against the kernel's codes."""
    low, high = operands.clamp
    codes = (torch.round(steps) + grid(operands.result)[1]).clamp(low, high)
    apart = (codes - kernel).abs()
    half_way = ((steps - torch.floor(steps)) - 0.5).abs() < TIE
    ties = int(((apart == 1) & half_way).sum())
    return Agreement(bias, apart.numel(), int((apart == 0).sum()), int(apart.max()), ties)


def _others(operands: Operands) -> Tensor:
    """Values of an operation element by element, in steps of the output's grid."""
    step = grid(operands.result)[0]
    if operands.arithmetic == "quantize":
        return operands.inputs[0].double() / step
    if operands.arithmetic == "batch norm":
        factors, offsets = norm_of(operands)
        across = [-1 if i == 1 else 1 for i in range(operands.result.dim())]
        return centred(operands.inputs[0]) * factors.view(across) + offsets.view(across)
    parts = [centred(one) * (grid(one)[0] / step) for one in operands.inputs]
    if operands.arithmetic == "cat":
        return torch.cat(parts, operands.dim)
    if operands.arithmetic == "add":
        return parts[0] + parts[1]
    a, b = operands.inputs
    return centred(a) * centred(b) * (grid(a)[0] * grid(b)[0] / step)


def norm_of(operands: Operands) -> tuple[Tensor, Tensor]:
    """Of a batch norm what a centred code is multiplied by, and what is added then, in steps of
    the output, one a channel (float64)."""
    assert operands.norm is not None
    weight, bias, mean, var, eps = operands.norm
    step = grid(operands.result)[0]
    factor = weight / torch.sqrt(var + eps)
    return factor * grid(operands.inputs[0])[0] / step, (bias - mean * factor) / step


@dataclass(frozen=True)
class Window:
    """Codes that one output is made of, in the order of the weight; ``padded`` are padding."""

    input_codes: tuple[int, ...]
    weight_codes: tuple[int, ...]
    padded: int
    weight_zero: int


def window(
    operands: Operands, sample: int, channel: int, place: Sequence[int], channels: Channels
) -> Window:
    """What the output of ``channel`` at ``place`` is made of."""
    assert operands.weight is not None
    weight, x = operands.weight.int_repr(), operands.inputs[0].int_repr()
    zero = int(channels.zeros[channel])
    g = operands.geometry
    if g is None:
        row = x[(sample, *place)] if x.dim() > 1 else x
        return Window(tuple(row.tolist()), tuple(weight[channel].tolist()), 0, zero)
    outside = grid(operands.inputs[0])[1]
    inputs, weights, padded = [], [], 0
    for own, taken, at in _terms(g, weight, channel, x.shape[1]):
        spots = [_spot(g, i, p, k) for i, (p, k) in enumerate(zip(place, at, strict=True))]
        if any(spot is None for spot in spots):
            continue  # of a transposed one: between two inputs
        inside = all(0 <= int(s or 0) < n for s, n in zip(spots, x.shape[2:], strict=True))
        if not inside and g.transposed:
            continue
        padded += not inside
        inputs.append(int(x[(sample, taken, *spots)]) if inside else outside)
        weights.append(int(weight[(*own, *at)]))
    return Window(tuple(inputs), tuple(weights), padded, zero)


def _terms(g: Geometry, weight: Tensor, channel: int, taken: int) -> Any:
    """Place in the weight, input channel and kernel position of each product of ``channel``."""
    positions = list(itertools.product(*(range(n) for n in weight.shape[2:])))
    if g.transposed:
        outputs, each = int(weight.shape[1]), taken // g.groups
        group, inside = divmod(channel, outputs)
        for i in range(group * each, (group + 1) * each):
            yield from (((i, inside), i, at) for at in positions)
        return
    each = int(weight.shape[1])
    first = channel // (int(weight.shape[0]) // g.groups) * each
    for i in range(each):
        yield from (((channel, i), first + i, at) for at in positions)


def _spot(g: Geometry, dim: int, place: int, kernel: int) -> int | None:
    """Where along ``dim`` the input lies that kernel position ``kernel`` meets."""
    if not g.transposed:
        return place * g.stride[dim] - g.padding[dim] + kernel * g.dilation[dim]
    at, between = divmod(place + g.padding[dim] - kernel * g.dilation[dim], g.stride[dim])
    return at if between == 0 else None


def fixed_point(value: float) -> tuple[int, int]:
    """``value`` as ``mantissa * 2 ** -(31 + shift)`` with a mantissa of 31 bits; 0, 0 for none."""
    if value == 0 or not math.isfinite(value):
        return 0, 0
    fraction, exponent = math.frexp(abs(value))
    mantissa = round(fraction * 2**31)
    if mantissa == 2**31:
        mantissa, exponent = 2**30, exponent + 1
    return mantissa if value > 0 else -mantissa, -exponent
