"""Plotly figures of live telemetry: histograms over steps, scales, oscillation, states."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from qatexplorer.views.common.names import KINDS, share
from qatexplorer.views.common.theme import Theme, ThemeName, label, make_figure, short, theme_of

if TYPE_CHECKING:
    from qatexplorer.forward.histograms import GridHistogram
    from qatexplorer.runs.store import Telemetry

MAX_ROWS = 128
MAX_LINES = 6
LEAST_DECADE = 4
_DASHES = ("solid", "dash", "dot", "dashdot")


def overhead_words(telemetry: Telemetry) -> str:
    """What sampling costs, as measured; "not known" for a run that was killed."""
    overhead = telemetry.overhead
    return overhead.words() if overhead is not None else "overhead not known"


def histograms_figure(
    telemetry: Telemetry, path: str, theme: ThemeName | bool = "light"
) -> go.Figure:
    """Histograms of what reaches a fake quant, over the steps, as a heat map on its grid.

    Codes go up; the farther from the background, the larger the share of the values, on a
    logarithmic scale. Dashed lines are the borders of the grid: what lies beyond is clipped.
    """
    look, info = theme_of(theme), telemetry.info(path)
    histograms = [(step, h) for step, h in telemetry.histograms(path) if h.edges]
    low, high = _code_range([h for _, h in histograms], info.quant_min, info.quant_max)
    width = max(1, math.ceil((high - low) / MAX_ROWS))
    # Whole rows counted from quant_min, so that the borders of the grid lie between rows.
    low = info.quant_min - math.ceil((info.quant_min - low) / width) * width
    rows = math.ceil((high - low) / width)
    columns = [_column(h, low, width, rows) for _, h in histograms]
    # Logarithmic: one code often holds half of the values, and clipped tails a thousandth.
    z = [[_decades(column[row]) for column in columns] for row in range(rows)]
    shares = [[column[row] for column in columns] for row in range(rows)]
    data = [
        {
            "type": "heatmap",
            "x": [str(step) for step, _ in histograms],
            "y": [low - 0.5 + width * (row + 0.5) for row in range(rows)],
            "z": z,
            "customdata": shares,
            "zmin": -LEAST_DECADE,
            "zmax": 0,
            "colorscale": "Cividis",
            "reversescale": look.name == "light",
            "showscale": False,
            "hovertemplate": "step %{x}<br>code %{y:.0f}<br>%{customdata:.3%} of the values"
            "<extra></extra>",
        }
    ]
    layout = {
        "xaxis": {"title": "step", "type": "category", "nticks": 8, "showgrid": False},
        "yaxis": {"title": "code", "range": [low - 0.5, high - 0.5], "showgrid": False},
        "shapes": [_border(y, look) for y in (info.quant_min - 0.5, info.quant_max + 0.5)],
        "showlegend": False,
    }
    title = f"{KINDS[info.kind].mark} {short(path, 52)}: over the steps"
    return make_figure(look, title, _clipped_words(telemetry, path), 300, data, layout)


def _code_range(
    histograms: Sequence[GridHistogram], quant_min: int, quant_max: int
) -> tuple[int, int]:
    """Codes in view: the grid and what lies within half a grid of it."""
    reach = (quant_max - quant_min + 1) // 2
    low, high = quant_min, quant_max + 1
    for histogram in histograms:
        low = min(low, max(quant_min - reach, math.floor(histogram.edges[0] + 0.5)))
        high = max(high, min(quant_max + reach, math.ceil(histogram.edges[-1] + 0.5)))
    return low, high


def _column(histogram: GridHistogram, low: int, width: int, rows: int) -> list[float]:
    """Share of the values in each row of the map; what is further out goes to the outer rows."""
    found = [0.0] * rows
    edges, total = histogram.edges, max(1, histogram.sampled)
    for index, count in enumerate(histogram.counts):
        if count:
            # The outer edges are the extremes, the inner ones tell where a bin begins.
            middle = edges[1] - 0.5 if index == 0 and len(edges) > 2 else edges[index] + 0.5
            row = math.floor((middle - low) / width)
            found[max(0, min(rows - 1, row))] += count / total
    return found


def _decades(part: float) -> float | None:
    return max(-LEAST_DECADE, math.log10(part)) if part > 0 else None


def _border(y: float, look: Theme) -> dict[str, Any]:
    line = {"color": look.fg, "width": 1.5, "dash": "dash"}
    return {"type": "line", "x0": 0, "x1": 1, "xref": "paper", "y0": y, "y1": y, "line": line}


def _clipped_words(telemetry: Telemetry, path: str) -> str:
    why = telemetry.unseen.get(path)
    if why:
        return short(f"not seen: {why}", 110)
    now = telemetry.sample(path, details=False)
    if now is None or not now.sampled > 0:
        return "no sample yet"
    text = f"step {now.step:,}: clipped {share(now.clipped)}, {share(now.codes_used)} of codes"
    text += f", SQNR {now.sqnr_db:.1f} dB" if math.isfinite(now.sqnr_db) else ""
    error = "all values" if now.bound == 0 else f"± {100 * now.bound:.1g} %"
    return f"{text} · {error}"


def scales_figure(telemetry: Telemetry, path: str, theme: ThemeName | bool = "light") -> go.Figure:
    """Scale of a fake quant above (least to largest channel as a band), its range below: the
    moving average as lines, the range of each batch as marks."""
    look, info = theme_of(theme), telemetry.info(path)
    samples = telemetry.samples(path, details=False)
    steps = [item.step for item in samples]
    colour = look.kinds[info.kind]

    def line(name: str, values: list[float], axis: str = "y", **more: Any) -> dict[str, Any]:
        known = [None if math.isnan(v) else v for v in values]
        style = {"color": colour, "width": 2}
        base = {"type": "scatter", "x": steps, "y": known, "name": name, "mode": "lines"}
        hover = f"step %{{x}}<br>{name} %{{y:.5g}}<extra></extra>"
        return {**base, "line": style, "yaxis": axis, "hovertemplate": hover, **more}

    thin = {"color": colour, "width": 0.8, "dash": "dot"}
    mark = {"symbol": "x-thin-open", "size": 5, "color": look.muted, "line": {"width": 1}}
    marks = {"mode": "markers", "marker": mark, "line": None}
    data = [
        line("least", [v.scale_min for v in samples], line=thin),
        line("largest", [v.scale_max for v in samples], line=thin, fill="tonexty",
             fillcolor=look.faint),
        line("scale", [v.scale_median for v in samples]),
        line("min_val", [v.min_val for v in samples], "y2"),
        line("max_val", [v.max_val for v in samples], "y2"),
        line("smallest of the batch", [v.batch_min for v in samples], "y2", **marks),
        line("largest of the batch", [v.batch_max for v in samples], "y2", **marks),
    ]  # fmt: skip
    shapes, labels = _mixtures(telemetry, path, look)
    layout = {
        "xaxis": {"title": "step", "showgrid": False, "anchor": "y2"},
        "yaxis": {"title": "scale", "domain": [0.56, 1.0]},
        "yaxis2": {"title": "range", "domain": [0.0, 0.44]},
        "showlegend": False,
        "shapes": shapes,
        "annotations": labels,
    }
    newest = samples[-1] if samples else None
    known = newest is not None and math.isfinite(newest.drift)
    words = f"drift of the batch {share(newest.drift)} of the range" if known and newest else ""
    return make_figure(look, f"{short(path, 44)}: scale and range", words, 300, data, layout)


def _mixtures(
    telemetry: Telemetry, path: str, look: Theme
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Bands where the state is a forbidden mixture, lines where it changes; all with words."""
    changes = telemetry.states(path)
    steps = telemetry.steps
    end = steps[-1] if steps else 0
    shapes: list[dict[str, Any]] = []
    labels: list[dict[str, Any]] = []
    for index, change in enumerate(changes):
        until = changes[index + 1].step if index + 1 < len(changes) else end
        place = {"yref": "paper", "y0": 0, "y1": 1}
        if change.mixture:
            shapes.append({"type": "rect", "x0": change.step, "x1": max(until, change.step + 1),
                           "fillcolor": look.clipped, "opacity": 0.18, "line": {"width": 0},
                           **place})  # fmt: skip
            text = ("⚠ " if change.forbidden else "") + change.mixture
        elif index:
            words = (
                ("observer", change.observer_enabled),
                ("fake quant", change.fake_quant_enabled),
            )
            text = ", ".join(f"{name} {'on' if on else 'off'}" for name, on in words)
            text += ", BN frozen" if change.bn_frozen else ""
        else:
            continue
        line = {"color": look.fg, "width": 1, "dash": "dot"}
        shapes.append({"type": "line", "x0": change.step, "x1": change.step, "line": line, **place})
        labels.append(label(look, text, x=change.step, y=0.5, yref="paper", xanchor="left",
                            yanchor="middle", xshift=3))  # fmt: skip
    return shapes, labels


