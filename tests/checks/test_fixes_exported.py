"""The code that findings on PT2E and torchao's QAT offer, tried as it is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import qatexplorer as qx
from qatexplorer.flows.pt2e import Pt2eFlow
from tests.checks.examples_exported import move_to_train, two
from tests.checks.examples_exported import rounding_off as graph_rounding_off
from tests.checks.examples_swapped import (
    groups,
    groups_of_8,
    groups_of_32,
    made,
    rounding_off,
    without_a_base,
)
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


@pytest.mark.parametrize(
    ("layer", "line"),
    [(lambda: nn.AlphaDropout(0.2), 0), (lambda: nn.RReLU(), 1)],
    ids=["dropout", "rrelu"],
)
def test_the_layer_that_is_offered_follows_the_mode(layer: Any, line: int) -> None:
    model, inputs = two(layer)()
    (found,) = findings("QX706", subject_of(model, inputs))
    offered = "model.between = nn.Dropout(p)  # for a dropout; nn.ReLU for RReLU"
    assert found.fix == offered
    if line:
        model.between = nn.ReLU()
    else:
        exec(found.fix, {"model": model, "nn": nn, "p": 0.2})
    assert not findings("QX706", subject_of(model.train(), inputs))


class DropsInside(nn.Module):
    """A dropout under ``torch.no_grad``, or not."""

    def __init__(self, hides: bool) -> None:
        super().__init__()
        self.drop, self.fc, self.hides = nn.Dropout(0.3), nn.Linear(8, 3), hides

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.hides:
            return self.fc(self.drop(x))
        with torch.no_grad():
            x = self.drop(torch.relu(x))
        return self.fc(x)


def test_what_is_taken_out_of_no_grad_follows_the_mode() -> None:
    x = (torch.randn(4, 8),)
    (found,) = findings("QX706", subject_of(DropsInside(True).train(), x))
    assert found.fix == "Take it out of torch.no_grad() in forward"
    assert not findings("QX706", subject_of(DropsInside(False).train(), x))


def swapped(example: Any) -> qx.Session:
    """A session in the flow torchao at its last stage, with what the example does before it."""
    model, inputs = example
    session = qx.Session(model, inputs, flow="torchao", base_config=model.asked())
    session.warns = False
    session.goto("train")
    model.then(session.model)
    session.goto("convert")
    return session


def test_the_group_size_that_is_meant_is_configured_and_trained() -> None:
    session = swapped(made(then=groups_of_8)())
    (found,) = session.check().with_id("QX721")
    assert found.fix.startswith("session.configure(base_config=…) with the size that you mean")
    session.configure(base_config=groups(8))
    session.goto("convert")
    again = session.check()
    assert "QX721" in again.checked
    assert not again.with_id("QX721")


def test_a_base_configuration_that_stores_integers_leaves_no_layer_float() -> None:
    from torchao.quantization import IntxWeightOnlyConfig

    session = swapped(made(asked=without_a_base)())
    (found,) = session.check().with_id("QX722")
    assert "stores integers, such as IntxWeightOnlyConfig()" in found.fix
    session.configure(base_config=IntxWeightOnlyConfig())
    session.goto("convert")
    again = session.check()
    assert "QX722" in again.checked
    assert not again.with_id("QX722")


def test_an_embedding_is_taken_with_a_configuration_of_its_own() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(64, 32), nn.Linear(32, 4)).train()
    ids = torch.randint(0, 64, (4, 3))
    session = qx.Session(model, ids, flow="torchao", base_config=groups(32))
    session.warns = False
    session.goto("prepare")
    (found,) = session.check().with_id("QX723")
    assert found.path == "0"
    offered = "session.configure(base_config={nn.Linear: …, nn.Embedding: …})"
    assert found.fix == offered
    session.configure(base_config={nn.Linear: groups(32), nn.Embedding: groups(32)})
    session.goto("prepare")
    again = session.check()
    assert "QX723" in again.checked
    assert not again.with_id("QX723")


@pytest.mark.parametrize(
    ("layer", "shape"), [(nn.Conv2d, (32, 1, 1)), (nn.Conv1d, (32, 1))], ids=["2d", "1d"]
)
def test_a_convolution_is_taken_by_pt2e(layer: Any, shape: Any) -> None:
    model, inputs = made(lambda: nn.Unflatten(1, shape), lambda: layer(32, 4, 1))()
    session = qx.Session(model, inputs, flow="torchao", base_config=groups_of_32())
    session.warns = False
    session.goto("prepare")
    (found,) = session.check().with_id("QX723")
    assert found.path == "2"
    eval(found.fix, {"session": session})
    assert session.flow.name == "pt2e"
    session.goto("insert")
    named = layer.__name__.lower()
    assert any(one.node == named and one.rounds for one in session.snapshot.annotations)
