"""The style sheets that lie beside the widgets and the bundles of their JavaScript, read once."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)


@cache
def read_text(name: str) -> str:
    """Text of ``widgets/<name>``. Raises FileNotFoundError if there is none."""
    return files("qatexplorer.widgets").joinpath(*name.split("/")).read_text(encoding="utf-8")


def esm(name: str) -> str:
    """The bundle of one widget, for its ``_esm``; ``tests/js/build.mjs`` makes it."""
    return read_text(f"bundled/{name}.js")


@cache
def css(*names: str) -> str:
    """``common/base.css`` and then the named style sheets, as one for a widget's ``_css``.

    Without comments and indentation: a saved notebook may hold it once for every widget.
    """
    whole = "\n".join(read_text(name) for name in ("common/base.css", *names))
    lines = (line.strip() for line in _COMMENT.sub("", whole).splitlines())
    return "\n".join(line for line in lines if line)
