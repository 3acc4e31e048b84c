"""What rounding to a grid does to a tensor, as a ratio of signal to noise."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from qatexplorer.data import call_model, cloned
from qatexplorer.forward.hooks import hooked
from qatexplorer.forward.preserve import preserved_state
from qatexplorer.forward.sampling import show_once
from qatexplorer.quantizers.facts import (
    Grid,
    find_quantizers,
    freeze_observers,
    grid_of,
    has_grid,
    has_range,
)
from qatexplorer.quantizers.torchao_grids import is_torchao, rounded_by


def decibels(signal: float, noise: float) -> float:
    """``10 log10(signal / noise)`` of two powers; inf without noise, NaN without signal."""
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else math.nan


def sqnr(signal: Tensor, changed: Tensor) -> float:
    """Signal to quantization noise in dB: ``20 log10(|signal| / |signal - changed|)``; inf if
    nothing changed, NaN if there is no signal."""
    # Not every device has float64.
    signal, changed = signal.cpu().double(), changed.cpu().double()
    return decibels(float(signal.norm()) ** 2, float((signal - changed).norm()) ** 2)


def rounded_to(x: Tensor, grid: Grid) -> Tensor:
    """``x`` on ``grid``, by torch's own fake-quantize operation, in float32."""
    x = x.detach().float()
    scale = grid.scale.detach().to(x.device, torch.float32).flatten()
    zero_point = grid.zero_point.detach().to(x.device).flatten()
    if grid.ch_axis is not None and scale.numel() > 1:
        if not zero_point.is_floating_point():
            zero_point = zero_point.to(torch.int32)
        return torch.fake_quantize_per_channel_affine(
            x, scale, zero_point, grid.ch_axis, grid.quant_min, grid.quant_max
        )
    return torch.fake_quantize_per_tensor_affine(
        x, scale[0], zero_point[0].to(torch.int32), grid.quant_min, grid.quant_max
    )


def noise_of(model: nn.Module, inputs: Any) -> dict[str, float]:
    """SQNR in dB of every fake quant that runs in one forward of ``inputs``, by path.

    All values that reach a fake quant, over all its calls, against what its grid makes of them;
    whether its rounding is switched on plays no part. ``inf`` where the grid changes nothing, left
    out where there is no signal or no finite scale. As with
    :func:`~qatexplorer.forward.sampling.histograms_of`, fake quants that have seen no data are
    shown these inputs first, and everything is put back. Raises whatever the forward raises.
    """
    quantizers = find_quantizers(model)
    power: dict[str, list[float]] = {}

    def watch(path: str, module: nn.Module, args: tuple[Any, ...], _kwargs: Any) -> None:
        if args and isinstance(args[0], Tensor) and args[0].is_floating_point():
            x = args[0].detach()
            by_itself = rounded_by(module, x) if is_torchao(module) else None
            changed = rounded_to(x, grid_of(module)) if by_itself is None else by_itself
            changed = changed.cpu().double()
            values = x.cpu().double()
            sums = power.setdefault(path, [0.0, 0.0])
            sums[0] += float(values.square().sum())
            sums[1] += float((values - changed).square().sum())

    with preserved_state(model), torch.no_grad():
        if not all(has_range(module) for module in quantizers.values()):
            show_once(model, inputs)
        freeze_observers(model)
        with hooked(_with_grids(quantizers), running=watch):
            call_model(model, cloned(inputs))
    found = {path: decibels(*sums) for path, sums in power.items() if all(map(math.isfinite, sums))}
    return {path: value for path, value in found.items() if not math.isnan(value)}


def _with_grids(quantizers: Mapping[str, nn.Module]) -> Iterator[tuple[str, nn.Module]]:
    return ((p, m) for p, m in quantizers.items() if has_grid(m) or is_torchao(m))
