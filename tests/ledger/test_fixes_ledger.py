"""Each fix for a ledger that cannot be made, done to the letter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.ao.quantization import get_default_qat_qconfig, get_default_qat_qconfig_mapping
from torch.ao.quantization import prepare_qat as torch_prepare_qat
from torch.ao.quantization.quantize_fx import prepare_qat_fx as torch_prepare_qat_fx

import qatexplorer as qx
from qatexplorer.errors import QatExplorerError
from qatexplorer.ledger.build import ledger_of

X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))


def net() -> Any:
    return nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 4)).train()


def prepare_qat() -> nn.Module:
    model = net()
    model.qconfig = get_default_qat_qconfig("onednn")
    return torch_prepare_qat(model)


def prepare_qat_fx() -> nn.Module:
    return torch_prepare_qat_fx(net(), get_default_qat_qconfig_mapping("onednn"), (X,))


def went_to_insert() -> Any:
    session = qx.Session(net(), X)
    session.goto("insert")
    return session.ledger().rows


CASES: list[tuple[str, Callable[[], Any], Callable[[], Any]]] = [
    (
        "Pass a model that prepare_qat or prepare_qat_fx returned",
        lambda: ledger_of("model.pt", X),  # type: ignore[arg-type]
        lambda: ledger_of(prepare_qat(), X).rows and ledger_of(prepare_qat_fx(), X).rows,
    ),
    (
        "Prepare it first (session.goto('insert'), prepare_qat or prepare_qat_fx)",
        lambda: ledger_of(net(), X),
        went_to_insert,
    ),
    (
        "prepare_qat or prepare_qat_fx)",
        lambda: ledger_of(net(), X),
        lambda: ledger_of(prepare_qat(), X).rows and ledger_of(prepare_qat_fx(), X).rows,
    ),
    (
        "Pass what you would pass to model(…)",
        lambda: ledger_of(prepare_qat(), torch.ones(4, 5)),
        lambda: prepare_qat()(X) is not None and ledger_of(prepare_qat(), X).rows,
    ),
    (
        "Ask for it again; what there was is thrown away",
        lambda: ledger_of(prepare_qat(), X, should_stop=lambda: True),
        lambda: ledger_of(prepare_qat(), X).rows,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=[c[0][:40] for c in CASES])
def test_the_fix_works(case: Any) -> None:
    text, before, after = case
    with pytest.raises(QatExplorerError) as caught:
        before()
    assert text in caught.value.fix, caught.value
    assert after()
