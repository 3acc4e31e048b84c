"""A benchmark as words, a table, bars with their spread, and rows of modules and operators."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go

from qatexplorer.evaluate.benchmark_records import (
    FORM_LABELS,
    Benchmark,
    BenchmarkRow,
    ModuleTime,
)
from qatexplorer.evaluate.evaluation import format_latency
from qatexplorer.evaluate.measure import Latency
from qatexplorer.views.common.html import Html, tag
from qatexplorer.views.common.theme import Table, ThemeName, make_figure, theme_of
from qatexplorer.views.training.progress import duration

_SERIES = {"float": 0, "compiled": 4, "int8": 1}
_EARLY = 0.02  # of the work: too little to tell from how long the rest takes


def module_columns(result: str) -> list[dict[str, Any]]:
    """Of the table of modules; ``result`` is what the flow calls its last model."""
    wide = max(0, len(result) - len("int8")) * 7  # px
    return [
        {"label": "Module", "width": "minmax(140px, 1.6fr)", "mono": True},
        {"label": "Float", "width": "minmax(110px, 1fr)"},
        {"label": "ms in float", "width": "96px", "number": True},
        {"label": "% of float", "width": "90px", "number": True},
        {"label": result.capitalize(), "width": "minmax(110px, 1fr)"},
        {
            "label": f"ms {result}" if wide else f"ms in {result}",
            "width": f"{96 + wide}px",
            "number": True,
        },
        {"label": f"% of {result}", "width": f"{90 + wide}px", "number": True},
        {"label": f"Float ÷ {result}", "width": f"{100 + wide}px", "number": True},
    ]


OPERATOR_COLUMNS = (
    {"label": "Operator", "width": "minmax(200px, 1.8fr)", "mono": True},
    {"label": "Form", "width": "84px"},
    {"label": "Module", "width": "minmax(140px, 1.2fr)", "mono": True},
    {"label": "Calls", "width": "64px", "number": True},
    {"label": "ms", "width": "90px", "number": True},
    {"label": "% of forward", "width": "104px", "number": True},
)


def operator_filters(result: str) -> list[dict[str, str]]:
    """Buttons of the table of operators."""
    return [{"flag": "float", "label": "Float"}, {"flag": "int8", "label": result.capitalize()}]


def progress_words(what: str, share: float, seconds: float) -> str:
    """``"timing all forms by turns, 40 %, about 6 s left …"``, after ``seconds``."""
    left = f", about {duration(seconds * (1 - share) / share)} left" if share > _EARLY else ""
    return f"measuring: {what}, {share:.0%}{left} …"


def benchmark_html(made: Benchmark) -> str:
    """Who is faster in words, and a row for each form and batch size."""
    said = [tag("li", sentence) for sentence in made.sentences]
    rows = [_row(row, made) for row in made.rows]
    heads = ("model", "batch", "latency", "spread", "samples/s", "peak memory", "state_dict", "")
    head = tag("thead", tag("tr", *(tag("th", text, scope="col") for text in heads)))
    caption = tag("caption", _caption(made))
    table = tag("table", caption, head, tag("tbody", *rows), class_="qx-results")
    notes = [tag("p", note, class_="qx-muted") for note in made.notes]
    if not made.complete:
        notes.append(tag("p", "Stopped before all was measured.", class_="qx-muted"))
    return tag("div", tag("ul", *said, class_="qx-latency-words") if said else None, table, *notes)


def _row(row: BenchmarkRow, made: Benchmark) -> Html:
    name, *texts, note = made.row_texts(row)
    same = [r.latency for r in made.rows if r.batch_size == row.batch_size and r.latency]
    top = max((one.median_s for one in same), default=0.0)
    cells = [tag("td", text) for text in texts]
    if row.latency is not None and top > 0:
        width = row.latency.median_s / top * 100
        style = f"width:{width:.1f}%"
        fill = tag("span", class_="qx-bar-fill qx-bar-latency", style=style)
        bar = tag("span", fill, class_="qx-bar", aria_hidden="true")
        cells[1] = tag("td", tag("span", texts[1], class_="qx-number"), bar)
    return tag(
        "tr",
        tag("th", name, scope="row"),
        *cells,
        tag("td", note, class_="qx-results-note"),
        class_="qx-is-int8" if row.form == "int8" else None,
    )


def _caption(made: Benchmark) -> str:
    parts = [f"On {made.conditions}."]
    parts += [made.method] if made.method else []
    if any(row.form == "compiled" and row.latency is not None for row in made.rows):
        parts.append("Compiled float: torch.compile, one graph for each batch size.")
    parts.append(
        "Peak memory: what torch's CPU allocator holds at most in one forward beside weights and "
        "inputs."
    )
    return " ".join(parts)


def latency_figure(made: Benchmark, theme: ThemeName | bool = "light") -> go.Figure | None:
    """A bar for each form, side by side for each batch size; the line on it is the spread (IQR).
    None where nothing was timed."""
    look = theme_of(theme)
    timed = [(row, row.latency) for row in made.rows if row.latency is not None]
    sizes = tuple(dict.fromkeys(row.batch_size for row, _ in timed))
    if not sizes:
        return None
    names = [f for f in FORM_LABELS if any(row.form == f for row, _ in timed)]
    data: list[dict[str, Any]] = []
    layout: dict[str, Any] = {"showlegend": False, "margin": {"l": 150, "r": 18, "t": 62, "b": 44}}
    gap = 0.06
    width = (1 - gap * (len(sizes) - 1)) / len(sizes)
    for number, size in enumerate(sizes):
        there = {row.form: latency for row, latency in timed if row.batch_size == size}
        which = "" if number == 0 else str(number + 1)
        start = number * (width + gap)
        layout[f"xaxis{which}"] = {
            "title": f"ms a forward, batch of {size}",
            "domain": [start, start + width],
            "anchor": f"y{which}",
            "rangemode": "tozero",
        }
        layout[f"yaxis{which}"] = {
            "anchor": f"x{which}",
            "showgrid": False,
            "autorange": "reversed",
            "showticklabels": number == 0,
            "categoryorder": "array",
            "categoryarray": [_tick(made, form) for form in names],
        }
        colours = [look.series[_SERIES[form]] for form in names]
        data.append(_bars(made, names, there, colours, look.fg, which))
    rows = tuple(made.row_texts(row)[:5] for row, _ in timed)
    return make_figure(
        look,
        "Latency",
        made.conditions,
        max(170, 90 + 34 * len(names)),
        data,
        layout,
        alt=" ".join(made.sentences),
        table=Table(("model", "batch", "latency", "spread", "samples/s"), rows),
    )


def _tick(made: Benchmark, form: str) -> str:
    """A form beside its bar: what is in parentheses on a line of its own."""
    return escape(made.words(form)).replace(" (", "<br>(").replace(", ", ",<br>")


def _bars(
    made: Benchmark,
    names: Sequence[str],
    there: dict[str, Latency],
    colours: list[str],
    line: str,
    which: str,
) -> dict[str, Any]:
    found = [there.get(form) for form in names]
    return {
        "type": "bar",
        "orientation": "h",
        "xaxis": f"x{which}",
        "yaxis": f"y{which}",
        "y": [_tick(made, form) for form in names],
        "x": [None if one is None else one.median_s * 1e3 for one in found],
        "marker": {"color": colours},
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [0 if one is None else (one.q3_s - one.median_s) * 1e3 for one in found],
            "arrayminus": [0 if one is None else (one.median_s - one.q1_s) * 1e3 for one in found],
            "color": line,
            "thickness": 1.5,
            "width": 5,
        },
        "hovertemplate": "%{y}<br>%{x:.4g} ms<extra></extra>",
    }


def module_rows(made: Benchmark) -> list[dict[str, Any]]:
    """Rows for the table widget: a module's own time, without the modules below it, in float and in
    int8. A module that both have by one path is one row."""
    by_form = {
        form: {row.path: row for row in made.modules if row.form == form}
        for form in ("float", "int8")
    }
    paths = list(dict.fromkeys(row.path for row in made.modules))
    return [
        _module_row(path, by_form["float"].get(path), by_form["int8"].get(path)) for path in paths
    ]


def _module_row(path: str, mine: ModuleTime | None, int8: ModuleTime | None) -> dict[str, Any]:
    ratio = mine.own_s / int8.own_s if mine and int8 and int8.own_s > 0 else None
    cells: list[str] = [path or "the model itself"]
    sort: list[Any] = [path]
    for one in (mine, int8):
        cells += ["", "", ""] if one is None else [one.type, _ms(one.own_s), _percent(one.share)]
        sort += ["", None, None] if one is None else [one.type, one.own_s, one.share]
    tips = {
        place: f"{_ms(one.seconds)} ms with all below it"
        for place, one in ((2, mine), (5, int8))
        if one is not None and one.seconds > one.own_s
    }
    return {
        "id": path or "root",
        "sel": f"module:{path}",
        "kind": "",
        "flags": [],
        "cells": [*cells, "" if ratio is None else f"{ratio:.2g}"],
        "sort": [*sort, ratio],
        "tips": tips,
    }


def operator_rows(made: Benchmark) -> list[dict[str, Any]]:
    """The same for operators, those that take the longest first."""
    return [
        {
            "id": f"{row.form}:{row.path}:{row.name}",
            "sel": f"module:{row.path}",
            "kind": "",
            "flags": [row.form],
            "cells": [
                row.name,
                short_words(made, row.form),
                row.path or "the model itself",
                f"{row.calls:g}" if row.calls else "",
                _ms(row.seconds),
                _percent(row.share),
            ],
            "sort": [
                row.name,
                short_words(made, row.form),
                row.path,
                row.calls,
                row.seconds,
                row.share,
            ],
            "tips": {},
        }
        for row in made.operators
    ]


def detail_words(made: Benchmark, operators: bool) -> str:
    """What the numbers of the table below it are."""
    timed = {row.form: row for row in made.rows if row.latency is not None}
    sizes = sorted({row.batch_size for row in timed.values()})
    where = f"at a batch of {sizes[-1]}" if sizes else ""
    if operators:
        return (
            f"Under torch's profiler {where}, which makes short operators look longer than they "
            "are; an operator's time is without those that it calls."
        )
    totals = [
        f"{short_words(made, form)} {format_latency(latency)}"
        for form, row in timed.items()
        if form != "compiled" and (latency := row.latency) is not None
    ]
    return (
        f"A module's own time by hooks {where}, without the modules below it. Hooks take a few "
        f"microseconds each; the forward without them takes {' and '.join(totals)}."
        if totals
        else ""
    )


def short_words(made: Benchmark, form: str) -> str:
    """A form without what is in parentheses."""
    return made.words(form).partition(" (")[0]


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3g}"


def _percent(share: float) -> str:
    return f"{share * 100:.1f}"
