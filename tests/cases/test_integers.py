"""An int8 layer repeated with integers: the kernel is right, and nothing is found in it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import qatexplorer as qx
from qatexplorer.checks.evidence.causes import in_integers
from qatexplorer.quantizers.engine import quantized_engine
from tests.cases.models import iris
from tests.support.engines import need_exact


@pytest.mark.parametrize("fusion", [[], "auto"])
@pytest.mark.filterwarnings("ignore::qatexplorer.errors.QatExplorerWarning")
def test_integers_by_hand_are_the_kernels(fusion: Any) -> None:
    need_exact("x86")
    model, data = iris()
    train = {"train": data[:8], "eval": data[8:]}
    session = qx.Session(model, data[0][0], data=train, qconfig="x86", fusion=fusion)
    session.train(epochs=20, lr=0.05, optimizer="sgd", progress=False)
    session.goto("convert")
    seen: dict[str, Tensor] = {}
    layer = session.int8.get_submodule("fc1")
    handle = layer.register_forward_hook(lambda _m, args, out: seen.update(x=args[0], y=out))
    inputs = torch.cat([x for x, _ in data[8:]])
    with quantized_engine("x86"):
        session.int8(inputs)
    handle.remove()
    exact = in_integers(layer, seen["x"])
    assert exact is not None
    off = ((exact - seen["y"].dequantize().flatten()).abs() / seen["y"].q_scale()).round()
    # A tie in rounding may go either way: 479 of 480 codes were equal when this was written.
    assert int(off.max()) <= 1
    assert int((off > 0).sum()) <= 3
    # A bias has no fake quant: training does not feel that the kernel rounds it to s_x * s_w.
    session.goto("train")
    assert not [site for site in session.snapshot.sites if "bias" in site.path]
    assert not session.check().with_id("QX502")
    assert not session.check().errors
