"""Edits that give each use a module of its own, and torch's BatchNorm in place of others."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.ao.nn.quantized import FloatFunctional
from torch.ao.quantization import DeQuantStub, QuantStub

import qatexplorer as qx
from qatexplorer.errors import EditError
from qatexplorer.flows.edits import EDITS, Edit, tried
from tests.cases.models import assert_untouched, state_of
from tests.support.models import load_timm

FLOWS = ("eager", "fx")


class NormAct(nn.BatchNorm2d):
    """As in timm: batch norm and activation in one class, which calls the function."""

    def __init__(self, channels: int, act: nn.Module, eps: float = 1e-3) -> None:
        super().__init__(channels, eps, 0.03)
        self.drop, self.act = nn.Identity(), act

    def forward(self, x: Tensor) -> Tensor:
        mean, var = self.running_mean, self.running_var
        x = F.batch_norm(
            x, mean, var, self.weight, self.bias, self.training, self.momentum or 0.0, self.eps
        )
        out: Tensor = self.act(self.drop(x))
        return out


class Doubling(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(2 * x)


class Names(nn.Module):
    """A layer, a batch norm, an activation, stubs and a sum, each under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.conv, self.norm, self.act = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.LeakyReLU(0.1)
        self.add = FloatFunctional()
        for name in ("quant", "conv", "norm", "act", "add"):
            setattr(self, f"{name}_2", getattr(self, name))

    def forward(self, x: Tensor) -> Tensor:
        a = self.act(self.norm(self.conv(self.quant(x))))
        b = self.act_2(self.norm_2(self.conv_2(self.quant_2(x * 2))))
        out: Tensor = self.dequant(self.add_2.add(self.add.add(a, b), b))
        return out


class Blocks(nn.Sequential):
    """One activation object in all blocks, as a class attribute gives it."""

    def __init__(self) -> None:
        act = nn.Hardswish()
        made = [nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), act) for _ in range(3)]
        super().__init__(QuantStub(), *made, DeQuantStub())


def norm_act() -> nn.Module:
    return nn.Sequential(QuantStub(), nn.Conv2d(3, 3, 1), NormAct(3, nn.ReLU()), DeQuantStub())


def seen(make: Callable[[], nn.Module]) -> nn.Module:
    """With statistics that have seen something."""
    torch.manual_seed(0)
    model = make().train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
    return model


@dataclass(frozen=True)
class Case:
    name: str
    make: Callable[[], nn.Module]
    path: str | tuple[str, ...]


SHARED = ("quant", "conv", "norm", "act", "add")
CASES = [
    Case("unshare", Names, SHARED),
    Case("unshare", Blocks, "1.2"),
    Case("split_norm", norm_act, "2"),
]


def picture() -> Tensor:
    torch.manual_seed(1)
    return torch.randn(2, 3, 6, 6)


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.name}-{c.make.__name__}")
def test_the_function_stays_and_int8_follows(case: Case, flow: str) -> None:
    model, x = seen(case.make), picture()
    before = state_of(model)
    session = qx.Session(model, (x,), flow=flow, qconfig="qnnpack")
    session.warns = False
    session.edit(case.name, case.path)
    with torch.no_grad():
        wanted = model.eval()(x)
        assert torch.allclose(session.copy_model().eval()(x), wanted, atol=1e-6)
    session.goto(session.flow.train_stage)
    for _ in range(100):
        session.model(x)
    with torch.no_grad():
        simulated = session.copy_model().eval()(x)
    session.goto(session.flow.int8_stage)
    with torch.no_grad(), session._models.engine():
        int8 = session.int8(x)
    spread = float(simulated.max() - simulated.min())
    assert float((int8 - simulated).abs().mean()) < 0.02 * spread
    model.train()
    assert_untouched(model, before)


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.name}-{c.make.__name__}")
def test_the_code_does_the_same_to_the_users_model(case: Case) -> None:
    model, x = seen(case.make), picture()
    session = qx.Session(model, (x,))
    session.edit(case.name, case.path)
    for one in session.edits:
        exec(one.code, {"torch": torch, "nn": nn, "copy": copy, "model": model})
    mine = session.copy_model("float")
    assert model.state_dict().keys() == mine.state_dict().keys()
    assert len(list(model.parameters())) == len(list(mine.parameters()))
    assert [type(m) for m in model.modules()] == [type(m) for m in mine.modules()]
    assert torch.equal(model.eval()(x), mine.eval()(x))


def test_every_edit_of_these_families_has_a_case() -> None:
    families = (".sharing", ".norms")
    here = {n for n, plan in EDITS.items() if plan.__module__.endswith(families)}
    assert here == {case.name for case in CASES}


def test_names_keep_one_parameter() -> None:
    session = qx.Session(seen(Names), (picture(),))
    session.edit("unshare", "conv")
    float_model: Any = session.model
    assert float_model.conv is not float_model.conv_2
    assert float_model.conv.weight is float_model.conv_2.weight
    (edit,) = session.edits
    assert edit.code.splitlines()[-1] == (
        "model.conv_2 = copy.deepcopy(model.conv, {id(p): p for p in model.conv.parameters()})"
    )
    assert edit.diff == ("- conv: one Conv2d under 2 names\n+ conv: a Conv2d for each of 2 names")
    session.configure(edits=())
    assert session.model.conv is session.model.conv_2


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("unshare", nn.Conv2d),
        ("split_norm", nn.Conv2d),
        ("split_norm", nn.BatchNorm2d),
        ("split_norm", Doubling),  # it is another function
    ],
)
def test_what_does_not_fit_is_refused(name: str, make: Any) -> None:
    layer = make(3, 3, 1) if make is nn.Conv2d else make(3)
    model = nn.Sequential(layer, nn.ReLU())
    session = qx.Session(model, (picture(),))
    with pytest.raises(EditError) as caught:
        session.edit(name, "0")
    assert caught.value.where == "0"
    assert session.edits == ()


def test_hooks_go_on() -> None:
    model = seen(norm_act)
    found: list[Any] = []
    model[2].register_forward_hook(lambda *_: found.append(1))
    (session, x) = (qx.Session(model, (picture(),)), picture())
    session.edit("split_norm", "2")
    found.clear()
    session.copy_model("float")(x)
    names = [f"{type(m).__name__}" for m in session.model[2]]
    assert names == ["BatchNorm2d", "ReLU"]
    (edit,) = tried(seen(norm_act), [Edit("split_norm", "2")])
    assert "+ 2: Sequential(BatchNorm2d(" in edit.diff


def long(*names: str) -> list[Any]:
    return [pytest.param(name, marks=pytest.mark.long) for name in names]


@pytest.mark.parametrize("name", ["lcnet_050", *long("mobilenetv2_100", "regnetx_002")])
def test_timms_batch_norms_are_fused_after_it(name: str) -> None:
    model, x = load_timm(name, 32, 2)
    session = qx.Session(model, (x,), flow="fx")
    session.warns = False
    (finding,) = session.check().with_id("QX171")
    finding.fixes[0].apply(session)
    assert not session.check().with_id("QX171")
    with torch.no_grad():
        wanted, found = model.eval()(x), session.copy_model().eval()(x)
    assert torch.allclose(wanted, found, atol=1e-5)
    session.goto("insert")
    functions = [n.target for n in session.snapshot.graph.nodes if n.op == "call_function"]
    assert not any("batch_norm" in target for target in functions)
