"""The panel "Compare": float, fake quant and int8 on the same inputs, place by place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import ipywidgets as widgets

from qatexplorer.accuracy.records import Comparison
from qatexplorer.session.session import Session
from qatexplorer.views.accuracy.compare_figures import (
    channels_figure,
    depth_figure,
    scatter_figure,
)
from qatexplorer.views.accuracy.compare_places import Places
from qatexplorer.views.accuracy.compare_table import (
    columns_of,
    compare_filters,
    compare_rows,
    position_of,
)
from qatexplorer.views.accuracy.compare_words import (
    cost_words,
    headline_html,
    place_html,
    progress_words,
)
from qatexplorer.views.accuracy.lost import lost_html
from qatexplorer.views.common.html import tag
from qatexplorer.views.common.story import message_html
from qatexplorer.widgets.common.assets import css
from qatexplorer.widgets.common.bridge import Bridge
from qatexplorer.widgets.common.controls import button, labelled, row
from qatexplorer.widgets.common.in_sight import InSight
from qatexplorer.widgets.common.long_job import Heard, LongJob
from qatexplorer.widgets.common.page import PageState
from qatexplorer.widgets.common.panel import HtmlPanel
from qatexplorer.widgets.common.plot import FigureSlot, PackedFigure, packed
from qatexplorer.widgets.common.table import TableWidget

JOB = "comparing"
DEPTH, PLACE, CHANNELS, LOST = PAGES = (
    "Along the depth",
    "This place",
    "Channels",
    "Lost samples",
)

_NOTHING = "Nothing compared yet."
_GONE = "The model has changed since it was compared: compare again."
_CHOOSE = "Choose a row of the table, or a place in tree or graph."
_NO_DEPTH = "SQNR is known at no place along the depth."
_NO_CHANNELS = "SQNR by channel is known at no place of this kind."
_NO_VALUES = "There is no sample of the values of this place alone."


class CompareHtml(HtmlPanel):
    """HTML of the comparison's views."""

    _css = css("common/html.css", "common/panel.css", "accuracy/compare.css")


@dataclass(frozen=True)
class _Whole:
    """All of a comparison, ready for the page."""

    comparison: Comparison
    places: Places
    headline: str
    rows: list[dict[str, Any]]
    filters: list[dict[str, str]]
    lost: str


@dataclass(frozen=True)
class _Charts:
    """The page that is turned to, of the chosen row."""

    depth: PackedFigure | None
    scatter: PackedFigure | None
    channels: PackedFigure | None
    place: str


