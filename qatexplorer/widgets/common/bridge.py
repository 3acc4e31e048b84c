"""From worker threads to the page: all widget traits are set on the kernel's own loop.

Training and other long jobs run on threads of their own. What they report is handed to the event
loop of the thread that built the widget; reports under one key replace each other, so a page that
is slower than the training shows the newest state and queues nothing.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from qatexplorer.widgets.common.background import in_background

T = TypeVar("T")

log = logging.getLogger(__name__)

_PAUSE_PER_COST = 25


class Bridge:
    """Runs callbacks on the loop of the thread that made it, or at once if there is no loop."""

    def __init__(self) -> None:
        try:
            self._loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            self._loop = None
        self._thread = threading.get_ident()
        self._lock = threading.RLock()
        self._waiting: dict[str, Callable[[], Any]] = {}
        self._last: dict[str, float] = {}
        self._took: dict[str, float] = {}
        self._newest: dict[str, int] = {}

    @property
    def has_loop(self) -> bool:
        """Whether callbacks wait for a loop; if not, :meth:`post` runs them at once."""
        return self._loop is not None

    def post(self, key: str, callback: Callable[[], Any], *, every_s: float = 0.0) -> None:
        """Run ``callback`` soon, from any thread; a newer one under ``key`` replaces it.

        ``every_s`` is the least time between two runs under this key; the last one always runs.
        What is drawn again and again waits longer if it takes long, so that it gets four per cent
        of the time at the most: a training shares the interpreter with it.
        """
        with self._lock:
            scheduled = key in self._waiting
            self._waiting[key] = callback
            pause = max(every_s, self._took.get(key, 0.0) * _PAUSE_PER_COST) if every_s else 0.0
            wait = self._last.get(key, -1e9) + pause - time.monotonic()
        if scheduled:
            return
        if self._loop is None:
            self._run(key)
        elif threading.get_ident() == self._thread and wait <= 0:
            self._loop.call_soon(self._run, key)
        else:
            self._loop.call_soon_threadsafe(self._schedule, key, max(wait, 0.0))

    def make(
        self,
        key: str,
        work: Callable[[], T],
        show: Callable[[T], Any],
        failed: Callable[[Exception], Any] | None = None,
    ) -> None:
        """Run ``work`` off the loop, and ``show`` with its result on it, or ``failed`` with its
        error, which is logged in any case.

        A worker thread that asks does the work itself, the loop's thread leaves it to a new one.
        What was asked for last under ``key`` is shown last; older results are dropped. Without a
        loop both run at once.
        """
        with self._lock:
            number = self._newest[key] = self._newest.get(key, 0) + 1

        def body() -> None:
            try:
                made = work()
            except Exception as error:
                log.exception("a view failed to be made (%s)", key)
                if failed is not None:
                    found = error  # the name of an except clause is gone when the loop runs this
                    self.post(f"{key}:failed", lambda: failed(found))
                return
            with self._lock:
                newest = self._newest[key] == number
                if newest and self._loop is not None:
                    self.post(key, lambda: show(made))
            if newest and self._loop is None:
                self.post(key, lambda: show(made))  # runs it here and now: not with the lock held

        if self._loop is not None and threading.get_ident() == self._thread:
            in_background(body, key)
        else:
            body()

    def _schedule(self, key: str, wait: float) -> None:
        assert self._loop is not None
        self._loop.call_later(wait, self._run, key)

    def _run(self, key: str) -> None:
        with self._lock:
            callback = self._waiting.pop(key, None)
            self._last[key] = time.monotonic()
        if callback is None:
            return
        started = time.monotonic()
        try:
            callback()
        except Exception:
            log.exception("a view failed to update (%s)", key)
        self._took[key] = time.monotonic() - started


class Job:
    """One long call on a worker thread; ``stop`` is a request, which the call looks at if
    ``can_stop``."""

    def __init__(self, name: str, can_stop: bool = False) -> None:
        self.name, self.can_stop = name, can_stop
        self.started = time.monotonic()
        self._stop = threading.Event()
        self.thread: threading.Thread | None = None

    def stop(self) -> None:
        self._stop.set()

    def should_stop(self) -> bool:
        return self._stop.is_set()


class Jobs:
    """At most one long job at a time, off the loop, so that the page goes on answering.

    ``on_change`` is called on the loop when a job starts or ends.
    """

    def __init__(self, bridge: Bridge, on_change: Callable[[], Any]) -> None:
        self._bridge, self._on_change = bridge, on_change
        self.current: Job | None = None

    def start(
        self,
        name: str,
        work: Callable[[Job], Any],
        done: Callable[[Any], Any],
        failed: Callable[[Exception], Any],
        *,
        ended: Callable[[], Any] = lambda: None,
        can_stop: bool = False,
    ) -> bool:
        """Run ``work`` on a thread, then on the loop ``ended`` and ``done`` or ``failed``; False if
        one is busy."""
        if self.current is not None:
            return False
        job = self.current = Job(name, can_stop)
        self._on_change()

        def finish(callback: Callable[[Any], Any], value: Any) -> None:
            try:
                ended()
            finally:
                self.current = None
            try:
                callback(value)
            finally:
                self._on_change()

        def body() -> None:
            try:
                result = work(job)
            except Exception as error:
                failure = error  # the name of an except clause is gone when the loop runs this
                self._bridge.post(f"job:{name}", lambda: finish(failed, failure))
            else:
                self._bridge.post(f"job:{name}", lambda: finish(done, result))

        job.thread = in_background(body, name)
        return True

    def wait(self, timeout: float | None = None) -> None:
        """Wait for the current job's work to end (tests and scripts)."""
        job = self.current
        if job is not None and job.thread is not None:
            job.thread.join(timeout)
