"""What is not known yet, and all else hangs on."""

from __future__ import annotations

from collections.abc import Iterator

from qatexplorer.advice.base import recipe
from qatexplorer.advice.facts import Facts
from qatexplorer.advice.records import Action, Cost, Proposal, Reason, Sureness
from qatexplorer.checks.rules import RULES

FORWARDS_OF_A_CHECK = 4


@recipe("check")
def check(facts: Facts) -> Iterator[Proposal]:
    """Ask the rules, if they have not been asked about the model as it is."""
    if facts.checked is not None:
        return
    reason = f"None of the {len(RULES):,} rules has been asked about {facts.model} as it is now."
    sure = Sureness("measured here", f"a check runs copies of {facts.model}")
    batches = FORWARDS_OF_A_CHECK
    yield Proposal(
        "check",
        Action("check", "Check the model", "session.check()", "check"),
        (Reason(reason),),
        Cost(batches, passes=float(batches)),
        sure,
        phase="measure",
    )


@recipe("evaluate")
def evaluate(facts: Facts) -> Iterator[Proposal]:
    """Measure float and int8, if they are not known."""
    if facts.data is None:
        yield from _without_data(facts)
        return
    missing = [] if "float" in facts.metrics else ["float"]
    result = facts.ground.flow.result
    missing += (
        []
        if facts.form in ("ptq", "int8")
        else ["int8" if result == "int8" else "what it is converted to"]
    )
    if not missing or facts.evaluated:
        return
    known = [facts.words_of(facts.form)] if facts.words_of(facts.form) else []
    reason = f"What {facts.model} is worth in {' and in '.join(missing)} is not known."
    passes = len(missing) + (2 if facts.ground.observed else 0)
    before = () if facts.reached else (prepare(facts),)
    yield Proposal(
        "evaluate",
        Action(
            "evaluate",
            f"Evaluate float and {result}",
            "session.evaluate()",
            "evaluate",
        ),
        tuple(Reason(words) for words in (reason, *known)),
        facts.cost(evaluations=passes, calibrations=1),
        Sureness("measured here", f"{facts.model} is run on the evaluation data"),
        before=before,
        phase="measure",
    )


def prepare(facts: Facts) -> Action:
    """Go to the stage with all fake quants."""
    stage = facts.prepared
    code = f"session.goto({stage!r})"
    return Action("goto", f"Go to {stage}", code, "goto", (("stage", stage),))


def calibrate(facts: Facts) -> tuple[Action, ...]:
    """Calibrate first, where no observer has seen data."""
    if facts.ground.observed:
        return ()
    return (Action("calibrate", "Calibrate", "session.calibrate()", "calibrate"),)


def _without_data(facts: Facts) -> Iterator[Proposal]:
    modules = len(facts.base_paths)
    yield Proposal(
        "evaluate",
        Action(
            "data",
            "Give the session data",
            "qx.Session(model, data={'train': loader, 'eval': loader})",
        ),
        (
            Reason(
                f"The session of {facts.model} ({modules:,} modules) has no data: nothing can be "
                "said of what it loses."
            ),
        ),
        Cost(),
        Sureness("measured here", f"the session of {facts.model} has no data"),
        phase="measure",
    )
