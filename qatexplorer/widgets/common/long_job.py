"""A long call of a panel: its bar, its Stop button and its sentence, while it goes on."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import ipywidgets as widgets

from qatexplorer.errors import QatExplorerError, StoppedError
from qatexplorer.views.common.html import text
from qatexplorer.widgets.common.bridge import Bridge, Job
from qatexplorer.widgets.common.controls import Html, button

T = TypeVar("T")
Heard = Callable[..., Any]
"""``heard(what, share=0.0)``: what is being done, and how much of all is done, 0 to 1."""

log = logging.getLogger(__name__)

_PROGRESS_S = 0.25


@dataclass(eq=False)
class _Call:
    """One call that goes on."""

    halt: threading.Event = field(default_factory=threading.Event)
    begun: float = field(default_factory=time.perf_counter)
    wanted: bool = True  # whether anybody looks at what comes of it


@dataclass(frozen=True)
class _Failure:
    """A call's error, for the panel to report."""

    error: Exception


class LongJob:
    """Starts the long calls of one panel, one at a time, and shows how far they are.

    ``bar`` and ``halt`` are to be seen only while a call goes on; ``status`` says what it does, and
    is the panel's own at other times.

    Args:
        bridge: runs callbacks on the page's loop.
        start_job: starts a long call on a worker thread, as the panel gets it.
        tip: what the button that stops it leads to.
        stopping: what is said from a press of it on.
        beginning: what is said before the call reports anything.
        stop: what the button says.
        bar_width: CSS width of the bar.
        on_busy: called on the loop with whether a call goes on, when that has changed.
    """

    def __init__(
        self,
        bridge: Bridge,
        start_job: Callable[..., bool],
        *,
        tip: str,
        stopping: str,
        beginning: str = "beginning …",
        stop: str = "Stop",
        bar_width: str = "160px",
        on_busy: Callable[[bool], Any] = lambda _busy: None,
    ) -> None:
        self._bridge, self._start_job, self._on_busy = bridge, start_job, on_busy
        self._beginning, self._stopping = text(beginning), text(stopping)
        self._call: _Call | None = None
        self._said = ""  # by a call, not by the panel
        self.bar = widgets.FloatProgress(0.0, min=0.0, max=1.0)
        self.bar.layout.width = bar_width
        self.halt = button(stop, tip)
        self.status = Html(kind="qx-muted", role="status")
        self.halt.on_click(lambda _: self.stop())
        self._show(False)

    @property
    def busy(self) -> bool:
        """Whether a call goes on."""
        return self._call is not None

    def run(
        self,
        name: str,
        work: Callable[[Heard, Callable[[], bool]], T],
        done: Callable[[T], Any],
        *,
        words: Callable[[str, float, float], str],
        stopped: str = "",
        failed: Callable[[Exception], Any] | None = None,
    ) -> bool:
        """Run ``work(heard, should_stop)`` on a worker thread, and ``done`` with its result on the
        loop. False, and all is as before, where another job goes on: the page says so.

        Args:
            words: of what is heard, the share that is done, and seconds since it began.
            stopped: what is said when ``work`` raises StoppedError; ``""`` where it is an error.
            failed: called with any other error, which is logged unless it is one of ours; without
                it the page reports the error.
        """
        call, before = _Call(), self.status.html

        def heard(what: str, share: float = 0.0) -> None:
            said = words(what, share, time.perf_counter() - call.begun)
            self._bridge.post(
                "long job", lambda: self._heard(call, said, share), every_s=_PROGRESS_S
            )

        def body(job: Job) -> T | _Failure:
            try:
                return work(heard, lambda: call.halt.is_set() or job.should_stop())
            except Exception as error:  # the model's own forward may raise anything
                if failed is None and not (stopped and isinstance(error, StoppedError)):
                    raise
                if not isinstance(error, QatExplorerError):
                    log.exception("%s has failed", name)
                return _Failure(error)

        def finished(made: T | _Failure) -> None:
            if not call.wanted:
                return
            if not isinstance(made, _Failure):
                done(made)
            elif stopped and isinstance(made.error, StoppedError):
                self.status.html = text(stopped)
            elif failed is not None:
                failed(made.error)

        self._call = call
        self._show(True)
        self._say(self._beginning)
        self._on_busy(True)
        if self._start_job(
            name, body, finished, ended=lambda: self._ended(call, ""), can_stop=True
        ):
            return True
        self._ended(call, before)
        return False

    def stop(self) -> None:
        """Ask the call to stop; it says when it has."""
        call = self._call
        if call is not None and not call.halt.is_set():
            call.halt.set()
            self.halt.disabled = True
            self._say(self._stopping)

    def forget(self) -> None:
        """The panel shows another session: nothing is to be done with what comes of the call."""
        if self._call is not None:
            self._call.wanted = False
            self._unsay()

    # -- inside ---------------------------------------------------------------------------------

    def _heard(self, call: _Call, said: str, share: float) -> None:
        if call is self._call and call.wanted and not call.halt.is_set():
            self.bar.value = share
            self._say(text(said))

    def _ended(self, call: _Call, then: str) -> None:
        if call is self._call:
            self._call = None
            self._show(False)
            self._unsay(then)
            self._on_busy(False)

    def _say(self, said: str) -> None:
        self._said = self.status.html = said

    def _unsay(self, then: str = "") -> None:
        if self.status.html == self._said:  # else the panel has said something since
            self.status.html = then

    def _show(self, going_on: bool) -> None:
        self.bar.value, self.halt.disabled = 0.0, False
        for part in (self.bar, self.halt):
            part.layout.display = "" if going_on else "none"
