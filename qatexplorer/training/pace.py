"""How fast a run is, and how long it still takes."""

from __future__ import annotations

import statistics
import time
from collections import deque


class Pace:
    """Times of steps and of evaluations; pauses are left out of both."""

    def __init__(self) -> None:
        self._steps: deque[float] = deque(maxlen=50)
        self._evaluation_s = 0.0
        self._evaluating_since: float | None = None
        self._paused_since = 0.0
        self.paused_s = 0.0

    def step_took(self, seconds: float) -> None:
        self._steps.append(seconds)

    def pausing(self, begins: bool) -> None:
        if begins:
            self._paused_since = time.perf_counter()
        else:
            self.paused_s += time.perf_counter() - self._paused_since

    def evaluation_begins(self) -> None:
        self._evaluating_since = time.perf_counter()

    def evaluation_took(self, seconds: float | None) -> None:
        """It has ended; None if it was cut short."""
        self._evaluating_since = None
        if seconds is not None:
            self._evaluation_s = seconds

    def eta_s(self, steps_left: int, evaluations_left: int) -> float | None:
        """Seconds left by median step and last evaluation; None before any step."""
        if not self._steps:
            return None
        spent = 0.0
        if self._evaluating_since is not None:
            spent = min(self._evaluation_s, time.perf_counter() - self._evaluating_since)
        seconds = max(0, steps_left) * statistics.median(self._steps)
        return max(0.0, seconds + evaluations_left * self._evaluation_s - spent)