class ComparePanel(InSight, widgets.VBox):
    """The three forms of the model compared: a table of places, and figures beside it.

    Args:
        bridge: runs callbacks on the page's loop.
        start_job: starts a long call on a worker thread, as the other panels get it.
        page: where choosing a row selects its place.
        on_colour: called with the name of an overlay that the graph is to be coloured by.
        on_compared: called on the loop when another comparison is shown.

    ``active`` says whether the panel is in sight; figures are drawn only then. ``dark`` themes
    them.
    """

    def __init__(
        self,
        bridge: Bridge,
        start_job: Callable[..., bool],
        page: PageState,
        on_colour: Callable[[str], Any],
        on_compared: Callable[[], Any],
    ) -> None:
        self._bridge, self._start_job, self._page = bridge, start_job, page
        self._on_colour, self._on_compared = on_colour, on_compared
        self._session: Session | None = None
        self._shown: _Whole | None = None
        self._asked: Comparison | None = None  # shown, or being made ready for it
        self._following = False
        self.dark = False
        self._build_head()
        self._build_parts()
        super().__init__([self.head, self.notice, self.headline, self.parts])
        for name in ("qx-panel", "qx-comparison"):
            self.add_class(name)
        self._turn()
        self._empty(_NOTHING)

    def _build_head(self) -> None:
        self.compare = button(
            "Compare", "Run float, fake quant and int8 on the same batches", primary=True
        )
        self.batches = labelled(
            widgets.BoundedIntText(value=4, min=1, max=100_000),
            "Batches",
            "Batches of the evaluation data that all three forms get",
            width="132px",
        )
        self.job = LongJob(
            self._bridge,
            self._start_job,
            tip="Stop comparing; what whole batches have given is shown",
            stopping="Stopping …",
            beginning=progress_words("", 0.0, 0.0),
            on_busy=self._on_busy,
        )
        self.bar, self.halt, self.status = self.job.bar, self.job.halt, self.job.status
        self.colour = button(
            "Colour the graph", "Colour each part of the graph by its SQNR against float"
        )
        self.head = row(self.compare, self.batches, self.bar, self.halt, self.status, self.colour)
        self.notice, self.headline = CompareHtml(), CompareHtml()
        self.compare.on_click(lambda _: self.start())
        self.colour.on_click(lambda _: self._colour())
        self.headline.on_ask(self._choose)

    def _build_parts(self) -> None:
        self.table = TableWidget(
            label="Places, the lowest SQNR first", columns=columns_of("int8"), details=False
        )
        self.pages = widgets.ToggleButtons(options=list(PAGES))
        self.pages.style.button_width = "auto"
        self.depth, self.scatter, self.channels = FigureSlot(), FigureSlot(), FigureSlot()
        self.kinds = widgets.ToggleButtons(options=[("Weights", False), ("Activations", True)])
        self.kinds.style.button_width = "auto"
        self.words, self.place, self.lost = CompareHtml(), CompareHtml(), CompareHtml()
        body = widgets.VBox(
            [
                *(self.words, self.depth, self.scatter, self.place),
                *(self.kinds, self.channels, self.lost),
            ]
        )
        body.add_class("qx-comparison-page")
        side = widgets.VBox([self.pages, body])
        side.add_class("qx-comparison-side")
        self.parts = widgets.HBox([self.table, side])
        self.parts.add_class("qx-comparison-parts")
        self.pages.observe(lambda _change: self._turn(), "value")
        self.kinds.observe(lambda _change: self.draw(), "value")
        self.table.observe(lambda change: self._on_chosen(change["new"]), "selected")
        for slot in (self.depth, self.channels):
            slot.plot.on_pick(self._choose)

    # -- what the explorer calls ----------------------------------------------------------------

    def use(self, session: Session | None) -> None:
        """Show another session."""
        self.job.stop()
        self.job.forget()
        self._session = session
        self._empty(_NOTHING)
        self.refresh()

    def _name(self, session: Session | None) -> None:
        """Call the last form as the session's flow does."""
        form = session.flow.result if session is not None else "int8"
        model = form if form == "int8" else f"the {form} model"
        self.compare.tooltip = f"Run float, fake quant and {model} on the same batches"
        self.table.columns = columns_of(form)

    def refresh(self) -> None:
        """Another stage is in view, or the model has changed: show what is known of it."""
        session = self._session
        self._name(session)
        if session is None or self.job.busy:
            return
        known = session.last_comparison
        if known is not None:
            self._show(session, known)
        elif self._asked is not None:
            self._empty(_GONE)

    def show_selection(self) -> None:
        """Choose the row that stands for what is selected on the page, if there is one."""
        shown = self._shown
        if shown is not None:
            key = shown.places.key_for(self._page.selection, self.table.selected)
            if key:
                self._following = True  # what is selected stays what it is
                self.table.selected = key
                self._following = False

    def set_enabled(self, enabled: bool) -> None:
        self.compare.disabled = not enabled or self._session is None

    def _opened(self) -> None:
        self.draw()

    # -- comparing ------------------------------------------------------------------------------

    def start(self) -> None:
        """Compare on a worker thread."""
        session = self._session
        if session is None or self.job.busy:
            return
        batches = self.batches.value

        def work(heard: Heard, should_stop: Callable[[], bool]) -> Comparison:
            return session.compare(batches=batches, progress=heard, should_stop=should_stop)

        self.notice.html = ""
        self.job.run(
            JOB,
            work,
            lambda made: self._show(session, made),
            words=progress_words,
            stopped="Stopped before the first batch was compared.",
            failed=self._failed,
        )

    def _on_busy(self, busy: bool) -> None:
        self.compare.layout.display = "none" if busy else ""

    # -- showing --------------------------------------------------------------------------------

    def _empty(self, words: str) -> None:
        self._shown = self._asked = None
        self.table.rows, self.table.filters = [], []
        self.table.selected = self.table.query = self.table.flag = ""
        self.headline.html = self.notice.html = self.lost.html = self.place.html = ""
        for slot in (self.depth, self.scatter, self.channels):
            slot.show(None)
        self.parts.layout.display = self.colour.layout.display = "none"
        self.status.html = tag("span", words)

    def _show(self, session: Session, comparison: Comparison) -> None:
        self._asked, shown = comparison, self._shown
        before = shown if shown is not None and shown.comparison is comparison else None
        self._bridge.make(
            "comparison",
            lambda: _whole(session, comparison, before),
            self._show_whole,
            self._failed,
        )

    def _failed(self, error: Exception) -> None:
        self.notice.html = message_html(error)

    def _show_whole(self, made: _Whole) -> None:
        if made.comparison is not self._asked:
            return
        another = self._shown is None or self._shown.comparison is not made.comparison
        self._shown = made
        if another:
            with self.table.hold_sync():
                self.table.rows, self.table.filters = made.rows, made.filters
                self.table.selected = self.table.flag = self.table.query = ""
            self.headline.html, self.lost.html = made.headline, made.lost
            self.status.html = tag("span", cost_words(made.comparison))
            self.notice.html = ""
            lost = made.comparison.lost_total
            self.pages.options = [
                (f"{name} ({lost:,})" if name == LOST and lost else name, name) for name in PAGES
            ]
            self.parts.layout.display = self.colour.layout.display = ""
            self._on_compared()
        self.show_selection()
        self.draw()

    def draw(self) -> None:
        """Draw the page that is turned to: made off the loop, shown on it."""
        shown, page, dark = self._shown, self.pages.value, self.dark
        if shown is None or not self._active:
            return
        chosen, activations = position_of(self.table.selected), self.kinds.value
        self._bridge.make(
            "comparison charts",
            lambda: (shown, page, _charts(shown.comparison, page, chosen, dark, activations)),
            self._show_charts,
            self._failed,
        )

    def _show_charts(self, made: tuple[_Whole, str, _Charts]) -> None:
        shown, page, charts = made
        if shown is not self._shown or page != self.pages.value:
            return
        for slot, figure in (
            (self.depth, charts.depth),
            (self.scatter, charts.scatter),
            (self.channels, charts.channels),
        ):
            slot.show(figure)
        self.place.html = charts.place
        words = ""
        if page == DEPTH and charts.depth is None:
            words = _NO_DEPTH
        elif page == CHANNELS and charts.channels is None:
            words = _NO_CHANNELS
        elif page == PLACE and charts.scatter is None:
            words = _NO_VALUES if charts.place else _CHOOSE
        self.words.html = tag("p", words, class_="qx-muted") if words else ""

    def _turn(self) -> None:
        page = self.pages.value
        for widget, its in (
            (self.depth, DEPTH),
            (self.scatter, PLACE),
            (self.place, PLACE),
            (self.channels, CHANNELS),
        ):
            if its != page:
                widget.layout.display = "none"
            elif isinstance(widget, CompareHtml):
                widget.layout.display = ""
        self.kinds.layout.display = "" if page == CHANNELS else "none"
        self.lost.layout.display = "" if page == LOST else "none"
        self.words.html = ""
        self.draw()

    def _colour(self) -> None:
        """By int8; by fake quant where there is no int8 model."""
        rows = self._shown.comparison.rows if self._shown is not None else ()
        known = any(row.sqnr_int8_db is not None for row in rows)
        self._on_colour("sqnr_int8" if known else "sqnr_fake_quant")

    # -- choosing -------------------------------------------------------------------------------

    def _choose(self, key: str) -> None:
        """A point of a figure, or a button of the headline, stands for this row."""
        if self._shown is not None and position_of(key) is not None:
            with self.table.hold_sync():
                self.table.flag = self.table.query = ""  # else the row may be left out
                self.table.selected = key

    def _on_chosen(self, key: str) -> None:
        shown = self._shown
        if shown is not None and key and not self._following:
            place = shown.places.selection_of(key)
            if place:
                self._page.select(place)
        self.draw()


def _whole(session: Session, comparison: Comparison, before: _Whole | None) -> _Whole:
    """``before`` is what the page shows of the same comparison, in another stage."""
    snapshots = session.snapshots
    likely = (session.flow.train_stage, session.stages[0])
    known = [snapshots[name] for name in likely if name in snapshots]
    places = Places(comparison, known, session.snapshot)
    if before is not None:
        return replace(before, places=places)
    return _Whole(
        comparison,
        places,
        headline_html(comparison),
        compare_rows(comparison),
        compare_filters(comparison),
        lost_html(comparison),
    )


def _charts(
    comparison: Comparison, page: str, chosen: int | None, dark: bool, activations: bool
) -> _Charts:
    depth = depth_figure(comparison, chosen, dark) if page == DEPTH else None
    channels = None
    if page == CHANNELS:
        channels = channels_figure(comparison, chosen, dark, activations=activations)
    scatter, place = None, ""
    if page == PLACE and chosen is not None:
        scatter = scatter_figure(comparison, chosen, dark)
        place = place_html(comparison.rows[chosen], comparison.form)
    return _Charts(packed(depth), packed(scatter), packed(channels), place)
