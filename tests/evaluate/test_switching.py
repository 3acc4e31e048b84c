"""What switching fake quants off changes, measured."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.ao.quantization import FakeQuantize

import qatexplorer as qx
from qatexplorer.errors import StageError
from qatexplorer.evaluate.switching import switching
from qatexplorer.quantizers.facts import fake_quants, flags_of

ao = pytest.importorskip("torchao.quantization")
X = torch.randn(4, 128, generator=torch.Generator().manual_seed(0))

BASES = {
    "int8 activations": lambda: ao.Int8DynamicActivationIntxWeightConfig(),
    "int4 kernel": lambda: ao.Int4WeightOnlyConfig(group_size=32),
    "float8": lambda: ao.Float8DynamicActivationFloat8WeightConfig(),
    "float8 and int4": lambda: ao.Float8DynamicActivationInt4WeightConfig(),
}


def session(base: Any = None, flow: str = "torchao") -> qx.Session:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 4)).train()
    return qx.Session(model, X, flow=flow, base_config=base)


@pytest.mark.parametrize("base", BASES.values(), ids=BASES)
def test_off_is_float_and_on_is_not(base: Any) -> None:
    made = session(base())
    with pytest.raises(StageError, match="no fake quants to switch"):
        made.switching()
    made.goto("prepare")
    before = made.model.state_dict()
    found = made.switching()
    assert found.stuck == ()
    assert set(found.ran) == set(fake_quants(made.model))
    assert found.output > 0
    with torch.no_grad():
        rounded, plain = made.model(X), made._models.base(X)
    assert found.output == pytest.approx(float((rounded - plain).abs().max()))
    assert all(flags_of(one).fake_quant for one in fake_quants(made.model).values())
    assert all(torch.equal(v, before[k]) for k, v in made.model.state_dict().items())
    assert f"Switching {len(found.ran)} fake quants off changes the output by" in repr(found)


def test_a_switch_without_effect_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    made = session(ao.Int4WeightOnlyConfig(group_size=32))
    made.goto("prepare")
    kind: Any = type(next(iter(fake_quants(made.model).values())))

    def ignoring(self: Any, w: Tensor) -> Tensor:  # as torchao 0.17 did
        out: Tensor = self._bf16_activations_forward(w)
        return out

    monkeypatch.setattr(kind, "forward", ignoring)
    found = made.switching()
    assert found.stuck == ("0.weight_fake_quantizer", "2.weight_fake_quantizer")
    assert found.output == 0.0
    assert "changes nothing in the output" in found.summary()
    assert "2 of them round though they are off (0.weight_fake_quantizer" in found.summary()


def test_the_fix_reaches_the_stage_and_torchs_own_switch_too() -> None:
    made = session(flow="fx")
    with pytest.raises(StageError, match=r"session\.goto\('insert'\)"):
        made.switching()
    made.goto("insert")
    made.model(X)
    found = made.switching()
    assert found.stuck == ()
    assert found.output > 0


def test_one_that_changes_nothing_is_idle() -> None:
    model = nn.Sequential(nn.Linear(4, 4), FakeQuantize())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model(torch.zeros(2, 4))
    found = switching(model, torch.zeros(2, 4))
    assert found.idle == ("1",)
    assert "changes nothing" in repr(found)
