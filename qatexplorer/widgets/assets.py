"""The CSS and JavaScript files that lie beside the widgets, read once."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def read_static(name: str) -> str:
    """Text of ``widgets/static/<name>``. Raises FileNotFoundError if there is none."""
    return (files("qatexplorer.widgets") / "static" / name).read_text(encoding="utf-8")


def css(*names: str) -> str:
    """``base.css`` and then the named style sheets, as one for a widget's ``_css``."""
    return "\n".join(read_static(name) for name in ("base.css", *names))
