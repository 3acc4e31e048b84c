"""A report read back: its tables as text, and what a browser would load for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "img", "br", "hr", "link", "input", "wbr"}


@dataclass
class Table:
    """Caption, heads and cells of a table, as text."""

    caption: str = ""
    head: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)


class ReportText(HTMLParser):
    """Raises on tags that do not nest. ``sections`` is the text of each by its id; ``tags`` all
    elements with their attributes, drawings too."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[Table] = []
        self.sections: dict[str, str] = {}
        self._section = ""
        self._cell: list[str] | None = None
        self.feed(html)
        self.close()
        assert not self.stack, self.stack

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        self.tags.append((tag, known))
        if tag not in VOID:
            self.stack.append(tag)
        if tag == "section":
            self._section = str(known["id"])
            self.sections[self._section] = ""
        elif tag == "table":
            self.tables.append(Table())
        elif tag == "tr":
            self.tables[-1].rows.append([])
        elif tag in ("td", "th", "caption"):
            self._cell = []
        elif tag == "wbr" and self._section:  # within a word
            self.sections[self._section] = self.sections[self._section].removesuffix(" ")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag, tag
        if tag in ("td", "th", "caption") and self._cell is not None:
            text = " ".join("".join(self._cell).split())
            table = self.tables[-1]
            if tag == "caption":
                table.caption = text
            elif "thead" in self.stack:
                table.head.append(text)
            else:
                table.rows[-1].append(text)
            self._cell = None
        elif tag == "thead":
            self.tables[-1].rows.clear()

    def handle_data(self, data: str) -> None:
        if "style" in self.stack:
            return
        if self._cell is not None:
            self._cell.append(data)
        if self._section and "svg" not in self.stack:
            self.sections[self._section] += data + " "

    def table(self, caption: str) -> Table:
        """The one whose caption begins so."""
        found = [one for one in self.tables if one.caption.startswith(caption)]
        assert len(found) == 1, [one.caption for one in self.tables]
        return found[0]


def loaded(tags: list[tuple[str, dict[str, str | None]]], style: str) -> list[str]:
    """What a browser would fetch or run: scripts, frames, addresses that are no data, styles."""
    found = [
        tag for tag, _ in tags if tag in ("script", "link", "iframe", "object", "embed", "base")
    ]
    for tag, attributes in tags:
        for name, value in attributes.items():
            if name.startswith("on"):
                found.append(f"{tag} {name}")
            inside = str(value or "").startswith(("data:", "#"))
            if name in ("src", "srcset", "poster", "xlink:href") and not inside:
                found.append(f"{tag} {name}={value}")
            if name == "href" and tag != "a" and not inside:
                found.append(f"{tag} {name}={value}")
            if name == "style" and "url(" in str(value):
                found.append(f"{tag} {value}")
    found += ["url("] * ("url(" in style) + ["@import"] * ("@import" in style)
    return found
