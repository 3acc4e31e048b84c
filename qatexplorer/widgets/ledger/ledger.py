"""The panel "Who put it there?": the ledger as tables, cards and answers."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import ipywidgets as widgets

from qatexplorer.errors import QatExplorerError, StoppedError
from qatexplorer.ledger.answers import Answer
from qatexplorer.ledger.forwards import LedgerProgress
from qatexplorer.ledger.records import Ledger
from qatexplorer.session.session import Session, SessionEvent
from qatexplorer.views.common.story import message_html
from qatexplorer.views.ledger import tables as views
from qatexplorer.views.ledger.progress import progress_words
from qatexplorer.widgets.common.assets import css
from qatexplorer.widgets.common.background import in_background
from qatexplorer.widgets.common.bridge import Bridge, Job, Jobs
from qatexplorer.widgets.common.controls import Html, Message, button, row
from qatexplorer.widgets.common.page import PageState
from qatexplorer.widgets.common.panel import HtmlPanel
from qatexplorer.widgets.common.table import TableWidget

log = logging.getLogger(__name__)

TIMING_ROUNDS = 15
_STOP, _AGAIN = "Stop", "Account again"
_PAGES = ("Who put it there?", "What stays float", "Redundancy", "Answers")


class LedgerHtml(HtmlPanel):
    """HTML of the ledger's views, whose links select."""

    _css = css("common/panel.css", "ledger/ledger.css")


