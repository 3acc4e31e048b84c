"""Plotly figure of the histograms of one fake quant over the steps, a ridge line for each step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import plotly.graph_objects as go

from qatexplorer.views.common.alt import span, trend
from qatexplorer.views.common.bars import Array, Layout, heights, is_crowded, log_words, shares
from qatexplorer.views.common.names import KINDS, count, number, share
from qatexplorer.views.common.theme import (
    Table,
    Theme,
    ThemeName,
    label,
    make_figure,
    mix,
    see_through,
    short,
    theme_of,
)

if TYPE_CHECKING:
    from qatexplorer.forward.histograms import GridHistogram
    from qatexplorer.runs.samples import FakeQuantInfo
    from qatexplorer.runs.store import Telemetry

MAX_RIDGES = 14
_OVERLAP = 1.7
_BOTH_WAYS = 0.85
_OLDEST = 0.35

Show = Literal["values", "change"]


def picked(steps: Sequence[int], most: int = MAX_RIDGES) -> list[int]:
    """Indices of at most ``most`` of ``steps``, as evenly over them as they lie; the first and the
    newest are among them."""
    if len(steps) <= most:
        return list(range(len(steps)))
    taken = np.asarray(steps)
    wanted = np.linspace(taken[0], taken[-1], most)
    return sorted({int(np.abs(taken - step).argmin()) for step in wanted})


@dataclass(frozen=True)
class Ridge:
    """The histogram of one step. ``bars`` is the share of the values taken in each bar of the
    layout, ``edges`` where they lie on the axis, ``borders`` those of the grid on it."""

    step: int
    histogram: GridHistogram
    bars: Array
    edges: Array
    borders: tuple[float, float]

    @property
    def clipped(self) -> float:
        """Share of the values outside the grid."""
        return self.histogram.clipped_low_share + self.histogram.clipped_high_share


@dataclass(frozen=True)
class Ridges:
    """The ridges of one fake quant, oldest first. ``real`` is whether the axis is in values: it is
    in codes where the channels do not share one grid, and where ridges are compared. ``of`` is how
    many histograms there are to choose from."""

    info: FakeQuantInfo
    rows: tuple[Ridge, ...]
    layout: Layout
    real: bool
    of: int

    @cached_property
    def densities(self) -> list[Array]:
        """Height of the bars before they are drawn: the share of the values for a bar of full
        width. On an axis of values a step with a wider scale has wider bars, and lower ones."""
        widths = self.layout.relative_widths
        scales = [row.histogram.scale or 1.0 if self.real else 1.0 for row in self.rows]
        finest = min(scales)
        return [
            row.bars / widths * (finest / scale)
            for row, scale in zip(self.rows, scales, strict=True)
        ]

    @cached_property
    def log(self) -> bool:
        """Whether one bar would leave nothing of the others to see."""
        return any(is_crowded(row.bars) for row in self.rows)

    @cached_property
    def moved(self) -> float:
        """Share of the values that lie in another bar (of codes) at the newest step than at the
        first: half of the sum of all differences."""
        return 0.5 * float(np.abs(self.rows[-1].bars - self.rows[0].bars).sum())

    @cached_property
    def noise(self) -> float:
        """What :attr:`moved` would be on average if nothing had moved, from the sampling alone; 0
        where every value is taken."""
        one, other = self.rows[0], self.rows[-1]
        per_value = sum(
            1 / row.histogram.sampled
            for row in (one, other)
            if 0 < row.histogram.sampled < row.histogram.total
        )
        mean = (one.bars + other.bars) / 2
        # The mean size of a normal error is sqrt(2 / pi) of its standard deviation.
        spread = np.sqrt(np.clip(mean * (1 - mean), 0, None) * per_value * 2 / math.pi)
        return 0.5 * float(spread.sum())


def ridges_of(telemetry: Telemetry, path: str, show: Show = "values") -> Ridges | None:
    """The ridges to draw, None where no histogram is known yet."""
    found = [(step, h) for step, h in telemetry.histograms(path) if h.edges]
    if not found:
        return None
    chosen = [found[index] for index in picked([step for step, _ in found])]
    layout = Layout.of([h for _, h in chosen])
    real = show == "values" and all(
        h.scale is not None and h.zero_point is not None and h.scale > 0 for _, h in chosen
    )
    rows = []
    for step, histogram in chosen:
        edges = layout.edges
        if real:
            edges = (edges - (histogram.zero_point or 0)) * (histogram.scale or 1.0)
        inside = layout.inside
        borders = (float(edges[inside.start]), float(edges[inside.stop]))
        rows.append(Ridge(step, histogram, shares(histogram, layout), edges, borders))
    return Ridges(telemetry.info(path), tuple(rows), layout, real, len(found))


def ridges_figure(
    telemetry: Telemetry,
    path: str,
    theme: ThemeName | bool = "light",
    show: Show = "values",
    name: str = "",
) -> go.Figure:
    """Histograms of what reaches a fake quant, a line for each of at most 14 steps, the oldest on
    top; paler is older.

    Upright marks are the borders of the grid at that step, and what lies beyond them, in another
    colour and hatched, is clipped. Heights are logarithmic where one bar would leave nothing of
    the others to see; the subtitle says so.

    Args:
        show: ``"values"``, or ``"change"`` for what each step has more or less than the first one,
            on the axis of codes: a weight may hardly move.
        name: what it rounds, for the title; ``""`` takes the path.
    """
    look, info = theme_of(theme), telemetry.info(path)
    ridges = ridges_of(telemetry, path, show)
    title = f"{KINDS[info.kind].mark} {short(name or path, 56)}: values over the steps"
    if ridges is None:
        return _empty(look, title, telemetry.unseen.get(path, ""))
    change = show == "change"
    drawn = _changes(ridges) if change else heights(ridges.densities, ridges.log)
    data = []
    for index, (row, tops) in enumerate(zip(ridges.rows, drawn, strict=True)):
        data += _ridge(ridges, index, row, tops, look, change)
    data.append(_borders(ridges.rows, look))
    number_of = len(ridges.rows)
    top = _BOTH_WAYS if change else _OVERLAP
    data.append(_clipped_axis_trace(ridges.rows))
    low, high = _in_view(ridges)
    layout = {
        "xaxis": {
            "title": _axis_words(ridges, change),
            "range": [low, high],
            "nticks": 8,
            "showgrid": False,
        },
        "yaxis": {
            "title": "step",
            "range": [-(number_of - 1) - (_BOTH_WAYS if change else 0.35), top + 0.1],
            "tickvals": [-index for index in range(number_of)],
            "ticktext": [f"{row.step:,}" for row in ridges.rows],
            "showgrid": False,
        },
        "yaxis2": {
            "title": "clipped",
            "overlaying": "y",
            "side": "right",
            "matches": "y",
            "tickvals": [-index for index in range(number_of)],
            "ticktext": [share(row.clipped) if row.clipped else "none" for row in ridges.rows],
            "showgrid": False,
            "tickfont": {"size": 11, "color": look.clipped},
        },
        "showlegend": False,
        "margin": {"l": 60, "r": 60, "t": 64, "b": 44},
    }
    subtitle = _change_words(ridges) if change else _value_words(telemetry, ridges)
    return make_figure(
        look,
        f"{title}, less those of the first" if change else title,
        subtitle,
        150 + 17 * max(number_of, 6),
        data,
        layout,
        alt=_alt(ridges),
        table=_table(ridges),
    )


def _empty(look: Theme, title: str, why: str) -> go.Figure:
    words = f"not seen: {why}" if why else "no sample yet"
    hidden = {"visible": False}
    note = label(look, short(words, 90), x=0.5, y=0.5, xref="paper", yref="paper")
    layout = {"xaxis": hidden, "yaxis": hidden, "annotations": [note]}
    return make_figure(look, title, words, 160, [], layout)


def _drawn_edge(row: Ridge, end: Literal[0, -1]) -> float:
    """Where the bars of a ridge that hold something begin or end."""
    taken = np.flatnonzero(row.bars)
    return float(row.edges[taken[0]] if end == 0 else row.edges[taken[-1] + 1])


def _changes(ridges: Ridges) -> list[Array]:
    """Difference to the first ridge, the largest of all being 1 or −1."""
    found = [density - ridges.densities[0] for density in ridges.densities]
    most = max(float(np.abs(row).max(initial=0.0)) for row in found)
    return [row / most if most > 0 else row for row in found]


def _ridge(
    ridges: Ridges, index: int, row: Ridge, tops: Array, look: Theme, change: bool
) -> list[dict[str, Any]]:
    """The part on the grid and the two tails outside it."""
    age = index / max(1, len(ridges.rows) - 1)
    full = look.kinds[ridges.info.kind]
    colour = mix(look.paper, full, _OLDEST + (1 - _OLDEST) * age)
    line = mix(colour, look.fg, 0.35)
    size = _BOTH_WAYS if change else _OVERLAP
    inside = ridges.layout.inside
    held = np.flatnonzero(tops if change else row.bars)
    first, stop = (int(held[0]), int(held[-1]) + 1) if len(held) else (0, 0)

    def part(name: str, spans: Sequence[tuple[int, int]], **style: Any) -> dict[str, Any]:
        x: list[float | None] = []
        y: list[float | None] = []
        for start, end in spans:
            if start >= end:
                continue
            if x:
                x.append(None)
                y.append(None)
            x += _rounded([row.edges[start], *np.repeat(row.edges[start : end + 1], 2)[1:-1]])
            x += _rounded([row.edges[end]])
            steps = np.repeat(tops[start:end], 2) * size - index
            y += _rounded([-index, *steps, -index])
        return {
            "type": "scatter",
            "mode": "lines",
            "name": name,
            "x": x,
            "y": y,
            "fill": "toself",
            "hoveron": "fills",
            "hoverinfo": "text",
            "text": _hover(row),
            **style,
        }

    tails = [(first, min(stop, inside.start)), (max(first, inside.stop), stop)]
    return [
        part(
            "on the grid",
            [(max(first, inside.start), min(stop, inside.stop))],
            line={"color": line, "width": 1},
            fillcolor=see_through(colour, 0.55 if change else 0.85),
        ),
        part(
            "clipped",
            tails,
            line={"color": look.clipped, "width": 1.5},
            fillcolor=see_through(look.clipped, 0.35),
            fillpattern={"shape": "/", "size": 5, "solidity": 0.5, "fgcolor": look.clipped},
        ),
    ]


def _rounded(values: Any) -> list[float | None]:
    """Five digits are more than a screen shows, and a third of the bytes."""
    return [float(f"{float(value):.5g}") for value in values]


def _hover(row: Ridge) -> str:
    h = row.histogram
    lines = [
        f"<b>step {row.step:,}</b>",
        f"values {span(h.min, h.max)}",
        f"clipped {share(h.clipped_low_share)} below, {share(h.clipped_high_share)} above",
    ]
    if h.scale is not None:
        lines.append(f"scale {number(h.scale)}")
    return "<br>".join(lines)


def _borders(rows: Sequence[Ridge], look: Theme) -> dict[str, Any]:
    """An upright mark on both borders of each ridge."""
    x: list[float | None] = []
    y: list[float | None] = []
    for index, row in enumerate(rows):
        for border in row.borders:
            x += [*_rounded([border, border]), None]
            y += [-index - 0.12, -index + 0.72, None]
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "borders of the grid",
        "x": x,
        "y": y,
        "hoverinfo": "skip",
        "line": {"color": look.border, "width": 1.5},
    }


def _clipped_axis_trace(rows: Sequence[Ridge]) -> dict[str, Any]:
    """An axis is drawn only where a trace lies on it."""
    y = [-index for index in range(len(rows))]
    return {"type": "scatter", "x": [None] * len(y), "y": y, "yaxis": "y2", "hoverinfo": "skip"}


def _in_view(ridges: Ridges) -> tuple[float, float]:
    """All values and the newest grid. One that no observer has fitted yet may reach far beyond
    both, and would leave a line of all the rest."""
    rows = ridges.rows
    low = min(rows[-1].borders[0], *(_drawn_edge(row, 0) for row in rows))
    high = max(rows[-1].borders[1], *(_drawn_edge(row, -1) for row in rows))
    pad = 0.03 * (high - low or 1.0)
    return low - pad, high + pad


def _axis_words(ridges: Ridges, change: bool) -> str:
    if ridges.real:
        return "value before rounding; | is the border of the grid"
    if change and ridges.info.ch_axis is None:
        return "code; | is the border of the grid"
    return "code, each channel on its own scale; | is the border of the grid"


def _value_words(telemetry: Telemetry, ridges: Ridges) -> str:
    sample = telemetry.sample(ridges.info.path, details=False)
    parts = []
    if sample is not None and sample.sampled > 0:
        parts.append(f"step {sample.step:,}: clipped {share(sample.clipped)}")
        parts.append(f"{share(sample.codes_used)} of codes used")
        if math.isfinite(sample.sqnr_db):
            parts.append(f"SQNR {sample.sqnr_db:.1f} dB")
        parts.append("all values" if sample.bound == 0 else f"± {100 * sample.bound:.1g} %")
    if ridges.log:
        parts.append(log_words(max((r.bars for r in ridges.rows), key=lambda b: float(b.max()))))
    else:
        parts.append("linear heights")
    low, high = _in_view(ridges)
    beyond = sum(row.borders[0] < low or row.borders[1] > high for row in ridges.rows)
    if beyond:
        parts.append(f"the grid of {count(beyond, 'step')} reaches beyond the view")
    if ridges.of > len(ridges.rows):
        parts.append(f"{len(ridges.rows)} of {ridges.of} steps")
    return " · ".join(parts)


def _change_words(ridges: Ridges) -> str:
    if len(ridges.rows) < 2:
        return "one step only: nothing to compare with yet"
    most = max(
        float(np.abs(row.bars - ridges.rows[0].bars).max(initial=0.0)) for row in ridges.rows
    )
    codes = f"{ridges.layout.width} codes" if ridges.layout.width > 1 else "one code"
    text = f"{_moved_words(ridges)} · highest: {share(most)} of the values in a bar of {codes}"
    return f"{text} · up is more than at step {ridges.rows[0].step:,}, down is less"


def _moved_words(ridges: Ridges) -> str:
    text = f"{share(ridges.moved)} of the values lie in another bar than at first"
    if ridges.noise > 0:
        text += f" (sampling alone gives about {share(ridges.noise)})"
    return text


def _alt(ridges: Ridges) -> str:
    info, first, newest = ridges.info, ridges.rows[0], ridges.rows[-1]
    grid = f"codes {number(info.quant_min)} to {number(info.quant_max)}"
    if len(ridges.rows) == 1:
        return (
            f"Histogram of the {KINDS[info.kind].word} at step {first.step:,} on {grid}: values "
            f"{span(first.histogram.min, first.histogram.max)}, {share(first.clipped)} clipped."
        )
    text = (
        f"Histograms of the {KINDS[info.kind].word} at {len(ridges.rows)} steps from "
        f"{first.step:,} to {newest.step:,}, on {grid}. "
        f"Values {span(first.histogram.min, first.histogram.max)} at first, "
        f"{span(newest.histogram.min, newest.histogram.max)} at the newest. "
    )
    one, other = first.histogram.scale, newest.histogram.scale
    if one is not None and other is not None:
        text += f"Scale {trend(one, other)}. "
    return text + (
        f"Clipped {share(first.clipped)} at first, {share(newest.clipped)} at the newest. "
        f"{_moved_words(ridges)}."
    )


def _table(ridges: Ridges) -> Table:
    head = ("step", "smallest", "largest", "quant_min at", "quant_max at", "clipped")
    rows = []
    for row in ridges.rows:
        h = row.histogram
        ends = ("per channel", "per channel")
        if h.scale is not None and h.zero_point is not None:
            ends = (number(h.to_real(h.quant_min)), number(h.to_real(h.quant_max)))
        cells = (f"{row.step:,}", number(h.min), number(h.max), *ends, share(row.clipped))
        rows.append(cells)
    return Table(head, tuple(rows))
