"""What rounding does to weights: before, after, and as int8 has them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from qatexplorer.accuracy.records import CompareRow
from qatexplorer.accuracy.spread import Spread, picked
from qatexplorer.accuracy.sums import Apart, InSteps, OneGrid
from qatexplorer.checks.evidence.causes import int8_weight
from qatexplorer.forward.noise import decibels
from qatexplorer.quantizers.facts import Grid, find_quantizers, grid_of, has_grid, kinds_of


class WeightRows:
    """Watches the fake quants of weights in one forward; those that are a part of a module, as in
    an FX graph the others are nodes, which know of no weight in the int8 model.

    A float weight is what its fake quant is given: with a fused batch norm, the weight scaled by
    it, as the int8 layer has it.
    """

    def __init__(self, prepared: nn.Module, int8: nn.Module | None) -> None:
        kinds = kinds_of(prepared)
        self._quantizers = {
            path: module
            for path, module in find_quantizers(prepared).items()
            if kinds.get(path) == "weight" and has_grid(module)
        }
        self._modules = dict(prepared.named_modules(remove_duplicate=False))
        self._int8 = dict(int8.named_modules(remove_duplicate=False)) if int8 is not None else {}
        self._rows: dict[str, CompareRow] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        handles = []

        def hook(path: str) -> Any:
            def called(module: nn.Module, args: Any, result: Any) -> None:
                if path not in self._rows and args and isinstance(args[0], Tensor):
                    self._rows[path] = self._row(path, module, args[0], result)

            return called

        try:
            for path, module in self._quantizers.items():
                handles.append(module.register_forward_hook(hook(path)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def rows(self) -> tuple[CompareRow, ...]:
        return tuple(self._rows.values())

    def _row(self, path: str, quantizer: nn.Module, given: Tensor, result: Tensor) -> CompareRow:
        x, y = (one.detach().cpu().float().contiguous() for one in (given, result))
        grid = grid_of(quantizer)
        owner = path.rpartition(".")[0]
        apart, int8, steps = Apart(), Apart(), InSteps()
        if x.numel():
            apart.add(x.flatten(), y.flatten(), (x - y).flatten())
        weight = int8_weight(self._int8.get(owner))
        if weight is not None and weight.shape == x.shape:
            found = weight.dequantize().contiguous()
            int8.add(x.flatten(), found.flatten(), (x - found).flatten())
            steps.add(((y - found) / _steps_of(weight)).flatten(), 1.0)
        spread, one_grid = Spread(), OneGrid.of(grid)
        if x.numel() and one_grid is not None:
            spread.add(picked(x.flatten()), picked(y.flatten()), one_grid)
        scale = grid.scale.detach().cpu().float().flatten()
        clip = _clipping(x, grid)
        errors = _in_steps(x - y, grid)
        return CompareRow(
            path=path,
            kind="weight",
            type=type(quantizer).__name__,
            owner=owner,
            values=x.numel(),
            sqnr_fake_quant_db=apart.sqnr_db,
            sqnr_int8_db=int8.sqnr_db,
            isolated_sqnr_db=apart.sqnr_db,  # nothing before it is rounded
            cosine_fake_quant=apart.cosine,
            cosine_int8=int8.cosine,
            mean_error_steps=float(errors.mean()) if x.numel() else None,
            max_error_steps=float(errors.max()) if x.numel() else None,
            mean_steps=steps.distance / steps.values if steps.values else None,
            max_steps=steps.largest if steps.values else None,
            agreement=steps.agreement,
            kl=spread.kl,
            clipped=clip[0],
            clipping_error=clip[1],
            rounding_error=apart.noise / x.numel() - clip[1] if x.numel() else None,
            step=float(scale.mean()),
            channels=_channels(x, y, grid),
        )


def weight_rows(prepared: nn.Module, int8: nn.Module | None) -> WeightRows:
    """See :class:`WeightRows`."""
    return WeightRows(prepared, int8)


def _steps_of(weight: Tensor) -> Tensor:
    """Step of the int8 weight's grid, to be computed with its values."""
    if weight.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        return torch.tensor(weight.q_scale())
    shape = [1] * weight.dim()
    shape[weight.q_per_channel_axis()] = -1
    return weight.q_per_channel_scales().float().reshape(shape)


def _along(values: Tensor, x: Tensor, grid: Grid) -> Tensor:
    """A value per channel (or one), to be computed with ``x``."""
    values = values.detach().cpu().float().flatten()
    if values.numel() == 1 or grid.ch_axis is None:
        return values[:1].reshape([1] * x.dim())
    shape = [1] * x.dim()
    shape[grid.ch_axis] = -1
    return values.reshape(shape)


def _in_steps(gap: Tensor, grid: Grid) -> Tensor:
    return gap.abs() / _along(grid.scale, gap, grid)


def _clipping(x: Tensor, grid: Grid) -> tuple[float, float]:
    """(share of values that are rounded to a code outside of the grid, mean of (x - clip(x))²)."""
    if not x.numel():
        return 0.0, 0.0
    scale, zero = _along(grid.scale, x, grid), _along(grid.zero_point, x, grid)
    codes = (x * scale.reciprocal()).round() + zero
    outside = (codes < grid.quant_min) | (codes > grid.quant_max)
    low, high = (grid.quant_min - zero) * scale, (grid.quant_max - zero) * scale
    cut = x - torch.minimum(torch.maximum(x, low), high)
    return float(outside.float().mean()), float(cut.double().square().mean())


def _channels(x: Tensor, y: Tensor, grid: Grid) -> tuple[float, ...]:
    """SQNR of each output channel, dB."""
    axis = grid.ch_axis if grid.ch_axis is not None else 0
    if x.dim() < 2:
        return ()
    rows = x.double().movedim(axis, 0).flatten(1), (x - y).double().movedim(axis, 0).flatten(1)
    signal, noise = (row.square().sum(1).tolist() for row in rows)
    return tuple(decibels(s, n) for s, n in zip(signal, noise, strict=True))
