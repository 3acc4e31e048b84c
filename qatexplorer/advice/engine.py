"""An engine that computes wrong on this CPU, or clamps elsewhere than the fake quants do."""

from __future__ import annotations

from collections.abc import Iterator

from qatexplorer.advice.base import recipe
from qatexplorer.advice.facts import Facts
from qatexplorer.advice.records import Action, Gain, Phase, Proposal, Reason, Sureness

ENGINE = ("engine-saturates", "engine-fails", "engine-clamps")
"""Names of the findings on it."""


@recipe("engine")
def engine(facts: Facts) -> Iterator[Proposal]:
    """Another engine or qconfig: at once where sums are wrong; where int8 only clamps at another
    code, if int8 has lost more than is tolerated and more than fake quant."""
    concern = facts.concern
    found = next((one for one in facts.findings if one.name in ENGINE), None)
    if concern is None or found is None or not facts.ground.flow.offers_qconfig:
        return
    phase: Phase = "fix"
    gain = Gain()
    reasons = [Reason(concern.message)]
    if concern.kind == "clamps":
        simulated, real = facts.lost("fake_quant"), facts.lost("int8")
        if simulated is None or real is None or not facts.loses or real <= simulated:
            return
        phase, gain = "win", facts.won(real - simulated)
        reasons.append(
            Reason(
                f"int8 has lost {facts.amount(real)}, fake quant {facts.amount(simulated)}: "
                f"{facts.amount(real - simulated)} are lost between them."
            )
        )
    else:
        reasons += [Reason(words) for words in (facts.loss_words,) if words]
    fix = next(iter(found.fixes), None)
    action = Action("engine", "Change the engine", concern.fix)
    if fix is not None:
        action = Action("engine", fix.label, fix.code, fix.call, fix.arguments)
    backend = facts.ground.options.qconfig.backend
    sure = Sureness("measured here", f"the probe has run {backend} on this CPU on known sums")
    cost = facts.cost(evaluations=1, calibrations=1)
    yield Proposal("engine", action, tuple(reasons), cost, sure, gain, phase=phase)
