"""A cure that has made it worse is taken back."""

from __future__ import annotations

from collections.abc import Iterator

from qatexplorer.advice.base import recipe
from qatexplorer.advice.facts import Facts
from qatexplorer.advice.records import Action, Proposal, Reason, Sureness
from qatexplorer.evaluate.evaluation import format_metric


@recipe("undo")
def undo(facts: Facts) -> Iterator[Proposal]:
    """Take back the last cure, if the metric was better before it."""
    if not facts.cured:
        return
    last = facts.cured[-1]
    worse = -last.gain if facts.mode == "max" else last.gain
    if not worse > 0:
        return
    yield Proposal(
        "undo",
        Action("undo", f"Take back {last.name}", "session.undo_cure()", "undo_cure"),
        (
            Reason(
                f"{last.name} has taken {last.before.name} from {format_metric(last.before)} to "
                f"{format_metric(last.after)} ({last.after.samples:,} samples)."
            ),
        ),
        facts.cost(),
        Sureness(
            "measured here",
            f"before and after {last.name}, on the same {last.before.samples:,} samples",
        ),
        facts.won(worse),
    )
