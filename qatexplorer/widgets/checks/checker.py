"""Checks a session in the background, when nothing else wants it."""

from __future__ import annotations

import atexit
import logging
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from qatexplorer.checks.records import Findings
from qatexplorer.errors import BusyError, StoppedError
from qatexplorer.session.session import Session
from qatexplorer.views.checks.state import CheckState
from qatexplorer.widgets.common.background import in_background
from qatexplorer.widgets.common.bridge import Bridge

log = logging.getLogger(__name__)

_PROGRESS_S = 0.25
_IN_TRAINING = "a run is going on; the model is checked when it has ended."

_halts: weakref.WeakSet[threading.Event] = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    """Before :mod:`~qatexplorer.widgets.common.background` waits for their threads."""
    for halt in list(_halts):
        halt.set()


class Checker:
    """One check at a time, on a thread of its own; ``state`` says how it stands.

    Args:
        bridge: runs callbacks on the page's loop. Without a loop nobody looks on, and a check is
            made only when it is asked for (:meth:`again`).
        on_change: called on the loop when ``state`` is another.
        is_free: whether no job wants the session.

    A check holds the session, so it gives way to every job (:meth:`give_way`) and begins anew when
    that is done. Everything is to be called on the loop.
    """

    def __init__(
        self, bridge: Bridge, on_change: Callable[[], Any], is_free: Callable[[], bool]
    ) -> None:
        self._bridge, self._on_change, self._is_free = bridge, on_change, is_free
        self._session: Session | None = None
        self._halt: threading.Event | None = None  # of the check being made
        self._failed = False  # it does not fail again by itself
        self._begun = False  # whether the page has shown what is known without a check
        self._refused = False  # the user has stopped the check of what there is now
        self._took = 0.0
        self.state = CheckState()

    def use(self, session: Session) -> None:
        """Look at another session."""
        self.give_way()
        self._session, self._took = session, 0.0
        self._begun = self._refused = self._failed = False
        self.look()

    def changed(self) -> None:
        """Model or settings are others: what a user has stopped was the check of those before."""
        self._begun = self._refused = self._failed = False
        self.look()

    def look(self) -> None:
        """Say how the session stands, if no check is being made."""
        session = self._session
        if session is None or self._halt is not None:
            return
        known = session.last_check
        if known is not None and known is not self.state.findings:
            self._set(CheckState("done", findings=known))
        elif known is None and not (self._failed or self._refused):
            self._set(CheckState("none", _IN_TRAINING if session.running else ""))

    def want(self) -> None:
        """The page shows what is known without a check: make one, if that was not done and nothing
        stands against it."""
        self._begun = True
        self.resume()

    def resume(self) -> None:
        """A job has ended: make the check that gave way to it."""
        session = self._session
        self.look()
        if (
            session is None
            or not self._begun
            or session.last_check is not None
            or self._refused
            or self._halt is not None
            or self._failed
            or session.running
            or not self._bridge.has_loop
            or not self._is_free()
        ):
            return
        self._start(session)

    def again(self) -> None:
        """Check it in any case."""
        if self._session is not None and self._halt is None:
            self._refused = self._failed = False
            self._start(self._session)

    def stop(self) -> None:
        """The user does not want to wait for it."""
        self._refused = True
        self.give_way()

    def give_way(self) -> None:
        """Stop the check that is being made; :meth:`want` begins it anew."""
        if self._halt is not None and not self._halt.is_set():
            self._halt.set()
            self._set(replace(self.state, kind="stopping"))

    # -- inside ---------------------------------------------------------------------------------

    def _start(self, session: Session) -> None:
        halt = self._halt = threading.Event()
        _halts.add(halt)
        begun = time.perf_counter()
        self._set(CheckState("running", before=self._took))

        last: tuple[str, float] = ("", 0.0)

        def heard(what: str, share: float) -> None:
            nonlocal last
            last = what, share
            self._bridge.post(
                "check progress",
                lambda: self._progressed(halt, what, share, time.perf_counter() - begun),
                every_s=_PROGRESS_S,
            )

        def asked() -> bool:
            """Who asks has come a step farther, and the clock goes on."""
            heard(*last)
            return halt.is_set()

        def body() -> None:
            state: CheckState
            try:
                found: Findings = session.check(progress=heard, should_stop=asked)
                state = CheckState("done", findings=found, seconds=time.perf_counter() - begun)
            except StoppedError:
                state = CheckState()
            except BusyError:
                state = CheckState("none", _IN_TRAINING)
            except Exception as error:
                log.exception("the model could not be checked")
                state = CheckState("failed", error=error)
            self._bridge.post("check", lambda: self._ended(session, state))

        in_background(body, "check")

    def _progressed(self, halt: threading.Event, what: str, share: float, seconds: float) -> None:
        if halt is self._halt and not halt.is_set():
            self._set(replace(self.state, what=what, share=share, seconds=seconds))

    def _ended(self, session: Session, state: CheckState) -> None:
        self._halt = None
        if session is self._session:
            self._took = state.seconds or self._took
            self._failed = state.kind == "failed"
            refused = self._refused and state.kind == "none"
            self._set(CheckState("stopped") if refused else state)
        self.resume()

    def _set(self, state: CheckState) -> None:
        if state != self.state:
            self.state = state
            self._on_change()
