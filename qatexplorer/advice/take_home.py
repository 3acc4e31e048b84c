"""Nothing is left to win."""

from __future__ import annotations

from collections.abc import Iterator

from qatexplorer.advice.base import recipe
from qatexplorer.advice.facts import Facts
from qatexplorer.advice.measure import calibrate
from qatexplorer.advice.records import Action, Cost, Proposal, Reason, Sureness
from qatexplorer.snapshot.parts import params_share

FOLDER = "int8_model"


@recipe("take_home")
def take_home(facts: Facts) -> Iterator[Proposal]:
    """Export, where int8 was measured and loses no more than is tolerated."""
    form = facts.form
    if not facts.ground.flow.exports:
        return
    if form not in ("ptq", "int8") or facts.loss is None or facts.loses or facts.errors:
        return
    found = facts.metrics[form]
    reasons = [Reason(facts.loss_words)]
    if found.name == "accuracy":
        reasons.append(
            Reason(f"One sample of {found.samples:,} is {100 / found.samples:.2g} points.")
        )
    if facts.snapshot is not None:
        share = params_share(facts.snapshot)
        if share.total and share.int8:
            reasons.append(
                Reason(
                    f"{share.int8:,} of {share.total:,} parameters are int8 "
                    f"({share.int8 / share.total:.1%})."
                )
            )
    yield Proposal(
        "take_home",
        Action(
            "take_home",
            "Take it home",
            f"session.export({FOLDER!r})",
            "export",
            (("folder", FOLDER),),
        ),
        tuple(reasons),
        Cost(passes=None) if facts.eval_batches is None else facts.cost(evaluations=1),
        Sureness("measured here", f"int8 was run on {found.samples:,} samples"),
        before=calibrate(facts),
        phase="take home",
    )
