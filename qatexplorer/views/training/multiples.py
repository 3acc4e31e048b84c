"""Small multiples of all watched fake quants: for each a number, its course and its histogram.

Plain data for a widget that draws them, computed for all fake quants together: a training waits
for what a page that follows it computes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qatexplorer.views.common.alt import trend
from qatexplorer.views.common.bars import Array, heights, is_crowded
from qatexplorer.views.common.names import KINDS, count, share
from qatexplorer.views.common.theme import short

if TYPE_CHECKING:
    from qatexplorer.runs.samples import Bins, Counts, FakeQuantInfo, StateChange
    from qatexplorer.runs.store import Telemetry

POINTS = 48
BARS = 24
_FULL = 100
_NAME = 28


def _decibels(value: float) -> str:
    return f"{value:.1f} dB"


def _whole(value: float) -> str:
    return f"{value:.0f}"


def _more_or_less(value: float) -> str:
    return f"{'+' if value > 0 else '−' if value < 0 else ''}{share(abs(value))}"


@dataclass(frozen=True)
class Order:
    """What the fake quants are sorted by: the sum of ``metrics``.

    ``write`` gives the newest number as text. With ``from_first`` that number is how far the newest
    lies from the first, as a share of it; its size tells which is the worst.
    """

    words: str
    metrics: tuple[str, ...]
    write: Callable[[float], str] = share
    largest_first: bool = True
    from_zero: bool = True
    from_first: bool = False

    def values(self, telemetry: Telemetry, most: int) -> tuple[list[int], Array]:
        """Steps, and the numbers steps × fake quants."""
        steps, found = telemetry.table(self.metrics[0], most)
        for name in self.metrics[1:]:
            found = found + telemetry.table(name, most)[1]
        return steps, found


ORDERS: dict[str, Order] = {
    "clipped": Order("clipped share", ("clipped_low", "clipped_high")),
    "sqnr": Order("SQNR", ("sqnr_db",), _decibels, largest_first=False, from_zero=False),
    "scale": Order(
        "change of the scale", ("scale_median",), _more_or_less, from_zero=False, from_first=True
    ),
    "drift": Order("drift of the range", ("drift",)),
    "oscillating": Order("oscillating weights", ("oscillating",)),
    "reversals": Order("rate of reversals", ("reversal_rate",)),
    "zeros": Order("share of zeros", ("zero_share",)),
    "dead": Order("dead channels", ("dead_channels",), _whole),
}
"""By name; the first is what a page begins with."""


def multiples(
    telemetry: Telemetry, order: str = "clipped", tensors: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """A dict per fake quant, the worst by ``order`` (of :data:`ORDERS`) first; those without a
    number last. ``tensors`` names what each rounds by its path, where that is known better than
    by the telemetry: torch's FX names say nothing of it.

    - id: the selection; kind, mark, name: short; path;
    - value: the newest number as text; label: all of it in a sentence;
    - line: 0 to 100 over the steps, None where there is no number;
    - bars: 0 to 100, what is clipped below, the grid, what is clipped above; log: whether heights
      are logarithmic;
    - note: what its state is, in short, "" for all on; bad: whether that ruins the converted model.
    """
    chosen = ORDERS[order]
    steps, table = chosen.values(telemetry, POINTS)
    states = _states(telemetry)
    unseen = telemetry.unseen
    _, counted = telemetry.newest_counts()
    names = _names(telemetry.infos, tensors or {})
    found: list[tuple[float, dict[str, Any]]] = []
    for index, info in enumerate(telemetry.infos):
        column = table[:, index]
        known = column[~np.isnan(column)]
        newest = _newest(chosen, known)
        bars, log = _bars(counted.get(index), telemetry.grids[(info.quant_min, info.quant_max)])
        note, said, bad = _state(states.get(info.path, []), info.observes)
        if info.path in unseen:
            note, said = "not seen", f"not seen: {unseen[info.path]}"
        value = "–" if math.isnan(newest) else chosen.write(newest)
        words = f"{info.path}, {KINDS[info.kind].word}: {chosen.words} {value}"
        if len(known) > 1 and not math.isnan(newest):
            words += f", {_course(chosen, known, steps)}"
        row = {
            "id": f"site:{info.path}",
            "path": info.path,
            "name": names[index],
            "kind": info.kind,
            "mark": KINDS[info.kind].mark,
            "value": value,
            "line": _points(column, chosen.from_zero),
            "bars": bars,
            "log": log,
            "note": note,
            "bad": bad,
            "label": f"{words}{'; ' + said if said else ''}",
        }
        size = abs(newest) if chosen.from_first else newest
        key = math.inf if math.isnan(newest) else (-size if chosen.largest_first else size)
        found.append((key, row))
    found.sort(key=lambda entry: entry[0])
    return [row for _, row in found]


def _newest(order: Order, known: Array) -> float:
    if not len(known):
        return math.nan
    if not order.from_first:
        return float(known[-1])
    return float(known[-1] / known[0] - 1) if known[0] > 0 else math.nan


def _course(order: Order, known: Array, steps: list[int]) -> str:
    first, last = float(known[0]), float(known[-1])
    if order.from_first:
        return trend(first, last)
    since = f"at step {steps[0]:,}"
    if order.write(first) == order.write(last):
        return f"as {since}"
    return f"{order.write(first)} {since}"


def _points(column: Array, from_zero: bool) -> list[int | None]:
    known = column[~np.isnan(column)]
    if len(known) < 2:
        return []
    low, high = float(known.min()), float(known.max())
    low = min(0.0, low) if from_zero else low
    scaled = (column - low) / ((high - low) or 1.0) * _FULL
    return [None if math.isnan(v) else round(v) for v in scaled.tolist()]


def _bars(counts: Counts | None, bins: Bins) -> tuple[list[int], bool]:
    """The values below the grid, on it in at most 24 bars, and above it."""
    if counts is None:
        return [], False
    fine = np.zeros(bins.count)
    fine[counts.first : counts.first + len(counts.counts)] = counts.counts
    tail, last = bins.inner
    width = last - tail
    starts = np.arange(min(BARS, width)) * width // min(BARS, width)
    grid = np.add.reduceat(fine[tail:last], starts)
    bars = np.concatenate([[fine[:tail].sum()], grid, [fine[last:].sum()]])
    if not bars.sum():
        return [], False
    log = is_crowded(bars)
    drawn = heights([bars / bars.sum()], log)[0]
    # What is there is seen, however little it is.
    return [max(4, round(v)) if n else 0 for v, n in zip(drawn * _FULL, bars, strict=True)], log


def _states(telemetry: Telemetry) -> Mapping[str, list[StateChange]]:
    found: dict[str, list[StateChange]] = {}
    for change in telemetry.states():
        found.setdefault(change.path, []).append(change)
    return found


def _state(changes: list[StateChange], observes: bool) -> tuple[str, str, bool]:
    """What is to be said of the state, in short and in full, and whether it ruins the converted
    model. What has no observer has none that could be frozen."""
    if not changes:
        return "", "", False
    now = changes[-1]
    forbidden = [change for change in changes if change.forbidden]
    frozen = [
        name
        for name, is_so in (
            ("observer", observes and not now.observer_enabled),
            ("BN", now.bn_frozen),
        )
        if is_so
    ]
    short_parts, parts = [], []
    if forbidden:
        when = "now" if now.forbidden else f"from step {forbidden[-1].step:,}"
        short_parts.append("⚠ off, observer on" if now.forbidden else "⚠ was off, observer on")
        parts.append(f"⚠ {forbidden[-1].mixture} ({when})")
    elif now.mixture:
        short_parts.append("⚠ BN moves")
        parts.append(f"⚠ {now.mixture}")
    elif not now.fake_quant_enabled:
        short_parts.append("off")
    if not now.fake_quant_enabled and not now.forbidden:
        parts.append("fake quant off")
    if frozen:
        short_parts.append(f"frozen: {', '.join(frozen)}")
        parts.append(f"{' and '.join(frozen)} frozen")
    return ", ".join(short_parts), ", ".join(parts), bool(forbidden)


def _names(infos: Sequence[FakeQuantInfo], tensors: Mapping[str, str]) -> list[str]:
    """Short names: what is rounded, where that tells them apart; else the paths."""
    found = []
    for info in infos:
        word = "input at" if info.kind == "input" else f"{KINDS[info.kind].word} of"
        tensor = tensors.get(info.path) or (f"{word} {info.owner}" if info.owner else "")
        found.append(short(tensor, _NAME))
    taken = Counter(found)
    return [
        name if name and taken[name] == 1 else short(info.path, _NAME)
        for name, info in zip(found, infos, strict=True)
    ]


def summary_words(telemetry: Telemetry) -> str:
    """One line for a status bar; what it costs is said beside it."""
    forbidden = {state.path for state in telemetry.states() if state.forbidden}
    text = f"{count(len(telemetry.infos), 'fake quant')} watched"
    if telemetry.unseen:
        text += f", {len(telemetry.unseen)} not seen"
    if forbidden:
        text += f", ⚠ at {len(forbidden)} of them the fake quant was off while its observer moved"
    return text
