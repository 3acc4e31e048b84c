"""Which steps are looked at and how many elements: what the measured cost allows."""

from __future__ import annotations

from collections import deque
from typing import Literal

AIM = 0.7
"""Share of the budget that is spent on purpose: what cannot be measured (cold caches after a look)
and the next look, which may cost more than the last, take the rest."""

WANTED_EVERY = 8
LEAST_SAMPLES = 1024
_RELAYOUT = 1.6
_WARM_LOOKS = 2
_SETTLED, _LONG = 5, 3.0


class Controller:
    """Holds ``spent / training time`` under ``budget``.

    A look is allowed once the training done so far has paid for it, so the ratio over the whole
    run cannot stay above the budget whatever the cost model says; the first look of a run is
    granted in advance. Elements per tensor shrink until one step in eight can be paid for, and
    grow again while there is money left.

    Args:
        every: look at every so many steps (then only the elements adapt), or ``"auto"``.
        budget: share of the training time (0.02 is 2 %).
        max_samples: most elements of a tensor.
    """

    def __init__(self, every: int | Literal["auto"], budget: float, max_samples: int) -> None:
        self.every, self.budget, self.max_samples = every, budget, max_samples
        self.samples = min(max_samples, 4096) if every == "auto" else max_samples
        self.steps = self.looks = 0
        self.train_s = self.spent_s = 0.0
        self._cost = 0.0
        self._step_s = 0.0
        self._times: deque[float] = deque(maxlen=15)
        self._costs: deque[float] = deque(maxlen=5)
        self._looked: deque[int] = deque(maxlen=9)

    def wants(self, step: int) -> bool:
        """Whether step ``step``, the next one, is to be looked at."""
        if self.every != "auto":
            return step % self.every == 0
        if not self.looks:
            return True
        # What is spent and what the look will cost, against what the training has earned.
        return self.spent_s + self._cost <= self.train_s * self.budget * AIM

    def step_done(self, train_s: float, spent_s: float, looked: bool) -> None:
        """A step took ``train_s`` seconds, and looking ``spent_s`` on top of it."""
        index = self.steps
        self.steps += 1
        if len(self._times) >= _SETTLED:
            # An evaluation or a pause between two steps is no training, and earns nothing.
            train_s = min(train_s, _LONG * self._step_s)
        self.train_s += train_s
        self.spent_s += spent_s
        self._times.append(train_s)
        # The median: one step that waited for data must not raise what a look may cost.
        self._step_s = sorted(self._times)[len(self._times) // 2]
        if not looked:
            return
        self.looks += 1
        self._looked.append(index)
        self._costs.append(spent_s)
        self._cost = sorted(self._costs)[len(self._costs) // 2]
        if self.looks > _WARM_LOOKS:  # buffers are made in the first look; it says little
            self._resize(self._cost)

    def extra(self, seconds: float) -> None:
        """More cost of an earlier look that is known only now (a device ran behind)."""
        self.spent_s += seconds
        self._cost += seconds

    def _resize(self, cost: float) -> None:
        every = WANTED_EVERY if self.every == "auto" else self.every
        affordable = every * self.budget * AIM * self._step_s
        ratio = affordable / max(cost, 1e-9)
        if 1 / _RELAYOUT < ratio < _RELAYOUT:
            return
        # At most halved or doubled: part of a look's cost does not depend on the elements.
        wanted = self.samples * min(2.0, max(0.5, ratio))
        before = self.samples
        self.samples = int(max(min(LEAST_SAMPLES, self.max_samples), min(self.max_samples, wanted)))
        if self.samples != before:
            self._costs.clear()  # those were of another number of elements

    @property
    def distance(self) -> float:
        """Steps from look to look, mean of the last eight."""
        if self.every != "auto":
            return float(self.every)
        if len(self._looked) < 2:
            return float(max(self.steps, 1))
        return (self._looked[-1] - self._looked[0]) / (len(self._looked) - 1)
