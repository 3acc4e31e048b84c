"""The bar between two parts of the page, which a user drags or moves by keys."""

from __future__ import annotations

from typing import Any

import anywidget
import traitlets

from qatexplorer.widgets.common.assets import css, esm

#: Parts whose size can be changed, and what their bar is called.
PARTS = {
    "tree": "Width of the tree",
    "inspector": "Width of the inspector",
    "drawer": "Height of the panels below",
    "height": "Height of the explorer",
}


class Splitter(anywidget.AnyWidget):
    """Sets the size of one part of the explorer that it lies in; the browser remembers it.

    Attributes:
        part: a key of :data:`PARTS`.
        label: what a screen reader says.
    """

    _esm = esm("splitter")
    _css = css("explorer/splitter.css")

    part: Any = traitlets.Enum(tuple(PARTS), "tree").tag(sync=True)
    label: Any = traitlets.Unicode("").tag(sync=True)

    def __init__(self, part: str) -> None:
        super().__init__(part=part, label=PARTS[part])
        self.add_class("qx-splitter-cell")
