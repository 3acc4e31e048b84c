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
    flags_of,
    has_range,
    is_fake_quant,
    quant_range,
    seen_data,
)

_ELEMENTS = 4_000_000


@dataclass(frozen=True)
class WeightScale:
    """One weight and its two scales.

    Attributes:
        path: of the layer. site: of the fake quant.
        off_by: largest share by which the scale that training rounds with differs from that of
            int8, for the same range. changed: share of the weight's codes that are others in int8.
        clipped: share of the weight that lies past the codes of int8.
        unused: how often the range of int8 is as wide as the weight, the median of its channels.
        channels: how many have a scale of their own, 1 for one scale.
    """

    path: str
    site: str
    off_by: float
    changed: float
    clipped: float
    unused: float
    channels: int


def weight_scales(subject: Subject) -> tuple[WeightScale, ...]:
    """Scales of the weights, in training and in int8.

    Of the model being worked on, if its observers have seen data; else there are none. Nothing
    runs but copies of the fake quants, on the weights.
    """
    if subject.work is None or not subject.observed:
        return ()
    found: list[WeightScale] = []
    for path, module in subject.work.named_modules():
        site: Any = getattr(module, "weight_fake_quant", None)
        weight = getattr(module, "weight", None)
        if not isinstance(site, nn.Module) or not isinstance(weight, Tensor):
            continue
        ready = is_fake_quant(site) and seen_data(site) == "all" and has_range(site)
        if ready and isinstance(getattr(site, "scale", None), Tensor) and weight.numel():
            subject.stop_if_asked()
            found.append(_scales_of(path, site, _as_rounded(module, weight)))
    return tuple(found)


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
def _scales_of(path: str, site: Any, weight: Tensor) -> WeightScale:
    low, high = quant_range(site)
    axis = int(site.ch_axis) if getattr(site, "is_per_channel", False) else None
    twin = copy.deepcopy(site)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        same_range = _along(twin.calculate_qparams()[0], weight, axis)
        if flags_of(site).observer:
            twin(weight)  # so does convert
        scale, zero = (_along(v, weight, axis) for v in twin.calculate_qparams())
    trained = _along(site.scale, weight, axis)
    real = _spread(weight, axis)
    usable = real > 0
    off = ((trained - same_range).abs() / same_range)[usable.expand_as(same_range)]
    part = weight.reshape(-1)[:_ELEMENTS] if axis is None else weight
    codes = [torch.clamp(torch.round(part / s + zero), low, high) for s in (trained, same_range)]
    past = (part / scale + zero < low - 0.5) | (part / scale + zero > high + 0.5)
    wide = (scale * (high - low) / 2)[usable.expand_as(scale)] / real[usable]
    return WeightScale(
        path,
        f"{path}.weight_fake_quant",
        float(off.max()) if off.numel() else 0.0,
        float((codes[0] != codes[1]).float().mean()),
        float(past.float().mean()),
        float(wide.median()) if wide.numel() else 1.0,
        int(same_range.numel()),
    )


def _along(values: Tensor, weight: Tensor, axis: int | None) -> Tensor:
    """One value a channel, shaped so that it meets its channel; on the weight's device."""
    values = values.to(weight.device)
    if axis is None:
        return values.reshape(1).float()
    return values.reshape([-1 if d == axis else 1 for d in range(weight.dim())]).float()


def _spread(weight: Tensor, axis: int | None) -> Tensor:
    """Largest size of a value, of each channel or of all."""
    if axis is None:
        return weight.abs().amax().reshape(1)
    others = [d for d in range(weight.dim()) if d != axis]
    return weight.abs().amax(dim=others, keepdim=True) if others else weight.abs()
