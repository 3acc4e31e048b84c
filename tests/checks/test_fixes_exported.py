"""The code that findings on PT2E and torchao's QAT offer, tried as it is."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

import qatexplorer as qx
from qatexplorer.flows.pt2e import Pt2eFlow
from tests.checks.examples_exported import move_to_train, two
from tests.checks.examples_exported import rounding_off as graph_rounding_off
from tests.checks.examples_swapped import groups_of_32, made, rounding_off
from tests.checks.pt2e_subject import findings, subject_of

pytestmark = pytest.mark.skipif(bool(Pt2eFlow().unavailable()), reason="no torchao 0.18")


@pytest.mark.parametrize(
    ("rule", "then"), [("QX404", graph_rounding_off), ("QX710", move_to_train)]
)
def test_the_line_for_the_prepared_graph_ends_the_finding(rule: str, then: Any) -> None:
    import torchao.quantization.pt2e

    model, inputs = two(lambda: nn.Dropout(0.5))()
    subject = subject_of(model, inputs, work=then)
    (found,) = findings(rule, subject)
    eval(found.fix, {"model": subject.work, "torchao": torchao})
    assert not findings(rule, subject)


def test_the_line_for_layers_of_torchao_ends_the_finding() -> None:
    import torchao.quantization.qat.linear

    model, inputs = made()()
    session = qx.Session(model, inputs, flow="torchao", base_config=groups_of_32())
    session.warns = False
    session.goto("train")
    rounding_off(session.model)
    (found,) = session.check().with_id("QX404")
    eval(found.fix, {"model": session.model, "torchao": torchao})
    assert not session.check().with_id("QX404")
