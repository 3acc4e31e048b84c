"""From the samples of all fake quants of a step to their counts, in a few operations for all.

A look at a small net costs what its calls cost, not what its numbers cost, so the sites of a step
are put side by side and counted together. Everything here runs on the device of the values and
synchronises nothing there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from qatexplorer.histograms import MAX_BINS, bin_width
from qatexplorer.telemetry.oscillation import FlipTracker
from qatexplorer.telemetry.probes import SCALE, ZERO_POINT, Probe
from qatexplorer.telemetry.records import SiteInfo

FINE_LEVELS = 4096
_TAIL = 0.5

# Rows of ``RawLook.sums``.
ZEROS, SIGNAL, NOISE, LOW, HIGH, NONFINITE, OFF_GRID = range(7)


@dataclass(frozen=True)
class Bins:
    """Bins of one grid: ``count`` of them, ``width`` codes each, the first from code ``start``.

    ``fine`` is the width that is counted in: one code each up to 4,096 codes.
    """

    quant_min: int
    quant_max: int
    start: int
    width: int
    fine: int
    count: int

    @classmethod
    def of(cls, quant_min: int, quant_max: int, bins: int) -> Bins:
        levels = quant_max - quant_min + 1
        width = bin_width(levels, levels, max(1, bins))
        fine = 1 if levels <= FINE_LEVELS else width
        tail = math.ceil(max(8, int(levels * _TAIL)) / width) * width
        inner = math.ceil(levels / width) * width
        return cls(quant_min, quant_max, quant_min - tail, width, fine, (inner + 2 * tail) // fine)


@dataclass
class RawLook:
    """Numbers of one look at ``infos``, as tensors on the device or (later) on the host.

    Attributes:
        counts: int32, sites × bins; the last bin is for what has no code.
        sums: float32, 7 × sites.
        table: float32, 6 × channels of all sites, see :mod:`~qatexplorer.telemetry.probes`.
        alive: int32, per channel: sampled values that are not on the code of zero.
        flips: float32, 2 × weights' sites: flipped and oscillating share.

    A look at grids alone (:meth:`of_grids`) has no counts and no sums.
    """

    step: int
    probes: list[Probe]
    sampled: list[int]
    totals: list[int]
    channels: list[int]
    counts: Tensor
    sums: Tensor
    table: Tensor
    alive: Tensor
    channel_seen: Tensor
    flips: Tensor

    @classmethod
    def of_grids(cls, step: int, probes: list[Probe]) -> RawLook:
        """What is known of fake quants whose values were not seen."""
        none = torch.empty(0)
        table = torch.cat([p.table for p in probes], dim=1)
        widths = [p.table.shape[1] for p in probes]
        return cls(step, probes, [], [], widths, none, none, table, none, none, none)

    def tensors(self) -> dict[str, Tensor]:
        """Everything that has to come to the host."""
        names = ("counts", "sums", "table", "alive", "channel_seen", "flips")
        return {name: getattr(self, name) for name in names}


class Collector:
    """Counts the samples of the probes of one device together.

    ``bins`` is the number of bins on the grid; tails come on top.
    """

    def __init__(self, bins: int = MAX_BINS) -> None:
        self._bins_wanted = bins
        self._bins: dict[tuple[int, int], Bins] = {}
        self._key: Any = None
        self._flips = FlipTracker()

    def bins_of(self, info: SiteInfo) -> Bins:
        grid = (info.quant_min, info.quant_max)
        if grid not in self._bins:
            self._bins[grid] = Bins.of(*grid, self._bins_wanted)
        return self._bins[grid]

    @torch.no_grad()
    def count(self, step: int, probes: list[Probe]) -> RawLook:
        """The numbers of what ``probes`` (sorted as the targets are) took. None is empty."""
        self._lay_out(probes)
        values = torch.cat([p.values for p in probes])
        table = torch.cat([p.table for p in probes], dim=1)
        scale = table[SCALE].index_select(0, self._channel)
        zero = table[ZERO_POINT].index_select(0, self._channel)
        # The fused kernel multiplies by the inverse; dividing would differ at the borders.
        inverse = table[SCALE].reciprocal().index_select(0, self._channel)
        codes = values * inverse
        usable = self._usable(codes)
        bad: Tensor | None = None
        infinite: Tensor | None = None
        if not usable:
            infinite = ~torch.isfinite(values)
            bad = ~torch.isfinite(codes)
            values.masked_fill_(infinite, 0.0)
            codes.masked_fill_(bad, 0.0)
        if self._fractional:
            # Float zero points are added before rounding, whole ones after it.
            whole = zero.round()
            codes.add_(zero - whole).round_().add_(whole)
        else:
            codes.round_().add_(zero)
        counts = self._histogram(codes, bad)
        inside = codes.clone()
        for rows, _, low, high in self._groups:
            inside[rows].clamp_(low, high)
        error = (inside - zero).mul_(scale).sub_(values)
        if bad is not None:
            error.masked_fill_(bad, 0.0)
        sums = self._sums(values, error, infinite, bad)
        living = (inside != (zero.round() if self._fractional else zero)).to(torch.int32)
        alive = torch.zeros_like(self._channel_seen).index_add_(0, self._channel, living)
        weights = self._weights
        flips = self._flips.update(inside[: self._offsets_list[weights]], self._weight_parts)
        return RawLook(
            step=step,
            probes=probes,
            sampled=[p.draw.count for p in probes],
            totals=[p.draw.numel for p in probes],
            channels=[p.table.shape[1] for p in probes],
            counts=counts,
            sums=sums,
            table=table,
            alive=alive,
            channel_seen=self._channel_seen,
            flips=flips,
        )

    def _lay_out(self, probes: list[Probe]) -> None:
        key = [(p.target.info.path, p.draw.version, p.table.shape[1]) for p in probes]
        if key == self._key:
            return
        self._key = key
        device = probes[0].values.device
        sizes = [p.draw.count for p in probes]
        self._offsets_list = [0]
        for size in sizes:
            self._offsets_list.append(self._offsets_list[-1] + size)
        self._offsets = torch.tensor(self._offsets_list, device=device)
        parts, base = [], 0
        for probe in probes:
            channel = probe.draw.channel
            if channel is None:
                parts.append(
                    torch.full((probe.draw.count,), base, dtype=torch.int32, device=device)
                )
            else:
                parts.append(channel + base)
            base += probe.table.shape[1]
        self._channel = torch.cat(parts)
        ones = torch.ones_like(self._channel)
        seen = torch.zeros(base, dtype=torch.int32, device=device)
        self._channel_seen = seen.index_add_(0, self._channel, ones)
        self._ones = ones
        self._weights = sum(p.target.info.kind == "weight" for p in probes)
        self._weight_parts = [
            (p.target.info.path, p.draw.count, p.draw.numel) for p in probes[: self._weights]
        ]
        modules: list[Any] = [p.target.module for p in probes]
        self._fractional = any(m.zero_point.is_floating_point() for m in modules)
        self._group(probes, sizes, device)

    def _group(self, probes: list[Probe], sizes: list[int], device: torch.device) -> None:
        """Slices of values on one grid, and the first bin of each value's row."""
        bins = [self.bins_of(p.target.info) for p in probes]
        self._width = max(b.count for b in bins) + 1
        self._groups: list[tuple[slice, Bins, int, int]] = []
        first = 0
        for index in range(1, len(bins) + 1):
            if index == len(bins) or bins[index] != bins[first]:
                rows = slice(self._offsets_list[first], self._offsets_list[index])
                b = bins[first]
                self._groups.append((rows, b, b.quant_min, b.quant_max))
                first = index
        firsts = torch.arange(len(bins), device=device, dtype=torch.int32).mul_(self._width)
        repeats = torch.tensor(sizes, device=device)
        self._row = firsts.repeat_interleave(repeats, output_size=self._offsets_list[-1])
        self._sites = len(bins)

    @staticmethod
    def _usable(codes: Tensor) -> bool:
        """Whether all are finite; where asking would wait for a device, say no."""
        # NaN and infinity survive the sum, which costs a tenth of asking each value.
        return codes.device.type == "cpu" and math.isfinite(float(codes.sum()))

    def _histogram(self, codes: Tensor, bad: Tensor | None) -> Tensor:
        local = torch.empty_like(self._row)
        for rows, bins, _, _ in self._groups:
            shifted = codes[rows] - bins.start
            if bins.fine > 1:
                shifted.div_(bins.fine, rounding_mode="floor")
            local[rows] = shifted.clamp_(0, bins.count - 1).to(torch.int32)
        if bad is not None:
            local.masked_fill_(bad, self._width - 1)
        size = self._sites * self._width
        counts = torch.zeros(size, dtype=torch.int32, device=codes.device)
        return counts.index_add_(0, local.add_(self._row), self._ones).view(self._sites, -1)

    def _sums(
        self, values: Tensor, error: Tensor, infinite: Tensor | None, bad: Tensor | None
    ) -> Tensor:
        def per_site(data: Tensor, how: str = "sum") -> Tensor:
            return torch.segment_reduce(data, how, offsets=self._offsets, unsafe=True)

        low = high = values
        none = torch.zeros(self._sites, device=values.device)
        infinities = off_grid = none
        if infinite is not None and bad is not None:
            low = values.masked_fill(infinite, math.inf)
            high = values.masked_fill(infinite, -math.inf)
            infinities = per_site(infinite.float())
            off_grid = per_site(bad.float()) - infinities
        zeros = per_site((values == 0).float())
        return torch.stack(
            [
                zeros - infinities,
                per_site(values * values),
                per_site(error * error),
                per_site(low, "min"),
                per_site(high, "max"),
                infinities,
                off_grid,
            ]
        )
