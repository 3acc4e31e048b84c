"""The module tree as a plain table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

MAX_ROWS = 300
_LETTERS = ("W", "I", "A")


def tree_table(rows: Iterable[Mapping[str, Any]], most: int = MAX_ROWS, state: str = "") -> str:
    """An HTML table of rows of :func:`qatexplorer.views.tree.build_tree`.

    A larger tree is cut at the depth at which at most ``most`` rows are left, and the table says
    how many are below. ``state`` heads the last column. Only inline
    styles: the table reads well where styles are taken out.
    """
    rows = list(rows)
    shown = _shallow(rows, most)
    head = "".join(
        f'<th style="text-align:left;padding:1px 10px 1px 0">{name}</th>'
        for name in ("module", "type", "parameters", "fake quants", escape(state.lower()))
    )
    body = "".join(map(_row, shown))
    left = len(rows) - len(shown)
    more = f"<p>{left:,} more below these.</p>" if left else ""
    return (
        '<table style="border-collapse:collapse;font-size:12px;line-height:1.45">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"
    )


def _shallow(rows: list[Mapping[str, Any]], most: int) -> list[Mapping[str, Any]]:
    if len(rows) <= most:
        return rows
    counts = Counter(row["depth"] for row in rows)
    deepest, total = -1, 0
    for depth in sorted(counts):
        total += counts[depth]
        if total > most:
            break
        deepest = depth
    kept = [row for row in rows if row["depth"] <= deepest]
    return kept or rows[:most]


def _row(row: Mapping[str, Any]) -> str:
    indent = "&nbsp;" * (3 * row["depth"])
    name = escape(str(row["name"]))
    strong = f"<b>{name}</b>" if row.get("changed") else name
    type_ = escape(str(row.get("type", "")))
    if row.get("before"):
        type_ = f"{escape(str(row['before']))} → {type_}"
    marks = row.get("marks") or (0, 0, 0)
    quants = " ".join(
        letter if number == 1 else f"{number}{letter}"
        for letter, number in zip(_LETTERS, marks, strict=False)
        if number
    )
    params = f"{row['params']:,}" if row.get("params") else ""
    cells = (f"{indent}{strong}", type_, params, quants, _state(row))
    padded = "".join(
        f'<td style="text-align:left;padding:0 10px 0 0;white-space:nowrap">{c}</td>' for c in cells
    )
    return f'<tr title="{escape(str(row.get("path") or ""))}">{padded}</tr>'


def _state(row: Mapping[str, Any]) -> str:
    known = [str(row["state_text"])] if row.get("state_text") else []
    now = (("int8", row.get("int8")), ("float", row.get("float")))
    words = known or [word for word, is_so in now if is_so]
    words += [str(word) for word in row.get("what") or ()]
    if row.get("not_run"):
        words.append("not run")
    return escape(", ".join(words))
