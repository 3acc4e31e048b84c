"""What a benchmark has found: words, table, bars, modules and operators."""

from __future__ import annotations

from typing import Any

import ipywidgets as widgets

from qatexplorer.evaluate.benchmark_records import Benchmark
from qatexplorer.session.session import Session
from qatexplorer.views.common import latency as views
from qatexplorer.widgets.common.controls import Html
from qatexplorer.widgets.common.page import PageState
from qatexplorer.widgets.common.plot import FigureSlot
from qatexplorer.widgets.common.table import TableWidget

_PAGES = ("Modules", "Operators")


class LatencyView(widgets.VBox):
    """A benchmark on the page; hidden before there is one.

    ``page``: where choosing a row selects its module. ``dark`` is the theme of the figure.
    """

    def __init__(self, page: PageState) -> None:
        self._page = page
        self._session: Session | None = None
        self.benchmark: Benchmark | None = None
        self._dark = False
        self.words = Html(kind="qx-results")
        self.bars = FigureSlot()
        self.pages = widgets.ToggleButtons(options=_PAGES)
        self.pages.style.button_width = "auto"
        self.about = Html(kind="qx-muted")
        self.modules = TableWidget(
            label="Time of each module",
            columns=views.module_columns("int8"),
            details=False,
            nothing="No module was timed.",
        )
        self.operators = TableWidget(
            label="Time of each operator",
            columns=list(views.OPERATOR_COLUMNS),
            filters=views.operator_filters("int8"),
            details=False,
            nothing="No operator was timed.",
        )
        self.pages.observe(lambda _change: self._turn(), "value")
        for table in (self.modules, self.operators):
            table.observe(self._on_selected, "selected")
        parts = [self.words, self.bars, self.pages, self.about, self.modules, self.operators]
        super().__init__(parts)
        self._turn()
        self.show(None)

    def use(self, session: Session | None) -> None:
        """Another session: what was measured is not of it."""
        self._session = session
        self._name(session)
        self.show(None)

    def _name(self, session: Session | None) -> None:
        """Call the last form as the session's flow does."""
        result = session.flow.result if session is not None else "int8"
        self.modules.columns = views.module_columns(result)
        self.operators.filters = views.operator_filters(result)

    def show(self, made: Benchmark | None) -> None:
        """Show a benchmark, None for none."""
        self.benchmark = made
        self.layout.display = "none" if made is None else ""
        self.words.html = views.benchmark_html(made) if made is not None else ""
        self.modules.rows = views.module_rows(made) if made is not None else []
        self.operators.rows = views.operator_rows(made) if made is not None else []
        self._turn()
        self._draw()
        self.show_selection()

    @property
    def dark(self) -> bool:
        """The theme of the figure."""
        return self._dark

    @dark.setter
    def dark(self, value: bool) -> None:
        self._dark = value
        self._draw()

    def show_selection(self) -> None:
        """Mark in the tables what is selected on the page."""
        for table in (self.modules, self.operators):
            if table.selected != self._page.selection:
                table.selected = self._page.selection

    def _draw(self) -> None:
        made = self.benchmark
        self.bars.show(views.latency_figure(made, self._dark) if made is not None else None)

    def _turn(self) -> None:
        operators = self.pages.value == _PAGES[1]
        self.modules.layout.display = "none" if operators else ""
        self.operators.layout.display = "" if operators else "none"
        if self.benchmark is not None:
            self.about.html = views.detail_words(self.benchmark, operators)

    def _on_selected(self, change: Any) -> None:
        wanted, session = change["new"], self._session
        if not wanted or session is None or wanted == self._page.selection:
            return
        # A row may be of a module that the stage in view does not have.
        if any(wanted == f"module:{module.path}" for module in session.snapshot.modules):
            self._page.select(wanted)
