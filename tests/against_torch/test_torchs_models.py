"""Torch's own quantization test models: our stages equal its one call, in both flows."""

from __future__ import annotations

import copy
import inspect

import pytest
import torch
from torch import nn
from torch.ao.quantization import convert, get_default_qat_qconfig

import qatexplorer as qx
from qatexplorer.errors import QatExplorerError
from tests.against_torch.fx_reference import compare_fx, steps_on
from tests.against_torch.reference import assert_same_state, engine, main_tensor, one_call
from tests.against_torch.torchs_models import OTHER_INPUTS, SIMPLE, TorchsModel, torchs_module

BACKEND = "onednn"
FX_REFUSES = ("ModelForConvTransposeBNFusion",)
"""What torch's own one call refuses: fusing a transposed convolution in QAT."""
REBIND = ("LinearReluAddModel", "ConvReluAddModel")
"""Each forward of these puts a new ReLU where fusion left an Identity; the session has run one."""

every_model = pytest.mark.parametrize(
    "case",
    [  # every fifth in the inner loop
        pytest.param(case, id=case.id, marks=[pytest.mark.slow] if index % 5 else [])
        for index, case in enumerate(SIMPLE)
    ],
)


def default(model: nn.Module) -> None:
    if not hasattr(model, "qconfig"):
        model.qconfig = get_default_qat_qconfig(BACKEND)  # type: ignore[assignment]


def classes(model: nn.Module) -> list[tuple[str, type]]:
    return [(name, type(module)) for name, module in model.named_modules()]


@every_model
def test_eager_stages_equal_the_one_call(case: TorchsModel) -> None:
    model, inputs = case.make()
    session = qx.Session(model, inputs, engine=BACKEND)  # some have qconfigs of their own
    reference = one_call(model, session.fusion, default)
    if case.name in REBIND:
        reference.relu = nn.ReLU()
    session.goto("insert")
    assert_same_state(session.model, reference)
    session.step()
    outputs, losses = steps_on(session.model, inputs)
    their_outputs, their_losses = steps_on(reference, inputs)
    assert losses == their_losses
    assert all(torch.equal(a, b) for a, b in zip(outputs, their_outputs, strict=True))
    assert_same_state(session.model, reference)
    assert classes(session.model) == classes(reference)
    with engine(BACKEND), torch.no_grad():
        try:
            int8 = convert(copy.deepcopy(reference).eval())
            expected = main_tensor(int8(*inputs))
        except Exception:
            with pytest.raises(QatExplorerError):
                session.step()
            return
        session.step()
        assert torch.equal(main_tensor(session.int8(*inputs)), expected)
    assert classes(session.int8) == classes(int8)


@every_model
def test_fx_stages_equal_the_one_call(case: TorchsModel) -> None:
    model, inputs = case.make()
    for module in model.modules():
        # torch's FX heeds them in part only; tests/flows/test_own_qconfig.py has what ours does.
        vars(module).pop("qconfig", None)
    outcome = compare_fx(model, inputs, classifies=False)
    assert not outcome.stopped
    assert (outcome.refused is not None) == (case.name in FX_REFUSES)


def test_every_model_of_torch_is_walked_or_named() -> None:
    assert len(SIMPLE) == 68
    found = {
        name
        for name, made in vars(torchs_module()).items()
        if inspect.isclass(made) and issubclass(made, nn.Module)
        if made.__module__ == torchs_module().__name__
    }
    stepped = {case.name for case in SIMPLE}
    assert not found - stepped - OTHER_INPUTS.keys()
    assert not stepped & OTHER_INPUTS.keys()
