"""Parity: measured whenever an int8 model is made, and equal to what torch's calls give."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.ao.quantization import convert, disable_observer

import qatexplorer as qx
from qatexplorer.quantizers.engine import quantized_engine
from qatexplorer.views.common.results import results_html
from tests.support.models import ConvBnRelu, Residual, image, loader

FLOWS = ("eager", "fx")


def trained(model: nn.Module, x: Any, flow: str, **settings: Any) -> qx.Session:
    torch.manual_seed(0)
    data = {"train": loader(x), "eval": loader(x)}
    session = qx.Session(model, x, flow=flow, data=data, **settings)
    session.train(1, progress=False)
    return session


@pytest.mark.parametrize("flow", FLOWS)
def test_there_is_none_before_int8_and_it_goes_with_it(flow: str) -> None:
    session = trained(ConvBnRelu(), image(), flow)
    assert session.parity is None
    session.goto(session.flow.int8_stage)
    assert session.parity is not None
    assert session.parity.rows
    session.calibrate(1)
    assert session.parity is None


def test_steps_in_eager_mode_are_those_that_torch_alone_gives() -> None:
    x = image()
    session = trained(ConvBnRelu(), x, "eager", qconfig="x86")
    session.goto("convert")
    assert session.parity is not None
    found = {row.path: row for row in session.parity.rows}
    seen: dict[str, list[Tensor]] = {}

    def keep(path: str) -> Any:
        return lambda _m, _i, out: seen.setdefault(path, []).append(out)

    prepared = copy.deepcopy(session._models.work).eval().apply(disable_observer)
    with torch.no_grad(), quantized_engine("x86"):
        int8 = convert(copy.deepcopy(session._models.work).eval())
        for model in (prepared, int8):
            for path in found:
                model.get_submodule(path).register_forward_hook(keep(path))
            model(x)
    assert found.keys() >= {"quant", "conv1", "conv2", "fc"}
    for path, (fake, code) in seen.items():
        gap = (fake - code.dequantize()).abs() / code.q_scale()
        assert found[path].step == code.q_scale()
        assert found[path].outputs == fake.numel()
        assert found[path].largest == pytest.approx(float(gap.max()), abs=1e-3)
        assert found[path].far == pytest.approx(float((gap > 1.501).float().mean()), abs=1e-6)
        assert found[path].half == pytest.approx(float((gap > 0.501).float().mean()), abs=1e-6)


@pytest.mark.parametrize("flow", FLOWS)
def test_it_stands_beside_the_accuracy_of_int8(flow: str) -> None:
    session = trained(Residual(), image(), flow)
    of_a_copy = session.evaluate(latency=False)["int8"]
    assert of_a_copy.parity is not None
    session.goto(session.flow.int8_stage)
    evaluation = session.evaluate(latency=False)
    assert evaluation["int8"].parity is session.parity
    assert session.parity is not None
    said = session.parity.summary()
    assert said.startswith("fake quant and int8: ")
    assert "steps apart" in said
    assert said in repr(evaluation)
    assert said in str(results_html(evaluation))
    assert said in repr(session.parity)
    assert said in session.parity._repr_html_()
    assert evaluation["float"].parity is None


@pytest.mark.parametrize("flow", FLOWS)
def test_every_operation_on_int8_is_compared(flow: str) -> None:
    """Also the addition, which is no module in the int8 graph."""
    session = trained(Residual(), image(), flow)
    session.goto(session.flow.int8_stage)
    assert session.parity is not None
    paths = {row.path for row in session.parity.rows}
    assert any("add" in path for path in paths), paths
    assert len(paths) >= 4


@pytest.mark.filterwarnings("ignore::qatexplorer.errors.QatExplorerWarning")
def test_nothing_is_said_of_scales_that_no_observer_has_made() -> None:
    session = qx.Session(ConvBnRelu(), image())
    session.goto("convert")
    assert session.parity is None
