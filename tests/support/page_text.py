"""What a page says, as plain text that is the same on every machine.

:func:`page_text` collects the words of a widget and all inside it. :func:`masked` takes out what
depends on the machine, the release of torch or the last bits of floats: numbers, hashes, dates,
durations, paths and file names of runs. What is left is wording, held by ``tests/wording``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from typing import Any

_BLOCKS = frozenset(
    ("address", "article", "caption", "details", "div", "dl", "dt", "footer", "h1", "h2", "h3",
     "h4", "header", "li", "ol", "p", "section", "summary", "table", "tbody", "thead", "tr", "ul")
)  # fmt: skip
_INLINE = frozenset(("b", "small", "span"))
_CELLS = frozenset(("td", "th"))
_SILENT = frozenset(("style", "script", "svg"))

# What is written with numbers first, plain numbers last.
_MASKS: tuple[tuple[str, str], ...] = (
    (r"0x[0-9a-f]{6,}", "<address>"),
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d)?(?:[+-]\d\d:?\d\d)?", "<time>"),
    (r"\b\d\d:\d\d:\d\d\b", "<time>"),
    (r"\b\d{4,8}(?:-\d+)+[\w.-]*", "<run>"),
    (r"(?:/[\w.@+-]+){2,}", "<path>"),
    (r"[\w./-]*\b(\w+\.py):\d+", r"\1:#"),
    (r"(?<!\w)(?<!\w\.)[-−+]?\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+−]?\d+)?(?!\w)", "#"),
    (r"#(?:, #)+(?:, …)?", "#, …"),
    (r"# (?:kB|MB|B)\b", "# bytes"),
    (r"(?:# h )?(?:# min )?# (?:s|ms|µs|us|ns)\b", "# s"),
    (r"< # %", "# %"),
)
_LONG = 40
"""Characters of a cell from which on a table says it once."""


class _Words(HTMLParser):
    """Text of HTML: a line a block, cells with bars between them, titles in brackets."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.silent = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _SILENT:
            self.silent += 1
        elif tag in _BLOCKS:
            self.parts.append("\n")
        elif tag in _INLINE:
            self.parts.append(" ")
        elif tag in _CELLS:
            self.parts.append(" | ")
        elif tag == "dd":
            self.parts.append(": ")
        title = dict(attrs).get("title")
        if title and not self.silent:
            self.parts.append(f"[{title}] ")

    def handle_endtag(self, tag: str) -> None:
        if tag in _SILENT:
            self.silent -= 1
        elif tag in _INLINE:
            self.parts.append(" ")
        elif tag in _BLOCKS and tag != "dt":
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        if not self.silent:
            self.parts.append(data)


def visible_text(html: str) -> str:
    """What ``html`` says, without tags; titles (tooltips) stand in brackets."""
    words = _Words()
    words.feed(html)
    words.close()
    lines = (" ".join(line.split()) for line in "".join(words.parts).splitlines())
    return "\n".join(line for line in lines if line)


def masked(text: str) -> str:
    """``text`` with ``#`` for every number, and marks for times, paths and runs."""
    for pattern, mark in _MASKS:
        text = re.sub(pattern, mark, text)
    return text


def distinct(lines: Iterable[str]) -> list[str]:
    """Each line once, in alphabetical order: for tables whose order depends on measured numbers."""
    return sorted(dict.fromkeys(lines))


def page_text(widget: Any) -> str:
    """Masked words of ``widget`` and of all widgets inside it, from top to bottom.

    Fields give their label, tooltip and placeholder, not their value. A table gives its head and
    rows, with ``″`` for a long cell that a row above says in the same words, and each tip once.
    """
    return masked("\n".join(line for line in _words(widget) if line.strip()))


def _words(widget: Any) -> Iterator[str]:
    titles = getattr(widget, "titles", ()) or ()
    if isinstance(getattr(widget, "html", None), str):
        yield visible_text(widget.html)
    elif hasattr(widget, "columns") and hasattr(widget, "rows"):
        yield from _table(widget)
    elif type(widget).__name__ == "HTML":
        yield visible_text(widget.value)
    elif getattr(widget, "description", ""):
        yield _field(widget)
    children = getattr(widget, "children", ())
    for index, child in enumerate(children):
        if index < len(titles) and titles[index]:
            yield f"== {titles[index]} =="
        yield from _words(child)


def _field(widget: Any) -> str:
    text = f"({widget.description})"
    tip = getattr(widget, "tooltip", "") or ""
    if tip and tip != widget.description:
        text += f" [{tip}]"
    if getattr(widget, "placeholder", ""):
        text += f" e.g. {widget.placeholder}"
    return text


def _table(widget: Any) -> Iterator[str]:
    yield f"== {widget.label} =="
    yield " | ".join(str(column["label"]) for column in widget.columns)
    if widget.filters:
        yield "filters: " + ", ".join(str(entry["label"]) for entry in widget.filters)
    if not widget.rows:
        yield widget.nothing
    wording: set[str] = set()
    for row in widget.rows:
        cells = ["" if cell is None else masked(str(cell)) for cell in row["cells"]]
        tips = [f"[{masked(str(tip))}]" for tip in (row.get("tips") or {}).values() if tip]
        fresh = [text if len(text) < _LONG or text not in wording else "″" for text in cells]
        fresh_tips = [tip for tip in tips if tip not in wording]
        wording.update(cells, tips)
        yield " ".join(" ".join([" | ".join(fresh), *fresh_tips]).split())
