"""Plotly figures of one fake quant: its histogram on the grid and its channels.

Every figure of one kind has the same traces in the same order whatever it shows, so that a widget
can update it in place.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

import plotly.graph_objects as go

from qatexplorer.histograms import GridHistogram
from qatexplorer.snapshot.records import FakeQuantSite
from qatexplorer.views.figures_training import curves_figure, scale_trace_figure
from qatexplorer.views.names import KINDS, number, share
from qatexplorer.views.theme import Theme, ThemeName, label, layout, theme_of

__all__ = ["channel_figure", "curves_figure", "histogram_figure", "scale_trace_figure"]

MAX_GRID_LINES = 64
MAX_CHANNEL_POINTS = 1024


def histogram_figure(
    hist: GridHistogram, site: FakeQuantSite, theme: ThemeName | bool = "light", log: bool = False
) -> go.Figure:
    """The values that reach a fake quant, as bars on the integer grid it rounds them to.

    Bars inside the grid have the colour of the kind; clipped tails are hatched and named with
    their share. Per tensor the axis below is in real values and the one above in codes; per
    channel codes are all that the channels share. Lines between the codes are drawn while at most
    64 of them are in view.

    Args:
        log: logarithmic counts, to see the tails.
    """
    look = theme_of(theme)
    bars = _Bars(hist)
    figure = go.Figure(layout=layout(look, site.path, _subtitle(hist, site), height=290))
    for inside in (True, False):
        figure.add_trace(_bar_trace(bars, inside, site, look))
    # The axis of codes on top needs a trace of its own to be drawn.
    figure.add_trace(go.Scatter(x=bars.view, y=[None, None], xaxis="x2", hoverinfo="skip"))
    figure.update_layout(
        xaxis=_bottom_axis(hist, bars),
        xaxis2=_code_axis(hist, bars, look),
        yaxis={"title": "values", "type": "log" if log else "linear", "rangemode": "tozero"},
        bargap=0,
        barmode="overlay",
        showlegend=False,
        shapes=_border_lines(hist, bars, look),
        annotations=_border_labels(hist, bars, look),
    )
    figure.layout.margin.t = 92 if bars.real else 64
    return figure


class _Bars:
    """Bins in axis units: real values if the grid is one for the whole tensor, else codes."""

    def __init__(self, hist: GridHistogram) -> None:
        self.hist = hist
        self.real = bool(hist.edges) and hist.scale is not None and hist.zero_point is not None
        edges = hist.edges
        inner = edges[2] - edges[1] if len(edges) > 3 else 1.0
        self.nominal = inner
        # The end bins reach to the extremes; drawn that wide they would hide all the others.
        first = max(edges[0], edges[1] - inner) if len(edges) > 2 else min(edges, default=0.0)
        last = min(edges[-1], edges[-2] + inner) if len(edges) > 2 else max(edges, default=1.0)
        self.edges = [first, *edges[1:-1], last] if edges else []
        low, high = first, last
        if hist.quant_max - hist.quant_min < 4096:
            low, high = min(low, hist.quant_min - 0.5), max(high, hist.quant_max + 0.5)
        pad = (high - low) * 0.015
        self.codes = (low - pad, high + pad)
        self.view = [self.to_axis(code) for code in self.codes]

    def to_axis(self, code: float) -> float:
        return self.hist.to_real(code) if self.real else code

    def hover(self, index: int) -> str:
        low, high = self.hist.edges[index] + 0.5, self.hist.edges[index + 1] - 0.5
        codes = f"code {number(low)}" if low >= high else f"codes {number(low)} to {number(high)}"
        if self.real:
            real = (self.hist.to_real(low - 0.5), self.hist.to_real(high + 0.5))
            codes += f"<br>values {number(real[0])} to {number(real[1])}"
        n = self.hist.counts[index]
        return f"{codes}<br><b>{n:,}</b> values ({share(n / self.hist.sampled)})"

    def is_inside(self, index: int) -> bool:
        middle = (self.hist.edges[index] + self.hist.edges[index + 1]) / 2
        return self.hist.quant_min - 0.5 <= middle <= self.hist.quant_max + 0.5


def _bar_trace(bars: _Bars, inside: bool, site: FakeQuantSite, look: Theme) -> go.Bar:
    picked = [i for i, n in enumerate(bars.hist.counts) if n and bars.is_inside(i) == inside]
    edges = [bars.to_axis(edge) for edge in bars.edges]
    colour = look.kinds[site.kind] if inside else look.clipped
    return go.Bar(
        x=[(edges[i] + edges[i + 1]) / 2 for i in picked],
        width=[edges[i + 1] - edges[i] for i in picked],
        y=[bars.hist.counts[i] for i in picked],
        text=[bars.hover(i) + ("" if inside else "<br>clipped") for i in picked],
        textposition="none",
        hovertemplate="%{text}<extra></extra>",
        name="on the grid" if inside else "clipped",
        marker={
            "color": colour,
            "line": {"width": 0},
            "pattern": {"shape": "" if inside else "/", "size": 5, "solidity": 0.45},
        },
    )


def _subtitle(hist: GridHistogram, site: FakeQuantSite) -> str:
    if not hist.edges:
        return hist.note or "No values were seen."
    levels = hist.quant_max - hist.quant_min + 1
    clipped = hist.clipped_low_share + hist.clipped_high_share
    seen = f"{hist.total:,} values"
    if hist.sampled < hist.total:
        seen = f"{hist.sampled:,} of {seen}"
    parts = [
        f"{KINDS[site.kind].word}, {seen}",
        f"{hist.codes_used:,} of {levels:,} codes used",
        f"{share(clipped)} clipped" if clipped else "none clipped",
    ]
    return " · ".join(parts) + (f" · {hist.note}" if hist.note else "")


def _bottom_axis(hist: GridHistogram, bars: _Bars) -> dict[str, Any]:
    title = "value before rounding" if bars.real else "code, each channel on its own scale"
    if not bars.edges:
        title = ""
    return {
        "title": title,
        "range": bars.view,
        "showgrid": not bars.real and not _few(bars),
        "nticks": 9,
        "visible": bool(hist.edges),
    }


def _few(bars: _Bars) -> bool:
    return bars.codes[1] - bars.codes[0] <= MAX_GRID_LINES * 1.1


def _code_axis(hist: GridHistogram, bars: _Bars, look: Theme) -> dict[str, Any]:
    """Codes on top; with a line between any two codes when there are few enough."""
    few = _few(bars)
    axis = {
        "overlaying": "x",
        "side": "top",
        "range": list(bars.codes),
        "showgrid": few,
        "gridcolor": look.faint,
        "gridwidth": 1,
        "visible": bool(hist.edges) and (bars.real or few),
        "showticklabels": bars.real,
        "title": {"text": "code" if bars.real else "", "standoff": 4},
        "nticks": 9,
        "ticks": "outside",
        "tickcolor": look.grid,
        "ticklen": 4,
        "layer": "below traces",
        "matches": None,
    }
    if few:
        axis["minor"] = {"dtick": 1, "tick0": -0.5, "showgrid": True, "gridcolor": look.faint}
        axis["showgrid"] = False
    return axis


def _borders(hist: GridHistogram, bars: _Bars) -> list[tuple[str, int, float]]:
    if not hist.edges:
        return []
    borders = (("quant_min", hist.quant_min, -0.5), ("quant_max", hist.quant_max, 0.5))
    return [
        (name, code, bars.to_axis(code + half))
        for name, code, half in borders
        if bars.codes[0] <= code + half <= bars.codes[1]
    ]


def _border_lines(hist: GridHistogram, bars: _Bars, look: Theme) -> list[dict[str, Any]]:
    line = {"color": look.border, "width": 1.5, "dash": "dash"}
    return [
        {
            "type": "line",
            "xref": "x",
            "yref": "paper",
            "x0": x,
            "x1": x,
            "y0": 0,
            "y1": 1,
            "line": line,
        }
        for _, _, x in _borders(hist, bars)
    ]


def _border_labels(hist: GridHistogram, bars: _Bars, look: Theme) -> list[dict[str, Any]]:
    found = []
    for name, code, x in _borders(hist, bars):
        low = name == "quant_min"
        clipped = hist.clipped_low_share if low else hist.clipped_high_share
        text = f"{name} {number(code)}"
        found.append(
            label(
                look,
                text,
                x=x,
                y=1,
                yref="paper",
                yanchor="top",
                xanchor="left" if low else "right",
            )
        )
        if clipped:
            extreme = hist.min if low else hist.max
            words = f"{'◀ ' if low else ''}{share(clipped)} clipped{'' if low else ' ▶'}"
            hint = f"clipped; the {'smallest' if low else 'largest'} value is {number(extreme)}"
            anchor = "left" if low else "right"
            note = label(look, words, x=x, y=0.86, yref="paper", yanchor="top", xanchor=anchor)
            note["font"] = {"size": 12, "color": look.clipped}
            found.append({**note, "hovertext": hint})
    if not hist.edges:
        middle = {"x": 0.5, "y": 0.5, "xref": "paper", "yref": "paper"}
        found.append(label(look, hist.note or "No values were seen.", **middle))
    return found


def channel_figure(site: FakeQuantSite, theme: ThemeName | bool = "light") -> go.Figure:
    """Scale of every channel above, observed range of every channel below.

    A switch in the figure orders the channels by index or by scale. The zero point is drawn too
    if the channels differ in it. Beyond 1,024 channels every n-th is drawn.
    """
    look = theme_of(theme)
    n = len(site.scale)
    step = -(-n // MAX_CHANNEL_POINTS) or 1
    index = list(range(0, n, step))
    by_scale = sorted(index, key=lambda i: site.scale[i])
    subtitle = _channel_subtitle(site, step)
    figure = go.Figure(layout=layout(look, f"{site.path}: channels", subtitle, height=330))
    for trace in _channel_traces(site, index, look):
        figure.add_trace(trace)
    wide = n > 0 and min(site.scale) > 0 and max(site.scale) > 20 * min(site.scale)
    figure.update_layout(
        showlegend=False,
        xaxis={"title": f"channel (axis {site.ch_axis})", "anchor": "y2", "showgrid": False},
        yaxis={
            "domain": [0.6, 1.0],
            "title": "scale" + (" (log)" if wide else ""),
            "type": "log" if wide else "linear",
            "rangemode": "normal" if wide else "tozero",
        },
        yaxis2={
            "domain": [0.0, 0.48],
            "title": "range",
            "zeroline": True,
            "zerolinecolor": look.muted,
        },
        yaxis3={
            "overlaying": "y",
            "side": "right",
            "title": "zero_point",
            "showgrid": False,
            "visible": len(set(site.zero_point)) > 1,
        },
        updatemenus=[_order_switch(site, index, by_scale, look)],
    )
    if n < 2:
        middle = {"x": 0.5, "y": 0.5, "xref": "paper", "yref": "paper"}
        figure.add_annotation(label(look, "One scale for the whole tensor.", **middle))
    return figure


def _channel_subtitle(site: FakeQuantSite, step: int) -> str:
    if len(site.scale) < 2 or min(site.scale) <= 0:
        return ""
    low, high = min(site.scale), max(site.scale)
    spread = f"largest scale {number(high / low, 3)} × the smallest"
    text = f"{len(site.scale):,} channels · {spread} · median {number(median(site.scale))}"
    return text + (f" · every {step}th drawn" if step > 1 else "")


def _columns(site: FakeQuantSite, order: Sequence[int]) -> list[list[float | None]]:
    """The y of each trace, with the channels in ``order``."""
    known = len(site.min_val) == len(site.scale)
    lows: list[float | None] = [site.min_val[i] if known else None for i in order]
    highs: list[float | None] = [site.max_val[i] if known else None for i in order]
    scales: list[float | None] = [site.scale[i] for i in order]
    differ = len(set(site.zero_point)) > 1 and len(site.zero_point) == len(site.scale)
    zeros: list[float | None] = [site.zero_point[i] if differ else None for i in order]
    return [scales, lows, highs, zeros]


def _channel_traces(site: FakeQuantSite, order: list[int], look: Theme) -> list[go.Scatter]:
    colour = look.kinds[site.kind]
    x = list(range(len(order)))
    axes = ("y", "y2", "y2", "y3")
    names = ("scale", "smallest value", "largest value", "zero_point")
    traces = []
    for name, axis, y in zip(names, axes, _columns(site, order), strict=True):
        line = {"color": colour, "width": 1.5, "shape": "hvh"}
        if axis == "y3":
            line = {"color": look.muted, "width": 1, "dash": "dot", "shape": "hvh"}
        traces.append(
            go.Scatter(
                x=x,
                y=y,
                yaxis=axis,
                mode="lines",
                line=line,
                name=name,
                text=[str(i) for i in order],
                fill="tonexty" if name == "largest value" else None,
                fillcolor=f"rgba{(*_rgb(colour), 0.25)}",
                hovertemplate=f"channel %{{text}}<br>{name} %{{y:.5g}}<extra></extra>",
            )
        )
    return traces


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _order_switch(
    site: FakeQuantSite, index: list[int], by_scale: list[int], look: Theme
) -> dict[str, Any]:
    buttons = [
        {
            "label": name,
            "method": "restyle",
            "args": [{"y": _columns(site, order), "text": [[str(i) for i in order]] * 4}],
        }
        for name, order in (("by index", index), ("by scale", by_scale))
    ]
    return {
        "type": "buttons",
        "direction": "right",
        "buttons": buttons,
        "showactive": True,
        "visible": len(index) > 1,
        "x": 1,
        "xanchor": "right",
        "y": 1.03,
        "yanchor": "bottom",
        "pad": {"t": 0, "b": 0},
        "bgcolor": look.paper,
        "bordercolor": look.muted,
        "borderwidth": 1,
        "font": {"size": 11, "color": look.fg},
    }
