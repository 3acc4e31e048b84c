"""Plotly figure of a training run: loss and metric curves."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from statistics import fmean
from typing import Any

import plotly.graph_objects as go

from qatexplorer.runs.records import EpochRecord, History, StepRecord
from qatexplorer.views.common.names import number
from qatexplorer.views.common.theme import Table, Theme, ThemeName, label, make_figure, theme_of

MAX_POINTS = 600
MAX_ROWS = 16
_MARKER_WORDS = {
    "observers frozen": "observers frozen",
    "batch-norm statistics frozen": "BN frozen",
    "fake quants off": "fake quants off",
    "fake quants on": "fake quants on",
    "learning rate": "lr",
    "label smoothing": "label smoothing",
    "gradient clipping": "clipping",
    "weight averaging": "EMA",
    "weight dampening": "dampening",
    "weight freezing": "weight freezing",
    "stopped": "stopped",
    "resumed from checkpoint": "resumed",
    "checkpoint failed": "checkpoint failed",
}
MAX_WORDS = 6


def curves_figure(history: History, theme: ThemeName | bool = "light") -> go.Figure:
    """Loss of every step and epoch above, metric of every epoch below, over the steps.

    The float model's metric is a dashed line; dotted lines mark where observers or batch-norm
    statistics were frozen. Beyond 600 steps the line is the mean of neighbouring steps.
    """
    look = theme_of(theme)
    steps, epochs = history.steps, history.epochs
    ends = epoch_ends(steps, epochs)
    x, y = thin([s.step + 1 for s in steps], [s.loss for s in steps])
    last = max([*ends, *(x[-1:]), 1])
    name = history.metric_name
    numbers = [e.epoch + 1 for e in epochs]
    data = [
        _line(x, y, "loss per step", look.series[0], width=1, opacity=0.55,
              hovertemplate="step %{x:.0f}<br>loss %{y:.4g}<extra></extra>"),
        _line(ends, [e.train_loss for e in epochs], "mean loss of epoch", look.series[0],
              mode="lines+markers", marker={"size": 7}, customdata=numbers,
              hovertemplate="epoch %{customdata}<br>mean loss %{y:.4g}<extra></extra>"),
        _line(ends, [e.metric for e in epochs], f"{name} (fake-quant)", look.series[1],
              mode="lines+markers", marker={"size": 8, "symbol": "diamond"}, yaxis="y2",
              customdata=numbers,
              hovertemplate="epoch %{customdata}<br>%{y:.4f}<extra></extra>"),
        _line([0, last], [history.baseline] * 2, f"{name} of the float model", look.muted,
              width=1.5, dash="dash", yaxis="y2",
              hovertemplate="float model %{y:.4f}<extra></extra>"),
    ]  # fmt: skip
    shapes, labels = _markers(history, look)
    layout = {
        "xaxis": {"title": "step", "range": [0, last * 1.02], "anchor": "y2", "showgrid": False},
        "yaxis": {
            "title": "loss",
            "domain": [0.54, 1.0],
            "rangemode": "tozero",
            "tickformat": ".3~g",
        },
        "yaxis2": {
            "title": escape(name),
            "domain": [0.0, 0.42],
            "anchor": "x",
            "tickformat": ".4~g",
            "nticks": 5,
        },
        "shapes": shapes,
        "annotations": labels,
        "margin": {"l": 56, "r": 18, "t": 88, "b": 44},
    }
    return make_figure(
        look,
        "Training",
        _curves_subtitle(history, epochs),
        360,
        data,
        layout,
        alt=_curves_alt(history),
        table=_curves_table(history),
    )


def _line(
    x: Sequence[float],
    y: Sequence[float | None],
    name: str,
    colour: str,
    *,
    width: float = 2,
    dash: str = "solid",
    mode: str = "lines",
    **more: Any,
) -> dict[str, Any]:
    line = {"color": colour, "width": width, "dash": dash}
    known = {"x": list(x), "y": list(y), "name": escape(name), "mode": mode, "line": line}
    return {"type": "scatter", **known, **more}


def _curves_subtitle(history: History, epochs: Sequence[EpochRecord]) -> str:
    done = [e for e in epochs if e.metric is not None]
    if not done:
        return "no epoch is complete yet" if history.steps else "not started"
    newest = done[-1]
    text = f"epoch {newest.epoch + 1}: {history.metric_name} {number(newest.metric or 0.0)}"
    if history.baseline is not None:
        text += f" · float {number(history.baseline)}"
    return text


def _curves_alt(history: History) -> str:
    steps, name = history.steps, history.metric_name
    if not steps:
        return "Not started."
    tenth = max(1, len(steps) // 10)
    first, last = (fmean(s.loss for s in part) for part in (steps[:tenth], steps[-tenth:]))
    text = f"Loss over {steps[-1].step + 1:,} steps: {number(first)} in the first tenth of them, "
    text += f"{number(last)} in the last. "
    known = [(e.metric, e.epoch + 1) for e in history.epochs if e.metric is not None]
    if known:
        best = max(known)
        ends = f"{number(known[0][0])} after epoch {known[0][1]}"
        if len(known) > 1:
            ends += f", {number(known[-1][0])} after epoch {known[-1][1]}"
            ends += f", highest {number(best[0])} after epoch {best[1]}"
        text += f"{name}: {ends}. "
    if history.baseline is not None:
        text += f"Float model: {number(history.baseline)}. "
    places = [m for m in history.markers if m.kind in _MARKER_WORDS]
    marks = "; ".join(
        f"{_MARKER_WORDS[m.kind]} {m.note}".strip() + f" at step {m.step:,}" for m in places[-8:]
    )
    return text + (f"{marks}." if marks else "")


def _curves_table(history: History) -> Table:
    head = ("epoch", "mean loss", history.metric_name, "learning rate")
    group = max(1, -(-len(history.epochs) // MAX_ROWS))
    rows = [
        (
            f"{e.epoch + 1:,}",
            number(e.train_loss),
            number(e.metric) if e.metric is not None else "–",
            number(e.lr),
        )
        for e in history.epochs[::-1][::group][::-1]
    ]
    return Table(head, tuple(rows))


def epoch_ends(steps: Sequence[StepRecord], epochs: Sequence[EpochRecord]) -> list[int]:
    """Number of steps done at the end of each of ``epochs``."""
    last: dict[int, int] = {}
    for step in steps:
        last[step.epoch] = step.step + 1
    return [last.get(e.epoch, 0) for e in epochs]


def thin(
    x: Sequence[float], y: Sequence[float], most: int = MAX_POINTS
) -> tuple[list[float], list[float]]:
    """At most ``most`` points: means of neighbours, so that no loss is left out of sight."""
    group = -(-len(x) // most) or 1
    if group == 1:
        return list(x), list(y)
    starts = range(0, len(x), group)
    return (
        [fmean(x[i : i + group]) for i in starts],
        [fmean(y[i : i + group]) for i in starts],
    )


def _markers(history: History, look: Theme) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    shapes, labels = [], []
    places: dict[int, list[str]] = {}
    for marker in history.markers:
        if marker.kind in _MARKER_WORDS:
            word = f"{_MARKER_WORDS[marker.kind]} {marker.note}".strip()
            places.setdefault(marker.step, []).append(word)
    for index, (step, words) in enumerate(places.items()):
        line = {"color": look.fg, "width": 1, "dash": "dot"}
        shapes.append(
            {
                "type": "line",
                "x0": step,
                "x1": step,
                "y0": 0,
                "y1": 1,
                "yref": "paper",
                "line": line,
            }
        )
        text = ", ".join(list(dict.fromkeys(words))[:MAX_WORDS])
        labels.append(
            label(
                look,
                text,
                x=step,
                # Neighbours' words in turn above and below, so that they do not overlap.
                y=(0.505, 0.455)[index % 2],
                yref="paper",
                yanchor="middle",
                xanchor="left",
                xshift=3,
            )
        )
    return shapes, labels
