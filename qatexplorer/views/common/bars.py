"""Histograms as bars that can be laid beside each other: shares on a grid, and how high to draw
them so that each is seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qatexplorer.forward.histograms import GridHistogram

Array = NDArray[np.float64]

CROWDED = 8.0
"""So many times as high as most others, a bar leaves nothing of them to see."""

DECADES = 5.0
_MOST_BARS, _LEAST_BARS, _VALUES_A_BAR = 96, 24, 24


@dataclass(frozen=True)
class Layout:
    """Bars of ``width`` codes from ``quant_min`` on; the last one of the grid may be narrower, so
    that both borders lie between two bars. ``low`` and ``high`` are how many lie outside it."""

    quant_min: int
    quant_max: int
    width: int
    low: int
    high: int

    @property
    def on_grid(self) -> int:
        return -(-(self.quant_max - self.quant_min + 1) // self.width)

    @property
    def edges(self) -> Array:
        """In codes; one more than there are bars."""
        start, stop = self.quant_min - 0.5, self.quant_max + 0.5
        below = start - self.width * np.arange(self.low, 0, -1)
        inner = start + self.width * np.arange(self.on_grid)
        above = stop + self.width * np.arange(self.high + 1)
        return np.concatenate([below, inner, above])

    @property
    def relative_widths(self) -> Array:
        """Of each bar, 1 for a whole one."""
        return np.asarray(np.diff(self.edges) / self.width)

    @property
    def inside(self) -> slice:
        """The bars on the grid."""
        return slice(self.low, self.low + self.on_grid)

    def place(self, code: float) -> int:
        """Number of the bar of a code, counted from the first on the grid."""
        if code > self.quant_max + 0.5:
            return self.on_grid + math.floor((code - self.quant_max - 0.5) / self.width)
        found = math.floor((code - self.quant_min + 0.5) / self.width)
        return min(found, self.on_grid - 1)

    @classmethod
    def of(cls, histograms: Sequence[GridHistogram], most: int = _MOST_BARS) -> Layout:
        """One for all of ``histograms``, which are on the same grid of codes; at most ``most`` bars
        on the grid, and fewer where there are too few values to fill them."""
        first = histograms[0]
        levels = first.quant_max - first.quant_min + 1
        fewest = min(h.sampled for h in histograms)
        wanted = max(1, min(most, max(_LEAST_BARS, fewest // _VALUES_A_BAR)))
        grid = cls(first.quant_min, first.quant_max, -(-levels // wanted), 0, 0)
        places = [p for h in histograms for p, count in placed(h, grid) if count]
        low = max(0, -min(places, default=0))
        high = max(0, max(places, default=0) - grid.on_grid + 1)
        return cls(grid.quant_min, grid.quant_max, grid.width, low, high)


def placed(histogram: GridHistogram, layout: Layout) -> list[tuple[int, int]]:
    """(number of the bar, values) of each bin."""
    edges, last = histogram.edges, len(histogram.counts) - 1
    width = edges[2] - edges[1] if last > 1 else 1.0
    found = []
    for index, count in enumerate(histogram.counts):
        # The outer edges are the extremes; where such a bin lies its inner edge tells.
        middle = edges[1] - width / 2 if index == 0 and last > 0 else edges[index] + width / 2
        found.append((layout.place(middle), count))
    return found


def shares(histogram: GridHistogram, layout: Layout) -> Array:
    """Share of the values taken (0 to 1) in each bar of ``layout``."""
    found = np.zeros(layout.low + layout.on_grid + layout.high)
    for number, count in placed(histogram, layout):
        found[min(max(number + layout.low, 0), len(found) - 1)] += count
    return found / max(1, histogram.sampled)


def is_crowded(bars: Sequence[float] | Array) -> bool:
    """Whether one bar is so high that most of the other values are not seen beside it, as that of
    zero after a ReLU."""
    ordered = np.sort(np.asarray(bars, dtype=float))
    others = ordered[:-1]
    total = others.sum()
    if total <= 0:
        return False
    # The bar that the middle one of the other values lies in.
    typical = others[np.searchsorted(np.cumsum(others), total / 2)]
    return bool(ordered[-1] > CROWDED * typical)


def heights(rows: Sequence[Array], log: bool) -> list[Array]:
    """Heights from 0 to 1 of all ``rows`` together; logarithmic over five decades at most."""
    top = max((float(row.max(initial=0.0)) for row in rows), default=0.0)
    if top <= 0:
        return [np.zeros_like(row) for row in rows]
    if not log:
        return [row / top for row in rows]
    least = min(float(row[row > 0].min(initial=top)) for row in rows)
    # Half of the least, so that it is still a bar.
    floor = max(least / 2, top * 10**-DECADES)
    span = math.log10(top / floor)
    return [np.log10(np.maximum(row, floor) / floor) / span for row in rows]


def log_words(bars: Array) -> str:
    """Why heights are logarithmic."""
    return f"log heights, as one bar holds {100 * float(bars.max(initial=0.0)):.0f} % of the values"
