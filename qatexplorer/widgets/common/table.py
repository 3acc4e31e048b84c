"""A sortable, searchable table as a widget."""

from __future__ import annotations

from typing import Any

import anywidget
import traitlets

from qatexplorer.widgets.common.assets import css, esm


class TableWidget(anywidget.AnyWidget):
    """Rows drawn as they are scrolled to, so that thousands cost no more than a page.

    It computes nothing: rows and columns come from :mod:`qatexplorer.views.ledger.tables`.

    Attributes:
        columns: ``{"label", "width" (CSS grid), "number", "mono", "tip"}`` each.
        rows: ``{"id", "sel", "kind", "flags", "cells", "sort", "tips"}`` each.
        filters: ``{"flag", "label"}``: a button that leaves only rows with that flag.
        flag: the filter in force, ``""`` for none, both ways. query: text of the search, both ways.
        selected: selection string, both ways; a row with that ``sel`` is marked and shown.
        label: name of the table for screen readers. nothing: what an empty table says.
        height: of the rows' area, in CSS pixels.
        details: show the row that has the focus in full below.
        dark: True or False to force a theme, None to follow the page.
    """

    _esm = esm("table")
    _css = css("common/table.css")

    columns: Any = traitlets.List().tag(sync=True)
    rows: Any = traitlets.List().tag(sync=True)
    filters: Any = traitlets.List().tag(sync=True)
    flag: Any = traitlets.Unicode("").tag(sync=True)
    query: Any = traitlets.Unicode("").tag(sync=True)
    selected: Any = traitlets.Unicode("").tag(sync=True)
    label: Any = traitlets.Unicode("Table").tag(sync=True)
    nothing: Any = traitlets.Unicode("Nothing to show.").tag(sync=True)
    height: Any = traitlets.Int(330, min=90).tag(sync=True)
    details: Any = traitlets.Bool(True).tag(sync=True)
    dark: Any = traitlets.Bool(None, allow_none=True).tag(sync=True)
