"""A plotly figure as SVG without plotly.js: what our figures use of it, and no more."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from html import escape, unescape
from itertools import pairwise
from textwrap import wrap
from typing import Any

from plotly.colors import get_colorscale
from plotly.exceptions import PlotlyError

from qatexplorer.views.common.theme import LIGHT
from qatexplorer.views.static.svg import drawing, element

Figure = Mapping[str, Any]
_DASHES = {"dash": "7 4", "dot": "2 3", "dashdot": "7 3 2 3", "longdash": "11 4"}
_MARGIN = {"l": 56, "r": 18, "t": 76, "b": 44}
_HEX = re.compile(r"#[0-9a-fA-F]{6}")
_BLANK = re.compile(r"<[^>]+>")
_TICK, _KEY, _UNDER, _HEAD = 5.9, 6.2, 6.1, 8.2
"""Pixels of a character: of a tick, in a legend, in a subtitle, in a title."""
_LEGEND_LINE, _UNDER_LINE, _HEAD_LINE = 15.0, 15.0, 18.0


def figure_svg(figure: Figure, width: float = 640.0) -> str:
    """SVG of ``{"data": […], "layout": {…}}``, plain data as ``go.Figure.to_plotly_json`` gives it.

    Bars, lines, markers, filled areas, heat maps, shapes and annotations on linear and logarithmic
    axes; other traces are left out. Always on white. ``""`` for a figure without data.
    """
    data = [t for t in figure.get("data") or () if t.get("visible", True) is True]
    layout = figure.get("layout") or {}
    if not data:
        return ""
    height = float(layout.get("height") or 300)
    margin = {**_MARGIN, **(layout.get("margin") or {})}
    margin["l"] = max(margin["l"], _room_for_words(layout))
    margin["r"] = max(margin["r"], _room_on_the_right(layout))
    head, more = _title(layout, width)
    keys = _legend_rows(data, width) if layout.get("showlegend", len(data) > 1) else []
    more += _LEGEND_LINE * max(len(keys) - 1, 0)
    margin["t"], height = margin["t"] + more, height + more
    frame = _Frame(
        float(margin["l"]), float(margin["t"]), width - margin["l"] - margin["r"],
        height - margin["t"] - margin["b"],
    )  # fmt: skip
    axes = _axes(layout, data, frame)
    parts = [_grid(axis, axes, frame) for axis in axes.values()]
    parts += [_shape(shape, axes, frame) for shape in layout.get("shapes") or ()]
    parts += [_trace(trace, axes) for trace in data]
    parts += [_annotation(note, axes, frame) for note in layout.get("annotations") or ()]
    parts += [head, _legend(keys, frame, width)]
    label = _plain((layout.get("title") or {}).get("text") or "figure")
    return drawing(width, height, label, *parts)


@dataclass(frozen=True)
class _Frame:
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class _Axis:
    """One axis: values to pixels. ``low`` and ``high`` are exponents on a logarithmic one."""

    key: str
    spec: Mapping[str, Any]
    low: float
    high: float
    start: float
    length: float
    log: bool

    @property
    def across(self) -> bool:
        return self.key.startswith("x")

    def at(self, value: Any) -> float | None:
        number = _number(value)
        if number is None or (self.log and number <= 0):
            return None
        number = math.log10(number) if self.log else number
        share = (number - self.low) / ((self.high - self.low) or 1.0)
        place = share * self.length
        return self.start + place if self.across else self.start + self.length - place

    def ticks(self) -> Iterator[tuple[float, str]]:
        given, words = self.spec.get("tickvals"), self.spec.get("ticktext")
        if given is not None:
            for index, value in enumerate(given):
                yield value, str(words[index]) if words and index < len(words) else _short(value)
        elif self.log:
            first, last = sorted((self.low, self.high))
            step = max(1, round((last - first) / 5))
            for power in range(math.ceil(first), math.floor(last) + 1, step):
                yield 10.0**power, _short(10.0**power)
        else:
            yield from ((value, _short(value)) for value in _round(self.low, self.high))


def _room_for_words(layout: Mapping[str, Any]) -> float:
    """Pixels that the words beside the left axis take, for those that are no numbers."""
    words = (layout.get("yaxis") or {}).get("ticktext") or ()
    return max((_TICK * len(_plain(str(word))) + 12 for word in words), default=0.0)


def _room_on_the_right(layout: Mapping[str, Any]) -> float:
    """Pixels that the words and the titles beside axes on the right take."""
    right = [
        spec
        for key, spec in layout.items()
        if key.startswith("yaxis") and spec.get("side") == "right" and spec.get("visible", True)
    ]
    return max((_title_off(spec) + 8 for spec in right if _named(spec)), default=0.0)


def _title_off(spec: Mapping[str, Any]) -> float:
    """Pixels from an axis on the right to the middle of its title, past its words."""
    words = spec.get("ticktext") or ()
    return max(44.0, 14 + max((_TICK * len(_plain(str(word))) for word in words), default=0.0))


def _named(spec: Mapping[str, Any]) -> str:
    title = spec.get("title") or ""
    return str((title.get("text") if isinstance(title, Mapping) else title) or "")


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None


def _short(value: Any) -> str:
    number = _number(value)
    if number is None:
        return str(value)
    if number and (abs(number) >= 1e5 or abs(number) < 1e-3):
        return f"{number:.3g}".replace("e+0", "e").replace("e-0", "e-").replace("e+", "e")
    return f"{number:.4g}"


def _round(low: float, high: float) -> Iterator[float]:
    first, last = sorted((low, high))
    span = last - first
    if not span or not math.isfinite(span):
        return
    rough = span / 6
    unit = 10 ** math.floor(math.log10(rough))
    step = unit * next(k for k in (1, 2, 5, 10) if k * unit >= rough)
    for index in range(math.ceil(first / step - 1e-9), math.floor(last / step + 1e-9) + 1):
        yield index * step


def _axes(
    layout: Mapping[str, Any], data: Sequence[Mapping[str, Any]], frame: _Frame
) -> dict[str, _Axis]:
    keys = {f"{way}axis" for way in "xy"}
    keys |= {key for key in layout if key.startswith(("xaxis", "yaxis"))}
    axes = {}
    for key in sorted(keys):
        spec = layout.get(key) or {}
        log = spec.get("type") == "log"
        low, high = _range(key, spec, data, log)
        domain = spec.get("domain") or (0.0, 1.0)
        if key.startswith("x"):
            start = frame.x + domain[0] * frame.width
            length = (domain[1] - domain[0]) * frame.width
        else:
            start = frame.y + (1 - domain[1]) * frame.height
            length = (domain[1] - domain[0]) * frame.height
        axes[key] = _Axis(key, spec, low, high, start, length, log)
    return axes


def _axis_of(trace: Mapping[str, Any], way: str) -> str:
    name = str(trace.get(f"{way}axis") or way)
    return f"{way}axis{name[1:]}"


def _range(
    key: str, spec: Mapping[str, Any], data: Sequence[Mapping[str, Any]], log: bool
) -> tuple[float, float]:
    given = spec.get("range")
    if given and all(_number(v) is not None for v in given):
        return float(given[0]), float(given[1])
    way = key[0]
    seen: list[float] = []
    for trace in data:
        if _axis_of(trace, way) != key:
            continue
        numbers = [_number(v) for v in trace.get(way) or ()]
        if trace.get("type") == "heatmap":  # its cells are centred on the values
            return _cells(trace, way, spec)
        seen += [n for n in numbers if n is not None and (n > 0 or not log)]
        long = "x" if trace.get("orientation") == "h" else "y"
        from_zero = trace.get("type") == "bar" or trace.get("fill") == "tozeroy"
        if way == long and from_zero:
            seen += [] if log else [0.0]
    if spec.get("rangemode") == "tozero" and not log:
        seen.append(0.0)
    if not seen:
        return 0.0, 1.0
    low, high = min(seen), max(seen)
    if log:
        low, high = math.log10(low), math.log10(high)
    pad = (high - low) * 0.05 or abs(high) * 0.05 or 0.5
    low, high = low - (0 if low == 0 and not log else pad), high + pad
    return (high, low) if spec.get("autorange") == "reversed" else (low, high)


def _cells(trace: Mapping[str, Any], way: str, spec: Mapping[str, Any]) -> tuple[float, float]:
    """From the edge of the first cell to that of the last."""
    z = trace.get("z") or ()
    count = len(z) if way == "y" else max(map(len, z), default=0)
    known = [n for v in trace.get(way) or range(count) if (n := _number(v)) is not None]
    low, high = min(known, default=0.0), max(known, default=0.0)
    half = (high - low) / (len(known) - 1) / 2 if len(known) > 1 else 0.5
    ends = low - half, high + half
    return (ends[1], ends[0]) if spec.get("autorange") == "reversed" else ends


# -- what is drawn ---------------------------------------------------------------------------------


def _grid(axis: _Axis, axes: Mapping[str, _Axis], frame: _Frame) -> str:
    spec = axis.spec
    if spec.get("visible") is False:
        return ""
    across = axis.across
    anchor = axes.get(f"{str(spec.get('anchor') or ('y' if across else 'x'))[0]}axis"
                      f"{str(spec.get('anchor') or 'yx'[not across])[1:]}")  # fmt: skip
    lo = anchor.start if anchor else (frame.y if across else frame.x)
    hi = lo + (anchor.length if anchor else (frame.height if across else frame.width))
    far = spec.get("side") in ("top", "right")
    edge = (lo if far else hi) if across else (hi if far else lo)
    parts = []
    grid = spec.get("showgrid", True) and not spec.get("overlaying")
    for value, words in axis.ticks():
        place = axis.at(value)
        if place is None or not axis.start - 1 <= place <= axis.start + axis.length + 1:
            continue
        ends = {"x1": place, "x2": place, "y1": lo, "y2": hi}
        if not across:
            ends = {"x1": lo, "x2": hi, "y1": place, "y2": place}
        if grid:
            parts.append(element("line", **ends, stroke=LIGHT.grid))
        if spec.get("showticklabels", True):
            parts.append(_tick(words, place, edge, across, far))
    if spec.get("showline", True):
        whole = {"x1": axis.start, "x2": axis.start + axis.length, "y1": edge, "y2": edge}
        if not across:
            whole = {"x1": edge, "x2": edge, "y1": axis.start, "y2": axis.start + axis.length}
        parts.append(element("line", **whole, stroke="#b6bec6"))
    named = _named(spec)
    if named:
        parts.append(_axis_title(named, axis, edge, far))
    return "".join(parts)


def _tick(words: str, place: float, edge: float, across: bool, far: bool) -> str:
    if across:
        where = {"x": place, "y": edge - 6 if far else edge + 14, "text_anchor": "middle"}
    else:
        side = edge + 5 if far else edge - 5
        where = {"x": side, "y": place + 4, "text_anchor": "start" if far else "end"}
    return element("text", escape(_plain(words)), **where, fill=LIGHT.muted, font_size=10)


def _axis_title(words: str, axis: _Axis, edge: float, far: bool) -> str:
    middle = axis.start + axis.length / 2
    more: dict[str, Any] = {"fill": LIGHT.muted, "text_anchor": "middle"}
    if axis.across:
        return element(
            "text", escape(_plain(words)), x=middle, y=edge + (-20 if far else 30), **more
        )
    x = edge + (_title_off(axis.spec) if far else -46)
    turn = f"rotate(-90 {x:.0f} {middle:.0f})"
    return element("text", escape(_plain(words)), x=x, y=middle, transform=turn, **more)


def _trace(trace: Mapping[str, Any], axes: Mapping[str, _Axis]) -> str:
    x, y = axes[_axis_of(trace, "x")], axes[_axis_of(trace, "y")]
    draw = {"bar": _bars, "scatter": _scatter, "scattergl": _scatter, "heatmap": _heat}
    kind = str(trace.get("type") or "scatter")
    return draw[kind](trace, x, y) if kind in draw else ""


def _bars(trace: Mapping[str, Any], x: _Axis, y: _Axis) -> str:
    lying = trace.get("orientation") == "h"
    along, over = (y, x) if lying else (x, y)  # where they stand, and how long they are
    centres, values = (list(trace.get(key) or ()) for key in ("yx" if lying else "xy"))
    numbers = [n for n in map(_number, centres) if n is not None]
    gaps = [b - a for a, b in zip(sorted(numbers), sorted(numbers)[1:], strict=False) if b > a]
    usual = min(gaps, default=1.0) * 0.8
    widths = trace.get("width")
    marker = trace.get("marker") or {}
    colour = marker.get("color")
    low, high = over.start, over.start + over.length
    parts = []
    for index, (centre, value) in enumerate(zip(centres, values, strict=False)):
        n = _number(centre)
        n = float(index) if n is None else n
        half = (widths[index] if isinstance(widths, (list, tuple)) else widths or usual) / 2
        one, other, end = along.at(n - half), along.at(n + half), over.at(value)
        if one is None or other is None or end is None:
            continue
        foot = (low if lying else high) if over.log else over.at(0.0)
        foot = min(max(foot or 0.0, low), high)
        end = min(max(end, low), high)
        fill = colour[index] if isinstance(colour, (list, tuple)) else colour
        start, thick = min(one, other), max(abs(other - one), 0.6)
        first, length = min(end, foot), abs(foot - end)
        parts.append(
            element(
                "rect",
                x=first if lying else start,
                y=start if lying else first,
                width=length if lying else thick,
                height=thick if lying else length,
                fill=fill or LIGHT.series[0],
            )
        )
    return element("g", *parts, opacity=trace.get("opacity")) if parts else ""


def _scatter(trace: Mapping[str, Any], x: _Axis, y: _Axis) -> str:
    runs: list[list[tuple[float, float]]] = [[]]
    for a, b in zip(trace.get("x") or (), trace.get("y") or (), strict=False):
        left, top = x.at(a), y.at(b)
        if left is None or top is None:
            runs.append([])
        else:
            runs[-1].append((left, top))
    runs = [run for run in runs if run]
    line, marker = trace.get("line") or {}, trace.get("marker") or {}
    colour = line.get("color") or marker.get("color") or LIGHT.series[0]
    mode = str(trace.get("mode") or "lines")
    parts = []
    for run in runs:
        path = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in run)
        if trace.get("fill") in ("toself", "tozeroy") and len(run) > 1:
            foot = min(max(y.at(0.0) or y.start + y.length, y.start), y.start + y.length)
            shut = f"L{run[-1][0]:.1f} {foot:.1f}L{run[0][0]:.1f} {foot:.1f}z"
            area = path + ("z" if trace["fill"] == "toself" else shut)
            fill = trace.get("fillcolor") or colour
            parts.append(element("path", d=area, fill=fill, stroke="none"))
        if "lines" in mode and len(run) > 1 and line.get("width", 2):
            parts.append(element(
                "path", d=path, fill="none", stroke=colour, stroke_width=line.get("width", 2),
                stroke_dasharray=_DASHES.get(str(line.get("dash"))), stroke_linejoin="round",
            ))  # fmt: skip
        if "markers" in mode:
            size, tint = marker.get("size", 6), marker.get("color") or colour
            for a, b in run:
                radius = size / 2 if isinstance(size, (int, float)) else 3
                fill = tint if isinstance(tint, str) else colour
                parts.append(element("circle", cx=a, cy=b, r=radius, fill=fill))
    return element("g", *parts, opacity=trace.get("opacity")) if parts else ""


def _heat(trace: Mapping[str, Any], x: _Axis, y: _Axis) -> str:
    z = [list(row) for row in trace.get("z") or ()]
    xs, ys = list(trace.get("x") or ()), list(trace.get("y") or ())
    known = [n for row in z for n in map(_number, row) if n is not None]
    if not known or len(z) * max(map(len, z)) > 6000:
        return ""
    low = min(known) if trace.get("zmin") is None else float(trace["zmin"])
    high = max(known) if trace.get("zmax") is None else float(trace["zmax"])
    scale = _colours(trace)
    parts = []
    for i, row in enumerate(z):
        for j, value in enumerate(row):
            n = _number(value)
            left, top = x.at(xs[j] if j < len(xs) else j), y.at(ys[i] if i < len(ys) else i)
            if n is None or left is None or top is None:
                continue
            share = min(max((n - low) / ((high - low) or 1.0), 0.0), 1.0)
            width, height = x.length / max(len(row), 1), y.length / len(z)
            parts.append(element(
                "rect", x=left - width / 2, y=top - height / 2, width=width, height=height,
                fill=_between(scale, share),
            ))  # fmt: skip
    return element("g", *parts)


def _colours(trace: Mapping[str, Any]) -> list[tuple[float, str]]:
    """The colour scale of a heat map, from 0 to 1: what is dark there is dark here."""
    given = trace.get("colorscale")
    if isinstance(given, str):
        with suppress(PlotlyError):
            given = get_colorscale(given)
    known = [] if isinstance(given, str) else [(float(at), str(c)) for at, c in given or ()]
    if len(known) < 2 or not all(_HEX.fullmatch(colour) for _, colour in known):
        known = [(0.0, LIGHT.paper), (1.0, LIGHT.series[0])]
    if trace.get("reversescale"):
        known = [(1 - at, colour) for at, colour in reversed(known)]
    return known


def _between(scale: Sequence[tuple[float, str]], share: float) -> str:
    for (low, first), (high, second) in pairwise(scale):
        if share <= high:
            part = (share - low) / ((high - low) or 1.0)
            both = zip(_rgb(first), _rgb(second), strict=True)
            return "#" + "".join(f"{round(a + (b - a) * part):02x}" for a, b in both)
    return scale[-1][1]


def _rgb(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[at : at + 2], 16) for at in (1, 3, 5))


def _place(
    value: Any, ref: str, way: str, axes: Mapping[str, _Axis], frame: _Frame
) -> float | None:
    if ref == "paper" or ref.endswith("domain"):
        axis = axes.get(f"{way}axis{ref.split(' ')[0][1:]}") if ref != "paper" else None
        share = _number(value) or 0.0
        if way == "x":
            start, length = (axis.start, axis.length) if axis else (frame.x, frame.width)
            return start + share * length
        start, length = (axis.start, axis.length) if axis else (frame.y, frame.height)
        return start + (1 - share) * length
    axis = axes.get(f"{way}axis{ref[1:]}")
    return axis.at(value) if axis else None


def _shape(shape: Mapping[str, Any], axes: Mapping[str, _Axis], frame: _Frame) -> str:
    xref, yref = str(shape.get("xref") or "x"), str(shape.get("yref") or "y")
    x0, x1 = (_place(shape.get(k), xref, "x", axes, frame) for k in ("x0", "x1"))
    y0, y1 = (_place(shape.get(k), yref, "y", axes, frame) for k in ("y0", "y1"))
    if x0 is None or x1 is None or y0 is None or y1 is None:
        return ""
    line = shape.get("line") or {}
    look = {
        "stroke": line.get("color") or LIGHT.border,
        "stroke_width": line.get("width", 2),
        "stroke_dasharray": _DASHES.get(str(line.get("dash"))),
        "opacity": shape.get("opacity"),
    }
    if shape.get("type") == "line":
        return element("line", x1=x0, y1=y0, x2=x1, y2=y1, **look)
    if shape.get("type") == "rect":
        size = {"width": abs(x1 - x0), "height": abs(y1 - y0)}
        fill = shape.get("fillcolor") or "none"
        return element("rect", x=min(x0, x1), y=min(y0, y1), **size, **look, fill=fill)
    return ""


def _annotation(note: Mapping[str, Any], axes: Mapping[str, _Axis], frame: _Frame) -> str:
    if note.get("visible") is False or not note.get("text"):
        return ""
    x = _place(note.get("x", 0.5), str(note.get("xref") or "x"), "x", axes, frame)
    y = _place(note.get("y", 0.5), str(note.get("yref") or "y"), "y", axes, frame)
    if x is None or y is None:
        return ""
    font = note.get("font") or {}
    size = font.get("size", 11)
    anchor = {"left": "start", "right": "end"}.get(str(note.get("xanchor")), "middle")
    down = {"top": size + 1, "bottom": -3}.get(str(note.get("yanchor")), size / 3)
    lines = [_plain(line) for line in str(note["text"]).split("<br>")]
    return "".join(
        element("text", escape(words), x=x + note.get("xshift", 0),
                y=y + down - note.get("yshift", 0) + at * size * 1.25, font_size=size,
                text_anchor=anchor, fill=font.get("color") or LIGHT.fg)
        for at, words in enumerate(lines)
    )  # fmt: skip


def _title(layout: Mapping[str, Any], width: float) -> tuple[str, float]:
    """Title and subtitle in as many lines as they need, and the pixels of those past the first."""
    title = layout.get("title") or {}
    words, under = _plain(str(title.get("text") or "")), title.get("subtitle") or {}
    heads = wrap(words, int((width - 16) / _HEAD))
    lines = wrap(_plain(str(under.get("text") or "")), int((width - 16) / _UNDER))
    y, parts = 20.0, []
    for line in heads:
        parts.append(element("text", escape(line), x=8, y=y, font_size=14, font_weight=700,
                             fill=LIGHT.fg))  # fmt: skip
        y += _HEAD_LINE
    for line in lines:
        parts.append(element("text", escape(line), x=8, y=y, font_size=12, fill=LIGHT.muted))
        y += _UNDER_LINE
    more = _HEAD_LINE * max(len(heads) - 1, 0) + _UNDER_LINE * max(len(lines) - 1, 0)
    return "".join(parts), more


def _legend_rows(data: Sequence[Mapping[str, Any]], width: float) -> list[list[tuple[str, str]]]:
    """The names of the traces with their colours, in rows that fit."""
    rows: list[list[tuple[str, str]]] = []
    room = 0.0
    named = [t for t in data if t.get("name") and t.get("showlegend", True)]
    for trace in named[:6]:
        words = _plain(str(trace["name"]))
        colour = (trace.get("line") or {}).get("color") or (trace.get("marker") or {}).get("color")
        needed = _KEY * len(words) + 26
        if not rows or needed > room:
            rows.append([])
            room = width - 36
        rows[-1].append((words, colour if isinstance(colour, str) else LIGHT.series[0]))
        room -= needed
    return rows


def _legend(rows: Sequence[Sequence[tuple[str, str]]], frame: _Frame, width: float) -> str:
    parts = []
    for at, row in enumerate(rows):
        x, y = width - 18.0, frame.y - 8 - _LEGEND_LINE * (len(rows) - 1 - at)
        for words, fill in reversed(row):
            x -= _KEY * len(words)
            parts.append(element("text", escape(words), x=x, y=y, fill=LIGHT.muted))
            parts.append(element("rect", x=x - 14, y=y - 9, width=10, height=10, fill=fill))
            x -= 26
    return "".join(parts)


def _plain(words: str) -> str:
    """The text of plotly's little markup: no tags, and entities as what they stand for."""
    return unescape(_BLANK.sub("", words.replace("<br>", " ")))
