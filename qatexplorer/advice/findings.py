"""Findings of the checks as proposals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from qatexplorer.advice.facts import Facts
from qatexplorer.advice.records import Action, Phase, Proposal, Reason, Sureness
from qatexplorer.checks.records import Finding

_SHOWN = 3


def by_rule(
    facts: Facts, recipe: str, findings: Iterable[Finding], phase: Phase, sureness: Sureness
) -> Iterator[Proposal]:
    """A proposal for each rule that has found something, with the call that puts right all of its
    findings, or the first."""
    groups: dict[str, list[Finding]] = {}
    for one in findings:
        groups.setdefault(one.id, []).append(one)
    for found in groups.values():
        # Where some of them can be put right by a call, that is what can be done at once.
        first = next((one for one in found if one.fixes), found[0])
        others = [one for one in found if one is not first]
        reasons = [_reason(one) for one in [first, *others][:_SHOWN]]
        more = len(found) - _SHOWN
        if more > 0:
            reasons.append(Reason(f"{first.id} {first.name} is found at {more:,} more places."))
        action = _action(recipe, first, found)
        again = facts.cost(calibrations=int(action.call == "calibrate"))
        yield Proposal(recipe, action, tuple(reasons), again, sureness, phase=phase)


def _action(recipe: str, one: Finding, found: Iterable[Finding]) -> Action:
    if not one.fixes:
        return Action(f"{recipe}:{one.id}", f"{one.id} {one.name}", one.fix or one.message)
    # What puts all of them right, if there is such a call.
    whole = (fix for fix in one.fixes if all(fix in other.fixes for other in found))
    fix = next(whole, one.fixes[0])
    code = fix.code or f"session.{fix.call}(…)"
    return Action(f"{recipe}:{one.id}", fix.label, code, fix.call, fix.arguments)


def _reason(one: Finding) -> Reason:
    where = f" ({one.place})" if one.place and one.place not in one.message else ""
    return Reason(f"{one.id} {one.name}{where}: {one.message}", one.path)
