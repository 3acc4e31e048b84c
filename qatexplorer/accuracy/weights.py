"""What rounding does to weights: before, after, and as int8 has them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from qatexplorer.accuracy.kept import unwatched
from qatexplorer.accuracy.records import CompareRow
from qatexplorer.accuracy.spread import Spread, picked
from qatexplorer.accuracy.sums import Apart, InSteps, OneGrid, row_decibels, row_squares
from qatexplorer.forward.exported import exported_graph, is_exported, packed_weights
from qatexplorer.forward.hooks import hooked
from qatexplorer.quantizers.facts import Grid, grid_of, has_grid, kinds_of
from qatexplorer.quantizers.integers import int8_weight

_PIECE = 1 << 17


class WeightRows:
    """Watches the fake quants of weights in one forward. Their owner is the module that they are a
    part of; in an FX graph that of a functional layer's weight is the node that takes it.

    A float weight is what its fake quant is given: with a fused batch norm, the weight scaled by
    it, as the int8 layer has it.
    """

    def __init__(self, prepared: nn.Module, int8: nn.Module | None) -> None:
        modules = dict(prepared.named_modules(remove_duplicate=False))
        self._quantizers = {
            path: modules[path]
            for path, kind in kinds_of(prepared).items()
            if kind == "weight" and has_grid(modules[path])
        }
        self._int8 = dict(int8.named_modules(remove_duplicate=False)) if int8 is not None else {}
        self._takers = _takers(prepared) if isinstance(prepared, fx.GraphModule) else {}
        self._packed = _packed(int8) if isinstance(int8, fx.GraphModule) else {}
        if is_exported(prepared):
            assert isinstance(prepared, fx.GraphModule)
            placed = exported_graph(prepared, {})[1]
            self._takers = {path: place.owner for path, place in placed.items()}
            self._packed = packed_weights(int8) if isinstance(int8, fx.GraphModule) else {}
        self._rows: dict[str, CompareRow] = {}
        self._kept = torch.empty(0)

    @contextmanager
    def watching(self) -> Iterator[None]:
        def left(path: str, module: nn.Module, args: Any, _kwargs: Any, result: Any) -> None:
            given = args[0] if args else None
            if path not in self._rows and isinstance(given, Tensor) and given.numel():
                with unwatched():
                    self._rows[path] = self._row(path, module, given, result)

        with hooked(self._quantizers.items(), left=left):
            yield

    def rows(self) -> tuple[CompareRow, ...]:
        return tuple(self._rows.values())

    def _memory(self, x: Tensor) -> Tensor:
        """Of the shape of ``x``, used again for the next weight: new memory costs more than a
        sum."""
        if self._kept.numel() < x.numel():
            self._kept = torch.empty(x.numel())
        return self._kept[: x.numel()].view(x.shape)

    def _row(self, path: str, quantizer: nn.Module, given: Tensor, result: Tensor) -> CompareRow:
        grid = grid_of(quantizer)
        owner = self._takers.get(path, path.rpartition(".")[0])
        layer = self._int8.get(owner)
        weight = self._packed.get(owner)
        if weight is None and layer is not None:
            weight = int8_weight(layer)
        axis = grid.ch_axis if grid.ch_axis is not None else 0
        x, y = _rows(given, axis), _rows(result, axis)
        scale, zero = (_column(one, len(x)) for one in (grid.scale, grid.zero_point))
        sums, signals, noises = _Sums(), [], []
        rows, step = _int8_rows(weight, given.shape, axis) or (None, None)
        for part in _pieces(x):
            gap, scales = self._memory(x[part]), _part(scale, part)
            signal, noise = sums.add(x[part], y[part], scales, gap)
            if rows is not None and step is not None:
                sums.add_int8(x[part], y[part], rows[part], _part(step, part), signal, gap)
            signals.append(signal)
            noises.append(noise)
        fake, int8, steps = sums.fake, sums.int8, sums.steps
        clipped, clipping = _clipping(x, scale, zero, grid)
        spread, one_grid = Spread(), OneGrid.of(grid)
        if one_grid is not None:
            spread.add(picked(x.flatten()), picked(y.flatten()), one_grid)
        return CompareRow(
            path=path,
            kind="weight",
            type=type(quantizer).__name__,
            owner=owner,
            values=x.numel(),
            sqnr_fake_quant_db=fake.sqnr_db,
            sqnr_int8_db=int8.sqnr_db,
            isolated_sqnr_db=fake.sqnr_db,  # nothing before it is rounded
            cosine_fake_quant=fake.cosine,
            cosine_int8=int8.cosine,
            mean_error_steps=sums.distance / x.numel(),
            max_error_steps=sums.largest,
            mean_steps=steps.distance / steps.values if steps.values else None,
            max_steps=steps.largest if steps.values else None,
            agreement=steps.agreement,
            kl=spread.kl,
            clipped=clipped,
            clipping_error=clipping,
            rounding_error=fake.noise / x.numel() - clipping,
            step=float(scale.mean()),
            channels=row_decibels(torch.cat(signals), torch.cat(noises)) if given.dim() > 1 else (),
        )


@dataclass
class _Sums:
    """Over all channels of a weight; ``distance`` and ``largest`` are of |x - y| in steps."""

    fake: Apart = field(default_factory=Apart)
    int8: Apart = field(default_factory=Apart)
    steps: InSteps = field(default_factory=InSteps)
    distance: float = 0.0
    largest: float = 0.0

    def add(self, x: Tensor, y: Tensor, scale: Tensor, gap: Tensor) -> tuple[Tensor, Tensor]:
        """Some rows in float and fake quant; ``gap``, of their shape, is written to. Returns the
        sums of x² and (x - y)² of each row."""
        torch.sub(x, y, out=gap)
        signal, noise = row_squares(x), row_squares(gap)
        self.fake.add_sums(x.numel(), signal, row_squares(y), noise)
        gap.abs_()
        steps = scale.flatten()
        self.distance += float((gap.sum(1) / steps).sum())
        self.largest = float(torch.maximum((gap.amax(1) / steps).max(), x.new_tensor(self.largest)))
        return signal, noise

    def add_int8(
        self, x: Tensor, y: Tensor, z: Tensor, step: Tensor, signal: Tensor, gap: Tensor
    ) -> None:
        """The same rows in int8, whose steps are ``step``."""
        torch.sub(x, z, out=gap)
        self.int8.add_sums(x.numel(), signal, row_squares(z), row_squares(gap))
        self.steps.add(torch.sub(y, z, out=gap).div_(step).flatten(), 1.0)


def _pieces(x: Tensor) -> Iterator[slice]:
    """Rows of ``x`` that stay in the CPU's cache while a dozen sums go over them."""
    rows = max(1, _PIECE // x.shape[1])
    for start in range(0, len(x), rows):
        yield slice(start, start + rows)


def _part(column: Tensor, part: slice) -> Tensor:
    """The numbers of these rows; the one that is for all."""
    return column if len(column) == 1 else column[part]


def _rows(weight: Tensor, axis: int) -> Tensor:
    """A row of float32 numbers for each channel."""
    weight = weight.detach().cpu().float()
    return weight.movedim(axis, 0).flatten(1) if weight.dim() > 1 else weight.reshape(1, -1)


def _column(values: Tensor, rows: int) -> Tensor:
    """A number for each of ``rows`` channels, or one for all, to be computed with them."""
    values = values.detach().cpu().float().flatten()
    return values.reshape(-1, 1) if values.numel() == rows else values[:1].reshape(1, 1)


def _takers(prepared: fx.GraphModule) -> dict[str, str]:
    """Name of the node that takes the result of a fake quant which is a node too."""
    return {
        str(node.target): next(iter(node.users)).name
        for node in prepared.graph.nodes
        if node.op == "call_module" and node.users and node.all_input_nodes[0].op == "get_attr"
    }


def _packed(int8: fx.GraphModule) -> dict[str, Tensor]:
    """The int8 weight that a node takes in a packed form, by the node's name."""
    found: dict[str, Tensor] = {}
    for node in int8.graph.nodes:
        for given in node.all_input_nodes if node.op == "call_function" else ():
            packed = getattr(int8, str(given.target), None) if given.op == "get_attr" else None
            if isinstance(packed, torch.ScriptObject) and hasattr(packed, "unpack"):
                weight = packed.unpack()[0]
                if isinstance(weight, Tensor) and weight.is_quantized:
                    found[node.name] = weight
    return found


def _int8_rows(weight: Tensor | None, shape: torch.Size, axis: int) -> tuple[Tensor, Tensor] | None:
    """Values of an int8 layer's weight as rows, and the step of each; None where there is none."""
    if weight is None or weight.shape != shape:
        return None
    rows = _rows(weight.dequantize(), axis)
    if weight.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        return rows, torch.tensor([[weight.q_scale()]])
    if weight.q_per_channel_axis() != axis:
        return None
    return rows, _column(weight.q_per_channel_scales(), len(rows))


def _clipping(x: Tensor, scale: Tensor, zero: Tensor, grid: Grid) -> tuple[float, float]:
    """(share of values that are rounded to a code outside of the grid, mean of (x - clip(x))²)."""
    low, high = (grid.quant_min - zero) * scale, (grid.quant_max - zero) * scale
    inside = (x.amin(1, keepdim=True) >= low) & (x.amax(1, keepdim=True) <= high)
    if bool(inside.all()):
        return 0.0, 0.0
    rows = inside.flatten().logical_not_().nonzero().flatten()
    part = x[rows]
    low, high, scale, zero = (
        one[rows] if len(one) == len(x) else one for one in (low, high, scale, zero)
    )
    cut = part - torch.clamp(part, low, high)
    # Few are cut off; NumPy finds them in a fraction of torch's time.
    places = torch.from_numpy(np.flatnonzero(cut.numpy()))
    cut = cut.flatten()[places]
    clipping = float(cut.double().square().sum()) / x.numel()
    row = places // part.shape[1]
    steps, zeros = (one.expand(len(part), 1).flatten()[row] for one in (scale, zero))
    codes = (part.flatten()[places] * steps.reciprocal()).round() + zeros
    outside = (codes < grid.quant_min) | (codes > grid.quant_max)
    outside &= cut.abs() > 0.49 * steps  # what is cut off by less is rounded to the last code
    return float(outside.sum()) / x.numel(), clipping
