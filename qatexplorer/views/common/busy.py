"""What a long job says while it goes on, plain text."""

from __future__ import annotations

from qatexplorer.views.training.progress import duration

WORTH_AN_ESTIMATE_S = 2.0
"""What takes less is over before an estimate is read."""


def left_words(what: str, share: float, seconds: float) -> str:
    """What is being done, with how long it still takes where that can be said.

    Args:
        share: of all that is done, 0 to 1. seconds: since it began.
    """
    if seconds < WORTH_AN_ESTIMATE_S or share < 0.05:
        return f"{what} …"
    return f"{what}, at most about {duration(seconds * (1 - share) / share)} left …"


def since_words(what: str, _share: float, seconds: float) -> str:
    """What is being done, and since when."""
    return f"{what} … {seconds:.0f} s" if seconds >= 1 else f"{what} …"
