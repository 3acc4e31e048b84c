"""Plotly figures of a ranking of fake quants and of accuracy against size."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from qatexplorer.accuracy.records import Proposal, ProposalPoint, Sensitivity, SensitivityRow
from qatexplorer.evaluate.evaluation import format_size
from qatexplorer.views.common.names import KINDS, count, number
from qatexplorer.views.common.theme import (
    Table,
    Theme,
    ThemeName,
    label,
    make_figure,
    short,
    theme_of,
)
from qatexplorer.views.sensitivity.words import SCORES

MOST_BARS = 24
_BAR, _AROUND = 18, 132
_WIDE = 1e3


def bars_figure(
    found: Sensitivity, theme: ThemeName | bool = "light", selected: str = ""
) -> go.Figure:
    """Score of each fake quant, the worst on top; weights and activations differ in pattern and in
    colour. The bar of ``selected`` (a path) has a border. At most 24, the worst."""
    look = theme_of(theme)
    rows = found.rows[:MOST_BARS]
    logs = _as_logs(rows)
    data = [_bars(rows, kind, look, selected) for kind in ("weight", "activation")]
    more = len(found.rows) - len(rows)
    subtitle = SCORES[found.method] + (f"; {more:,} more in the table" if more else "")
    # The owner says more in less room than the path; positions keep those apart that look alike.
    ticks = [f"{_mark(row)} {short(row.owner or row.path, 30)}" for row in rows]
    layout = {
        "barmode": "overlay",
        "bargap": 0.25,
        "xaxis": {"title": "score", "type": "log" if logs else "linear", "exponentformat": "power"},
        "yaxis": {
            "tickvals": list(range(len(rows))),
            "ticktext": ticks,
            "range": [len(rows) - 0.4, -0.6],
            "showgrid": False,
        },
        "showlegend": True,
    }
    table = Table(
        ("fake quant", "kind", "score"),
        tuple((row.path, row.kind, number(row.score, 3)) for row in rows),
    )
    height = _AROUND + _BAR * max(len(rows), 3)
    return make_figure(
        look, "What each fake quant costs", subtitle, height, data, layout,
        alt=_bars_alt(found), table=table,
    )  # fmt: skip


def _bars(
    rows: tuple[SensitivityRow, ...], kind: str, look: Theme, selected: str
) -> dict[str, Any]:
    mine = [(at, row) for at, row in enumerate(rows) if row.kind == kind]
    site: Any = "weight" if kind == "weight" else "output"
    colour = look.kinds[site]
    return {
        "type": "bar",
        "orientation": "h",
        "width": 0.75,
        "name": f"{KINDS[site].mark} {kind}",
        "y": [at for at, _ in mine],
        "x": [row.score for _, row in mine],
        "customdata": [row.path for _, row in mine],
        "marker": {
            "color": colour,
            "pattern": {
                "shape": "/" if kind == "weight" else "",
                "fgcolor": look.paper,
                "bgcolor": colour,
                "size": 6,
                "solidity": 0.35,
            },
            "line": {
                "color": look.border,
                "width": [3 if row.path == selected else 0 for _, row in mine],
            },
        },
        "hovertemplate": "%{customdata}<br>score %{x:.4g}<extra></extra>",
    }


def _mark(row: SensitivityRow) -> str:
    return KINDS["weight" if row.kind == "weight" else "output"].mark


def _as_logs(rows: tuple[SensitivityRow, ...]) -> bool:
    scores = [row.score for row in rows]
    return bool(scores) and min(scores) > 0 and max(scores) / min(scores) > _WIDE


def _bars_alt(found: Sensitivity) -> str:
    if not found.rows:
        return "No fake quant was measured."
    worst = found.rows[0]
    text = f"{count(len(found.rows), 'fake quant')}. The most costly is {worst.path}"
    text += f", {worst.kind}, score {number(worst.score, 3)}"
    last = found.rows[-1]
    return f"{text}; the least {last.path}, {number(last.score, 3)}."


def curve_figure(
    found: Proposal,
    chosen: ProposalPoint | None = None,
    wished: float | None = None,
    theme: ThemeName | bool = "light",
) -> go.Figure:
    """Metric of each point against the size of its parameters; a dashed line is the wish, a dotted
    one the float model; ``chosen`` is a filled diamond."""
    look = theme_of(theme)
    goal = found.wished if wished is None else wished
    data = _points(found, chosen, look)
    shapes, notes = _lines(found, goal, look)
    layout = {
        "xaxis": {"title": "size of the parameters, kB", "tickformat": ",.3~f"},
        "yaxis": {"title": found.metric_name, "tickformat": ".3~f"},
        "shapes": shapes,
        "annotations": notes,
        "showlegend": True,
    }
    what = "in float" if found.treatment == "float" else f"at {found.treatment} bits"
    table = Table(
        ("modules", found.metric_name, "size", "which"),
        tuple(
            (str(len(p.modules)), number(p.metric), format_size(p.size_bytes), _which(p))
            for p in found.points
        ),
    )
    return make_figure(
        look,
        "Accuracy against size" if found.metric_name == "accuracy" else "Metric against size",
        f"each point has more modules {what}, measured on the fake-quant model",
        340,
        data,
        layout,
        alt=_curve_alt(found, chosen, goal),
        table=table,
    )


def _points(found: Proposal, chosen: ProposalPoint | None, look: Theme) -> list[dict[str, Any]]:
    points = sorted(found.points, key=lambda p: (p.size_bytes, len(p.modules)))
    data: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": "measured",
            "x": [p.size_bytes / 1000 for p in points],
            "y": [p.metric for p in points],
            "customdata": [_which(p) for p in points],
            "line": {"color": look.series[0], "width": 1.5, "dash": "dot"},
            "marker": {"size": 8, "symbol": "circle-open", "color": look.series[0]},
            "hovertemplate": "%{customdata}<br>%{y:.4g} at %{x:,.1f} kB<extra></extra>",
        }
    ]
    if chosen is not None:
        border = {"color": look.border, "width": 1.5}
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": "chosen",
                "x": [chosen.size_bytes / 1000],
                "y": [chosen.metric],
                "customdata": [_which(chosen)],
                "marker": {"size": 15, "symbol": "diamond", "color": look.series[1]}
                | {"line": border},
                "hovertemplate": "chosen: %{customdata}<br>%{y:.4g}<extra></extra>",
            }
        )
    return data


def _lines(
    found: Proposal, wished: float, look: Theme
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    shapes, notes = [], []
    for value, words, dash, colour in (
        (wished, "wished", "dash", look.fg),
        (found.float_metric, "all fake quants off", "dot", look.muted),
    ):
        if value is None or value != value:
            continue
        line = {"color": colour, "width": 1.2, "dash": dash}
        shapes.append(
            {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": value, "y1": value}
            | {"line": line}
        )
        wish = words == "wished"
        notes.append(
            label(
                look, f"{words} {number(value)}", xref="paper", y=value,
                x=0 if wish else 1, xanchor="left" if wish else "right",
                yanchor="top" if wish else "bottom",
            )
        )  # fmt: skip
    return shapes, notes


def _which(point: ProposalPoint) -> str:
    if not point.modules:
        return "everything quantized"
    names = ", ".join(point.modules[:3])
    more = len(point.modules) - 3
    return f"{names} and {more:,} more" if more > 0 else names


def _curve_alt(found: Proposal, chosen: ProposalPoint | None, wished: float) -> str:
    if not found.points:
        return "No point was measured."
    first, last = found.points[0], found.points[-1]
    text = f"{count(len(found.points), 'point')}: {number(first.metric)} with everything quantized"
    if last is not first:
        text += f", {number(last.metric)} with {count(len(last.modules), 'module')} changed"
    text += f". Wished: {number(wished)}. "
    if chosen is None:
        return text + "No point reaches it."
    return text + f"Chosen: {count(len(chosen.modules), 'module')}, {number(chosen.metric)}."
