"""The calls that findings of parity offer put them right."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import qatexplorer as qx
from tests.checks.parity_models import Behind, OnePath, Small, TwoConvs, Upsampling, image, rows
from tests.support.engines import need_exact

MADE: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "relu_twice": ("QX501", lambda: TwoConvs(True), {"fusion": [["conv1", "relu"]]}),
    "norm_at_one_place": ("QX501", lambda: OnePath(True), {"fusion": [["conv", "bn"]]}),
    "transposed": ("QX502", lambda: Upsampling(True), {"qconfig": "qnnpack", "engine": "onednn"}),
    "relu6": ("QX502", lambda: Behind(nn.ReLU6()), {"qconfig": "qnnpack", "fusion": []}),
}


@pytest.mark.filterwarnings("ignore::qatexplorer.errors.QatExplorerWarning")
@pytest.mark.parametrize("name", MADE)
def test_a_button_makes_its_finding_go_away(name: str) -> None:
    need_exact("onednn")
    rule, make, settings = MADE[name]
    torch.manual_seed(0)
    session = qx.Session(make().train(), image(), **settings)
    (found,) = session.check().with_id(rule)
    assert found.fixes
    found.fixes[0].apply(session)
    assert session.check().with_id(rule) == ()


@pytest.mark.filterwarnings("ignore::qatexplorer.errors.QatExplorerWarning")
def test_fake_quants_that_are_not_fused_round_weights_as_int8_does() -> None:
    from torch.ao.quantization import get_default_qat_qconfig

    session = qx.Session(Small(None).train(), rows(), qconfig=get_default_qat_qconfig("onednn"))
    (found,) = session.check().with_id("QX505")
    qconfig = eval(found.fix.partition("=")[2], {"torch": torch})
    session.configure(qconfig=qconfig)
    assert session.check().with_id("QX505") == ()
