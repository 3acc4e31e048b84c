"""The forwards that a ledger takes: counted, reported while they run, and stopped when asked."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from qatexplorer.errors import StoppedError
from qatexplorer.forward.hooks import hooked
from qatexplorer.forward.scripted import named_python_modules, python_modules

REPORT_EVERY_S = 0.1


@dataclass(frozen=True, slots=True)
class LedgerProgress:
    """How far the making of a ledger is.

    Attributes:
        what: what is going on, for the user.
        done: forwards that are over, the one that runs as the part of its module calls that have
            begun; total: forwards that it will take as far as is known now.
        seconds_left: estimated from the time that the forwards so far took, None before anything
            is known.
    """

    what: str
    done: float
    total: int
    seconds_left: float | None = None

    @property
    def share(self) -> float:
        """0 to 1."""
        return min(self.done / self.total, 1.0) if self.total else 0.0


class Forwards:
    """Counts the forwards of one ledger.

    Args:
        progress: called with a :class:`LedgerProgress`, on the thread that makes the ledger.
        should_stop: asked at every module call; True ends the ledger with StoppedError.
    """

    def __init__(
        self,
        progress: Callable[[LedgerProgress], Any] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> None:
        self.done, self.total = 0, 2
        self._progress, self._should_stop = progress, should_stop
        self._spent_s = self._reported_at = 0.0
        self._entries = 0

    @contextmanager
    def one(self, what: str, model: nn.Module) -> Iterator[None]:
        """Inside, one forward of ``model`` runs."""
        self.say(what)
        started, entered = time.perf_counter(), 0
        expected = self._entries or sum(1 for _ in python_modules(model))

        def enter(*_call: Any) -> None:
            nonlocal entered
            entered += 1
            self._check_stop()
            share = min(entered / expected, 0.99)
            self._report(what, share, time.perf_counter() - started)

        try:
            with hooked(named_python_modules(model), running=enter):
                yield
        finally:
            self.done += 1  # one that raises is over too
            self._spent_s += time.perf_counter() - started
            self._entries = entered

    def say(self, what: str) -> None:
        """Report what is going on now. Raises StoppedError if it is to end."""
        self._check_stop()
        self._reported_at = 0.0
        self._report(what, 0.0, 0.0)

    def _check_stop(self) -> None:
        if self._should_stop is not None and self._should_stop():
            raise StoppedError(
                "the ledger was stopped before it was complete.",
                fix="Ask for it again; what there was is thrown away, since half an account "
                "would leave fake quants out.",
            )

    def _report(self, what: str, share: float, running_s: float) -> None:
        now = time.perf_counter()
        if self._progress is None or now - self._reported_at < REPORT_EVERY_S:
            return
        self._reported_at = now
        done = self.done + share
        spent = self._spent_s + running_s
        left = spent / done * (self.total - done) if done > 0 and spent > 0 else None
        self._progress(LedgerProgress(what, done, self.total, left))
