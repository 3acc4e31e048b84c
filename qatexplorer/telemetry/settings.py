"""What a watch can be told."""

from __future__ import annotations

import math
from typing import Any

from qatexplorer.errors import InputError


def check_settings(every: Any, bins: int, budget: float, max_samples: int) -> None:
    """Raise InputError for settings that cannot work."""
    whole = isinstance(every, int) and not isinstance(every, bool) and every >= 1
    if every != "auto" and not whole:
        raise InputError(f"every is {every!r}; it must be 'auto' or a whole number of at least 1.")
    if not isinstance(bins, int) or bins < 2:
        raise InputError(f"bins is {bins!r}; it must be a whole number of at least 2.")
    if not (isinstance(budget, (int, float)) and 0 < budget < 1 and math.isfinite(budget)):
        raise InputError(
            f"budget is {budget!r}; it must be a share of the step time between 0 and 1.",
            remedy="The default of 0.02 allows 2 %.",
        )
    if not isinstance(max_samples, int) or max_samples < 1:
        raise InputError(f"max_samples is {max_samples!r}; it must be a whole number from 1 on.")
