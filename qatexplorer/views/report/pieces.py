"""What the sections of a report are made of: headings, tables, drawings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qatexplorer.views.common.html import Html, folded, join, tag, text
from qatexplorer.views.common.names import count
from qatexplorer.views.report.style import themed
from qatexplorer.views.static.figure import figure_svg

_LONG = re.compile(r"[\w.]{16,}")
_JOINT = re.compile(r"([._])(?=\w)")

MAX_ROWS = 400
"""Rows of a table at most; it says how many are left out."""

Row = Sequence[Any]


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading and an address of its own. ``body`` is HTML."""

    id: str
    title: str
    body: Html


def section_html(part: Section) -> Html:
    """Heading and body."""
    heading = tag("h2", part.title, id=f"{part.id}-title")
    return tag("section", heading, part.body, id=part.id, aria_labelledby=f"{part.id}-title")


def missing(sentence: str) -> Html:
    """What stands where something was not measured."""
    return tag("p", sentence, class_="missing")


def table_html(
    label: str, heads: Sequence[str], rows: Iterable[Row], numbers: Iterable[int] = ()
) -> Html:
    """A table in a region that scrolls, by keys too.

    Args:
        label: what it is of, for the caption. numbers: columns that are set to the right.
    """
    rows, right = list(rows), set(numbers)
    shown = rows[:MAX_ROWS]
    names = [
        tag("th", head, scope="col", class_="n" if at in right else None)
        for at, head in enumerate(heads)
    ]
    body = [
        tag("tr", *(tag("td", cell if at in right else _breakable(cell),
                        class_="n" if at in right else None)
                    for at, cell in enumerate(row)))
        for row in shown
    ]  # fmt: skip
    more = len(rows) - len(shown)
    caption = label + (f"; {count(more, 'row')} more not shown" if more else "")
    table = tag(
        "table", tag("caption", caption), tag("thead", tag("tr", *names)), tag("tbody", *body)
    )
    return tag("div", table, class_="scroll", tabindex="0", role="region", aria_label=label)


def _breakable(cell: Any) -> Any:
    """A cell whose long names, such as paths of modules, may go on on the next line."""
    if isinstance(cell, Html) or not isinstance(cell, str):
        return cell
    return Html(_LONG.sub(lambda word: _JOINT.sub(r"\1<wbr>", word[0]), text(cell)))


def records_html(
    label: str,
    columns: Sequence[Mapping[str, Any]],
    rows: Iterable[Mapping[str, Any]],
    most: int | None = None,
) -> Html:
    """The rows of a table widget (``cells``) under its columns; the first ``most`` columns."""
    shown = columns[:most]
    numbers = [at for at, column in enumerate(shown) if column.get("number")]
    cells = (row["cells"][: len(shown)] for row in rows)
    return table_html(label, [str(column["label"]) for column in shown], cells, numbers)


def figure_html(figure: Any, width: float = 640.0) -> Html:
    """A plotly figure as a drawing, with what it shows in words and its numbers below; ``""`` for
    None and for one without data."""
    if figure is None:
        return Html("")
    known = figure.to_plotly_json()
    svg = figure_svg(known, width)
    if not svg:
        return Html("")
    meta = (known.get("layout") or {}).get("meta") or {}
    table = meta.get("table")
    numbers = None
    if table and table["rows"]:
        title = str(meta.get("title", ""))
        numbers = folded("Numbers", table_html(title, table["head"], table["rows"]))
    alt = meta.get("alt")
    said = folded("In words", tag("p", alt)) if alt else None
    return tag("figure", Html(themed(svg)), tag("figcaption", said, numbers))


def figures_html(figures: Iterable[Html]) -> Html:
    """Side by side where there is room; those that are empty are left out."""
    found = [figure for figure in figures if figure]
    return tag("div", join(found), class_="figures") if found else Html("")
