"""Plotly figure of the channels of one fake quant."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import Any

import plotly.graph_objects as go

from qatexplorer.snapshot.records import FakeQuantSite
from qatexplorer.views.common.alt import span
from qatexplorer.views.common.names import number
from qatexplorer.views.common.theme import (
    Table,
    Theme,
    ThemeName,
    label,
    make_figure,
    see_through,
    theme_of,
)

MAX_CHANNEL_POINTS = 1024
MAX_ROWS = 16


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
    wide = n > 0 and min(site.scale) > 0 and max(site.scale) > 20 * min(site.scale)
    middle = {"x": 0.5, "y": 0.5, "xref": "paper", "yref": "paper"}
    layout = {
        "showlegend": False,
        # Above the plot lie the heading and, below that, the switch.
        "margin": {"l": 60, "r": 18, "t": 86, "b": 44},
        "xaxis": {"title": f"channel (axis {site.ch_axis})", "anchor": "y2", "showgrid": False},
        "yaxis": {
            "domain": [0.6, 1.0],
            "title": "scale" + (" (log)" if wide else ""),
            "type": "log" if wide else "linear",
            "rangemode": "normal" if wide else "tozero",
        },
        "yaxis2": {
            "domain": [0.0, 0.48],
            "title": "range",
            "zeroline": True,
            "zerolinecolor": look.muted,
        },
        "yaxis3": {
            "overlaying": "y",
            "side": "right",
            "title": "zero_point",
            "showgrid": False,
            "tickmode": "auto",
            "nticks": 4,
            "tickformat": "d",
            "visible": len(set(site.zero_point)) > 1,
        },
        "updatemenus": [_order_switch(site, index, by_scale, look)],
        "annotations": [label(look, "One scale for the whole tensor.", **middle)] if n < 2 else [],
    }
    title, subtitle = f"{site.path}: channels", _channel_subtitle(site, step)
    data = _channel_traces(site, index, look)
    return make_figure(look, title, subtitle, 340, data, layout,
                       alt=_alt(site), table=_table(site, by_scale))  # fmt: skip


def _alt(site: FakeQuantSite) -> str:
    if len(site.scale) < 2:
        return "One scale for the whole tensor."
    scales = site.scale
    low, high = min(scales), max(scales)
    text = (
        f"Scale of {len(scales):,} channels (axis {site.ch_axis}): {span(low, high)}, median "
        f"{number(median(scales))}. Least at channel {scales.index(low):,}, largest at "
        f"{scales.index(high):,}. "
    )
    known = [(a, b) for a, b in zip(site.min_val, site.max_val, strict=False)
             if math.isfinite(a) and math.isfinite(b)]  # fmt: skip
    if known:
        text += f"Observed values {span(min(a for a, _ in known), max(b for _, b in known))}."
    return text.strip()


def _table(site: FakeQuantSite, by_scale: Sequence[int]) -> Table | None:
    """The channels of the largest scales and those of the least."""
    if len(site.scale) < 2:
        return None
    ordered = list(by_scale)[::-1]
    shown = ordered if len(ordered) <= MAX_ROWS else [*ordered[:8], *ordered[-8:]]
    known = len(site.min_val) == len(site.scale)
    rows = [
        (
            f"{i:,}",
            number(site.scale[i]),
            number(site.min_val[i]) if known and math.isfinite(site.min_val[i]) else "–",
            number(site.max_val[i]) if known and math.isfinite(site.max_val[i]) else "–",
        )
        for i in shown
    ]
    return Table(("channel", "scale", "min_val", "max_val"), tuple(rows))


def _channel_subtitle(site: FakeQuantSite, step: int) -> str:
    if len(site.scale) < 2 or min(site.scale) <= 0:
        return ""
    low, high = min(site.scale), max(site.scale)
    spread = f"largest scale {number(high / low, 3)} × the smallest"
    text = f"{len(site.scale):,} channels · {spread} · median {number(median(site.scale))}"
    return text + (f" · every {step}th drawn" if step > 1 else "")


def _columns(site: FakeQuantSite, order: Sequence[int]) -> list[list[float | None]]:
    """The y of the four traces, with the channels in ``order``."""
    known = len(site.min_val) == len(site.scale)
    lows: list[float | None] = [_finite(site.min_val[i]) if known else None for i in order]
    highs: list[float | None] = [_finite(site.max_val[i]) if known else None for i in order]
    scales: list[float | None] = [site.scale[i] for i in order]
    differ = len(set(site.zero_point)) > 1 and len(site.zero_point) == len(site.scale)
    zeros: list[float | None] = [site.zero_point[i] if differ else None for i in order]
    return [scales, lows, highs, zeros]


def _finite(value: float) -> float | None:
    """None for a channel that has seen nothing yet: it has no range to draw."""
    return value if math.isfinite(value) else None


def _channel_traces(site: FakeQuantSite, order: list[int], look: Theme) -> list[dict[str, Any]]:
    colour = look.kinds[site.kind]
    x = list(range(len(order)))
    axes = ("y", "y2", "y2", "y3")
    names = ("scale", "smallest value", "largest value", "zero_point")
    traces: list[dict[str, Any]] = []
    for name, axis, y in zip(names, axes, _columns(site, order), strict=True):
        line: dict[str, Any] = {"color": colour, "width": 1.5, "shape": "hvh"}
        if axis == "y3":
            line = {"color": look.muted, "width": 1, "dash": "dot", "shape": "hvh"}
        traces.append(
            {
                "type": "scatter",
                "x": x,
                "y": y,
                "yaxis": axis,
                "mode": "lines",
                "line": line,
                "name": name,
                "text": [str(i) for i in order],
                "fill": "tonexty" if name == "largest value" else "none",
                "fillcolor": see_through(colour, 0.25),
                "hovertemplate": f"channel %{{text}}<br>{name} %{{y:.5g}}<extra></extra>",
            }
        )
    return traces


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
        # Plotly draws the active button white in any theme, so both are light with dark letters.
        "bgcolor": "#e9edf1",
        "bordercolor": look.muted,
        "borderwidth": 1,
        "font": {"size": 10, "color": "#1f2328"},
    }
