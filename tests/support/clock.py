"""A clock that only a model's layers move: what a timer measures is then known to the digit."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from torch import Tensor, nn


class Clock:
    """Seconds that pass where a :class:`Sleeper` says so, and nowhere else."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def replace(self, monkeypatch: pytest.MonkeyPatch, *timers: ModuleType) -> Clock:
        """Be the clock of these modules until the test ends."""
        for timer in timers:
            monkeypatch.setattr(timer, "time", SimpleNamespace(perf_counter=self))
        return self

    # A model is copied where it is timed; its layers go on with the same clock.
    def __deepcopy__(self, memo: dict[int, Any]) -> Clock:
        return self


class Sleeper(nn.Module):
    """Takes its seconds, then does what its children do."""

    def __init__(self, clock: Clock, seconds: float, *children: nn.Module) -> None:
        super().__init__()
        self.clock, self.seconds, self.calls = clock, seconds, 0
        self.modes = set[bool]()
        self.inner = nn.Sequential(*children)

    def forward(self, x: Tensor) -> Tensor:
        self.clock.now += self.seconds
        self.calls += 1
        self.modes.add(self.training)
        result: Tensor = self.inner(x)
        return result
