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

_HALF_A_STEP = 0.5 + 1e-3


@dataclass(frozen=True)
class WeightScale:
    """One weight and its two scales.

    Attributes:
        path: of the layer. site: of the fake quant. codes: how many it rounds to.
        off_by: largest share by which the scale that training rounds with differs from that of
            int8, for the same range. changed: share of the weight that is rounded to a value more
            than half a step of int8 from that of training.
        clipped: share of the weight that lies past the codes of int8.
        reach: how many times as far as the range of int8 its values go: in nine of ten channels
            not as far as ``reach[1]``, in half of them not as far as ``reach[0]``.
    """

    path: str
    site: str
    codes: int
    off_by: float
    changed: float
    clipped: float
    reach: tuple[float, float]


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

    def rounded(scale: Tensor, zero: Tensor) -> Tensor:
        return (torch.clamp(torch.round(weight / scale) + zero, low, high) - zero) * scale

    trained = [_along(value, weight, axis) for value in (site.scale, site.zero_point)]
    twin = copy.deepcopy(site)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        same_range = [_along(value, weight, axis) for value in twin.calculate_qparams()]
        if flags_of(site).observer:
            twin(weight)  # so does convert
        scale, zero = (_along(value, weight, axis) for value in twin.calculate_qparams())
    moved = (rounded(*trained) - rounded(*same_range)).abs() / same_range[0]
    codes = weight / scale + zero
    real = _spread(weight, axis)
    used = real > 0  # what is all zero has no range that it could miss
    off = ((trained[0] - same_range[0]).abs() / same_range[0])[used]
    reach = (real / (scale * (high - low) / 2))[used]
    share = torch.tensor([0.5, 0.9], device=reach.device)
    ends = torch.quantile(reach, share) if len(reach) else torch.ones(2)
    return WeightScale(
        path,
        f"{path}.weight_fake_quant" if path else "weight_fake_quant",
        high - low + 1,
        float(off.max()) if len(off) else 0.0,
        _share(moved > _HALF_A_STEP),
        _share((codes < low - 1) | (codes > high + 1)),
        (float(ends[0]), float(ends[1])),
    )


def _share(hits: Tensor) -> float:
    return float(hits.float().mean())


def _along(values: Tensor, weight: Tensor, axis: int | None) -> Tensor:
    """One value a channel, shaped so that it meets its channel; one for all without channels."""
    values = values.to(weight.device).float()
    shape = [-1 if d == axis else 1 for d in range(weight.dim())]
    return values.reshape(shape) if axis is not None else values.reshape([1] * weight.dim())


def _spread(weight: Tensor, axis: int | None) -> Tensor:
    """Largest size of a value, of each channel or of all, in the shape of :func:`_along`."""
    return weight.abs().amax(dim=[d for d in range(weight.dim()) if d != axis], keepdim=True)
