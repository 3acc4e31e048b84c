"""Warnings of the checks for which a call is known that helps."""

from __future__ import annotations

from collections.abc import Iterator

from qatexplorer.advice.base import recipe
from qatexplorer.advice.facts import Facts
from qatexplorer.advice.findings import by_rule
from qatexplorer.advice.records import Proposal, Sureness

OWN_RECIPE = ("unlike-channels",)


@recipe("warnings")
def warnings(facts: Facts) -> Iterator[Proposal]:
    """Each warning that costs accuracy or speed, unless nothing is lost."""
    if facts.form is not None and not facts.loses:
        return
    found = [
        one
        for one in facts.findings
        if one.severity == "warning" and one.fixes and one.name not in OWN_RECIPE
    ]
    why = f"a warning of a check; what it costs {facts.model} was not measured"
    yield from by_rule(facts, "warnings", found, "win", Sureness("rule", why))
