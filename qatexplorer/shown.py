"""How an object shows itself at the end of a notebook's cell: its ``repr``, as safe HTML."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

MAX_LINES = 20


class Shown:
    """A class whose ``repr`` is a short text for people; notebooks show the same text.

    The page's own colours are used, so it reads well on light and on dark. ``__slots__`` is empty,
    for records with slots of their own.
    """

    __slots__ = ()

    def _repr_html_(self) -> str:
        head, _, rest = repr(self).partition("\n")
        body = f"\n{escape(rest)}" if rest else ""
        style = "overflow-x:auto;line-height:1.4;color:inherit;background:none"
        return f'<pre style="{style}"><b>{escape(head)}</b>{body}</pre>'


def columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Rows as lines of text, cells of a column below each other."""
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def at_most(lines: list[str], most: int = MAX_LINES) -> str:
    """The lines as one text; what is too many is counted in the last one."""
    if len(lines) <= most:
        return "\n".join(lines)
    return "\n".join([*lines[: most - 1], f"… and {len(lines) - most + 1} more"])