def oscillation_figure(telemetry: Telemetry, theme: ThemeName | bool = "light") -> go.Figure | None:
    """Share of the weights that go back and forth between two codes, for the worst weight fake
    quants; None where there is no weight to follow."""
    look = theme_of(theme)
    found = []
    for info in telemetry.infos:
        steps, values = telemetry.series(info.path, "oscillating")
        if len(values) > 1:
            found.append((values[-1], info.path, steps, values))
    if not found:
        return None
    found.sort(key=lambda item: -item[0])
    data = [
        {
            "type": "scatter",
            "mode": "lines",
            "x": steps,
            "y": values,
            "name": short(path, 36),
            "line": {
                "color": look.series[index % len(look.series)],
                "width": 2,
                "dash": _DASHES[index % len(_DASHES)],
            },
            "hovertemplate": "step %{x}<br>%{y:.2%} of the weights<extra></extra>",
        }
        for index, (_, path, steps, values) in enumerate(found[:MAX_LINES])
    ]
    layout = {
        "xaxis": {"title": "step", "showgrid": False},
        "yaxis": {"title": "weights", "tickformat": ".0%", "rangemode": "tozero"},
        "showlegend": True,
        "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": -0.28, "yanchor": "top"},
        "margin": {"l": 56, "r": 18, "t": 64, "b": 96},
    }
    words = f"went back to the code before within 8 samples · worst {len(data)} of {len(found)}"
    return make_figure(look, "Oscillating weights", words, 330, data, layout)
