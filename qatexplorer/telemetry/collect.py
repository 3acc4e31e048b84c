"""From the samples of all fake quants of a step to their counts, in a few operations for all.

Sampling a small net costs what its calls cost, not what its numbers cost, so the fake quants of a
step are put side by side and counted together. Everything here runs on the device of the values and
synchronises nothing there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from qatexplorer.forward.histograms import MAX_BINS
from qatexplorer.runs.samples import Bins, FakeQuantInfo
from qatexplorer.telemetry.host import on_device, per_segment
from qatexplorer.telemetry.oscillation import FlipTracker
from qatexplorer.telemetry.probe import SCALE, ZERO_POINT, Probe

# Rows of ``RawSamples.sums``.
ZEROS, SIGNAL, NOISE, LOW, HIGH, NONFINITE, OFF_GRID = range(7)


@dataclass
class RawSamples:
    """Numbers of one sampled step, as tensors on the device or (later) on the host.

    Attributes:
        counts: int32, sites × bins; the last bin is for what has no code.
        sums: float32, 7 × sites.
        table: float32, 6 × grids of all sites (one, or one per channel), see
            :class:`~qatexplorer.telemetry.probe.Probe`.
        alive: int32, per channel: sampled values that are not on the code of zero.
        flips: float32, 2 × weights' sites: flipped and oscillating share.

    Of grids alone (:meth:`of_grids`) there are no counts and no sums.
    """

    step: int
    probes: list[Probe]
    sampled: list[int]
    totals: list[int]
    grids: list[int]
    channels: list[int]
    counts: Tensor
    sums: Tensor
    table: Tensor
    alive: Tensor
    channel_seen: Tensor
    flips: Tensor

    @classmethod
    def of_grids(cls, step: int, probes: list[Probe]) -> RawSamples:
        """What is known of fake quants whose values were not seen."""
        none = torch.empty(0)
        table = _table(probes, _table_index(probes))
        grids = [p.grids for p in probes]
        return cls(step, probes, [], [], grids, [], none, none, table, none, none, none)

    def tensors(self) -> dict[str, Tensor]:
        """Everything that has to come to the host."""
        names = ("counts", "sums", "table", "alive", "channel_seen", "flips")
        return {name: getattr(self, name) for name in names}


def _table_index(probes: list[Probe]) -> Tensor:
    """Where the six rows of the table lie in the grids of ``probes``, one after the other."""
    parts, base = [], 0
    for probe in probes:
        parts.append(torch.arange(6 * probe.grids).view(6, -1) + base)
        base += 6 * probe.grids
    return on_device(torch.cat(parts, dim=1), probes[0].device)


def _table(probes: list[Probe], index: Tensor) -> Tensor:
    flat = torch.cat([part for p in probes for part in p.grid_parts()]).float()
    return flat.index_select(0, index.reshape(-1)).view(6, -1)


class Collector:
    """Counts the samples of the probes of one device together.

    ``bins`` is the number of bins on the grid; tails come on top.
    """

    def __init__(self, bins: int = MAX_BINS) -> None:
        self._bins_wanted = bins
        self._bins: dict[tuple[int, int], Bins] = {}
        self._key: Any = None
        self._flips = FlipTracker()

    def bins_of(self, info: FakeQuantInfo) -> Bins:
        grid = (info.quant_min, info.quant_max)
        if grid not in self._bins:
            self._bins[grid] = Bins.of(*grid, self._bins_wanted)
        return self._bins[grid]

    @torch.no_grad()
    def count(self, step: int, probes: list[Probe]) -> RawSamples:
        """The numbers of what ``probes`` (sorted as the fake quants are) took. None is empty."""
        self._lay_out(probes)
        values = torch.cat([p.values for p in probes])
        table = _table(probes, self._table_index)
        scale = table[SCALE].index_select(0, self._grid)
        zero = table[ZERO_POINT].index_select(0, self._grid)
        # The fused kernel multiplies by the inverse; dividing would differ at the borders.
        inverse = table[SCALE].reciprocal().index_select(0, self._grid)
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
        for rows, bins in self._groups:
            codes[rows].clamp_(bins.quant_min, bins.quant_max)
        error = (codes - zero).mul_(scale).sub_(values)
        if bad is not None:
            error.masked_fill_(bad, 0.0)
        sums = self._sums(values, error, infinite, bad)
        living = torch.ne(
            codes, zero.round() if self._fractional else zero, out=torch.empty_like(self._ones)
        )
        alive = torch.zeros_like(self._channel_seen).index_add_(0, self._channel, living)
        flips = self._flips.update(
            codes[: self._weight_values], self._weight_parts, self._weight_indices
        )
        return RawSamples(
            step=step,
            probes=probes,
            sampled=[p.draw.count for p in probes],
            totals=[p.draw.numel for p in probes],
            grids=[p.grids for p in probes],
            channels=[p.draw.channels for p in probes],
            counts=counts,
            sums=sums,
            table=table,
            alive=alive,
            channel_seen=self._channel_seen,
            flips=flips,
        )

    def _lay_out(self, probes: list[Probe]) -> None:
        key = [(id(p), p.draw.version, p.grids) for p in probes]
        if key == self._key:
            return
        self._key = key
        device = probes[0].values.device
        sizes = [p.draw.count for p in probes]
        self._first = [0, *accumulate(sizes)]
        self._offsets = on_device(self._first, device)
        channels = [0, 0]
        grids: tuple[list[Tensor], list[Tensor]] = ([], [])
        for probe in probes:
            count, channel = probe.draw.count, probe.draw.channel
            for index, (own, width) in enumerate(
                (
                    (channel, probe.draw.channels),
                    (channel if probe.grids > 1 else None, probe.grids),
                )
            ):
                base = channels[index]
                grids[index].append(
                    torch.full((count,), base, dtype=torch.int32, device=device)
                    if own is None
                    else own + base
                )
                channels[index] += width
        self._channel, self._grid = (torch.cat(parts) for parts in grids)
        self._ones = torch.ones_like(self._channel)
        seen = torch.zeros(channels[0], dtype=torch.int32, device=device)
        self._channel_seen = seen.index_add_(0, self._channel, self._ones)
        self._table_index = _table_index(probes)
        weights = [p for p in probes if p.watched.info.kind == "weight"]
        self._weight_parts = [(p.watched.info.path, p.draw.count, p.draw.numel) for p in weights]
        self._weight_indices = [p.draw.index for p in weights]
        self._weight_values = self._first[len(weights)]
        self._fractional = any(probe.fractional for probe in probes)
        self._group(probes, sizes, device)

    def _group(self, probes: list[Probe], sizes: list[int], device: torch.device) -> None:
        """Slices of values on one grid, and the first bin of each value's row."""
        bins = [self.bins_of(p.watched.info) for p in probes]
        self._width = max(b.count for b in bins) + 1
        self._groups: list[tuple[slice, Bins]] = []
        first = 0
        for index in range(1, len(bins) + 1):
            if index == len(bins) or bins[index] != bins[first]:
                self._groups.append((slice(self._first[first], self._first[index]), bins[first]))
                first = index
        # The bin of a code is the code, less the first code of the grid, in the row of its site.
        rows = [float(index * self._width - b.first) for index, b in enumerate(bins)]
        repeats = on_device(sizes, device)
        self._row = on_device(rows, device).repeat_interleave(repeats, output_size=self._first[-1])
        self._sites = len(bins)

    @staticmethod
    def _usable(codes: Tensor) -> bool:
        """Whether all are finite; where asking would wait for a device, say no."""
        # NaN and infinity survive the sum, which costs a tenth of asking each value.
        return codes.device.type == "cpu" and math.isfinite(float(codes.sum()))

    def _histogram(self, codes: Tensor, bad: Tensor | None) -> Tensor:
        places = codes.clone()
        for rows, bins in self._groups:
            here = places[rows]
            if bins.fine > 1:
                here.sub_(bins.start).div_(bins.fine, rounding_mode="floor")
            first = bins.first
            here.clamp_(first, first + bins.count - 1)
            if bad is not None:
                here.masked_fill_(bad[rows], first + self._width - 1)
        index = places.add_(self._row).to(torch.int32)
        size = self._sites * self._width
        counts = torch.zeros(size, dtype=torch.int32, device=codes.device)
        return counts.index_add_(0, index, self._ones).view(self._sites, -1)

    def _sums(
        self, values: Tensor, error: Tensor, infinite: Tensor | None, bad: Tensor | None
    ) -> Tensor:
        def per_site(data: Tensor, how: str = "sum") -> Tensor:
            return per_segment(data, self._offsets, how)

        low = high = values
        none = torch.zeros(self._sites, device=values.device)
        infinities = off_grid = none
        if infinite is not None and bad is not None:
            low = values.masked_fill(infinite, math.inf)
            high = values.masked_fill(infinite, -math.inf)
            infinities = per_site(infinite.float())
            off_grid = per_site(bad.float()) - infinities
        zeros = per_site(torch.eq(values, 0.0, out=torch.empty_like(values)))
        least, most = per_site(low, "min"), per_site(high, "max")
        return torch.stack(
            [
                zeros - infinities,
                per_site(values.square_()),
                per_site(error.square_()),
                least,
                most,
                infinities,
                off_grid,
            ]
        )
