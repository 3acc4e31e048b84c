"""Errors that the checks have found: what is measured means little before they are put right."""

from __future__ import annotations

from collections.abc import Iterator

from qatexplorer.advice.base import recipe
from qatexplorer.advice.engine import ENGINE
from qatexplorer.advice.facts import Facts
from qatexplorer.advice.findings import by_rule
from qatexplorer.advice.records import Proposal, Sureness


@recipe("errors")
def errors(facts: Facts) -> Iterator[Proposal]:
    """Each error, with its fix."""
    found = [one for one in facts.errors if one.name not in ENGINE]
    sure = Sureness("measured here", f"found in {facts.model} at stage {facts.stage!r}")
    yield from by_rule(facts, "errors", found, "fix", sure)
