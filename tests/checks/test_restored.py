"""A check leaves the session's models, the random state and the engine as they were."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

import qatexplorer as qx
from qatexplorer.quantizers.facts import find_quantizers, flags_of
from tests.support.models import ConvBnRelu, image, loader

FLOWS = ("eager", "fx")


def state(session: qx.Session) -> dict[str, Any]:
    found: dict[str, Any] = {}
    models = {"base": session._models.base, "work": session._models.work}
    models |= session._models.converted
    for name, model in models.items():
        found |= {f"{name}.{key}": value for key, value in tensors(model).items()}
        for path, module in model.named_modules():
            found[f"{name}.{path}.training"] = module.training
            found[f"{name}.{path}.hooks"] = list(module._forward_hooks)
            found[f"{name}.{path}.attributes"] = sorted(vars(module))
        for path, fake in find_quantizers(model).items():
            found[f"{name}.{path}.flags"] = flags_of(fake)
    found["rng"] = torch.get_rng_state().clone()
    found["python"] = random.getstate()
    found["engine"] = torch.backends.quantized.engine
    return found


def tensors(model: torch.nn.Module) -> dict[str, Any]:
    return {
        key: value.dequantize() if value.is_quantized else value.clone()
        for key, value in model.state_dict().items()
        if isinstance(value, torch.Tensor)
    }


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return a.shape == b.shape and torch.equal(a.nan_to_num(), b.nan_to_num())
    return bool(a == b)


@pytest.mark.filterwarnings("ignore::qatexplorer.errors.QatExplorerWarning")
@pytest.mark.parametrize("stage", ["float", "insert", "calibrated", "trained", "int8"])
@pytest.mark.parametrize("flow", FLOWS)
def test_everything_is_bit_equal_after_a_check(flow: str, stage: str) -> None:
    torch.manual_seed(0)
    x = image()
    session = qx.Session(ConvBnRelu(), x, flow=flow, data={"train": loader(x), "eval": loader(x)})
    if stage == "insert":
        session.goto(session.flow.prepared_stage)
    elif stage == "calibrated":
        session.calibrate(1)
    elif stage in ("trained", "int8"):
        session.train(1, progress=False)
    if stage == "int8":
        session.goto(session.flow.int8_stage)
    before = state(session)
    found = session.check()
    assert found.checked
    after = state(session)
    assert before.keys() == after.keys()
    assert [key for key in before if not same(before[key], after[key])] == []


@pytest.mark.parametrize("flow", FLOWS)
def test_converting_leaves_the_trained_model_as_it_was(flow: str) -> None:
    torch.manual_seed(0)
    x = image()
    session = qx.Session(ConvBnRelu(), x, flow=flow, data={"train": loader(x), "eval": loader(x)})
    session.train(1, progress=False)
    before = state(session)
    session.goto(session.flow.int8_stage)
    after = state(session)
    assert [key for key in before if not same(before[key], after[key])] == []