class LedgerPanel(widgets.VBox):
    """The ledger of the stage in view, made when it is looked at and off the loop.

    Args:
        bridge: runs callbacks on the page's loop.
        start_job: starts a long call on a worker thread, as the other panels get it.
        page: where a click selects.
        on_ready: called on the loop when a ledger has been made (to redraw the graph's marks).

    ``active`` says whether the panel is in sight; only then is a ledger made.
    """

    def __init__(
        self,
        bridge: Bridge,
        start_job: Callable[..., Any],
        page: PageState,
        on_ready: Callable[[], Any] | None = None,
    ) -> None:
        self._bridge, self._start_job, self._page = bridge, start_job, page
        self._on_ready = on_ready
        self._session: Session | None = None
        self._active = False
        self._shown: Ledger | None = None
        self._making = threading.Event()  # of the account being made; set, it stops
        self._build()
        super().__init__(
            [
                row(self.pages, self.time),
                row(self.message, self.halt),
                self.summary,
                *self.bodies,
            ]
        )
        self.add_class("qx-panel")
        self._turn()

    def _build(self) -> None:
        self.pages = widgets.ToggleButtons(options=_PAGES)
        self.pages.style.button_width = "auto"
        self.time = button(
            "Measure their time", "Steps with and without each redundant fake quant, by turns"
        )
        self.message = Html(kind="qx-muted", role="status")
        self.halt = button(_STOP, "Stop accounting: half an account is none, so nothing is kept")
        self.halt.layout.display = "none"
        self.summary = LedgerHtml()
        self.sites = _table("Fake quants and observers", views.SITE_COLUMNS, views.SITE_FILTERS)
        self.floats = _table("What stays float", views.FLOAT_COLUMNS, views.FLOAT_FILTERS)
        self.floats.nothing = "No module and no operation is listed as staying float."
        self.redundancies, self.answers = LedgerHtml(), LedgerHtml()
        self.bodies = (
            self.sites,
            self.floats,
            self.redundancies,
            self.answers,
        )
        self.pages.observe(lambda _change: self._turn(), "value")
        self.time.on_click(lambda _: self._measure())
        self.halt.on_click(lambda _: self._stop_or_again())
        for widget in self._selecting:
            widget.observe(self._on_selected, "selected")

    @property
    def _selecting(self) -> tuple[Any, ...]:
        return self.sites, self.floats, self.summary, self.redundancies, self.answers

    # -- what the explorer calls ----------------------------------------------------------------

    def use(self, session: Session | None) -> None:
        """Show another session."""
        self._session = session
        self._show(None, "")
        self.refresh()

    @property
    def active(self) -> bool:
        """Whether the panel is in sight."""
        return self._active

    @active.setter
    def active(self, value: bool) -> None:
        self._active = value
        self.refresh()

    def refresh(self) -> None:
        """Draw the ledger of the stage in view; made on a thread of its own if it is not yet."""
        session = self._session
        if session is None or not self._active:
            return
        self._making.set()  # an older one would be of another stage
        making = self._making = threading.Event()
        if self._shown is None:
            self._say("Accounting for every fake quant …", _STOP)

        def heard(progress: LedgerProgress) -> None:
            words = progress_words(progress)
            self._bridge.post("ledger progress", lambda: self._progressed(making, words))

        def work() -> None:
            ledger: Ledger | None = None
            answered: tuple[Answer, ...] = ()
            words = ""
            try:
                ledger = session.ledger(progress=heard, should_stop=making.is_set)
                answered = session.answers()
            except StoppedError:
                words = "Stopped before it was complete; nothing is shown."
            except QatExplorerError as error:
                words = message_html(error)
            except Exception as error:
                log.exception("the ledger could not be made")
                words = message_html(error)
            page = views.answers_html(answered)
            self._bridge.post("ledger", lambda: self._made(making, ledger, words, page))

        in_background(work, "ledger")

    def show_selection(self) -> None:
        """Mark in the tables what is selected on the page."""
        for table in (self.sites, self.floats):
            if table.selected != self._page.selection:
                table.selected = self._page.selection

    def set_enabled(self, enabled: bool) -> None:
        self.time.disabled = not enabled or self._session is None

    # -- what happens inside --------------------------------------------------------------------

    def _say(self, words: str, button: str = "") -> None:
        self.message.html = words
        self.halt.description = button
        self.halt.layout.display = "" if button else "none"

    def _progressed(self, making: threading.Event, words: str) -> None:
        if making is self._making and not making.is_set():
            self._say(words, _STOP)

    def _stop_or_again(self) -> None:
        if self._making.is_set():
            self.refresh()
        else:
            self._making.set()
            self._say("Stopping …")

    def _made(self, making: threading.Event, ledger: Ledger | None, words: str, page: str) -> None:
        if making is not self._making:  # a newer one is on its way
            return
        self._say("", _AGAIN if making.is_set() and ledger is None else "")
        making.set()
        self.answers.html = page
        self._show(ledger, words)

    def _show(self, ledger: Ledger | None, words: str) -> None:
        if ledger is self._shown and ledger is not None:
            self.message.html = words
            return
        self._shown = ledger
        self.message.html = words
        self.summary.html = views.summary_html(ledger) if ledger is not None else ""
        self.sites.rows = views.site_table(ledger) if ledger is not None else []
        self.floats.rows = views.float_table(ledger) if ledger is not None else []
        self.redundancies.html = views.redundancies_html(ledger) if ledger is not None else ""
        if ledger is None:
            self.answers.html = ""
        elif self._on_ready is not None:
            self._on_ready()
        self.show_selection()

    def _turn(self) -> None:
        index = _PAGES.index(self.pages.value)
        for at, body in enumerate(self.bodies):
            body.layout.display = "" if at == index else "none"
        self.time.layout.display = "" if index == 2 else "none"

    def _on_selected(self, change: Any) -> None:
        if change["new"]:
            self._page.select(change["new"])

    def _measure(self) -> None:
        session = self._session
        if session is not None:
            self._start_job(
                "measuring time",
                lambda job: session.ledger(
                    timing=TIMING_ROUNDS, effects=True, should_stop=job.should_stop
                ),
                lambda ledger: self._show(ledger, ""),
            )


class LedgerView(widgets.VBox):
    """A ledger panel that stands alone: the last line of a notebook cell shows it.

    Args:
        session: at a stage with fake quants; its stage is followed, and the selection of ``page``.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.bridge = Bridge()
        self.message = Message()
        self.jobs = Jobs(self.bridge, self._on_jobs)
        self.page = PageState()
        self.panel = LedgerPanel(self.bridge, self._start, self.page)
        self.panel.use(session)
        self.panel.active = True
        session.signal.subscribe(self._on_event)
        self.page.signal.subscribe(
            lambda _: self.bridge.post("selection", self.panel.show_selection)
        )
        super().__init__([self.message, self.panel])

    def _start(
        self, name: str, work: Callable[[Job], Any], done: Callable[[Any], Any] | None = None
    ) -> bool:
        self.message.clear()
        return self.jobs.start(name, work, done or (lambda _value: None), self.message.error)

    def _on_jobs(self) -> None:
        self.panel.set_enabled(self.jobs.current is None)

    def _on_event(self, event: SessionEvent) -> None:
        if event.kind in ("stage", "trained"):
            self.bridge.post("stage", self.panel.refresh)


def _table(label: str, columns: Any, filters: Any) -> TableWidget:
    return TableWidget(label=label, columns=list(columns), filters=list(filters))
