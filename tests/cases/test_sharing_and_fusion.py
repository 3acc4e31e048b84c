"""What people got stuck at that share modules, or expected them to be fused: found by the checks.

Sources: ultralytics/yolov3#2266 and ultralytics/ultralytics#19960 (a detector), pytorch/ao#4116
(Linear and BatchNorm1d), pytorch/pytorch#46096 (a U-Net of torch's intrinsic modules),
pytorch/ao#1427 (a compiled model).
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.ao.nn.intrinsic.qat import ConvBn2d
from torch.ao.nn.quantized import FloatFunctional
from torch.ao.quantization import DeQuantStub, QuantStub

import qatexplorer as qx
from qatexplorer import errors
from tests.cases.models import Conv, UNet, session_of
from tests.checks.examples_fusion import Tokens, tokens

NONE_OF_THEM = ("QX151", "QX152", "QX153", "QX171", "QX173", "QX174", "QX175")


# -- a detector -----------------------------------------------------------------------------------


class Block(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.cv1, self.cv2 = Conv(c, c), Conv(3 * c // 2, c)
        self.m = nn.ModuleList([nn.Sequential(Conv(c // 2, c // 2, 3), Conv(c // 2, c // 2, 3))])
        self.join = FloatFunctional()

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.cv1(x).chunk(2, 1))
        parts.extend(block(parts[-1]) for block in self.m)
        out: Tensor = self.cv2(self.join.cat(parts, 1))
        return out


class Detector(nn.Module):
    """Eight conv + batch norm, all with the one SiLU of their class."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant, self.join = QuantStub(), DeQuantStub(), FloatFunctional()
        self.model = nn.ModuleList(
            [
                *(Conv(3, 8, 3, 2), Conv(8, 16, 3, 2), Block(16), Conv(16, 16, 3, 2)),
                *(nn.Upsample(scale_factor=2), Conv(32, 16), nn.Conv2d(16, 7, 1)),
            ]
        )

    def forward(self, image: Tensor) -> Any:
        x = self.quant(image)
        for layer in self.model[:3]:
            x = layer(x)
        deep = self.model[3](x)
        up = self.model[5](self.join.cat([self.model[4](deep), x], 1))
        maps = [self.dequant(self.model[6](f)) for f in (up, deep)]
        return maps if self.training else torch.cat([m.flatten(2) for m in maps], 2)


def detector(**settings: Any) -> qx.Session:
    torch.manual_seed(0)
    inputs = (torch.rand(2, 3, 32, 32),)
    session = session_of(Detector().train(), inputs, "eager", qconfig="fbgemm", **settings)
    session.warns = False
    return session


def test_a_detectors_pairs_are_found_with_full_paths() -> None:
    session = detector()
    pairs = [(f"{n}.conv", f"{n}.bn") for n, m in Detector().named_modules() if isinstance(m, Conv)]
    assert len(pairs) == 8
    assert set(session.fusion) == set(pairs)
    found = session.check()
    assert not [one for name in NONE_OF_THEM for one in found.with_id(name)]
    (outside,) = found.with_id("activation-outside")
    assert outside.message == (
        "SiLU follows model.0.bn, model.1.bn and 6 more, and is not fused with them: torch fuses "
        "ReLU only."
    )
    (names,) = found.with_id("many-names")
    assert "one SiLU, has 8 names and runs 8 times" in names.message
    session.goto("insert")
    fused = [m for m in session.model.modules() if isinstance(m, ConvBn2d)]
    assert {(m.bn.eps, m.bn.momentum) for m in fused} == {(1e-3, 0.03)}
    assert len(fused) == 8


def test_the_one_activation_becomes_eight() -> None:
    session = detector()
    (names,) = session.check().with_id("many-names")
    names.fixes[0].apply(session)
    acts = [m for m in session.copy_model("float").modules() if isinstance(m, nn.SiLU)]
    assert len(acts) == 8
    assert not session.check().with_id("many-names")
    assert len(session.fusion) == 8


def test_the_fuse_list_of_the_thread_says_what_to_write() -> None:
    with pytest.raises(errors.FusionError) as caught:
        detector(fusion=["conv", "bn", "relu"])
    assert "there is no module 'conv'" in str(caught.value)
    assert "model.0.conv, model.1.conv and 6 more end in 'conv'" in str(caught.value)
    assert "fusion='auto'" in caught.value.fix
    assert len(detector(fusion="auto").fusion) == 8
    with pytest.raises(
        errors.FusionError, match="torch cannot fuse Conv2d \\+ BatchNorm2d \\+ SiLU"
    ):
        detector(fusion=[["model.0.conv", "model.0.bn", "model.0.act"]])
    with pytest.raises(errors.FusionError, match="in the order in which they run"):
        detector(fusion=[["model.0.bn", "model.0.conv"]])


# -- Linear and a batch norm over tokens ----------------------------------------------------------


@pytest.mark.parametrize("flow", ["eager", "fx"])
def test_a_norm_over_tokens_is_told_before_and_after_it_has_learned(flow: str) -> None:
    model, inputs = tokens(False)()
    assert isinstance(model, Tokens)
    session = session_of(model, inputs, flow)
    session.warns = False
    found = session.check()
    (before,) = found.with_id("norm-over-tokens")
    assert before.stage == session.flow.stage_with("fused").name
    assert before.fix.startswith("model.norm = nn.BatchNorm2d(12)")
    assert not found.with_id("batch-norm-over-tokens")
    with torch.no_grad():
        model.norm.weight.copy_(torch.linspace(0.5, 2.0, 12))
        model.norm.bias.copy_(torch.linspace(-1.0, 1.0, 12))
    session = session_of(model, inputs, flow)
    session.warns = False
    found = session.check()
    assert not found.with_id("norm-over-tokens")  # what is measured is said once
    assert found.with_id("batch-norm-over-tokens")


# -- torch's intrinsic modules in a float model ---------------------------------------------------


@pytest.mark.parametrize(("flow", "stubs"), [("fx", "none"), ("eager", "layers")])
def test_intrinsic_modules_of_a_float_model_are_no_fault(flow: str, stubs: Any) -> None:
    torch.manual_seed(0)
    session = session_of(UNet().train(), (torch.rand(2, 1, 16, 16),), flow, stubs=stubs)
    session.warns = False
    found = session.check()
    assert not found.errors
    assert not [one for name in NONE_OF_THEM for one in found.with_id(name)]


# -- wrappers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("flow", ["eager", "fx"])
def test_a_wrapper_is_told_once_and_paths_are_plain(flow: str) -> None:
    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.relu = nn.Conv2d(3, 4, 1), nn.ReLU()
            self.conv2, self.norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv2(self.relu(self.conv(x)))
            out: Tensor = self.norm(y) + y
            return out

    model = nn.DataParallel(torch.compile(Head(), backend="eager"))
    session = session_of(model.train(), (torch.rand(2, 3, 4, 4),), flow, stubs="none")
    session.warns = False
    found = session.check()
    kinds = [one.message.split()[1] for one in found.with_id("wrapper-off")]
    assert sorted(kinds) == ["DataParallel", "OptimizedModule"]
    assert [one.path for one in found.with_id("unfused-batch-norm")] == ["norm"]
