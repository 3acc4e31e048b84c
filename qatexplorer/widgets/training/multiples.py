"""Small multiples of all watched fake quants as a widget."""

from __future__ import annotations

from typing import Any

import anywidget
import traitlets

from qatexplorer.widgets.common.assets import css, esm
from qatexplorer.widgets.common.packed import PackedTrait


class Multiples(anywidget.AnyWidget):
    """Cards, of which a click or Enter selects one.

    While the pointer or the keyboard is among them they stay where they are, however the rows are
    sorted; another ``order`` sorts them at once.

    Attributes:
        rows: of :func:`qatexplorer.views.training.multiples.multiples`; ``[]`` hides the widget.
        order: name of what they are sorted by.
        title: what a screen reader calls them.
        selected: selection string of the card to mark.
        picked: of the card that was clicked; cleared by whoever has acted on it, so that the same
            card can be clicked again.
    """

    _esm = esm("multiples")
    _css = css("training/multiples.css")

    rows: Any = PackedTrait([])
    order: Any = traitlets.Unicode("").tag(sync=True)
    title: Any = traitlets.Unicode("").tag(sync=True)
    selected: Any = traitlets.Unicode("").tag(sync=True)
    picked: Any = traitlets.Unicode("").tag(sync=True)
