"""What a ledger costs: at most four forwards, reported while they run, and stopped when asked."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.ao.quantization import (
    DeQuantStub,
    QuantStub,
    get_default_qat_qconfig_mapping,
    prepare_qat,
)
from torch.ao.quantization.quantization_mappings import get_default_qat_module_mappings
from torch.ao.quantization.quantize_fx import prepare_qat_fx
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)

import qatexplorer as qx
from qatexplorer.errors import StoppedError
from qatexplorer.forward.noise import sqnr
from qatexplorer.ledger import forwards as reported
from qatexplorer.ledger import ledger_of
from qatexplorer.ledger.forwards import LedgerProgress
from qatexplorer.ledger.measure import bypassed
from qatexplorer.quantizers.facts import freeze_observers, is_quantizer
from tests.support.ledger_models import OwnName, TwoLinear, eager, seen


class Many(nn.Module):
    """Five linear layers with a dropout behind each: FX quantizes every one of them twice."""

    def __init__(self, stubs: bool = False) -> None:
        super().__init__()
        self.quant = QuantStub() if stubs else nn.Identity()
        self.dequant = DeQuantStub() if stubs else nn.Identity()
        layers = [nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.1)) for _ in range(5)]
        self.layers, self.head = nn.Sequential(*layers), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.dequant(self.head(self.layers(self.quant(x))))


def vector() -> Tensor:
    return torch.randn(8, 6, generator=torch.Generator().manual_seed(1))


def many_in_fx() -> nn.Module:
    torch.manual_seed(0)
    mapping = get_default_qat_qconfig_mapping("onednn")
    return prepare_qat_fx(Many().train(), mapping, (vector(),))


def many_in_eager() -> nn.Module:
    torch.manual_seed(0)
    mapping = {**get_default_qat_module_mappings(), nn.Linear: OwnName}
    return prepare_qat(eager(Many(stubs=True)), mapping=mapping)


MODELS = {"eager": many_in_eager, "fx": many_in_fx}


@contextmanager
def forwards_counted() -> Iterator[list[str]]:
    """Names of the models that run inside: every outermost call of a module, copies and all."""
    ran: list[str] = []
    depth = 0

    def enter(module: nn.Module, _args: Any) -> None:
        nonlocal depth
        if not depth and not is_quantizer(module):  # convert shows weights to observers
            ran.append(type(module).__name__)
        depth += 1

    def leave(_module: nn.Module, _args: Any, _out: Any) -> None:
        nonlocal depth
        depth -= 1

    handles = [
        register_module_forward_pre_hook(enter),
        register_module_forward_hook(leave, always_call=True),
    ]
    try:
        yield ran
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("observed", [False, True], ids=["unseen", "seen"])
@pytest.mark.parametrize("flow", MODELS)
def test_a_ledger_takes_four_forwards_however_many_redundancies(flow: str, observed: bool) -> None:
    model = MODELS[flow]()
    if observed:
        seen(model, vector())
    with forwards_counted() as ran:
        ledger = ledger_of(model, vector())
    assert len([found for found in ledger.redundancies if found.numbers]) >= 4
    assert len(ran) == 4
    assert all(f.numbers.observed_for_this is not observed for f in ledger.faults if f.numbers)
    with forwards_counted() as ran:
        ledger_of(prepare_qat(eager(TwoLinear())), vector())
    assert len(ran) == 2  # nothing is quantized twice


def test_the_effect_of_all_is_measured_and_that_of_each_on_request() -> None:
    model, x = seen(many_in_fx(), vector()), vector()
    ledger = ledger_of(model, x)
    found = [f for f in ledger.redundancies if f.numbers is not None]
    assert all(f.numbers is not None and f.numbers.output_sqnr_db is None for f in found)
    assert all("at the model's output" not in f.cost for f in found)
    with forwards_counted() as ran:
        measured = ledger_of(model, x, effects=True)
    assert len(ran) == 4 + len(found)

    again = copy.deepcopy(model).eval()
    freeze_observers(again)
    with torch.no_grad():
        whole = again(x)
        with bypassed(again, [(f.second, 0) for f in found]):
            together = sqnr(again(x), whole)
    assert ledger.together_sqnr_db == pytest.approx(together, rel=1e-4)
    assert measured.together_sqnr_db == ledger.together_sqnr_db
    for each in (f for f in measured.redundancies if f.numbers is not None):
        with torch.no_grad(), bypassed(again, [(each.second, 0)]):
            alone = sqnr(again(x), whole)
        assert each.numbers is not None
        assert each.numbers.output_sqnr_db == pytest.approx(alone, rel=1e-4)
        assert "at the model's output" in each.cost


@pytest.mark.parametrize("flow", MODELS)
def test_progress_is_reported_and_counts_up(flow: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reported, "REPORT_EVERY_S", 0.0)
    heard: list[LedgerProgress] = []
    ledger_of(MODELS[flow](), vector(), progress=heard.append)
    assert [p.done for p in heard] == sorted(p.done for p in heard)
    assert len({p.what for p in heard}) >= 5
    assert {int(p.done) for p in heard} == {0, 1, 2, 3, 4}
    assert any(p.done % 1 for p in heard)  # inside of a forward too
    assert (heard[-1].total, heard[-1].share) == (4, 1.0)
    assert heard[0].seconds_left is None
    assert all(p.seconds_left is not None and p.seconds_left >= 0 for p in heard[1:])


@pytest.mark.parametrize("flow", ["eager", pytest.param("fx", marks=pytest.mark.slow)])
def test_a_ledger_can_be_stopped_at_every_moment_and_leaves_the_model_alone(flow: str) -> None:
    model, x = seen(MODELS[flow](), vector()), vector()
    asked: list[int] = []

    def stop_after(moments: float) -> Callable[[], bool]:
        asked.clear()

        def asks() -> bool:
            asked.append(1)
            return len(asked) > moments

        return asks

    whole = ledger_of(model, x, should_stop=stop_after(math.inf))
    moments, before = len(asked), copy.deepcopy(model.state_dict())
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    random = torch.get_rng_state()
    for moment in range(0, moments, max(1, moments // 12)):
        with pytest.raises(StoppedError, match="stopped"):
            ledger_of(model, x, should_stop=stop_after(moment))
        assert len(asked) == moment + 1  # at once, not at the end of a forward
    after = model.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert hooks == [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    assert torch.equal(torch.get_rng_state(), random)
    assert ledger_of(model, x) == whole


def test_a_session_keeps_nothing_of_a_stopped_ledger() -> None:
    session = qx.Session(Many().train(), vector(), flow="fx")
    session.goto("insert")
    with pytest.raises(StoppedError):
        session.ledger(should_stop=lambda: True)
    heard: list[LedgerProgress] = []
    ledger = session.ledger(progress=heard.append)
    assert heard
    assert session.ledger() is ledger
    measured = session.ledger(effects=True)
    assert measured is not ledger
    assert session.ledger() is measured


def test_a_model_that_cannot_be_copied_has_a_ledger_too() -> None:
    model: Any = seen(prepare_qat(eager(TwoLinear())), vector())
    model.stream = (number for number in range(3))  # a generator: deepcopy raises
    before = copy.deepcopy(model.state_dict())
    ledger = ledger_of(model, vector())
    assert ledger.coverage.basis == "structure"
    assert any("TypeError" in text for text in ledger.warnings)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())
    assert model.training
