"""From the counts of a step to the metrics of each fake quant, on the host, for all at once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from qatexplorer.quantizers.facts import untouched
from qatexplorer.runs.samples import (
    METRIC_INDEX,
    METRICS,
    Array,
    Bins,
    Counts,
    FakeQuantInfo,
    StepSamples,
    rounded,
)
from qatexplorer.telemetry import collect as c
from qatexplorer.telemetry import probe as p
from qatexplorer.telemetry.collect import RawSamples

MAX_SQNR_DB = 144.0
"""24 bits of float32: a smaller error cannot be told from none."""

LEAST_PER_CHANNEL = 8
"""A channel that fewer values were taken of is not called dead."""

_M = METRIC_INDEX


def step_samples(
    step: int,
    raws: Sequence[RawSamples],
    infos: Sequence[FakeQuantInfo],
    observing: Sequence[bool],
    bins: Mapping[tuple[int, int], Bins],
) -> StepSamples:
    """The samples of ``raws``, whose tensors are on the host. ``observing``: whether the observer
    of each is on."""
    numbers = {info.path: index for index, info in enumerate(infos)}
    metrics = np.full((len(infos), len(METRICS)), math.nan)
    counts: dict[int, Counts] = {}
    channels: dict[int, Array] = {}
    for raw in raws:
        rows = np.array([numbers[probe.watched.info.path] for probe in raw.probes])
        on = np.array([observing[row] for row in rows])
        found = np.full((len(rows), len(METRICS)), math.nan)
        with np.errstate(all="ignore"):
            table = raw.table.numpy()
            starts = np.cumsum([0, *raw.grids[:-1]])
            _grids(found, table, starts, raw)
            valued = bool(raw.sampled)
            if valued:
                grids = [bins[(infos[r].quant_min, infos[r].quant_max)] for r in rows]
                sums = raw.sums.numpy().astype(np.float64)
                _values(found, sums, raw)
                for index, item in enumerate(_counted(found, sums, raw, grids)):
                    counts[int(rows[index])] = item
                _dead(found, raw)
                weights = raw.flips.shape[1]
                found[:weights, _M["flipped"]] = raw.flips[0].numpy()
                found[:weights, _M["oscillating"]] = raw.flips[1].numpy()
            _ranges(found, table, starts, raw, on)
        metrics[rows] = found
        _split_channels(channels, table, starts, raw, rows)
    return StepSamples(step, rounded(metrics), counts, channels)


def _grids(found: Array, table: Array, starts: Array, raw: RawSamples) -> None:
    scale = table[p.SCALE]
    found[:, _M["scale_min"]] = np.minimum.reduceat(scale, starts)
    found[:, _M["scale_max"]] = np.maximum.reduceat(scale, starts)
    found[:, _M["scale_median"]] = found[:, _M["scale_min"]]
    for index, (start, width) in enumerate(zip(starts, raw.grids, strict=True)):
        if found[index, _M["scale_min"]] != found[index, _M["scale_max"]]:
            middle = np.sort(scale[start : start + width])[width // 2]
            found[index, _M["scale_median"]] = middle
    low = np.minimum.reduceat(table[p.ZERO_POINT], starts)
    high = np.maximum.reduceat(table[p.ZERO_POINT], starts)
    found[:, _M["zero_point"]] = np.where(low == high, low, math.nan)
    least = np.minimum.reduceat(table[p.NEW_MIN], starts)
    most = np.maximum.reduceat(table[p.NEW_MAX], starts)
    seen = np.isfinite(least) & np.isfinite(most) & ~untouched(least, most)
    found[:, _M["min_val"]] = np.where(seen, least, math.nan)
    found[:, _M["max_val"]] = np.where(seen, most, math.nan)


def _values(found: Array, sums: Array, raw: RawSamples) -> None:
    sampled = np.array(raw.sampled, dtype=np.float64)
    found[:, _M["sampled"]] = sampled
    found[:, _M["total"]] = raw.totals
    found[:, _M["zero_share"]] = sums[c.ZEROS] / sampled
    found[:, _M["nonfinite"]] = sums[c.NONFINITE] / sampled
    signal, noise = sums[c.SIGNAL], sums[c.NOISE]
    ratio = 10 * np.log10(signal / noise)
    found[:, _M["sqnr_db"]] = np.where(signal > 0, np.minimum(ratio, MAX_SQNR_DB), math.nan)
    some = sums[c.LOW] <= sums[c.HIGH]
    found[:, _M["batch_min"]] = np.where(some, sums[c.LOW], math.nan)
    found[:, _M["batch_max"]] = np.where(some, sums[c.HIGH], math.nan)


def _counted(found: Array, sums: Array, raw: RawSamples, grids: Sequence[Bins]) -> list[Counts]:
    table = raw.counts.numpy()
    sampled = np.array(raw.sampled, dtype=np.float64)
    used_all = np.zeros(len(grids), dtype=np.int64)
    first = 0
    while first < len(grids):
        grid, stop = grids[first], first
        while stop < len(grids) and grids[stop] == grid:
            stop += 1
        tail, last = grid.inner
        rows = slice(first, stop)
        low, high = table[rows, :tail].sum(1), table[rows, last : grid.count].sum(1)
        inner = table[rows, tail:last]
        used = np.count_nonzero(inner, axis=1)
        # What is clipped is rounded to the outermost codes, which are then used too.
        used = used + ((low > 0) & (inner[:, 0] == 0)) + ((high > 0) & (inner[:, -1] == 0))
        found[rows, _M["clipped_low"]] = low / sampled[rows]
        found[rows, _M["clipped_high"]] = high / sampled[rows]
        found[rows, _M["codes_used"]] = used / (grid.quant_max - grid.quant_min + 1)
        used_all[rows] = used
        first = stop
    kept = table.astype(np.uint16 if max(raw.sampled) < 65_536 else np.uint32)
    zeros, off_grid = sums[c.ZEROS].astype(int), sums[c.OFF_GRID].astype(int)
    return [
        Counts(
            first=0,
            counts=kept[index, : grid.count],
            zeros=int(zeros[index]),
            off_grid=int(off_grid[index]),
            codes_used=int(used_all[index]),
        )
        for index, grid in enumerate(grids)
    ]


def _dead(found: Array, raw: RawSamples) -> None:
    starts = np.cumsum([0, *raw.channels[:-1]])
    enough = raw.channel_seen.numpy() >= LEAST_PER_CHANNEL
    dead = enough & (raw.alive.numpy() == 0)
    several = np.array(raw.channels) > 1
    for name, flags in (("channels_seen", enough), ("dead_channels", dead)):
        sums = np.add.reduceat(flags.astype(np.float64), starts)
        found[:, _M[name]] = np.where(several, sums, math.nan)


def _ranges(found: Array, table: Array, starts: Array, raw: RawSamples, on: Array) -> None:
    """Range of the batch, read back from the moving average, and how far it lies from it."""
    constants = [probe.watched.averaging_constant or math.nan for probe in raw.probes]
    constant = np.repeat(np.where(on, constants, math.nan), raw.grids)
    ends = []
    for old, new in ((p.OLD_MIN, p.NEW_MIN), (p.OLD_MAX, p.NEW_MAX)):
        before, after = table[old].astype(np.float64), table[new].astype(np.float64)
        # The first batch is taken as it is.
        batch = np.where(np.isinf(before), after, before + (after - before) / constant)
        ends.append((before, np.where(np.isnan(constant), math.nan, batch)))
    (low, batch_low), (high, batch_high) = ends
    least = np.minimum.reduceat(batch_low, starts)
    most = np.maximum.reduceat(batch_high, starts)
    known = np.isfinite(least) & np.isfinite(most)
    found[known, _M["batch_min"]] = least[known]
    found[known, _M["batch_max"]] = most[known]
    away = np.maximum(np.abs(batch_low - low), np.abs(batch_high - high)) / (high - low)
    away[~np.isfinite(away)] = math.nan
    drift = np.fmax.reduceat(away, starts)
    # With the observer off what was taken is held against the range that stands still.
    sample = np.maximum(
        np.abs(found[:, _M["batch_min"]] - found[:, _M["min_val"]]),
        np.abs(found[:, _M["batch_max"]] - found[:, _M["max_val"]]),
    ) / (found[:, _M["max_val"]] - found[:, _M["min_val"]])
    found[:, _M["drift"]] = np.where(on, drift, sample)
    found[~np.isfinite(found[:, _M["drift"]]), _M["drift"]] = math.nan


def _split_channels(
    channels: dict[int, Array],
    table: Array,
    starts: Array,
    raw: RawSamples,
    rows: Array,
) -> None:
    kept = table[[p.SCALE, p.ZERO_POINT, p.NEW_MIN, p.NEW_MAX]]
    for start, width, row in zip(starts, raw.grids, rows, strict=True):
        channels[int(row)] = kept[:, start : start + width]
