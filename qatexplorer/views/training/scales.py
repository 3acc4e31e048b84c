"""Plotly figure of one fake quant over the steps: its scale, its range and its grid together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go

from qatexplorer.views.common.alt import span, trend
from qatexplorer.views.common.names import KINDS, count, number, share
from qatexplorer.views.common.theme import (
    Table,
    Theme,
    ThemeName,
    make_figure,
    see_through,
    short,
    theme_of,
)
from qatexplorer.views.training.events import Event, draw_events, draw_mixtures, events_of

if TYPE_CHECKING:
    from qatexplorer.runs.records import Marker
    from qatexplorer.runs.samples import FakeQuantInfo, Sample
    from qatexplorer.runs.store import Telemetry

MOST = 300
_WIDE = 20.0
_ROWS = 12

Values = list[float]


@dataclass(frozen=True)
class Course:
    """Numbers of a fake quant over ``steps``, NaN where there is none.

    ``grid_low`` and ``grid_high`` are the real values of quant_min and quant_max; of the channel
    that reaches farthest where each has a grid of its own. ``quarter_steps`` are those whose
    channels are still known; ``lower`` and ``upper`` are the quartiles of their scales.
    """

    info: FakeQuantInfo
    samples: tuple[Sample, ...]
    grid_low: Values
    grid_high: Values
    quarter_steps: list[int]
    lower: Values
    upper: Values

    @property
    def steps(self) -> list[int]:
        return [sample.step for sample in self.samples]

    @property
    def several(self) -> bool:
        """Whether the scale differs by channel."""
        return any(s.scale_min != s.scale_max for s in self.samples)


def course_of(telemetry: Telemetry, path: str) -> Course:
    """What is known of a fake quant over the steps, of at most 300 of them."""
    info = telemetry.info(path)
    samples = telemetry.samples(path, details=False, most=MOST)
    channels = telemetry.channels(path)
    known = {
        step: ((info.quant_min - np.asarray(c.zero_point)) * np.asarray(c.scale),
               (info.quant_max - np.asarray(c.zero_point)) * np.asarray(c.scale))
        for step, c in channels
    }  # fmt: skip
    low, high = [], []
    for sample in samples:
        if math.isfinite(sample.zero_point):
            low.append((info.quant_min - sample.zero_point) * sample.scale_max)
            high.append((info.quant_max - sample.zero_point) * sample.scale_max)
        else:
            ends = known.get(sample.step)
            low.append(float(np.min(ends[0])) if ends else math.nan)
            high.append(float(np.max(ends[1])) if ends else math.nan)
    steps, lower, upper = [], [], []
    for step, found in channels:
        if len(found.scale) > 1:
            one, three = np.quantile(found.scale, (0.25, 0.75))
            steps.append(step)
            lower.append(float(one))
            upper.append(float(three))
    return Course(info, samples, low, high, steps, lower, upper)


def scales_figure(
    telemetry: Telemetry,
    path: str,
    theme: ThemeName | bool = "light",
    markers: Sequence[Marker] = (),
    name: str = "",
) -> go.Figure:
    """Scale of a fake quant above, its range below, and when something was frozen or switched.

    Scale: the line, per channel the median with a band of the middle half and one of all. Range:
    the observer's as a band, that of each batch as crosses, quant_min and quant_max in real values
    as dashed lines: what lies beyond them is clipped.

    Args:
        markers: of the run, for the exact steps of its freezes.
        name: what it rounds, for the title; ``""`` takes the path.
    """
    look, course = theme_of(theme), course_of(telemetry, path)
    events = events_of(telemetry, path, markers)
    steps = course.steps
    ends = (min([*steps, *(e.step for e in events)], default=0),
            max([*steps, *(e.step for e in events)], default=1))  # fmt: skip
    data = [*_scale_traces(course, look), *_range_traces(course, look)]
    shapes, labels = draw_mixtures(telemetry, path, look)
    if events:
        trace, lines, words = draw_events(events, ends, "y3", look)
        data.append(trace)
        shapes += lines
        labels += words
    layout = _layout(course, bool(events), ends)
    layout |= {"shapes": shapes, "annotations": labels}
    title = f"{KINDS[course.info.kind].mark} {short(name or path, 56)}: scale and range"
    height = 360 if events else 310
    return make_figure(look, title, _words(course), height, data, layout,
                       alt=_alt(course, events), table=_table(course))  # fmt: skip


def _layout(course: Course, with_events: bool, ends: tuple[int, int]) -> dict[str, Any]:
    top = 0.82 if with_events else 1.0
    pad = 0.03 * max(1, ends[1] - ends[0])
    scales = [v for s in course.samples for v in (s.scale_min, s.scale_max) if v > 0]
    wide = bool(scales) and max(scales) > _WIDE * min(scales)
    layout: dict[str, Any] = {
        "xaxis": {
            "title": "step",
            "showgrid": False,
            "anchor": "y2",
            "range": [ends[0] - pad, ends[1] + pad],
            "nticks": 7,
        },
        "yaxis": {
            "title": "scale (log)" if wide else "scale",
            "type": "log" if wide else "linear",
            "domain": [0.62 * top, top],
            "nticks": 5,
            "tickformat": ".3~g",
        },
        "yaxis2": {
            "title": "range",
            "domain": [0.0, 0.54 * top],
            "nticks": 6,
            **_range_in_view(course),
        },
        "showlegend": False,
        "margin": {"l": 64, "r": 18, "t": 60, "b": 44},
    }
    if with_events:
        hidden = {"visible": False, "range": [0, 1], "fixedrange": True}
        layout["yaxis3"] = {"domain": [0.85, 1.0], **hidden}
    return layout


def _range_in_view(course: Course) -> dict[str, Any]:
    """Of the axis: all values, and the grid as far as it is of their size. A grid that no observer
    has fitted yet reaches far beyond them, and would leave a line of all the rest."""
    values = [
        v
        for s in course.samples
        for v in (s.min_val, s.max_val, s.batch_min, s.batch_max)
        if math.isfinite(v)
    ]
    ends = [v for v in (*course.grid_low, *course.grid_high) if math.isfinite(v)]
    if not values or max(values) <= min(values):
        return {}
    size = max(values) - min(values)
    low, high = min(values) - size, max(values) + size
    values += [v for v in ends if low <= v <= high]
    pad = 0.06 * (max(values) - min(values))
    return {"range": [min(values) - pad, max(values) + pad]}


def _line(
    name: str, steps: Sequence[int], values: Sequence[float], colour: str, **more: Any
) -> dict[str, Any]:
    known = [v if math.isfinite(v) else None for v in values]
    few = len(steps) <= 3 and "mode" not in more
    return {
        "type": "scatter",
        "x": list(steps),
        "y": known,
        "name": name,
        "mode": "lines+markers" if few else "lines",
        "line": {"color": colour, "width": 2},
        "marker": {"size": 6, "color": colour},
        "hovertemplate": f"step %{{x}}<br>{name} %{{y:.5g}}<extra></extra>",
        **more,
    }


def _scale_traces(course: Course, look: Theme) -> list[dict[str, Any]]:
    colour, samples, steps = look.kinds[course.info.kind], course.samples, course.steps
    edge = {"color": colour, "width": 0.8, "dash": "dot"}
    none = {"color": colour, "width": 0}
    middle = _line("scale", steps, [s.scale_median for s in samples], colour)
    if not course.several:
        return [middle]
    quarters = course.quarter_steps
    return [
        _line("least of the channels", steps, [s.scale_min for s in samples], colour, line=edge,
              mode="lines"),
        _line("largest of the channels", steps, [s.scale_max for s in samples], colour, line=edge,
              mode="lines", fill="tonexty", fillcolor=see_through(colour, 0.12)),
        _line("lower quartile", quarters, course.lower, colour, line=none, mode="lines"),
        _line("upper quartile", quarters, course.upper, colour, line=none, mode="lines",
              fill="tonexty", fillcolor=see_through(colour, 0.25)),
        {**middle, "name": "median",
         "hovertemplate": "step %{x}<br>median %{y:.5g}<extra></extra>"},
    ]  # fmt: skip


def _range_traces(course: Course, look: Theme) -> list[dict[str, Any]]:
    colour, samples, steps = look.kinds[course.info.kind], course.samples, course.steps
    thin = {"color": colour, "width": 1.5}
    mark = {"symbol": "x-thin-open", "size": 5, "color": look.muted, "line": {"width": 1}}
    marks = {"mode": "markers", "marker": mark, "line": None, "yaxis": "y2"}
    dashed = {"color": look.border, "width": 1.5, "dash": "dash"}
    return [
        _line("min_val", steps, [s.min_val for s in samples], colour, yaxis="y2", line=thin),
        _line("max_val", steps, [s.max_val for s in samples], colour, yaxis="y2", line=thin,
              fill="tonexty", fillcolor=see_through(colour, 0.18)),
        _line("smallest of the batch", steps, [s.batch_min for s in samples], look.muted, **marks),
        _line("largest of the batch", steps, [s.batch_max for s in samples], look.muted, **marks),
        _line("quant_min", steps, course.grid_low, look.border, yaxis="y2", line=dashed),
        _line("quant_max", steps, course.grid_high, look.border, yaxis="y2", line=dashed),
    ]  # fmt: skip


def _words(course: Course) -> str:
    if not course.samples:
        return "no sample yet"
    now = course.samples[-1]
    parts = [f"step {now.step:,}"]
    if course.several:
        parts.append(f"scale {number(now.scale_min)} to {number(now.scale_max)} over the channels")
    else:
        parts.append(f"scale {number(now.scale_median)}")
    if math.isfinite(now.drift):
        parts.append(f"newest values {share(now.drift)} of the range off it")
    if not course.info.observes:
        return " · ".join(parts) + " · ×: the batch, - -: the grid"
    if not now.observer_enabled:
        parts.append("observer frozen")
    return " · ".join(parts) + " · band: observed, ×: the batch, - -: the grid"


def _alt(course: Course, events: Sequence[Event]) -> str:
    if not course.samples:
        return "No sample yet."
    first, now = course.samples[0], course.samples[-1]
    kind = KINDS[course.info.kind].word
    what = "Median scale" if course.several else "Scale"
    text = f"{what} of the {kind}, steps {first.step:,} to {now.step:,}: "
    text += f"{trend(first.scale_median, now.scale_median)}. "
    if course.several:
        text += f"Over the channels {span(now.scale_min, now.scale_max)} at the newest step. "
    text += (
        f"Observed range {span(now.min_val, now.max_val)}, grid "
        if course.info.observes
        else "Grid "
    )
    text += f"{span(course.grid_low[-1], course.grid_high[-1])}. "
    text += f"Clipped {share(now.clipped)}. " if math.isfinite(now.clipped) else ""
    if not events:
        return text + "Nothing was frozen or switched."
    shown = events[-8:]
    head = f"{count(len(events), 'change')}, the last: " if len(events) > len(shown) else ""
    return text + head + "; ".join(f"{e.words} from step {e.step:,}" for e in shown) + "."


def _table(course: Course) -> Table:
    head = ("step", "scale", "min_val", "max_val", "quant_min at", "quant_max at", "clipped")
    group = max(1, -(-len(course.samples) // _ROWS))
    rows = [
        (
            f"{s.step:,}",
            number(s.scale_median),
            _or_dash(s.min_val),
            _or_dash(s.max_val),
            _or_dash(low),
            _or_dash(high),
            share(s.clipped) if math.isfinite(s.clipped) else "–",
        )
        for s, low, high in list(
            zip(course.samples, course.grid_low, course.grid_high, strict=True)
        )[::-1][::group][::-1]
    ]
    return Table(head, tuple(rows))


def _or_dash(value: float) -> str:
    return number(value) if math.isfinite(value) else "–"
