"""The panel "Flows": the model through eager, FX and PT2E, place by place."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ipywidgets as widgets

from qatexplorer.errors import QatExplorerError, StoppedError
from qatexplorer.flows import FLOWS
from qatexplorer.migration.make import DEFAULT_FLOWS, migrate
from qatexplorer.migration.records import Migration
from qatexplorer.session.session import Session
from qatexplorer.views.common.html import tag
from qatexplorer.views.common.story import message_html
from qatexplorer.views.migration.page import summary_html, worth_html
from qatexplorer.views.migration.table import (
    place_columns,
    place_filters,
    place_rows,
    selection_of,
)
from qatexplorer.views.migration.words import GONE, NO_FLOW, NOTHING, STOPPED, busy_words
from qatexplorer.views.report.page import report_html
from qatexplorer.widgets.common.assets import css
from qatexplorer.widgets.common.bridge import Bridge, Job
from qatexplorer.widgets.common.controls import Html, button, row
from qatexplorer.widgets.common.download import HeldDownload
from qatexplorer.widgets.common.page import PageState
from qatexplorer.widgets.common.table import TableWidget

log = logging.getLogger(__name__)

JOB = "taking the model through the flows"
PLACES, WORTH = PAGES = ("What is rounded", "What comes out")
_PROGRESS_S = 0.25
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


class MigrationPanel(widgets.VBox):
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
        self._job: Job | None = None
        self._shown: _Whole | None = None
        self._enabled, self._active, self._built = True, False, False
        super().__init__([])
        for name in ("qx-panel", "qx-migration"):
            self.add_class(name)

    @property
    def active(self) -> bool:
        """Whether the panel is in sight."""
        return self._active

    @active.setter
    def active(self, value: bool) -> None:
        self._active = value
        if value and not self._built:
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
        self.bar = widgets.FloatProgress(0.0, min=0.0, max=1.0)
        self.bar.layout.width = "160px"
        self.halt = button("Stop", "Stop before the next step; nothing is shown then")
        self.status = Html(kind="qx-muted", role="status")
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
        self.halt.on_click(lambda _: self.stop())
        self.table.observe(lambda change: self._on_chosen(change["new"]), "selected")
        controls = row(
            self.begin, *self.flows.values(), self.int8, self.bar, self.halt, self.status,
            self.pages, self.download,
        )  # fmt: skip
        self._set_busy(False)
        self._empty(NOTHING)
        self.set_enabled(self._enabled)
        self.children = [controls, self.notice, self.summary, self.parts, self.worth]

    # -- what the explorer calls ----------------------------------------------------------------

    def use(self, session: Session | None) -> None:
        """Show another session."""
        self.stop()
        self._session = session
        if self._built:
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
        int8, begun = self.int8.value, time.perf_counter()

        def heard(what: str, share: float) -> None:
            words = busy_words(what, time.perf_counter() - begun)
            self._bridge.post(
                "migration progress", lambda: self._said(words, share), every_s=_PROGRESS_S
            )

        def work(job: Job) -> _Whole | Exception:
            self._job = job
            try:
                found = migrate(
                    session, flows=names, int8=int8, progress=heard, should_stop=job.should_stop
                )
                return _whole(session, found)
            except QatExplorerError as error:
                return error
            except Exception as error:  # the model's own forward may raise anything
                log.exception("the model could not be taken through the flows")
                return error

        self.notice.html, self.bar.value = "", 0.0
        self.status.html = tag("span", busy_words("", 0.0))
        self._set_busy(True)
        if not self._start_job(JOB, work, lambda made: self._ended(session, made)):
            self.status.html = ""
            self._set_busy(False)

    def stop(self) -> None:
        """Stop before the next step."""
        if self._job is not None:
            self._job.stop()
            self.halt.disabled = True
            self.status.html = tag("span", "Stopping before the next step …")

    def _said(self, words: str, share: float) -> None:
        if self._job is not None and not self.halt.disabled:
            self.bar.value = share
            self.status.html = tag("span", words)

    def _ended(self, session: Session, made: _Whole | Exception) -> None:
        self._job = None
        self._set_busy(False)
        if session is not self._session:
            return
        self.status.html = ""
        if isinstance(made, _Whole):
            self._show(made)
        elif isinstance(made, StoppedError):
            self.status.html = tag("span", STOPPED)
        else:
            self.notice.html = message_html(made)

    def _set_busy(self, busy: bool) -> None:
        for widget in (self.bar, self.halt):
            widget.layout.display = "" if busy else "none"
        self.begin.layout.display = "none" if busy else ""
        self.halt.disabled = False

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
