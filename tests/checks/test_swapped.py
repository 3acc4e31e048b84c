"""Fake quants of torchao's QAT that can be switched off, those of each base configuration."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import qatexplorer as qx
from qatexplorer.flows.torchao import TorchaoFlow
from tests.checks.examples_swapped import groups_of_32, made

pytestmark = pytest.mark.skipif(bool(TorchaoFlow().unavailable()), reason="no torchao 0.18")


def session_of(base_config: Any) -> qx.Session:
    model = nn.Sequential(nn.Linear(128, 8)).train()
    session = qx.Session(model, (torch.randn(2, 128),), flow="torchao", base_config=base_config)
    session.warns = False
    session.goto("train")
    return session


@pytest.mark.parametrize("name", ["int4", "float8", "intx"])
def test_torchao_018_has_mended_the_switches_of_int4_and_float8(name: str) -> None:
    ao = pytest.importorskip("torchao.quantization")
    configs = {
        "int4": lambda: ao.Int4WeightOnlyConfig(group_size=32),
        "float8": lambda: ao.Float8DynamicActivationFloat8WeightConfig(),
        "intx": groups_of_32,
    }
    session = session_of(configs[name]())
    found = session.check()
    assert "QX410" in found.checked
    assert not found.with_id("QX410")
    assert not found.with_id("QX721"), "and the groups of int4 are those that were asked for"


def test_a_fake_quant_that_does_not_ask_its_switch_is_found() -> None:
    from torchao.quantization.qat.fake_quantizer import IntxFakeQuantizer

    class Stubborn(IntxFakeQuantizer):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.enabled = True
            result: torch.Tensor = super().forward(x)
            return result

    session = session_of(groups_of_32())
    layer: Any = session.model.get_submodule("0")
    layer.weight_fake_quantizer = Stubborn(layer.weight_fake_quantizer.config)
    (found,) = session.check().with_id("QX410")
    assert found.path == "0.weight_fake_quantizer"
    assert "Stubborn" in found.message


def test_a_check_of_a_session_runs_through_at_each_stage() -> None:
    model, inputs = made(nn.ReLU)()
    session = qx.Session(model, inputs, flow="torchao", base_config=model.asked())
    session.warns = False
    for stage in session.flow.stage_names:
        session.goto(stage)
        found = session.check()
        assert not [one for one in found.skipped if "failed" in one.why or "Error" in one.why]
        assert not found.with_id("QX914"), "int4 weights are not float"
    assert {"QX721", "QX722", "QX723", "QX708"} <= set(found.checked)
    assert not {one.id for one in found} & {"QX721", "QX722", "QX723", "QX708"}


def test_fake_quants_of_torch_ao_beside_those_of_torchao_are_a_mixture() -> None:
    session = session_of(groups_of_32())
    session.model.append(torch.ao.quantization.default_fake_quant())
    (found,) = session.check().with_id("QX409")
    assert found.path == "1"
    assert "torchao.quantization.qat" in found.message
    assert "torch.ao.quantization" in found.message
