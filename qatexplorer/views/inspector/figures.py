"""Plotly figures of one fake quant: the histogram on its grid, and its channels.

Every figure of one kind has the same traces in the same order whatever it shows, so that a widget
can update it in place.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import plotly.graph_objects as go

from qatexplorer.forward.histograms import GridHistogram
from qatexplorer.runs.samples import FakeQuantInfo
from qatexplorer.snapshot.records import FakeQuantSite
from qatexplorer.views.common.alt import span
from qatexplorer.views.common.bars import Layout, is_crowded, log_words, shares
from qatexplorer.views.common.names import KINDS, number, share
from qatexplorer.views.common.theme import Table, Theme, ThemeName, label, make_figure, theme_of
from qatexplorer.views.inspector.blocks import blocks_figure
from qatexplorer.views.inspector.channels import channel_figure

__all__ = ["channel_figure", "histogram_figure", "scales_of_site"]

MAX_GRID_LINES = 64
MIN_PER_BAR = 8
MAX_ROWS = 16

Site = FakeQuantSite | FakeQuantInfo
"""A fake quant of a snapshot, or of a run that was kept."""


def scales_of_site(site: FakeQuantSite, theme: ThemeName | bool = "light") -> go.Figure | None:
    """The scales of a fake quant that has several: by channel, or of the groups of a weight as an
    image; None where it has one, or keeps none."""
    if site.blocks:
        return blocks_figure(site, theme)
    return channel_figure(site, theme) if site.per_channel and len(site.scale) > 1 else None


def histogram_figure(
    hist: GridHistogram,
    site: Site,
    theme: ThemeName | bool = "light",
    log: bool | None = None,
) -> go.Figure:
    """The values that reach a fake quant, as bars on the integer grid it rounds them to.

    Bars inside the grid have the colour of the kind; clipped tails are hatched and named with
    their share. Per tensor the axis below is in real values and the one above in codes; per
    channel codes are all that the channels share. Lines between the codes are drawn while at most
    64 of them are in view.

    Args:
        log: logarithmic counts; None is so where one bar would leave nothing of the others to see,
            and the subtitle then says it.
    """
    look = theme_of(theme)
    bars = _Bars(hist)
    crowded = log is None and is_crowded(bars.counts)
    log = crowded if log is None else log
    data = [_bar_trace(bars, inside, site, look) for inside in (True, False)]
    # The axis of codes on top needs a trace of its own to be drawn.
    data.append(
        {"type": "scatter", "x": bars.view, "y": [None, None], "xaxis": "x2", "hoverinfo": "skip"}
    )
    # The margins hold all that these axes can say. Plotly would lay out everything a second time
    # to find that out, and a click waits for it.
    fixed = {"automargin": False, "tickangle": 0}
    layout = {
        "xaxis": {**_bottom_axis(hist, bars), **fixed},
        "xaxis2": {**_code_axis(hist, bars, look), **fixed},
        "yaxis": {
            **fixed,
            "title": "values (log)" if log else "values",
            "nticks": 5,
            "type": "log" if log else "linear",
            "range": _count_range(bars, log),
            "visible": bool(hist.edges),
        },
        "bargap": 0,
        "barmode": "overlay",
        "showlegend": False,
        "shapes": _border_lines(hist, bars, look),
        "annotations": _border_labels(hist, bars, look),
        "margin": {"l": 56, "r": 24, "t": 96 if bars.real else 64, "b": 44},
    }
    subtitle = _subtitle(hist, site)
    if crowded:
        subtitle += f" · {log_words(np.array(bars.counts) / hist.sampled)}"
    return make_figure(look, site.path, subtitle, 290, data, layout,
                       alt=_alt(hist, site), table=_table(hist))  # fmt: skip


class _Bars:
    """Bars in axis units: real values if the grid is one for the whole tensor, else codes.

    A bar is a few neighbouring bins when there are too few values to fill them one by one.
    """

    def __init__(self, hist: GridHistogram) -> None:
        self.hist = hist
        self.real = bool(hist.edges) and hist.scale is not None and hist.zero_point is not None
        self.true_edges, self.counts = _grouped(hist)
        edges = self.true_edges
        inner = edges[2] - edges[1] if len(edges) > 3 else 1.0
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
        low, high = self.true_edges[index] + 0.5, self.true_edges[index + 1] - 0.5
        codes = f"code {number(low)}" if low >= high else f"codes {number(low)} to {number(high)}"
        if self.real:
            real = (self.hist.to_real(low - 0.5), self.hist.to_real(high + 0.5))
            codes += f"<br>values {number(real[0])} to {number(real[1])}"
        n = self.counts[index]
        return f"{codes}<br><b>{n:,}</b> values ({share(n / self.hist.sampled)})"

    def is_inside(self, index: int) -> bool:
        middle = (self.edges[index] + self.edges[index + 1]) / 2
        return self.hist.quant_min - 0.5 <= middle <= self.hist.quant_max + 0.5


def _grouped(hist: GridHistogram) -> tuple[list[float], list[int]]:
    """Edges and counts with bins merged until a bar holds a few values on average.

    Bars are counted from quant_min, and merge a number of bins that divides the grid, so that
    both borders stay edges.
    """
    edges, counts = list(hist.edges), list(hist.counts)
    wanted = max(24, hist.sampled // MIN_PER_BAR)
    if len(counts) <= wanted or len(counts) < 4:
        return edges, counts
    width = edges[2] - edges[1]
    levels = round((hist.quant_max - hist.quant_min + 1) / width)
    least = math.ceil(len(counts) / wanted)
    merge = next((k for k in range(least, levels + 1) if levels % k == 0), 1)
    # edges[1], not edges[0]: the outer edge of the first bin may lie far out.
    offset = round((edges[1] - (hist.quant_min - 0.5)) / width) - 1
    groups: dict[int, int] = {}
    for index, n in enumerate(counts):
        place = (offset + index) // merge
        groups[place] = groups.get(place, 0) + n
    start = hist.quant_min - 0.5
    inner = [start + place * merge * width for place in list(groups)[1:]]
    return [edges[0], *inner, edges[-1]], list(groups.values())


def _bar_trace(bars: _Bars, inside: bool, site: Site, look: Theme) -> dict[str, Any]:
    picked = [i for i, n in enumerate(bars.counts) if n and bars.is_inside(i) == inside]
    edges = [bars.to_axis(edge) for edge in bars.edges]
    return {
        "type": "bar",
        "x": [(edges[i] + edges[i + 1]) / 2 for i in picked],
        "width": [edges[i + 1] - edges[i] for i in picked],
        "y": [bars.counts[i] for i in picked],
        "text": [bars.hover(i) + ("" if inside else "<br>clipped") for i in picked],
        "textposition": "none",
        "hovertemplate": "%{text}<extra></extra>",
        "name": "on the grid" if inside else "clipped",
        "marker": {
            "color": look.kinds[site.kind] if inside else look.clipped,
            "line": {"width": 1 if _few(bars) else 0, "color": look.paper},
            "pattern": {"shape": "" if inside else "/", "size": 5, "solidity": 0.45},
        },
    }


def _subtitle(hist: GridHistogram, site: Site) -> str:
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


def _alt(hist: GridHistogram, site: Site) -> str:
    if not hist.edges:
        return hist.note or "No values were seen."
    codes = f"codes {number(hist.quant_min)} to {number(hist.quant_max)}"
    if hist.scale is not None and hist.zero_point is not None:
        ends = (hist.to_real(hist.quant_min), hist.to_real(hist.quant_max))
        codes += f", {span(*ends)} in real values"
    clipped = f"{share(hist.clipped_low_share)} below and {share(hist.clipped_high_share)} above"
    used, levels = hist.codes_used, hist.quant_max - hist.quant_min + 1
    return (
        f"Histogram of {hist.sampled:,} values of the {KINDS[site.kind].word} on {codes}. "
        f"Values {span(hist.min, hist.max)}, {share(hist.zeros / hist.sampled)} of them 0. "
        f"Clipped {clipped} the grid. {used:,} of {levels:,} codes used. {hist.note}"
    ).strip()


def _table(hist: GridHistogram) -> Table | None:
    if not hist.edges:
        return None
    layout = Layout.of([hist], MAX_ROWS)
    real = hist.scale is not None and hist.zero_point is not None
    edges, rows = layout.edges, []
    for index, part in enumerate(shares(hist, layout)):
        low, high = edges[index] + 0.5, edges[index + 1] - 0.5
        inside = layout.inside.start <= index < layout.inside.stop
        values = span(hist.to_real(low - 0.5), hist.to_real(high + 0.5)) if real else ""
        cells = (span(low, high), values, share(part), "" if inside else "clipped")
        rows.append(cells if real else (cells[0], *cells[2:]))
    head = ("codes", "values before rounding", "share", "")
    return Table(head if real else (head[0], *head[2:]), tuple(rows))


def _count_range(bars: _Bars, log: bool) -> list[float]:
    """With room above the highest bar for the labels of the borders."""
    most = max(bars.counts, default=1)
    if log:
        top = math.log10(max(most, 1))
        return [-0.2, top + 0.45 * max(top, 0.5)]
    return [0.0, most * 1.4]


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
        "title": "code" if bars.real else "",
        "tickmode": "linear",
        "tick0": 0,
        "dtick": _tick_step(bars.codes[1] - bars.codes[0]),
        "ticks": "outside",
        "tickcolor": look.grid,
        "ticklen": 4,
        "layer": "below traces",
    }
    if few:
        lines = {"tickmode": "linear", "tick0": -0.5, "dtick": 1, "gridwidth": 1}
        axis["minor"] = {**lines, "showgrid": True, "gridcolor": look.faint}
        axis["showgrid"] = False
    return axis


def _tick_step(span: float) -> int:
    """Whole codes between two ticks: 1, 2, 4, 8, … as grids are powers of two."""
    return int(2 ** max(0, math.ceil(math.log2(max(span, 1) / 8))))


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
