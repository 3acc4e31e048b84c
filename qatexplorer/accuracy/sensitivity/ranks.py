"""Spearman's rank correlation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def ranks(values: Sequence[float]) -> NDArray[np.float64]:
    """Ranks from 1, the lowest value first; equal values get the mean of their ranks."""
    _, inverse, counts = np.unique(
        np.asarray(values, dtype=np.float64), return_inverse=True, return_counts=True
    )
    last = np.cumsum(counts)
    means: NDArray[np.float64] = last - (counts - 1) / 2
    return means[inverse.reshape(-1)]


def spearman(one: Sequence[float], two: Sequence[float]) -> float | None:
    """Pearson's correlation of the ranks, -1 to 1. None where it does not exist: fewer than two
    values, all of one side equal, or one that is not finite."""
    known = np.isfinite(one).all() and np.isfinite(two).all()
    if len(one) < 2 or not known:
        return None
    first, second = ranks(one), ranks(two)
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(np.corrcoef(first, second)[0, 1])
