"""Every rule finds the model that breaks it, not the one put right, and torch agrees with both."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from qatexplorer.checks.rules import RULES, Rule
from qatexplorer.flows import FLOWS
from tests.checks.examples import EXAMPLES, Example

for file in sorted(Path(__file__).parent.glob("examples_*.py")):
    importlib.import_module(f"tests.checks.{file.stem}")

# Found by the session itself: tests/session/test_known.py holds their situations.
KNOWN = {id for id, rule in RULES.items() if rule.ask is None}


@pytest.mark.parametrize("case", EXAMPLES, ids=lambda case: f"{case.rule}-{case.name}")
def test_the_broken_model_is_found_and_the_fixed_one_is_not(case: Example) -> None:
    broken = case.check(broken=True)
    assert case.rule in broken.checked, broken.skipped
    found = broken.with_id(case.rule)
    assert found, broken
    if case.paths is not None:
        assert {one.path for one in found} == set(case.paths)
    fixed = case.check(broken=False)
    assert case.rule in fixed.checked, fixed.skipped
    assert not fixed.with_id(case.rule), fixed


@pytest.mark.parametrize("case", EXAMPLES, ids=lambda case: f"{case.rule}-{case.name}")
def test_torch_misbehaves_on_the_broken_model_only(case: Example) -> None:
    assert case.misbehaves(*case.broken())
    assert not case.misbehaves(*case.fixed())


def test_every_rule_has_an_example() -> None:
    here = {kind for flow in FLOWS.values() if not flow().unavailable() for kind in [flow.kind()]}
    asked = {id for id, rule in RULES.items() if here & set(rule.flows)}
    assert asked - KNOWN == {case.rule for case in EXAMPLES}


@pytest.mark.parametrize("rule", RULES.values(), ids=list(RULES))
def test_every_rule_has_a_page_to_fill(rule: Rule) -> None:
    assert all((rule.title, rule.symptom, rule.cause, rule.fix, rule.sources))
    assert all(source.startswith("https://") for source in rule.sources)
