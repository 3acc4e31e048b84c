"""Plotly figures of a training run: loss and metric curves, scales that move."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, median
from typing import Any

import plotly.graph_objects as go

from qatexplorer.snapshot.records import SiteKind
from qatexplorer.training.records import EpochRecord, History, SiteSample, StepRecord
from qatexplorer.views.names import KINDS, number
from qatexplorer.views.theme import Theme, ThemeName, label, layout, short, theme_of

MAX_POINTS = 600
_SYMBOLS: dict[SiteKind, str] = {"weight": "square", "input": "triangle-up", "output": "circle"}
_DASHES = ("solid", "dash", "dot", "dashdot")
_MARKER_WORDS = {
    "observers frozen": "observers frozen",
    "batch-norm statistics frozen": "BN frozen",
    "stopped": "stopped",
}


def curves_figure(history: History, theme: ThemeName | bool = "light") -> go.Figure:
    """Loss of every step and epoch above, metric of every epoch below, over the steps.

    The float model's metric is a dashed line; dotted lines mark where observers or batch-norm
    statistics were frozen. Beyond 600 steps the line is the mean of neighbouring steps.
    """
    look = theme_of(theme)
    steps, epochs = history.steps, history.epochs
    ends = epoch_ends(steps, epochs)
    figure = go.Figure(
        layout=layout(look, "Training", _curves_subtitle(history, epochs), height=360)
    )
    x, y = thin([s.step + 1 for s in steps], [s.loss for s in steps])
    line = {"color": look.series[0], "width": 1}
    figure.add_scatter(
        x=x, y=y, name="loss per step", mode="lines", line=line, opacity=0.55,
        hovertemplate="step %{x:.0f}<br>loss %{y:.4g}<extra></extra>",
    )  # fmt: skip
    mark = {"size": 7, "symbol": "circle"}
    figure.add_scatter(
        x=ends, y=[e.train_loss for e in epochs], name="mean loss of epoch",
        mode="lines+markers", marker=mark, line={"color": look.series[0], "width": 2},
        hovertemplate="epoch %{customdata}<br>mean loss %{y:.4g}<extra></extra>",
        customdata=[e.epoch + 1 for e in epochs],
    )  # fmt: skip
    name = history.metric_name
    figure.add_scatter(
        x=ends, y=[e.metric for e in epochs], name=f"{name} (fake-quant)", yaxis="y2",
        mode="lines+markers", marker={"size": 8, "symbol": "diamond"},
        line={"color": look.series[1], "width": 2},
        hovertemplate=f"epoch %{{customdata}}<br>{name} %{{y:.4f}}<extra></extra>",
        customdata=[e.epoch + 1 for e in epochs],
    )  # fmt: skip
    last = max([*ends, *(x[-1:]), 1])
    figure.add_scatter(
        x=[0, last], y=[history.baseline] * 2, name=f"{name} of the float model", yaxis="y2",
        mode="lines", line={"color": look.muted, "width": 1.5, "dash": "dash"},
        hovertemplate="float model %{y:.4f}<extra></extra>",
    )  # fmt: skip
    shapes, labels = _markers(history, look)
    figure.update_layout(
        xaxis={"title": "step", "range": [0, last * 1.02], "anchor": "y2", "showgrid": False},
        yaxis={"title": "loss", "domain": [0.54, 1.0], "rangemode": "tozero"},
        yaxis2={"title": name, "domain": [0.0, 0.42], "anchor": "x", "tickformat": ".3~g"},
        shapes=shapes,
        annotations=labels,
        legend={"y": 1.02},
        margin={"t": 84},
    )
    return figure


def _curves_subtitle(history: History, epochs: Sequence[EpochRecord]) -> str:
    done = [e for e in epochs if e.metric is not None]
    if not done:
        return "no epoch is complete yet" if history.steps else "not started"
    newest = done[-1]
    text = f"epoch {newest.epoch + 1}: {history.metric_name} {number(newest.metric or 0.0)}"
    if history.baseline is not None:
        text += f" · float {number(history.baseline)}"
    return text


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
            places.setdefault(marker.step, []).append(_MARKER_WORDS[marker.kind])
    for step, words in places.items():
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
        text = ", ".join(dict.fromkeys(words))
        labels.append(
            label(
                look, text, x=step, y=0.47, yref="paper", yanchor="middle", xanchor="left", xshift=3
            )
        )
    return shapes, labels


def scale_trace_figure(
    samples: Mapping[str, Sequence[SiteSample]],
    kinds: Mapping[str, SiteKind] | None = None,
    theme: ThemeName | bool = "light",
) -> go.Figure:
    """Scale of fake quants over the steps; the median for those per channel.

    Args:
        samples: by path of the fake quant, e.g. ``{p: history.samples(p) for p in picked}``.
        kinds: kind of each path, for colour and symbol.

    One fake quant alone also gets its observed range, below.
    """
    look = theme_of(theme)
    one = len(samples) == 1
    figure = go.Figure(layout=layout(look, _trace_title(samples), _trace_subtitle(samples)))
    for i, (path, taken) in enumerate(samples.items()):
        kind = (kinds or {}).get(path)
        colour = look.kinds[kind] if one and kind else look.series[i % len(look.series)]
        line = {"color": colour, "width": 2, "dash": _DASHES[i // len(look.series) % 4]}
        symbol = _SYMBOLS[kind] if kind else "circle"
        figure.add_scatter(
            x=[s.step for s in taken], y=[_middle(s.scale) for s in taken], line=line,
            mode="lines+markers" if len(taken) <= 60 else "lines",
            marker={"symbol": symbol, "size": 6},
            name=f"{KINDS[kind].mark if kind else ''} {short(path, 40)}".strip(),
            hovertemplate="step %{x}<br>scale %{y:.5g}<extra></extra>",
        )  # fmt: skip
    if one:
        _add_range(figure, next(iter(samples.values())), look)
    figure.update_layout(
        xaxis={"title": "step", "showgrid": False, "anchor": "y2" if one else "y"},
        yaxis={"title": "scale", "domain": [0.56, 1.0] if one else [0.0, 1.0]},
        showlegend=not one,
        height=300,
    )
    if one:
        figure.update_layout(yaxis2={"title": "range", "domain": [0.0, 0.44]})
    return figure


def _add_range(figure: go.Figure, taken: Sequence[SiteSample], look: Theme) -> None:
    seen = [s for s in taken if s.min_val]
    for name, values in (
        ("smallest value", [min(s.min_val) for s in seen]),
        ("largest value", [max(s.max_val) for s in seen]),
    ):
        figure.add_scatter(
            x=[s.step for s in seen], y=values, yaxis="y2", mode="lines", name=name,
            line={"color": look.muted, "width": 1.5},
            fill="tonexty" if name == "largest value" else None, fillcolor=look.faint,
            hovertemplate=f"step %{{x}}<br>{name} %{{y:.5g}}<extra></extra>",
        )  # fmt: skip


def _middle(scale: Sequence[float]) -> float | None:
    return median(scale) if scale else None


def _trace_title(samples: Mapping[str, Sequence[SiteSample]]) -> str:
    return f"{next(iter(samples))}: scale" if len(samples) == 1 else "Scales"


def _trace_subtitle(samples: Mapping[str, Sequence[SiteSample]]) -> str:
    newest = [taken[-1] for taken in samples.values() if taken]
    if not newest:
        return "no samples yet"
    frozen = sum(not s.observer_enabled for s in newest)
    text = f"after step {max(s.step for s in newest):,}"
    return text + (" · observer frozen" if frozen == len(newest) else "")
