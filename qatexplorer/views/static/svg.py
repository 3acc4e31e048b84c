"""SVG as text, and as a picture that stays one wherever inline SVG is taken out."""

from __future__ import annotations

import base64
from html import escape
from typing import Any

FONT = "system-ui,-apple-system,'Segoe UI',sans-serif"


def element(name: str, *inner: str, **attributes: Any) -> str:
    """One element; attributes are escaped, ``_`` in their names is ``-``, None is left out.
    ``inner`` is markup already."""
    words = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(text(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    body = "".join(inner)
    return f"<{name}{words}>{body}</{name}>" if body else f"<{name}{words}/>"


def text(value: Any) -> str:
    """A number with at most two decimals, anything else as it is."""
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return str(value)


def drawing(width: float, height: float, label: str, *inner: str) -> str:
    """A whole SVG document on white, ``label`` for who cannot see it."""
    return element(
        "svg",
        element("title", escape(label)),
        element("rect", width=width, height=height, fill="#ffffff"),
        *inner,
        xmlns="http://www.w3.org/2000/svg",
        width=width,
        height=height,
        viewBox=f"0 0 {text(float(width))} {text(float(height))}",
        font_family=FONT,
        font_size=11,
        role="img",
        aria_label=label,
    )


def image(svg: str, label: str) -> str:
    """``svg`` as an ``<img>`` with its data inside: no style of a page reaches it, and pages that
    take inline SVG out of a saved notebook show it."""
    data = base64.b64encode(svg.encode()).decode()
    return (
        f'<img alt="{escape(label)}" src="data:image/svg+xml;base64,{data}" '
        'style="max-width:100%;height:auto">'
    )


def fitted(words: str, width: float, size: float = 11) -> str:
    """``words``, cut in the middle to about ``width`` pixels."""
    most = max(4, int(width / (size * 0.56)))
    if len(words) <= most:
        return words
    half = (most - 1) // 2
    return f"{words[: most - 1 - half]}…{words[-half:]}"
