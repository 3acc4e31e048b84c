"""Cross-layer equalization, against torch's own calls."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.ao.quantization import fuse_modules
from torch.ao.quantization._equalize import equalize

import qatexplorer as qx
from qatexplorer.cures.equalization import pairs_of
from tests.cases.models import assert_untouched, state_of
from tests.cures.nets import FLOWS, chain, offer, session_of, usual
from tests.support.scripts import assert_the_same


@pytest.mark.parametrize("flow", FLOWS)
def test_it_brings_int8_back_where_channels_are_unequal(flow: str) -> None:
    example = qx.zoo.load("digits_depthwise")
    before = state_of(example.model)
    session = qx.Session(
        example.model,
        example.example_inputs,
        data=example.data,
        flow=flow,
        qconfig=example.suggested["qconfig"],
        engine="qnnpack",
    )
    session.warns = False
    found = session.cure("equalization")
    assert found.judged == "ptq"
    assert found.before.samples == found.after.samples == 540
    assert found.before.value < 0.65 < 0.97 < found.after.value
    assert found.gain == found.after.value - found.before.value
    assert len(found.changes) == 4
    assert found.seconds > 0
    assert_untouched(example.model, before)
    assert "equalized already" in offer(session, "equalization")


@pytest.mark.parametrize("flow", FLOWS)
def test_the_weights_are_those_of_torchs_calls(flow: str) -> None:
    model = usual()
    session = session_of(model, flow)
    expected = copy.deepcopy(model).eval()
    groups = [["body.0", "body.1", "body.2"], ["body.3", "body.4"]]
    fuse_modules(expected, groups, inplace=True)
    equalize(expected, [["body.0", "body.3"]])
    session.cure("equalization")
    mine = session.copy_model(session.stages[0])
    state = mine.state_dict()
    assert state.keys() == expected.state_dict().keys()
    assert all(torch.equal(state[name], value) for name, value in expected.state_dict().items())
    assert all(module.training for module in mine.modules())
    x = session.options.example_inputs[0]
    assert torch.allclose(mine.eval()(x), model.eval()(x), atol=1e-5)


@pytest.mark.parametrize("flow", FLOWS)
def test_undone_the_float_model_is_as_it_was(flow: str) -> None:
    session = session_of(usual(), flow)
    before = session.copy_model(session.stages[0]).state_dict()
    session.cure("equalization")
    assert [one.name for one in session.cured] == ["equalization"]
    session.goto(session.flow.int8_stage)
    session.undo_cure()
    after = session.copy_model(session.stages[0]).state_dict()
    assert before.keys() == after.keys()
    assert session.edits == ()
    assert session.cured == ()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("flow", FLOWS)
def test_the_script_has_it(flow: str) -> None:
    session = session_of(usual(), flow)
    session.cure("equalization")
    session.calibrate(2)
    session.train(1, progress=False)
    session.goto(session.flow.int8_stage)
    assert_the_same(session, session.script(), usual)


class Branches(nn.Module):
    """What the first conv gives goes to two places."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.one(x)
        result: Tensor = self.two(y) + y
        return result.mean((2, 3))


class Functional(nn.Module):
    def __init__(self, between: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(1, 3, 3), nn.Conv2d(3, 4, 3)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.two(self.between(self.one(x))).mean((2, 3))
        return result


class Twice(nn.Module):
    """The second conv is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(1, 3, 3), nn.Conv2d(3, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.two(self.two(self.one(x))).mean((2, 3))
        return result


def with_dead_channel() -> nn.Module:
    model = chain(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3))
    model.body[0].weight.data[2] = 0.0  # type: ignore[operator, union-attr]
    return model


def frozen() -> nn.Module:
    model = chain(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3))
    model.body[2].requires_grad_(False)
    return model


def with_shared_weight() -> nn.Module:
    model = chain(nn.Conv2d(1, 6, 3), nn.Conv2d(6, 6, 3), nn.ReLU6(), nn.Conv2d(6, 6, 3))
    model.body[3].weight = model.body[1].weight
    return model


@pytest.mark.parametrize(
    "make",
    [
        Branches,
        Twice,
        lambda: Functional(torch.sigmoid),
        lambda: chain(nn.Conv2d(1, 6, 3), nn.ReLU6(), nn.Conv2d(6, 6, 3)),
        lambda: chain(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3, groups=6)),
        with_dead_channel,
        with_shared_weight,
        frozen,
    ],
)
def test_no_pair_where_the_function_would_change(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    assert "No two layers follow each other" in offer(session_of(make(), "fx"), "equalization")


@pytest.mark.parametrize(
    "make",
    [
        lambda: Functional(F.relu),
        lambda: Functional(torch.relu),
        lambda: Functional(lambda x: x.relu()),
        lambda: chain(nn.Conv2d(1, 6, 3), nn.Dropout2d(0.5), nn.ReLU(), nn.Conv2d(6, 6, 3)),
        lambda: chain(nn.Conv2d(1, 6, 3, groups=1), nn.Conv2d(6, 6, 1)),
    ],
)
def test_a_pair_keeps_the_function(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    model = make()
    session = session_of(model, "fx")
    session.cure("equalization")
    x, edited = session.options.example_inputs[0], session.copy_model(session.stages[0])
    one, other = [m.weight for m in edited.modules() if isinstance(m, nn.Conv2d)]
    spans = one.flatten(1).amax(1) - one.flatten(1).amin(1), other.transpose(0, 1).flatten(1)
    assert torch.allclose(spans[0], spans[1].amax(1) - spans[1].amin(1), rtol=1e-3)
    assert torch.allclose(edited.eval()(x), model.eval()(x), atol=1e-5)


def test_it_ends_where_torchs_threshold_is_below_the_rounding() -> None:
    """Three layers in a row whose weights have large norms: each round moves them by some bits."""
    torch.manual_seed(0)
    model = chain(
        *(nn.Conv2d(1 if n == 0 else 64, 64, 3, padding=1) for n in range(3)), channels=64
    )
    with torch.no_grad():
        for module in model.body:
            module.weight.mul_(3000.0 * torch.rand(64, 1, 1, 1))
    session = session_of(model, "fx")
    found = pairs_of(model, session.options.graph)
    assert found.threshold > 1e-3
    assert [one.applies for one in session.cures if one.name == "equalization"] == [True]
    session.cure("equalization")
    assert "threshold=" in session.edits[0].code


def test_a_fuse_list_of_ones_own_is_not_gone_against() -> None:
    session = session_of(usual(), "eager", fusion=[["body.3", "body.4"]])
    assert "fuse list of yours" in offer(session, "equalization")


def test_a_run_that_goes_on_has_the_edit(tmp_path: object) -> None:
    session = session_of(usual(), "fx")
    session.cure("equalization")
    kept = session._models.settings.to_json()
    other = session_of(usual(), "fx")
    changes = other._models.settings.from_json(kept)
    other._change(changes)
    mine, its = (s.copy_model(s.stages[0]).state_dict() for s in (session, other))
    assert mine.keys() == its.keys()
    assert all(torch.equal(mine[k], its[k]) for k in mine)
