"""HTML by functions: text is escaped unless it already is HTML, so forgetting it is harmless."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any

from qatexplorer.snapshot.records import SiteKind
from qatexplorer.views.common.names import KINDS

_VOID = frozenset({"br", "hr", "img", "input"})


class Html(str):
    """Text that is HTML already and is not escaped again."""

    __slots__ = ()


def text(value: Any) -> Html:
    """``value`` as HTML: escaped, unless it is :class:`Html`."""
    return value if isinstance(value, Html) else Html(escape(str(value), quote=True))


def join(parts: Iterable[Any], between: str = "") -> Html:
    """The parts one after the other, each escaped unless it is HTML; None is left out."""
    return Html(str(text(between)).join(text(p) for p in parts if p is not None))


def tag(name: str, *children: Any, **attributes: Any) -> Html:
    """``<name …>children</name>``.

    Attribute names have ``_`` for ``-`` and may end in one (``class_``); None and False are left
    out, True gives a bare attribute.
    """
    written = "".join(
        f" {key.rstrip('_').replace('_', '-')}"
        + ("" if value is True else f'="{escape(str(value), quote=True)}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in _VOID:
        return Html(f"<{name}{written}>")
    return Html(f"<{name}{written}>{join(children)}</{name}>")


def terms(pairs: Iterable[tuple[Any, Any]]) -> Html:
    """A definition list; pairs whose value is None or empty are left out."""
    rows = [
        tag("div", tag("dt", name), tag("dd", value))
        for name, value in pairs
        if value not in (None, "")
    ]
    return tag("dl", *rows, class_="qx-terms") if rows else Html("")


def code(value: Any) -> Html:
    return tag("code", value)


def go(selection: str, label: Any, title: str | None = None) -> Html:
    """A button that selects ``selection`` in every view."""
    return tag("button", label, type="button", class_="qx-link", data_select=selection, title=title)


def ask(what: str, label: Any, title: str | None = None) -> Html:
    """A button that asks the page for something, such as ``"stage:insert"``."""
    return tag("button", label, type="button", class_="qx-link", data_ask=what, title=title)


def kind_badge(kind: SiteKind, word: bool = False) -> Html:
    """The mark of a kind of fake quant: shape, letter and colour."""
    look = KINDS[kind]
    label = f"{look.mark} {look.letter}" + (f" {look.word}" if word else "")
    return tag("span", label, class_=f"qx-badge qx-{kind}", title=f"{look.word} fake quant")


def folded(title: Any, *children: Any, open_: bool = False) -> Html:
    """A ``<details>`` block."""
    return tag("details", tag("summary", title), *children, open=open_)
