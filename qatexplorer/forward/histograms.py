"""Histograms of tensors on the integer grid that they are quantized to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from qatexplorer.data import call_model
from qatexplorer.errors import InputError
from qatexplorer.forward.hooks import Before, hooked
from qatexplorer.forward.preserve import preserved_state
from qatexplorer.quantizers.facts import freeze_observers, has_codes, on_its_grid, quant_range
from qatexplorer.shown import Shown, at_most

MAX_BINS = 320
"""Enough for one bin per code of an 8-bit grid and its tails."""

_FINE_LEVELS = 4096
_TAIL = 0.5
_FAR = 1e12
_ROWS, _BAR = 16, 40


@dataclass(frozen=True, slots=True, repr=False)
class GridHistogram(Shown):
    """Where the values of a tensor fall on its quantization grid, before they are rounded.

    Bins are whole numbers of codes wide: a bin from 3.5 to 4.5 holds what is rounded to code 4.
    Values outside ``quant_min..quant_max`` are counted where they lie; those further out than
    half the grid are collected in the first or last bin, whose outer edge is the extreme value.

    Attributes:
        edges: bin edges in codes, ``len(counts) + 1`` of them, ascending; empty if no value lies
            on the grid.
        counts: values per bin.
        quant_min, quant_max: smallest and largest code.
        scale, zero_point: of the grid, None if they differ by channel: codes are then the only
            axis that the values share.
        total: elements of the tensor; ``sampled`` of them were taken, evenly spread or at
            random positions; all counts below are of those.
        clipped_low, clipped_high: values that are rounded to a code outside the grid.
        min, max: smallest and largest finite value, in real units; NaN if there is none.
        zeros: values that are exactly 0.
        nonfinite: NaN and infinite values, which are in no bin.
        off_grid: finite values in no bin because the scale is 0, NaN or infinite.
        codes_used: different codes that the values are rounded to, after clamping.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    quant_min: int
    quant_max: int
    scale: float | None
    zero_point: int | None
    total: int
    sampled: int
    clipped_low: int
    clipped_high: int
    min: float
    max: float
    zeros: int
    nonfinite: int = 0
    off_grid: int = 0
    codes_used: int = 0

    @property
    def clipped_low_share(self) -> float:
        """Share (0 to 1) of the sampled values below the grid."""
        return self.clipped_low / self.sampled if self.sampled else 0.0

    @property
    def clipped_high_share(self) -> float:
        """Share (0 to 1) of the sampled values above the grid."""
        return self.clipped_high / self.sampled if self.sampled else 0.0

    @property
    def note(self) -> str:
        """Why there are no bins, or what is left out of them; empty when nothing is."""
        if not self.total:
            return "The tensor is empty."
        parts = []
        if self.off_grid:
            parts.append(f"{self.off_grid:,} values have no grid: their scale is 0 or not finite.")
        if self.nonfinite:
            parts.append(f"{self.nonfinite:,} values are NaN or infinite.")
        return " ".join(parts)

    def to_real(self, code: float) -> float:
        """Real value of a code. Raises ValueError if the grid differs by channel."""
        if self.scale is None or self.zero_point is None:
            raise ValueError("scale and zero_point differ by channel; a code has no one value")
        return (code - self.zero_point) * self.scale

    def __repr__(self) -> str:
        grid = f"codes {self.quant_min} to {self.quant_max}"
        if self.scale is not None:
            grid += f", scale {self.scale:.4g}, zero point {self.zero_point}"
        clipped = self.clipped_low_share + self.clipped_high_share
        reach = f"from {self.min:.4g} to {self.max:.4g}, clipped {100 * clipped:.2g} %"
        lines = [
            f"GridHistogram: {self.sampled:,} of {self.total:,} values, {grid}",
            f"{reach}, {self.codes_used} codes used",
        ]
        if self.note:
            lines.append(self.note)
        group = max(1, -(-len(self.counts) // _ROWS))
        rows = [
            (self.edges[start], sum(self.counts[start : start + group]))
            for start in range(0, len(self.counts), group)
        ]
        most = max((count for _, count in rows), default=0)
        lines += [f"{edge:>9.1f} {'█' * -(-_BAR * count // most)}" for edge, count in rows if most]
        return at_most(lines)


def grid_histogram(
    x: Tensor,
    scale: Tensor | float,
    zero_point: Tensor | int,
    quant_min: int,
    quant_max: int,
    ch_axis: int | None = None,
    max_bins: int = MAX_BINS,
    max_samples: int | None = None,
) -> GridHistogram:
    """Histogram of ``x`` on the grid of ``scale`` and ``zero_point``.

    Args:
        x: any shape and real dtype, on any device; it is not changed and not kept.
        scale, zero_point: one number, or with ``ch_axis`` one per slice of ``x`` along it.
        ch_axis: channel axis, None for one grid for the whole tensor.
        max_bins: bins get wider, by whole codes, to stay near this number.
        max_samples: look at about this many values at most, evenly spread; None for all.

    Raises:
        InputError: scale or zero_point do not fit the channel axis, or the grid is empty.
    """
    collector = _Collector(quant_min, quant_max, max_bins, max_samples)
    collector.add(x, scale, zero_point, ch_axis)
    return collector.result()


def capture_histograms(
    model: Module,
    inputs: Any,
    paths: Sequence[str],
    *,
    max_bins: int = MAX_BINS,
    max_samples: int | None = 262_144,
) -> dict[str, GridHistogram]:
    """Histograms of what reaches the fake quants at ``paths`` in one forward of ``inputs``.

    What a fake quant gets is the tensor before it is quantized; for a conv fused with a batch
    norm that is the weight scaled by the batch norm, which no attribute of the module holds. A
    fake quant that runs several times gets one histogram of all its calls; one that does not run
    is left out. A bare observer is shown on the grid of its own ``calculate_qparams``. The model
    runs in the mode it is in, with observers off and without gradients, and is put back exactly,
    see :func:`~qatexplorer.forward.preserve.preserved_state`.

    Raises:
        InputError: there is no fake quant at one of ``paths``.
        Exception: whatever the model's forward raises.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    collectors: dict[str, _Collector] = {}
    with preserved_state(model), torch.no_grad():
        freeze_observers(model)
        for path in paths:
            site = modules.get(path)
            if site is None or not has_codes(site):
                raise InputError(
                    f"there is no fake quant at {path!r}.",
                    where=path,
                    fix="Take the paths from the sites of a snapshot of this very stage.",
                )
            quant_min, quant_max = quant_range(site)
            collectors[path] = _Collector(quant_min, quant_max, max_bins, max_samples)
        sites = [(path, modules[path]) for path in collectors]
        with hooked(sites, running=_collect_into(collectors)):
            call_model(model, inputs)
    return {path: item.result() for path, item in collectors.items() if item.calls}


def _collect_into(collectors: Mapping[str, _Collector]) -> Before:
    def running(path: str, module: Module, args: tuple[Any, ...], _kwargs: Any) -> None:
        if args and isinstance(args[0], Tensor):
            placed = on_its_grid(module, args[0])
            if placed is not None:
                x, grid = placed
                collectors[path].add(x, grid.scale, grid.zero_point, grid.ch_axis)

    return running


class _Collector:
    """Rounded codes of one or more tensors that share a grid, and the counts that go with them."""

    def __init__(
        self, quant_min: int, quant_max: int, max_bins: int, max_samples: int | None
    ) -> None:
        if quant_max < quant_min:
            raise InputError(f"quant_min {quant_min} is above quant_max {quant_max}.")
        self.quant_min, self.quant_max = quant_min, quant_max
        self.max_bins, self.max_samples = max(1, max_bins), max_samples
        self.scale: float | None = None
        self.zero_point: int | None = None
        self.calls = self.total = self.sampled = 0
        self.zeros = self.nonfinite = self.off_grid = 0
        self.min, self.max = math.inf, -math.inf
        self.codes: list[Tensor] = []

    @torch.no_grad()
    def add(
        self, x: Tensor, scale: Tensor | float, zero_point: Tensor | int, ch_axis: int | None
    ) -> None:
        """Count ``x``; its codes are kept as one flat tensor until :meth:`result`."""
        scale = torch.as_tensor(scale, device=x.device).detach().flatten()
        zero_point = torch.as_tensor(zero_point, device=x.device).detach().flatten()
        self.calls += 1
        values, channel = _flat_sample(x.detach(), ch_axis, scale.numel(), self.max_samples)
        self.total += x.numel()
        self.sampled += values.numel()
        if ch_axis is None or scale.numel() == 1:
            self.scale, channel = float(scale[0]), None
            self.zero_point = int(zero_point[0])
        if not values.numel():
            return
        low, high = torch.aminmax(values)
        if not (torch.isfinite(low) and torch.isfinite(high)):
            finite = torch.isfinite(values)
            values = values[finite]
            channel = None if channel is None else channel[finite]
            self.nonfinite += int(finite.numel() - values.numel())
            if not values.numel():
                return
            low, high = torch.aminmax(values)
        self.min, self.max = min(self.min, float(low)), max(self.max, float(high))
        self.zeros += int(values.numel() - torch.count_nonzero(values))
        codes = _codes(values, scale, zero_point, channel)
        if not bool(_usable(scale, values.dtype).all()):
            on_grid = ~torch.isnan(codes)
            self.off_grid += int(on_grid.numel() - on_grid.sum())
            codes = codes[on_grid]
        if codes.numel():
            self.codes.append(codes)

    @torch.no_grad()
    def result(self) -> GridHistogram:
        edges: tuple[float, ...] = ()
        counts: tuple[int, ...] = ()
        low = high = used = 0
        if self.codes:
            codes = self.codes[0] if len(self.codes) == 1 else torch.cat(self.codes)
            edges, counts, low, high, used = self._bins(codes)
        empty = self.min > self.max
        return GridHistogram(
            edges=edges,
            counts=counts,
            quant_min=self.quant_min,
            quant_max=self.quant_max,
            scale=self.scale,
            zero_point=self.zero_point,
            total=self.total,
            sampled=self.sampled,
            clipped_low=low,
            clipped_high=high,
            min=math.nan if empty else self.min,
            max=math.nan if empty else self.max,
            zeros=self.zeros,
            nonfinite=self.nonfinite,
            off_grid=self.off_grid,
            codes_used=used,
        )

    def _bins(self, codes: Tensor) -> tuple[tuple[float, ...], tuple[int, ...], int, int, int]:
        """(edges, counts, clipped low, clipped high, codes used) of finite rounded codes."""
        least, most = (float(v) for v in torch.aminmax(codes))
        if max(-least, most) > _FAR:
            codes = codes.clamp(-_FAR, _FAR)
            least, most = max(least, -_FAR), min(most, _FAR)
        levels = self.quant_max - self.quant_min + 1
        tail = max(8, int(levels * _TAIL))
        first = max(int(least), self.quant_min - tail)
        last = min(int(most), self.quant_max + tail)
        first, last = min(first, self.quant_max), max(last, self.quant_min)
        width = bin_width(levels, last - first + 1, self.max_bins)
        fine = 1 if levels <= _FINE_LEVELS else width
        # Whole bins counted from quant_min, so that the borders of the grid are bin edges too.
        start = self.quant_min + math.floor((first - self.quant_min) / width) * width
        bins = math.ceil((last + 1 - start) / width)
        stop = start + bins * width
        if least < start or most >= stop:
            codes = codes.clamp(start, stop - 1)
        histogram = torch.histc(codes, bins * width // fine, start - 0.5, stop - 0.5).to("cpu")
        fine_counts = histogram.to(torch.int64)
        starts = torch.arange(start, stop, fine)
        inside = (starts >= self.quant_min) & (starts <= self.quant_max)
        low = int(fine_counts[starts < self.quant_min].sum())
        high = int(fine_counts[starts > self.quant_max].sum())
        if fine == 1:
            taken = fine_counts[inside] > 0
            used = int(taken.sum())
            used += int(low > 0 and not self._taken(starts, fine_counts, self.quant_min))
            used += int(high > 0 and not self._taken(starts, fine_counts, self.quant_max))
        else:
            used = int(codes.clamp(self.quant_min, self.quant_max).unique().numel())
        counts = fine_counts.reshape(bins, -1).sum(1).tolist()
        edges = [start - 0.5 + width * index for index in range(bins + 1)]
        edges[0], edges[-1] = min(edges[0], least - 0.5), max(edges[-1], most + 0.5)
        return tuple(edges), tuple(counts), low, high, used

    @staticmethod
    def _taken(starts: Tensor, counts: Tensor, code: int) -> bool:
        return bool((counts[starts == code] > 0).any())


def _usable(scale: Tensor, dtype: torch.dtype) -> Tensor:
    inverse = scale.to(dtype).reciprocal()
    return torch.isfinite(inverse) & (inverse > 0)


def _codes(values: Tensor, scale: Tensor, zero_point: Tensor, channel: Tensor | None) -> Tensor:
    """``round(x / scale) + zero_point`` with torch's own order of operations, not clamped."""
    inverse = scale.to(values.dtype).reciprocal()
    inverse = torch.where(_usable(scale, values.dtype), inverse, torch.nan)
    shift = zero_point.to(values.dtype)
    if channel is not None:
        inverse, shift = inverse[channel], shift[channel]
    else:
        inverse, shift = inverse[0], shift[0]
    if zero_point.is_floating_point():
        return values.mul(inverse).add_(shift).round_()
    return values.mul(inverse).round_().add_(shift)


def _flat_sample(
    x: Tensor, ch_axis: int | None, channels: int, max_samples: int | None
) -> tuple[Tensor, Tensor | None]:
    """Flat float values of ``x``, at most about ``max_samples``, and the channel of each."""
    if x.is_quantized:
        x = x.dequantize()
    axis = None
    if ch_axis is not None and channels != 1:
        if not -x.ndim <= ch_axis < x.ndim or x.shape[ch_axis] != channels:
            raise InputError(
                f"{channels} scales do not fit axis {ch_axis} of a tensor of shape "
                f"{tuple(x.shape)}."
            )
        axis = ch_axis % x.ndim
    # In order of memory, so that a channels-last tensor is flattened without a copy.
    strides = x.stride()
    order = sorted(range(x.ndim), key=lambda dim: -strides[dim])
    flat = x.permute(order).reshape(-1) if x.ndim else x.reshape(-1)
    step = 1
    if max_samples is not None and flat.numel() > max(1, max_samples):
        step = math.ceil(flat.numel() / max(1, max_samples))
        # Coprime to every side, or one column or a few channels would be all that is seen.
        while math.gcd(step, flat.numel()) != 1:
            step += 1
    channel = None
    if axis is not None:
        inner = math.prod(x.shape[dim] for dim in order[order.index(axis) + 1 :])
        index = torch.arange(0, flat.numel(), step, device=x.device)
        channel = index.div_(max(inner, 1), rounding_mode="floor").remainder_(channels)
    values = flat[::step]
    if values.dtype not in (torch.float32, torch.float64):
        values = values.to(torch.float32)
    return values, channel


def bin_width(levels: int, span: int, max_bins: int) -> int:
    """Smallest width in codes that gives about ``max_bins`` bins and divides the grid evenly."""
    least = math.ceil(span / max_bins)
    for width in range(least, min(levels, _FINE_LEVELS, least * 8) + 1):
        if levels % width == 0:
            return width
    return 1 << (least - 1).bit_length() if levels & (levels - 1) == 0 else least
