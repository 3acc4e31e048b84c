"""The panel "Flows": the model through eager, FX and PT2E, place by place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ipywidgets as widgets

from qatexplorer.flows import FLOWS
from qatexplorer.migration.make import DEFAULT_FLOWS, migrate
from qatexplorer.migration.records import Migration
from qatexplorer.session.session import Session
from qatexplorer.views.common.busy import since_words
from qatexplorer.views.common.html import tag
from qatexplorer.views.common.story import message_html
from qatexplorer.views.migration.page import summary_html, worth_html
from qatexplorer.views.migration.table import (
    place_columns,
    place_filters,
    place_rows,
    selection_of,
)
from qatexplorer.views.migration.words import GONE, NO_FLOW, NOTHING, STOPPED
from qatexplorer.views.report.page import report_html
from qatexplorer.widgets.common.assets import css
from qatexplorer.widgets.common.bridge import Bridge
from qatexplorer.widgets.common.controls import Html, button, row
from qatexplorer.widgets.common.download import HeldDownload
from qatexplorer.widgets.common.in_sight import InSight
from qatexplorer.widgets.common.long_job import Heard, LongJob
from qatexplorer.widgets.common.page import PageState
from qatexplorer.widgets.common.table import TableWidget

JOB = "taking the model through the flows"
PLACES, WORTH = PAGES = ("What is rounded", "What comes out")
_SLOW = "Converting PT2E takes some ten seconds where a batch norm follows a convolution"


class MigrationHtml(Html):
    """HTML of what the flows make of the model."""

    _css = css("common/html.css", "migration/migration.css")


@dataclass(frozen=True)
class _Whole:
    """A migration, ready for the page; ``of`` is what was known of the session when it began."""

    found: Migration
    of: Any
    summary: str
    worth: str
    columns: list[dict[str, Any]]
    rows: list[dict[str, Any]]
    filters: list[dict[str, str]]
    packed: bytes


class MigrationPanel(InSight, widgets.VBox):
    """What each flow rounds of the model. Its parts are made when it is first in sight.

    Args:
        bridge: runs callbacks on the page's loop.
        start_job: starts a long call on a worker thread, as the other panels get it.
        page: where choosing a row selects its place.

    ``active`` says whether the panel is in sight.
    """

    def __init__(self, bridge: Bridge, start_job: Callable[..., bool], page: PageState) -> None:
        self._bridge, self._start_job, self._page = bridge, start_job, page
        self._session: Session | None = None
        self._shown: _Whole | None = None
        self._enabled, self._built = True, False
        super().__init__([])
        for name in ("qx-panel", "qx-migration"):
            self.add_class(name)

    def _opened(self) -> None:
        if not self._built:
            self._build()

    def _build(self) -> None:
        self._built = True
        self.begin = button("Take it through", "Prepare a copy in each flow chosen", primary=True)
        self.flows = {
            name: widgets.Checkbox(True, description=name, indent=False, tooltip=FLOWS[name].title)
            for name in DEFAULT_FLOWS
            if name in FLOWS
        }
        self.int8 = widgets.Checkbox(False, description="int8 too", indent=False, tooltip=_SLOW)
        for box in (*self.flows.values(), self.int8):
            box.layout.width = "auto"
        self.job = LongJob(
            self._bridge,
            self._start_job,
            tip="Stop before the next step; nothing is shown then",
            stopping="Stopping before the next step …",
            on_busy=self._on_busy,
        )
        self.halt, self.status = self.job.halt, self.job.status
        tip = "The migration guide of this model as one HTML file"
        self.download = HeldDownload(label="Save as HTML", tip=tip, type="text/html")
        self.notice, self.summary, self.worth = MigrationHtml(), MigrationHtml(), MigrationHtml()
        self.pages = widgets.ToggleButtons(options=list(PAGES))
        self.pages.style.button_width = "auto"
        self.table = TableWidget(label="Tensors that the flows round, in the order of the forward")
        self.parts = widgets.Box([self.table])
        self.parts.add_class("qx-migration-parts")
        self.pages.observe(lambda _change: self._turn(), "value")
        self.begin.on_click(lambda _: self.start())
        self.table.observe(lambda change: self._on_chosen(change["new"]), "selected")
        controls = row(
            self.begin, *self.flows.values(), self.int8, self.job.bar, self.halt, self.status,
            self.pages, self.download,
        )  # fmt: skip
        self._empty(NOTHING)
        self.set_enabled(self._enabled)
        self.children = [controls, self.notice, self.summary, self.parts, self.worth]

    # -- what the explorer calls ----------------------------------------------------------------

    def use(self, session: Session | None) -> None:
        """Show another session."""
        self._session = session
        if self._built:
            self.job.stop()
            self.job.forget()
            self._empty(NOTHING)
            self.set_enabled(self._enabled)

    def refresh(self) -> None:
        """Another stage is in view, or the settings have changed."""
        session, shown = self._session, self._shown
        if session is not None and shown is not None and shown.of != _known(session):
            self._empty(GONE)

    def set_enabled(self, enabled: bool) -> None:
        """Whether a job may be begun."""
        self._enabled = enabled
        if self._built:
            self.begin.disabled = not enabled or self._session is None

    # -- taking it through ----------------------------------------------------------------------

    def start(self) -> None:
        """Take the model through the flows chosen, on a worker thread."""
        session = self._session
        if session is None:
            return
        names = [name for name, box in self.flows.items() if box.value]
        if not names:
            self.status.html = tag("span", NO_FLOW)
            return
        int8 = self.int8.value

        def work(heard: Heard, should_stop: Callable[[], bool]) -> _Whole:
            found = migrate(
                session, flows=names, int8=int8, progress=heard, should_stop=should_stop
            )
            return _whole(session, found)

        def failed(error: Exception) -> None:
            self.notice.html = message_html(error)

        self.notice.html = ""
        self.job.run(JOB, work, self._show, words=since_words, stopped=STOPPED, failed=failed)

    def _on_busy(self, busy: bool) -> None:
        self.begin.layout.display = "none" if busy else ""

    # -- showing --------------------------------------------------------------------------------

    def _empty(self, words: str) -> None:
        self._shown = None
        self.table.rows, self.table.filters = [], []
        self.table.selected = self.table.query = self.table.flag = ""
        self.summary.html = self.worth.html = self.notice.html = ""
        self._turn()
        self.download.hold("", b"")
        self.status.html = tag("span", words)

    def _show(self, made: _Whole) -> None:
        self._shown = made
        with self.table.hold_sync():
            self.table.columns, self.table.rows = made.columns, made.rows
            self.table.filters = made.filters
            self.table.selected = self.table.query = self.table.flag = ""
        self.summary.html, self.worth.html = made.summary, made.worth
        self.download.hold(f"{made.found.model}-migration.html", made.packed)
        self._turn()

    def _turn(self) -> None:
        """Show the page that is turned to, of what there is."""
        shown, page = self._shown, self.pages.value
        for widget, visible in (
            (self.pages, shown is not None),
            (self.download, shown is not None and bool(shown.packed)),
            (self.parts, shown is not None and page == PLACES),
            (self.worth, shown is not None and page == WORTH),
        ):
            widget.layout.display = "" if visible else "none"

    def _on_chosen(self, key: str) -> None:
        session, shown = self._session, self._shown
        if session is not None and shown is not None and key:
            place = selection_of(shown.found, key, session.snapshot)
            if place:
                self._page.select(place)


def _whole(session: Session, found: Migration) -> _Whole:
    return _Whole(
        found,
        _known(session),
        summary_html(found),
        worth_html(found),
        place_columns(found),
        place_rows(found),
        place_filters(found),
        HeldDownload.packed(report_html(found)),
    )


def _known(session: Session) -> Any:
    """What a migration depends on: another of these is another model, or other settings."""
    options = session.options
    return options.qconfig, id(options.example_inputs), tuple(session.edits)
