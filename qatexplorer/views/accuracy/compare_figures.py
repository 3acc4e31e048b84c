"""Plotly figures of a comparison: error along the depth, values of one place, and channels.

A point stands for a row: its ``ids`` (of a heat map its ``customdata``) have the row's key, so that
a click can choose it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import plotly.graph_objects as go

from qatexplorer.accuracy.records import CompareRow, Comparison, Scatter
from qatexplorer.views.accuracy.compare_table import DASH, key_of, name_of, sorted_db
from qatexplorer.views.common.names import count, number
from qatexplorer.views.common.theme import (
    Table,
    Theme,
    ThemeName,
    make_figure,
    see_through,
    short,
    theme_of,
)

MAX_ROWS = 16
MAX_POINTS = 2000
MAX_PLACES = 40
MAX_CELLS = 64

# Label, field, symbol of the points, dash of the line; the colour is that of the position.
_Curve = tuple[str, str, str, str]


def _curves(comparison: Comparison) -> tuple[_Curve, ...]:
    return (
        (comparison.form, "sqnr_int8_db", "circle", "solid"),
        ("fake quant, all on", "sqnr_fake_quant_db", "diamond", "dash"),
        ("this fake quant alone", "isolated_sqnr_db", "square-open", "dot"),
    )


_ABOVE_DB = 6.0

Point = tuple[int, CompareRow, float]
Pair = tuple[float, float]


def depth_figure(
    comparison: Comparison, chosen: int | None = None, theme: ThemeName | bool = "light"
) -> go.Figure | None:
    """SQNR against float over the position in the forward: of int8, of fake quant with all on, and
    of each fake quant alone. None where no place has one.

    Weights are left out: they stand nowhere along the depth. An infinite SQNR is drawn as a
    triangle above all others. ``chosen`` is the position of a row, marked by a line.
    """
    look = theme_of(theme)
    curves = [_points(comparison, field) for _, field, _, _ in _curves(comparison)]
    values = [value for points in curves for _, _, value in points]
    if not values:
        return None
    finite = [value for value in values if math.isfinite(value)]
    top = max(finite, default=0.0) + _ABOVE_DB
    data = [
        _curve(points, curve, look.series[at], top)
        for at, (points, curve) in enumerate(zip(curves, _curves(comparison), strict=True))
    ]
    shapes = _chosen_line(comparison, chosen, look)
    layout = {
        "xaxis": {"title": "position in the forward", "showgrid": False, "nticks": 8},
        "yaxis": {"title": "SQNR, dB", "nticks": 6},
        "shapes": shapes,
        "margin": {"l": 56, "r": 18, "t": 76, "b": 40},
    }
    infinite = " · △ equal to float" if len(finite) < len(values) else ""
    subtitle = f"SQNR against float, lower is worse{infinite}"
    return make_figure(
        look,
        "Error along the depth",
        subtitle,
        272,
        data,
        layout,
        alt=_depth_alt(comparison, curves),
        table=_depth_table(comparison),
    )


def _points(comparison: Comparison, field: str) -> list[Point]:
    """(position, row, dB) in the order of the forward."""
    found = [
        (at, row, value)
        for at, row in enumerate(comparison.rows)
        if row.kind != "weight"
        and (value := getattr(row, field)) is not None
        and not math.isnan(value)
    ]
    return sorted(found, key=lambda point: (point[1].index, point[0]))


def _curve(
    points: Sequence[Point], curve: tuple[str, str, str, str], colour: str, top: float
) -> dict[str, Any]:
    label, _, symbol, dash = curve
    ends = [not math.isfinite(value) for _, _, value in points]
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": label,
        "x": [row.index for _, row, _ in points],
        "y": [top if math.isinf(v) and v > 0 else v for _, _, v in points],
        "ids": [key_of(at) for at, _, _ in points],
        "customdata": [
            f"{escape(name_of(row))} ({row.kind})<br>{label}: <b>{number(v)} dB</b>"
            for _, row, v in points
        ],
        "hovertemplate": "%{customdata}<extra></extra>",
        "line": {"color": colour, "width": 1.6, "dash": dash},
        "marker": {
            "size": 7,
            "color": colour,
            "symbol": ["triangle-up-open" if end else symbol for end in ends],
        },
    }


def _chosen_line(comparison: Comparison, chosen: int | None, look: Theme) -> list[dict[str, Any]]:
    if chosen is None or comparison.rows[chosen].kind == "weight":
        return []
    at = comparison.rows[chosen].index
    line = {"color": look.fg, "width": 1.5, "dash": "dot"}
    return [{"type": "line", "x0": at, "x1": at, "y0": 0, "y1": 1, "yref": "paper", "line": line}]


def _depth_alt(comparison: Comparison, curves: Sequence[Sequence[Point]]) -> str:
    parts = []
    for points, (label, *_) in zip(curves, _curves(comparison), strict=True):
        if points:
            _, row, value = min(points, key=lambda point: point[2])
            last = number(points[-1][2])
            parts.append(
                f"{label}: {count(len(points), 'place')}, lowest {number(value)} dB at "
                f"{name_of(row)}, {last} dB at the last."
            )
    return " ".join(parts)


def _depth_table(comparison: Comparison) -> Table:
    curves = _curves(comparison)
    known = [row for row in comparison.rows if row.kind != "weight" and sorted_db(row) is not None]
    worst = sorted(known, key=lambda row: sorted_db(row) or 0.0)[:MAX_ROWS]
    rows = [
        (
            name_of(row),
            *(
                DASH if (value := getattr(row, field)) is None else f"{number(value)} dB"
                for _, field, _, _ in curves
            ),
        )
        for row in worst
    ]
    return Table(("place, worst first", *(label for label, *_ in curves)), tuple(rows))


def scatter_of(comparison: Comparison, position: int) -> Scatter | None:
    """The sampled values of the row at ``position``; None where there are none, or where two rows
    have the same path and call, as a module and an output may have."""
    row = comparison.rows[position]
    key = row.path, row.call
    alone = sum((one.path, one.call) == key for one in comparison.rows) == 1
    return comparison.scatter.get(key) if alone else None


def scatter_figure(
    comparison: Comparison, position: int, theme: ThemeName | bool = "light"
) -> go.Figure | None:
    """Values of one place in int8 and fake quant over those in float, with the line where they are
    equal. None where no values were sampled there."""
    sample = scatter_of(comparison, position)
    if sample is None:
        return None
    row, look = comparison.rows[position], theme_of(theme)
    forms = (
        ("fake quant", sample.fake_quant_values, "x-thin", look.series[1]),
        (comparison.form, sample.int8_values, "circle", look.series[0]),
    )
    clouds = [
        _Cloud(name, points, symbol, colour)
        for name, values, symbol, colour in forms
        if (points := _pairs(sample.float_values, values))
    ]
    if not clouds:
        return None
    names = " and ".join(cloud.name for cloud in reversed(clouds))
    every = [pair for cloud in clouds for pair in cloud.points]
    layout = {
        "xaxis": {"title": "float", "nticks": 6},
        "yaxis": {"title": names, "nticks": 6},
        "margin": {"l": 60, "r": 18, "t": 76, "b": 40},
    }
    shown = max(len(cloud.points) for cloud in clouds)
    of = f" of {row.values:,}" if row.values > shown else ""
    subtitle = f"{shown:,}{of} values; on the dashed line they are equal"
    data = [_identity(every, look), *(cloud.trace for cloud in clouds)]
    return make_figure(look, f"Float against {names}: {name_of(row)}", subtitle, 320, data, layout,
                       alt=_scatter_alt(clouds), table=_scatter_table(clouds))  # fmt: skip


@dataclass(frozen=True)
class _Cloud:
    """Pairs (float, form) of one form, and how they are drawn."""

    name: str
    points: Sequence[Pair]
    symbol: str
    colour: str

    @property
    def farthest(self) -> list[Pair]:
        """The pairs, what is farthest from float first."""
        return sorted(self.points, key=lambda pair: -abs(pair[0] - pair[1]))

    @property
    def trace(self) -> dict[str, Any]:
        line = {"width": 1, "color": see_through(self.colour, 0.9)}
        return {
            "type": "scatter",
            "mode": "markers",
            "name": self.name,
            "x": [x for x, _ in self.points],
            "y": [y for _, y in self.points],
            "marker": {
                "size": 6 if self.symbol == "x-thin" else 5,
                "symbol": self.symbol,
                "color": see_through(self.colour, 0.8),
                "line": line if self.symbol == "x-thin" else {"width": 0},
            },
            "hovertemplate": f"float %{{x:.5g}}<br>{self.name} %{{y:.5g}}<extra></extra>",
        }


def _identity(points: Sequence[Pair], look: Theme) -> dict[str, Any]:
    ends = [min(map(min, points)), max(map(max, points))]
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "equal",
        "x": ends,
        "y": ends,
        "line": {"color": look.muted, "width": 1.2, "dash": "dash"},
        "hoverinfo": "skip",
    }


def _pairs(x: Sequence[float], y: Sequence[float]) -> list[Pair]:
    """At most 2000 pairs of finite numbers, picked evenly; none where the lengths differ."""
    if len(x) != len(y):
        return []
    finite = [(a, b) for a, b in zip(x, y, strict=True) if math.isfinite(a) and math.isfinite(b)]
    return finite[:: -(-len(finite) // MAX_POINTS) or 1]


def _scatter_alt(clouds: Sequence[_Cloud]) -> str:
    parts = []
    for cloud in clouds:
        x, y = cloud.farthest[0]
        parts.append(
            f"{cloud.name}: {count(len(cloud.points), 'value')}, the farthest from float is "
            f"{number(y)} for {number(x)}."
        )
    return " ".join(parts)


def _scatter_table(clouds: Sequence[_Cloud]) -> Table:
    rows = [
        (cloud.name, number(x), number(y), number(y - x))
        for cloud in clouds
        for x, y in cloud.farthest[: MAX_ROWS // 2]
    ]
    return Table(("farthest values", "float", "value", "difference"), tuple(rows))


def channels_figure(
    comparison: Comparison,
    chosen: int | None = None,
    theme: ThemeName | bool = "light",
    *,
    activations: bool = False,
) -> go.Figure | None:
    """SQNR of each channel of weights (or ``activations``), a line of cells a place. None where no
    place has channels.

    At most 40 places are drawn, those with the worst channels and ``chosen``. Where a place has
    more than 64 channels, a cell is the worst of some neighbours.
    """
    known = [
        (at, row)
        for at, row in enumerate(comparison.rows)
        if (row.kind != "weight") == activations and any(map(_is_known, row.channels))
    ]
    if not known:
        return None
    look = theme_of(theme)
    worst = sorted(known, key=lambda entry: (entry[0] != chosen, _worst_channel(entry[1])[1]))
    drawn = sorted(worst[:MAX_PLACES])
    width = max(len(row.channels) for _, row in drawn)
    group = -(-width // MAX_CELLS)
    cells = [_cells(row, group) for _, row in drawn]
    finite = [v for line in cells for v, _ in line if v is not None and math.isfinite(v)]
    high = max(finite, default=0.0)
    names = [f"{'▸ ' if at == chosen else ''}{short(name_of(row), 30)}" for at, row in drawn]
    data = [_heat_map(drawn, cells, group, high)]
    layout = {
        "xaxis": {"title": "channel", "showgrid": False, "nticks": 9},
        "yaxis": {
            "autorange": "reversed",
            "showgrid": False,
            "tickvals": list(range(len(drawn))),
            "ticktext": [escape(name) for name in names],
        },
        "margin": {"l": 60, "r": 12, "t": 64, "b": 44},
    }
    more = f"the {MAX_PLACES} worst of {len(known)} places; " if len(known) > MAX_PLACES else ""
    cell = f"; a cell is the worst of {group} neighbours" if group > 1 else ""
    of = ", first sample of each batch" if activations else ""
    subtitle = f"{more}SQNR against float in dB{of}, dark is worse{cell}"
    height = 130 + 20 * max(4, len(drawn))
    return make_figure(look, "Channels", subtitle, height, data, layout,
                       alt=_channels_alt(drawn), table=_channels_table(worst))  # fmt: skip


def _is_known(value: float) -> bool:
    return not math.isnan(value)


def _worst_channel(row: CompareRow) -> tuple[int, float]:
    known = [(value, at) for at, value in enumerate(row.channels) if _is_known(value)]
    value, at = min(known)
    return at, value


def _cells(row: CompareRow, group: int) -> list[tuple[float | None, int]]:
    """The worst SQNR of every ``group`` neighbouring channels, and which channel has it."""
    found: list[tuple[float | None, int]] = []
    for start in range(0, len(row.channels), group):
        part = [
            (value, start + at)
            for at, value in enumerate(row.channels[start : start + group])
            if _is_known(value)
        ]
        found.append(min(part) if part else (None, start))
    return found


def _heat_map(
    drawn: Sequence[tuple[int, CompareRow]],
    cells: Sequence[Sequence[tuple[float | None, int]]],
    group: int,
    high: float,
) -> dict[str, Any]:
    width = max(map(len, cells))
    pad = [None] * width
    return {
        "type": "heatmap",
        # Infinite is the end of the scale; the hover says which it is.
        "z": [([None if v is None else min(v, high) for v, _ in line] + pad)[:width]
              for line in cells],
        "x": [at * group + (group - 1) / 2 for at in range(width)],
        "y": list(range(len(drawn))),
        "text": [
            ([
                f"{escape(name_of(row))}<br>channel {channel}: "
                + ("not known" if v is None else f"<b>{number(v)} dB</b>")
                for v, channel in line
            ] + [""] * width)[:width]
            for (_, row), line in zip(drawn, cells, strict=True)
        ],
        "customdata": [[key_of(at)] * width for at, _ in drawn],
        "hovertemplate": "%{text}<extra></extra>",
        "hoverongaps": False,
        "colorscale": "Cividis",
        "colorbar": {"title": {"text": "dB", "side": "right"}, "thickness": 12, "outlinewidth": 0},
        "ygap": 1,
    }  # fmt: skip


def _channels_alt(drawn: Sequence[tuple[int, CompareRow]]) -> str:
    _, row = min(drawn, key=lambda entry: _worst_channel(entry[1])[1])
    channel, value = _worst_channel(row)
    return (
        f"{count(len(drawn), 'place')} with channels; the worst is channel {channel} of "
        f"{name_of(row)} with {number(value)} dB."
    )


def _channels_table(worst: Sequence[tuple[int, CompareRow]]) -> Table:
    rows = []
    for _, row in worst[:MAX_ROWS]:
        channel, value = _worst_channel(row)
        best = max(filter(_is_known, row.channels))
        rows.append((name_of(row), f"{channel:,}", f"{number(value)} dB", f"{number(best)} dB"))
    return Table(("place", "worst channel", "its SQNR", "best SQNR"), tuple(rows))
