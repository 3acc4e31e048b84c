"""How far the making of a ledger is, in words."""

from __future__ import annotations

from html import escape

from qatexplorer.ledger.forwards import LedgerProgress
from qatexplorer.views.training.progress import duration


def progress_words(progress: LedgerProgress) -> str:
    """``"Recording one forward: forward 1 of 4, about 12 s left"``, safe as HTML."""
    parts = []
    if progress.done < progress.total:
        parts.append(f"forward {int(progress.done) + 1} of {progress.total}")
        if progress.seconds_left is not None:
            parts.append(f"about {duration(progress.seconds_left)} left")
    head = f"{progress.what} …" if not parts else f"{progress.what}: "
    return escape(head + ", ".join(parts))
