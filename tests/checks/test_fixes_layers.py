"""Every fix that the rules of layers offer is applied, and the finding is gone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.ao.quantization import DeQuantStub, QuantStub

import qatexplorer as qx
from qatexplorer.checks.records import Fix
from qatexplorer.checks.rules import rule_named
from qatexplorer.data import as_args
from tests.checks import examples_layers
from tests.checks.examples import EXAMPLES, Example

MINE = [case for case in EXAMPLES if case.misbehaves.__module__ == examples_layers.__name__]


def session_of(case: Example) -> qx.Session:
    model, inputs = case.broken()
    session = qx.Session(model, inputs, **case.settings)
    session.warns = False
    return session


@pytest.mark.parametrize("case", MINE, ids=lambda case: f"{case.rule}-{case.name}")
def test_a_fix_takes_the_finding_away(case: Example) -> None:
    count = len(session_of(case).check().with_id(case.rule)[0].fixes)
    for index in range(count):
        session = session_of(case)
        finding = session.check().with_id(case.rule)[0]
        fix = finding.fixes[index]
        before = _output(session)
        fix.apply(session)
        found = session.check()
        assert not [one for one in found.with_id(case.rule) if one.path == finding.path], fix
        assert not [one for one in found.errors if one.id in ("QX906", "QX908")], found
        if fix.call == "edit":
            assert torch.allclose(_output(session), before, atol=1e-5)
            assert _is_a_diff(fix)
            assert finding.fix == session.edits[-1].code


def _is_a_diff(fix: Fix) -> bool:
    return {line[:2] for line in fix.diff.splitlines()} == {"- ", "+ "}


def _output(session: qx.Session) -> torch.Tensor:
    args, _ = as_args(session.options.example_inputs)
    with torch.no_grad():
        out: torch.Tensor = session.copy_model("float").eval()(*args)
    return out


def test_one_fix_for_all_of_a_kind() -> None:
    from torch import nn

    torch.manual_seed(0)
    convs = [nn.Conv1d(3, 3, 3, padding="same") for _ in range(3)]
    session = qx.Session(nn.Sequential(*convs).train(), (torch.randn(2, 3, 9),), flow="fx")
    found = session.check().with_id("string-padding")
    assert [one.path for one in found] == ["0", "1", "2"]
    here, everywhere = found[1].fixes
    assert everywhere.label == "Pad by a number, at all 3"
    assert everywhere.code == "session.edit('number_padding', ['0', '1', '2'])"
    assert here.diff in everywhere.diff
    everywhere.apply(session)
    assert [one.path for one in session.edits] == ["0", "1", "2"]
    assert not session.check().errors


def unsimulated(layer: torch.nn.Module, settings: dict[str, Any]) -> qx.Session:
    torch.manual_seed(0)
    model = torch.nn.Sequential(QuantStub(), layer, DeQuantStub()).train()
    session = qx.Session(model, (torch.randn(2, 3, 9),), **settings)
    session.warns = False
    return session


def test_a_conv1d_is_rounded_in_training_by_fx() -> None:
    session = unsimulated(torch.nn.Conv1d(3, 3, 3), {})
    (found,) = session.check().with_id("QX124")
    code, _, why = found.fix.partition("  # ")
    assert why == "rounds it in training"
    exec(code, {"session": session})
    assert not session.check().with_id("QX124")
    session.goto(session.flow.prepared_stage)
    assert [site.owner for site in session.snapshot.sites if site.kind == "weight"] == ["1"]


def test_a_transposed_convolution_is_left_float() -> None:
    session = unsimulated(torch.nn.ConvTranspose1d(3, 3, 3), {"qconfig": "qnnpack"})
    (found,) = session.check().with_id("QX124")
    code, _, why = found.fix.partition("  # ")
    assert why == "leaves it float"
    exec(code, {"session": session})
    assert not session.check().with_id("QX124")


def test_the_rules_have_a_page() -> None:
    assert {rule_named(case.rule).family for case in MINE} == {"layers", "weights", "kinds"}
