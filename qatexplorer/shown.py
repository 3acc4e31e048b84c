"""How an object shows itself at the end of a notebook's cell: its ``repr``, as safe HTML."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from html import escape
from typing import TypeVar

MAX_LINES = 20
MAX_WIDTH = 160
MAX_CELL = 64

T = TypeVar("T")


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


def columns(rows: Sequence[tuple[str, ...]], right: Collection[int] = ()) -> list[str]:
    """Rows as lines of text, cells of a column below each other; numbers of columns in ``right``
    end together. The beginning of a long cell is left out, as a path's end says the most, but not
    of one in the last column."""
    last = len(rows[0]) - 1 if rows else 0
    cut = [tuple(c if i == last else _end_of(c) for i, c in enumerate(row)) for row in rows]
    widths = [max(map(len, cells)) for cells in zip(*cut, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if number in right else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cut
    ]


def _end_of(cell: str) -> str:
    return cell if len(cell) <= MAX_CELL else f"…{cell[1 - MAX_CELL :]}"


def first(items: Sequence[T], most: int) -> tuple[Sequence[T], list[str]]:
    """The first ``most`` items, and a line that counts the others, if there are any."""
    left = len(items) - most
    return items[:most], [f"… and {left:,} more"] if left > 0 else []


def at_most(lines: Sequence[str], most: int = MAX_LINES) -> str:
    """The lines as one text; what is too many is counted in the last one.

    An entry that is several lines itself, as an error's words are, gives its first; what is too
    long is cut.
    """
    kept, more = first(lines, most if len(lines) <= most else most - 1)
    return "\n".join(map(_one_line, [*kept, *more]))


def listed(names: Sequence[str], most: int | None = 2) -> str:
    """``"a and b"``, ``"a, b and 3 more"``; ``""`` among the names is the model itself. None as
    ``most`` lists all."""
    shown = [name or "the model itself" for name in names[:most]]
    more = len(names) - len(shown)
    if more > 0:
        return f"{', '.join(shown)} and {more} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def first_line(error: BaseException) -> str:
    """The first line of what an error says, ``""`` where it says nothing."""
    return next(iter(str(error).strip().splitlines()), "")


def error_line(error: BaseException, most: int | None = None) -> str:
    """``"ValueError: …"`` with the first line of what it says, or the first ``most`` characters of
    it; the type alone where it says nothing."""
    said = first_line(error)[:most]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def _one_line(text: str) -> str:
    line = text.partition("\n")[0]
    return line if len(line) <= MAX_WIDTH else f"{line[: MAX_WIDTH - 1]}…"


def module_code(path: str) -> str:
    """How a script writes the module at ``path``: ``"model.net[2].conv"``."""
    parts = path.split(".") if path else []
    return "model" + "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in parts)
