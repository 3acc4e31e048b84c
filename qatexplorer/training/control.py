"""Pause, resume and stop between two threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Literal

from qatexplorer.runs.records import RunState

FINAL: tuple[RunState, ...] = ("stopped", "finished", "failed")
IDLE_S = 0.5


class Control:
    """What is requested of the loop and what the loop is doing.

    ``on_state`` is called on the loop's thread, without a lock held, after each change of state.
    """

    def __init__(self, on_state: Callable[[RunState], None]) -> None:
        # Re-entrant, so that a signal handler may request a stop whatever it interrupts.
        self._changed = threading.Condition(threading.RLock())
        self._request: Literal["run", "pause", "stop"] = "run"
        self._state: RunState = "ready"
        self._on_state = on_state
        self._thread: int | None = None
        self._started = 0.0
        self._paused_s = 0.0
        self._paused_since: float | None = None
        self._ended: float | None = None

    @property
    def state(self) -> RunState:
        return self._state

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start, pauses left out."""
        if not self._started:
            return 0.0
        now = self._ended or self._paused_since or time.perf_counter()
        return now - self._started - self._paused_s

    def begin(self) -> bool:
        """Claim the run for this thread; False if it was started before."""
        with self._changed:
            if self._state != "ready" or self._started:
                return False
            self._started = time.perf_counter()
            return True

    def running(self) -> None:
        """The loop has taken over, on the thread that calls this."""
        self._thread = threading.get_ident()
        self.become("running")

    def become(self, state: RunState) -> None:
        with self._changed:
            if state == "paused":
                self._paused_since = time.perf_counter()
            elif self._paused_since is not None:
                self._paused_s += time.perf_counter() - self._paused_since
                self._paused_since = None
            if state in FINAL:
                self._ended = time.perf_counter()
            self._state = state
            self._changed.notify_all()
        self._on_state(state)

    @property
    def is_own_thread(self) -> bool:
        """Whether the loop itself calls, or what it has called."""
        return threading.get_ident() == self._thread

    def request(self, what: Literal["run", "pause", "stop"], timeout: float = 0.0) -> None:
        """Request ``what`` of the loop and wait up to ``timeout`` seconds until it has obeyed.

        A stop that was requested cannot be taken back. Never waits on the loop's own thread.
        """
        reached: dict[str, tuple[RunState, ...]] = {
            "run": ("running", *FINAL),
            "pause": ("paused", *FINAL),
            "stop": FINAL,
        }
        with self._changed:
            if self._request != "stop":
                self._request = what
            self._changed.notify_all()
            if timeout and self._started and not self.is_own_thread:
                self._changed.wait_for(lambda: self._state in reached[what], timeout)

    def should_stop(
        self,
        on_pause: Callable[[bool], None],
        on_still: Callable[[], None],
        idle: Callable[[], None],
    ) -> bool:
        """Called by the loop between two steps: sleeps through a pause; True is a stop.

        ``on_pause`` is called with True before the pause and with False when training goes on;
        ``on_still`` once in the pause, after it was reported; ``idle`` about twice a second in it.
        """
        if self._request == "run":
            return False
        if self._request == "pause":
            on_pause(True)
            self.become("paused")
            on_still()
            while self._request == "pause":
                with self._changed:
                    if self._request == "pause":
                        self._changed.wait(IDLE_S)
                idle()
            if self._request == "run":
                on_pause(False)
                self.become("running")
        return self._request == "stop"
