"""The calls that findings of parity offer put them right."""

from __future__ import annotations

import operator
from typing import Any

import pytest
import torch
from torch import nn

import qatexplorer as qx
from qatexplorer.checks.evidence.causes import Examiner
from tests.checks.parity_models import (
    Behind,
    Dropping,
    OnePath,
    Small,
    TwoConvs,
    Upsampling,
    image,
    rows,
)
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


@pytest.mark.filterwarnings("ignore::qatexplorer.errors.QatExplorerWarning")
@pytest.mark.parametrize("other", [True, False])
def test_an_engine_that_is_right_or_a_layer_left_float(
    other: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_exact("onednn")
    if not other:
        monkeypatch.setattr(Examiner, "_right_engines", lambda *_: ())
    torch.manual_seed(0)
    settings = {"qconfig": "qnnpack", "engine": "onednn", "flow": "fx"}
    session = qx.Session(Upsampling(True).train(), image(), **settings)
    (found,) = session.check().with_id("QX502")
    code, _, why = found.fix.partition("  # ")
    assert why == ("whose kernel of this layer is right" if other else "leaves this layer float")
    exec(code, {"session": session})
    assert session.check().with_id("QX502") == ()


class Doubling(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x * 2)


@pytest.mark.filterwarnings("ignore::qatexplorer.errors.QatExplorerWarning")
def test_operations_of_a_kind_are_left_float() -> None:
    torch.manual_seed(0)
    session = qx.Session(Doubling().train(), image(), flow="fx", qconfig="onednn")
    (found,) = session.check().with_id("QX508")
    code, _, why = found.fix.partition("  # ")
    assert why == "leaves such operations float"
    mapping = torch.ao.quantization.get_default_qat_qconfig_mapping("onednn")
    exec(code, {"qconfig_mapping": mapping, "operator": operator})
    session.configure(qconfig=mapping)
    assert session.check().with_id("QX508") == ()


@pytest.mark.filterwarnings("ignore::qatexplorer.errors.QatExplorerWarning")
def test_a_function_that_was_traced_in_training() -> None:
    """Call nn.Dropout as a module there, or session.configure(flow='eager', stubs='layers')."""
    torch.manual_seed(0)
    session = qx.Session(Dropping(True).train(), image(), flow="fx")
    (found,) = session.check().with_id("QX501")
    assert found.fix.endswith(
        "as a module there, or session.configure(flow='eager', stubs='layers')"
    )
    assert qx.Session(Dropping(False).train(), image(), flow="fx").check().with_id("QX501") == ()
    exec(found.fix.partition(", or ")[2], {"session": session})
    assert session.check().with_id("QX501") == ()
