"""Which steps are sampled and how many elements of each tensor: what the measured cost allows."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Literal

AIM = 0.7
"""Share of the budget that is spent on purpose: the next sample, which may cost more than the last,
takes the rest."""

WANTED_EVERY = 8
LEAST_SAMPLES = 1024
_RELAYOUT = 1.6
_WARM_SAMPLES = 2
_SETTLED, _LONG = 5, 3.0
_LEAST_SEEN, _SEEN = 8, 64


class Controller:
    """Holds ``spent / training time`` under ``budget``.

    A sample is allowed once the training done so far has paid for it, so the ratio over the whole
    run cannot stay above the budget whatever the cost model says; the first sample of a run is
    granted in advance. Elements per tensor shrink until one step in eight can be paid for, and
    grow again while there is money left.

    What no clock around our own code sees (torch's slower way through a module that has hooks,
    caches that the counting has emptied, threads that went to sleep meanwhile) is found by
    difference: how much longer a sampled step and the one after it take than the others around.

    Args:
        every: sample every so many steps (then only the elements adapt), or ``"auto"``.
        budget: share of the training time (0.02 is 2 %).
        max_samples: most elements of a tensor.
    """

    def __init__(self, every: int | Literal["auto"], budget: float, max_samples: int) -> None:
        self.every, self.budget, self.max_samples = every, budget, max_samples
        self.samples = min(max_samples, 4096) if every == "auto" else max_samples
        self.steps = self.sampled_steps = 0
        self.hidden_s = 0.0
        self._train_s = self._spent_s = self._cost = self._step_s = 0.0
        self._times: deque[float] = deque(maxlen=15)
        self._plain: deque[float] = deque(maxlen=15)
        self._in_step: deque[float] = deque(maxlen=_SEEN)
        self._after: deque[float] = deque(maxlen=_SEEN)
        self._costs: deque[float] = deque(maxlen=5)
        self._sampled: deque[int] = deque(maxlen=9)

    @property
    def spent_s(self) -> float:
        """Seconds that sampling took, as timed and by difference."""
        return self._spent_s + self.sampled_steps * self.hidden_s

    @property
    def train_s(self) -> float:
        """Seconds of the training without them."""
        return max(0.0, self._train_s - self.sampled_steps * self.hidden_s)

    def wants(self, step: int) -> bool:
        """Whether step ``step``, the next one, is to be sampled."""
        if self.every != "auto":
            return step % self.every == 0
        if not self.sampled_steps:
            return True
        # What is spent and what the sample will cost, against what the training has earned.
        next_s = self._cost + self.hidden_s
        return self.spent_s + next_s <= self.train_s * self.budget * AIM

    def step_done(
        self, train_s: float, spent_s: float, sampled: bool, *, timed: bool = True
    ) -> None:
        """A step took ``train_s`` seconds, and sampling ``spent_s`` on top of it; ``timed`` False
        if the first is a mean over several steps."""
        index = self.steps
        self.steps += 1
        if len(self._times) >= _SETTLED and train_s > _LONG * self._step_s:
            # An evaluation or a pause between two steps is no training, and earns nothing.
            train_s = self._step_s
        self._train_s += train_s
        self._spent_s += spent_s
        self._times.append(train_s)
        # The median: one step that waited for data must not raise what a sample may cost.
        self._step_s = _median(self._times)
        if timed:
            self._compare(train_s, sampled, bool(self._sampled) and self._sampled[-1] == index - 1)
        if not sampled:
            return
        self.sampled_steps += 1
        self._sampled.append(index)
        self._costs.append(spent_s)
        self._cost = _median(self._costs)
        if self.sampled_steps > _WARM_SAMPLES:  # buffers are made in the first; it says little
            self._resize(self._cost + self.hidden_s)

    def _compare(self, train_s: float, sampled: bool, after: bool) -> None:
        """Hold a step against the plain ones before it: neither sampled nor right after one."""
        if not sampled and not after:
            self._plain.append(train_s)
        elif len(self._plain) >= _SETTLED:
            found = self._in_step if sampled else self._after
            found.append(train_s - _median(self._plain))
            if min(len(self._in_step), len(self._after)) >= _LEAST_SEEN:
                # Noise of the clock gives negative ones too: no cost is below nothing.
                self.hidden_s = max(0.0, _median(self._in_step) + _median(self._after))

    def extra(self, seconds: float) -> None:
        """More cost of an earlier sample that is known only now (a device ran behind)."""
        self._spent_s += seconds
        self._cost += seconds

    def _resize(self, cost: float) -> None:
        every = WANTED_EVERY if self.every == "auto" else self.every
        affordable = every * self.budget * AIM * self._step_s
        ratio = affordable / max(cost, 1e-9)
        if 1 / _RELAYOUT < ratio < _RELAYOUT:
            return
        # At most halved or doubled: part of the cost does not depend on the elements.
        wanted = self.samples * min(2.0, max(0.5, ratio))
        before = self.samples
        self.samples = int(max(min(LEAST_SAMPLES, self.max_samples), min(self.max_samples, wanted)))
        if self.samples != before:
            self._costs.clear()  # those were of another number of elements

    @property
    def distance(self) -> float:
        """Steps from one sampled step to the next, mean of the last eight."""
        if self.every != "auto":
            return float(self.every)
        if len(self._sampled) < 2:
            return float(max(self.steps, 1))
        return (self._sampled[-1] - self._sampled[0]) / (len(self._sampled) - 1)


def _median(values: Iterable[float]) -> float:
    ordered = sorted(values)
    return ordered[len(ordered) // 2]
