"""Colours and look of all figures, light and dark; Okabe-Ito hues, safe for colour-blind eyes."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any, Literal

import plotly.graph_objects as go

from qatexplorer.snapshot.records import SiteKind

ThemeName = Literal["light", "dark"]

FONT = 'system-ui, -apple-system, "Segoe UI", sans-serif'
_MARKS = "■▲● "
HEAD = 46
"""Pixels of the top margin that title and subtitle take."""


@dataclass(frozen=True)
class Theme:
    """Colours of a figure; ``kinds`` by kind of fake quant, ``series`` for lines in order."""

    name: ThemeName
    fg: str
    muted: str
    grid: str
    faint: str
    paper: str
    clipped: str
    border: str
    kinds: dict[SiteKind, str]
    series: tuple[str, ...]


_SERIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F", "#B8A200")

LIGHT = Theme(
    name="light",
    fg="#1f2328",
    muted="#59636e",
    grid="#e4e8ec",
    faint="rgba(31,35,40,0.10)",
    paper="#ffffff",
    clipped="#b0457a",
    border="#1f2328",
    kinds={"weight": "#D55E00", "input": "#009E73", "output": "#0072B2"},
    series=_SERIES,
)
DARK = Theme(
    name="dark",
    fg="#e6edf3",
    muted="#9aa5b1",
    grid="#2b323b",
    faint="rgba(230,237,243,0.12)",
    paper="#111418",
    clipped="#e795bf",
    border="#e6edf3",
    kinds={"weight": "#EE7A22", "input": "#12B886", "output": "#3391CF"},
    series=("#3391CF", "#EE7A22", "#12B886", "#E795BF", "#E69F00", "#8FD0F5", "#A6A6A6", "#F0E442"),
)


@dataclass(frozen=True)
class Table:
    """Numbers of a figure as text: names of the columns, and the cells row by row."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def as_dict(self) -> dict[str, Any]:
        return {"head": list(self.head), "rows": [list(row) for row in self.rows]}


def theme_of(theme: ThemeName | bool | Theme) -> Theme:
    """``"light"``, ``"dark"``, or True for dark."""
    if isinstance(theme, Theme):
        return theme
    return DARK if theme in (True, "dark") else LIGHT


def make_figure(
    theme: Theme,
    title: str,
    subtitle: str,
    height: int,
    data: list[dict[str, Any]],
    layout: dict[str, Any],
    *,
    alt: str = "",
    table: Table | None = None,
) -> go.Figure:
    """A figure of plain trace dicts, in the look that all figures share.

    Every ``xaxis…`` and ``yaxis…`` of ``layout`` gets the look of an axis; ``title`` and
    ``subtitle`` are escaped. Transparent, so that it sits on any page; as wide as its container.

    ``alt`` is what the figure shows, in a sentence for those who do not see it, and ``table`` its
    numbers. They travel in ``layout.meta``, with the title and the subtitle, which a page writes
    above the figure itself: there they wrap, and nothing in the figure runs into them.
    """
    axis = {
        "gridcolor": theme.grid,
        "zeroline": False,
        "linecolor": theme.grid,
        "showline": True,
        "tickfont": {"size": 11, "color": theme.muted},
        "automargin": True,
    }
    named = {"font": {"size": 12, "color": theme.muted}, "standoff": 6}
    axes = {
        key: {**axis, **value, "title": {**named, "text": value.get("title", "")}}
        for key, value in layout.items()
        if key.startswith(("xaxis", "yaxis"))
    }
    legend = {"orientation": "h", "x": 1, "xanchor": "right", "y": 1.0, "yanchor": "bottom"}
    base = {
        "template": "none",
        "title": _heading(theme, title, subtitle, height),
        "font": {"family": FONT, "size": 12, "color": theme.fg},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "autosize": True,
        "height": height,
        "meta": {
            "title": title,
            "subtitle": subtitle,
            "head": HEAD,
            "alt": f"{title.lstrip(_MARKS)}. {alt or subtitle}",
            "table": None if table is None else table.as_dict(),
        },
        "hoverlabel": {
            "bgcolor": theme.paper,
            "bordercolor": theme.muted,
            "font": {"color": theme.fg, "family": FONT, "size": 12},
        },
        "hovermode": "closest",
        "legend": legend,
        "margin": {"l": 56, "r": 18, "t": 76, "b": 44},
    }
    # Plotly checks it in the tests of the views, not here: that takes several times as long as
    # making the figure, and a click waits for it.
    return go.Figure({"data": data, "layout": {**base, **layout, **axes}}, _validate=False)


def _heading(theme: Theme, title: str, subtitle: str, height: int) -> dict[str, Any]:
    return {
        "text": f"<b>{escape(short(title, 64))}</b>",
        "font": {"size": 14, "color": theme.fg},
        "subtitle": {"text": escape(subtitle), "font": {"size": 12, "color": theme.muted}},
        "x": 0,
        "xref": "container",
        "xanchor": "left",
        "y": 1 - 22 / height,
        "yref": "container",
        "yanchor": "bottom",
        "pad": {"l": 8},
    }


def label(theme: Theme, text: str, **more: Any) -> dict[str, Any]:
    """A small annotation without an arrow, readable on top of bars; ``text`` is escaped."""
    background = "rgba(255,255,255,0.8)" if theme.name == "light" else "rgba(17,20,24,0.8)"
    return {
        "text": escape(text),
        "showarrow": False,
        "font": {"size": 11, "color": theme.fg},
        "bgcolor": background,
        **more,
    }


def mix(one: str, two: str, part: float) -> str:
    """The colour between two of ``#rrggbb``: ``one`` for 0, ``two`` for 1."""
    pairs = zip(_rgb(one), _rgb(two), strict=True)
    return "#" + "".join(f"{round(a + (b - a) * part):02x}" for a, b in pairs)


def see_through(colour: str, opacity: float) -> str:
    """``#rrggbb`` as rgba."""
    return f"rgba({','.join(map(str, _rgb(colour)))},{opacity:g})"


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def short(text: str, length: int) -> str:
    """``text`` with its middle left out when it is longer than ``length``."""
    if len(text) <= length:
        return text
    half = (length - 1) // 2
    return f"{text[:half]}…{text[-half:]}"
