"""The style sheets that lie beside the widgets and the bundles of their JavaScript, read once."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def read_text(name: str) -> str:
    """Text of ``widgets/<name>``. Raises FileNotFoundError if there is none."""
    return files("qatexplorer.widgets").joinpath(*name.split("/")).read_text(encoding="utf-8")


def esm(name: str) -> str:
    """The bundle of one widget, for its ``_esm``; ``tests/js/build.mjs`` makes it."""
    return read_text(f"bundled/{name}.js")


def css(*names: str) -> str:
    """``common/base.css`` and then the named style sheets, as one for a widget's ``_css``."""
    return "\n".join(read_text(name) for name in ("common/base.css", *names))
