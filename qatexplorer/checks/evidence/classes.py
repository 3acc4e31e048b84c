"""How good the float model is, and how good guessing would be."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from qatexplorer.checks.subject import NoEvidence, Subject
from qatexplorer.evaluate.metric import MetricValue, evaluate, metric_name
from qatexplorer.forward.preserve import preserved_rng

_BATCHES = 64


@dataclass(frozen=True)
class Start:
    """``value`` is the float model's accuracy over ``samples`` samples, ``guess`` that of naming
    the most frequent of ``classes`` classes each time; all but the counts from 0 to 1."""

    value: float
    samples: int
    guess: float
    classes: int

    @property
    def at_chance(self) -> bool:
        """Whether a guess is as good, within two standard errors."""
        error = math.sqrt(self.guess * (1 - self.guess) / max(1, self.samples))
        return self.value <= self.guess + 2 * error


def start(subject: Subject) -> Start:
    """Accuracy of the float model, and of a guess.

    The accuracy is that which a run has measured before it began; in a thorough check it is
    measured where there is none. Raises NoEvidence where that, or classes, are not known.
    """
    if subject.data is None:
        raise NoEvidence("there is no data")
    if metric_name(subject.metric) != "accuracy":
        raise NoEvidence("the metric is not accuracy, and what chance gives is not known")
    value = _accuracy(subject)
    counts = _counts(subject)
    total = int(counts.sum())
    classes = int((counts > 0).sum())
    if classes < 2:
        raise NoEvidence("the targets are no class indices of two or more classes")
    return Start(value.value, value.samples, float(counts.max()) / total, classes)


def _accuracy(subject: Subject) -> MetricValue:
    known = getattr(subject.run, "baseline", None)
    if isinstance(known, MetricValue):
        return known
    if not subject.thorough or subject.data is None:
        raise NoEvidence("the float model has not been evaluated; check(thorough=True) does it")
    with preserved_rng():
        return evaluate(subject.base, subject.data.eval, subject.metric, subject.should_stop)


def _counts(subject: Subject) -> Tensor:
    """How often each class is a target, in the first batches of the evaluation data."""
    data: Any = subject.data
    counts = torch.zeros(0, dtype=torch.int64)
    with preserved_rng():
        for _, target in islice(iter(data.eval), _BATCHES):
            subject.stop_if_asked()
            if not isinstance(target, Tensor) or target.is_floating_point():
                raise NoEvidence("the targets are no tensors of class indices")
            flat = target.detach().cpu().reshape(-1).long()
            new = torch.bincount(flat[flat >= 0], minlength=len(counts))
            new[: len(counts)] += counts
            counts = new
    return counts
