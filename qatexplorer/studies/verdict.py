"""Whether a claim comes out, by the differences of two values seed by seed."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from qatexplorer.studies.base import Reading

Answer = Literal["yes", "no", "not clear", "not run"]


@dataclass(frozen=True)
class Spread:
    """``mean`` of ``count`` seeds, and their ``deviation`` (of a sample, n - 1), None of one."""

    mean: float
    deviation: float | None
    count: int


@dataclass(frozen=True)
class Verdict:
    """What a :class:`~qatexplorer.studies.Reading` comes to: its differences in points, and why an
    answer is not yes or no."""

    answer: Answer
    difference: Spread | None
    why: str = ""

    def __str__(self) -> str:
        return f"{self.answer} ({self.why})" if self.why else self.answer


def spread(values: Mapping[int, float]) -> Spread | None:
    """Of values by seed; None of none."""
    if not values:
        return None
    numbers = list(values.values())
    deviation = statistics.stdev(numbers) if len(numbers) > 1 else None
    return Spread(statistics.fmean(numbers), deviation, len(numbers))


def verdict(reading: Reading, of: Mapping[int, float], against: Mapping[int, float]) -> Verdict:
    """The answer to ``reading`` for its two values by seed.

    Seeds that have both count, and their differences are what varies. It is *yes* or *no* where the
    mean difference lies farther from the border (zero, or the limit) than the differences spread.
    """
    found = spread({seed: of[seed] - against[seed] for seed in of if seed in against})
    if found is None:
        return Verdict("not run", None)
    if found.deviation is None:
        return Verdict("not clear", found, "one seed has no spread")
    above = reading.claim == "above"
    distance = found.mean if above else reading.limit - found.mean
    if abs(distance) < found.deviation:
        to = "difference" if above else f"distance to {reading.limit:g}"
        return Verdict("not clear", found, f"spread larger than the {to}")
    # No difference at all is none above zero, and one that is the limit is at most the limit.
    return Verdict("yes" if distance > 0 or (not above and distance == 0) else "no", found)
