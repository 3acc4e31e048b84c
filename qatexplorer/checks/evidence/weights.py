"""The fake quants of weights as they stand now, and what convert will make of them."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from qatexplorer.checks.subject import Subject
from qatexplorer.quantizers.facts import (
    family_of,
    flags_of,
    has_range,
    is_fake_quant,
    quant_range,
    seen_data,
    switch,
)

_HALF_A_STEP = 0.5 + 1e-3
_SAME = 1e-4


@dataclass(frozen=True)
class KernelScale:
    """The scale that torch's fused kernel rounds a weight with, beside that of int8.

    Attributes:
        off_by: largest share by which they differ. codes: how many there are.
        moved: how many of the ``values`` of the weight are rounded to one that is more than half a
            step of int8 away.
        one_sign: channels of a single sign, which the kernel rounds twice as finely.
    """

    off_by: float
    codes: int
    moved: int
    values: int
    one_sign: int


@dataclass(frozen=True)
class WeightRange:
    """A weight in the range that its fake quant knows.

    Attributes:
        path: of the layer. site: of the fake quant.
        clipped: share of the weight that lies past the codes of int8.
        reach: how many times as far as the range of int8 its values go: in half of the channels
            not as far as ``reach[0]``, in nine of ten not as far as ``reach[1]``.
    """

    path: str
    site: str
    clipped: float
    reach: tuple[float, float]


def weight_ranges(subject: Subject) -> tuple[WeightRange, ...]:
    """Weights, and the ranges that their fake quants know

    Of the model being worked on, if its observers have seen data; else there are none. Nothing
    runs but copies of the fake quants, on the weights.
    """
    if subject.work is None or not subject.observed:
        return ()
    found: list[WeightRange] = []
    for path, module in subject.work.named_modules():
        site: Any = getattr(module, "weight_fake_quant", None)
        weight = getattr(module, "weight", None)
        if not isinstance(site, nn.Module) or not isinstance(weight, Tensor):
            continue
        ready = is_fake_quant(site) and seen_data(site) == "all" and has_range(site)
        if ready and isinstance(getattr(site, "scale", None), Tensor) and weight.numel():
            subject.stop_if_asked()
            found.append(_range_of(path, site, _as_rounded(module, weight)))
    return tuple(found)


@torch.no_grad()
def scale_of_kernel(module: nn.Module) -> KernelScale | None:
    """How far the kernel's scale of a module's weight is from that of int8, for the weight as it
    is; None where no fused kernel sets it, or they are the same."""
    fake, weight = getattr(module, "weight_fake_quant", None), getattr(module, "weight", None)
    if not isinstance(fake, nn.Module) or not isinstance(weight, Tensor):
        return None
    return kernel_scale(fake, _as_rounded(module, weight))


@torch.no_grad()
def kernel_scale(fake: nn.Module, weight: Tensor) -> KernelScale | None:
    """The same of a fake quant and the weight that comes to it."""
    family = family_of(fake)
    if family is None or not family.is_fake_quant(fake) or not family.kernel_observes(fake):
        return None
    twin: Any = copy.deepcopy(fake)
    switch(twin, observer=True, fake_quant=True)
    twin(weight)
    low, high = quant_range(twin)
    axis = int(twin.ch_axis) if twin.is_per_channel else None
    trained = [_along(value, weight, axis) for value in (twin.scale, twin.zero_point)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        asked = [_along(value, weight, axis) for value in twin.calculate_qparams()]
    used = _spread(weight, axis) > 0  # what is all zero has no scale
    off = ((trained[0] - asked[0]).abs() / asked[0])[used]
    off_by = float(off.max()) if len(off) else 0.0
    if not _SAME < off_by < torch.inf:
        return None

    def rounded(scale: Tensor, zero: Tensor) -> Tensor:
        return (torch.clamp(torch.round(weight / scale) + zero, low, high) - zero) * scale

    away = (rounded(*trained) - rounded(*asked)).abs() / asked[0]
    one_sign = int((trained[1] != asked[1])[used].sum())
    moved = int((away > _HALF_A_STEP).sum())
    return KernelScale(off_by, high - low + 1, moved, weight.numel(), one_sign)


@torch.no_grad()
def channel_ratio(module: nn.Module, weight: Tensor) -> float:
    """Largest by median range of the output channels, as the fake quant gets them."""
    rows = weight.detach().flatten(1).abs().amax(1).float()
    bn: Any = getattr(module, "bn", None)
    if isinstance(getattr(bn, "running_var", None), Tensor):
        factor = 1 / torch.sqrt(bn.running_var + bn.eps)
        rows = rows * (factor if bn.weight is None else factor * bn.weight.detach().abs())
    return largest_by_median(rows)


@torch.no_grad()
def largest_by_median(ranges: Tensor) -> float:
    """Of the ranges of channels; 0 where there are not two of them, or one is no number."""
    rows = ranges[ranges > 0]  # a channel of zeros asks for no codes
    if rows.numel() < 2 or not bool(torch.isfinite(rows).all()):
        return 0.0
    return float(rows.max() / rows.median())


@torch.no_grad()
def _as_rounded(module: nn.Module, weight: Tensor) -> Tensor:
    """What comes to the weight's fake quant: with a batch norm fused in, the weight that it has
    scaled."""
    bn: Any = getattr(module, "bn", None)
    if bn is None or getattr(bn, "running_var", None) is None:
        return weight.detach()
    gamma = bn.weight if bn.weight is not None else torch.ones_like(bn.running_var)
    factor = gamma / torch.sqrt(bn.running_var + bn.eps)
    return (weight * factor.reshape(-1, *[1] * (weight.dim() - 1))).detach()


@torch.no_grad()
def _range_of(path: str, site: Any, weight: Tensor) -> WeightRange:
    low, high = quant_range(site)
    axis = int(site.ch_axis) if getattr(site, "is_per_channel", False) else None
    twin = copy.deepcopy(site)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if flags_of(site).observer:
            twin(weight)  # so does convert
        scale, zero = (_along(value, weight, axis) for value in twin.calculate_qparams())
    codes = weight / scale + zero
    real = _spread(weight, axis)
    reach = (real / (scale * (high - low) / 2))[real > 0]
    share = torch.tensor([0.5, 0.9], device=reach.device)
    ends = torch.quantile(reach, share) if len(reach) else torch.ones(2)
    return WeightRange(
        path,
        f"{path}.weight_fake_quant" if path else "weight_fake_quant",
        float(((codes < low - 1) | (codes > high + 1)).float().mean()),
        (float(ends[0]), float(ends[1])),
    )


def _along(values: Tensor, weight: Tensor, axis: int | None) -> Tensor:
    """One value a channel, shaped so that it meets its channel; one for all without channels."""
    values = values.to(weight.device).float()
    shape = [-1 if d == axis else 1 for d in range(weight.dim())]
    return values.reshape(shape) if axis is not None else values.reshape([1] * weight.dim())


def _spread(weight: Tensor, axis: int | None) -> Tensor:
    """Largest size of a value, of each channel or of all, in the shape of :func:`_along`."""
    return weight.abs().amax(dim=[d for d in range(weight.dim()) if d != axis], keepdim=True)
