"""The module tree as a widget."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import anywidget
import traitlets

from qatexplorer.widgets.common.assets import css, esm
from qatexplorer.widgets.common.packed import PackedTrait


class TreeWidget(anywidget.AnyWidget):
    """A searchable tree of modules and fake quants, drawn row by row as it is scrolled.

    It knows nothing of models or sessions: it draws rows and reports what is picked.

    Attributes:
        rows: what :func:`qatexplorer.views.tree.build_tree` returns, plain or packed.
            Setting new rows keeps what is open, searched for and selected.
        selected: selection string (``"module:<path>"``, ``"site:<path>"``, or ``""``), both ways.
            Set from Python it opens the ancestors of the row and scrolls it into view; a
            selection that is no row of the tree (``"node:…"``, ``"edge:…"``) marks none.
        chosen: all selection strings that are selected together, ``selected`` among them, both
            ways. Where it does not hold ``selected``, that alone is selected. :meth:`mark` sets
            both. Ctrl, Shift and the space bar choose several.
        query: text of the search, both ways; words that path, name or type must contain, and
            ``type:<type>`` for modules of that very type.
        only: ``"all"``, ``"changed"`` or ``"float"``, both ways.
        state_label: what the column with the states is called.
        height: of the whole widget, in CSS pixels.
        findings: marks at selection strings, as
            :func:`qatexplorer.views.checks.marks.finding_marks` returns them.
        dark: True or False to force a theme, None to follow the page.
    """

    _esm = esm("tree")
    _css = css("tree/tree.css")

    rows: Any = PackedTrait([])
    selected: Any = traitlets.Unicode("").tag(sync=True)
    chosen: Any = traitlets.List(traitlets.Unicode()).tag(sync=True)
    query: Any = traitlets.Unicode("").tag(sync=True)
    only: Any = traitlets.Enum(("all", "changed", "float"), "all").tag(sync=True)
    state_label: Any = traitlets.Unicode("State").tag(sync=True)
    height: Any = traitlets.Int(520, min=120).tag(sync=True)
    findings: Any = traitlets.Dict().tag(sync=True)
    dark: Any = traitlets.Bool(None, allow_none=True).tag(sync=True)

    def mark(self, selected: str, chosen: Iterable[str]) -> None:
        """Mark what is selected, and what else is selected with it."""
        also = list(chosen)
        if selected != self.selected or also != self.chosen:
            with self.hold_sync(), self.hold_trait_notifications():
                self.selected, self.chosen = selected, also
