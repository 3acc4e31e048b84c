"""Most of the model stays float, though it was to be int8."""

from __future__ import annotations

from collections.abc import Iterator

from qatexplorer.advice.base import recipe
from qatexplorer.advice.facts import Facts
from qatexplorer.advice.records import Action, Cost, Proposal, Reason, Sureness
from qatexplorer.checks.families.ranges import HALF
from qatexplorer.snapshot.parts import params_share

FORWARDS_OF_A_LEDGER = 4


@recipe("coverage")
def coverage(facts: Facts) -> Iterator[Proposal]:
    """Ask the ledger why, where more than half of the parameters stay float."""
    shot = facts.snapshot
    if shot is None or not facts.ground.flow.has_ledger:
        return
    share = params_share(shot)
    if not share.total or share.float / share.total <= HALF:
        return
    floats = [m for m in shot.modules if m.own_params and m.own_state == "float"]
    largest = max(floats, key=lambda m: m.own_params, default=None)
    reasons = [
        Reason(
            f"{share.float:,} of {share.total:,} parameters stay float "
            f"({share.float / share.total:.1%})."
        )
    ]
    if largest is not None:
        reasons.append(
            Reason(
                f"The largest is {largest.path or 'the model itself'} ({largest.type_name}, "
                f"{largest.own_params:,} parameters).",
                largest.path,
            )
        )
    forwards = FORWARDS_OF_A_LEDGER
    yield Proposal(
        "coverage",
        Action("coverage", "Ask why it stays float", "session.ledger().floats", "ledger"),
        tuple(reasons),
        Cost(forwards, passes=float(forwards)),
        Sureness("measured here", f"{share.total:,} parameters counted at stage {shot.stage!r}"),
    )
