"""The CSS and JavaScript files that lie beside the widgets, read once."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def read_text(name: str) -> str:
    """Text of ``widgets/<name>``. Raises FileNotFoundError if there is none."""
    return files("qatexplorer.widgets").joinpath(*name.split("/")).read_text(encoding="utf-8")


def css(*names: str) -> str:
    """``common/base.css`` and then the named style sheets, as one for a widget's ``_css``."""
    return "\n".join(read_text(name) for name in ("common/base.css", *names))
