"""Models of people who got stuck: what is said of them before any training."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.ao import quantization as tq

import qatexplorer as qx
from qatexplorer.checks.records import Findings
from tests.cases.models import C2f, ChangeDetector, Pyramid, Yolo
from tests.checks.torch_alone import ENGINE, call, engine, error_of

GROUPS = [[f"body.{i}.{n}" for n in range(3)] for i in range(3)]


def found(model: nn.Module, inputs: Any, flow: str, **settings: Any) -> Findings:
    session = qx.Session(model.train(), inputs, flow=flow, **{"qconfig": ENGINE, **settings})
    session.warns = False
    return session.check()


# -- a pyramid that gathers features by hooks -----------------------------------------------------


def truth_of_hooks(groups: list[list[str]]) -> str:
    """What torch's prepared model says to the missing feature."""
    model, x = Pyramid().train(), torch.rand(2, 3, 16, 16)
    tq.fuse_modules_qat(model, groups, inplace=True)
    model.qconfig = tq.get_default_qat_qconfig(ENGINE)  # type: ignore[assignment]
    tq.prepare_qat(model, inplace=True)
    try:
        model(x)
    except KeyError as error:
        return str(error)
    return ""


def test_the_hook_that_fusing_silences_is_named_before_it_is_fused() -> None:
    x = torch.rand(2, 3, 16, 16)
    assert truth_of_hooks(GROUPS) == "'middle'"
    (lost,) = found(Pyramid(), (x,), "eager", fusion=GROUPS).with_id("QX910")
    assert (lost.path, lost.severity, lost.stage) == ("body.1.1", "warning", "fuse")
    assert "forward hook Pyramid._keep.<locals>.<lambda> on body.1.1" in lost.message
    assert "model.body[1][2].register_forward_hook(…)" in lost.fix
    assert "model.body[1].register_forward_hook(…)" in lost.fix
    # What the session fuses by itself silences none.
    session = qx.Session(Pyramid().train(), (x,), flow="eager", qconfig=ENGINE)
    assert truth_of_hooks([list(run) for run in session.fusion]) == ""
    assert not session.check().with_id("QX910")


def test_in_fx_every_hook_is_gone() -> None:
    findings = found(Pyramid(), (torch.rand(2, 3, 16, 16),), "fx")
    lost = findings.with_id("QX910")
    assert {one.path for one in lost} == {"body.0.2", "body.1.1", "body.2.0"}
    assert all("Return the value from forward" in one.fix for one in lost)
    (stop,) = findings.with_id("QX211")
    assert "KeyError: 'early'" in stop.message
    assert error_of(Pyramid().train(), torch.rand(2, 3, 16, 16), "fx").startswith("KeyError")


# -- two images and a keyword ---------------------------------------------------------------------


def pictures() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.rand(4, 1, 8, 8), torch.rand(4, 1, 8, 8) * 30


def test_two_images_are_too_many_for_the_usual_wrapper() -> None:
    error = error_of(ChangeDetector().train(), pictures(), wrap=True)
    assert "takes 2 positional arguments but 3 were given" in error
    for stubs in ("none", "model"):
        findings = found(ChangeDetector(), pictures(), "eager", stubs=stubs)
        (wrapper,) = findings.with_id("QX213")
        assert "before, after can be quantized, each with a stub and scale" in wrapper.message
        assert bool(findings.with_id("QX907")) == (stubs == "none")
        assert not findings.with_id("QX201")


class OneStub(nn.Module):
    """What a callback made of it: one stub for all inputs."""

    def __init__(self, stubs: int) -> None:
        super().__init__()
        self.quant, self.dequant, self.model = tq.QuantStub(), tq.DeQuantStub(), ChangeDetector()
        self.second = tq.QuantStub() if stubs == 2 else self.quant

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        out: Tensor = self.dequant(self.model(self.quant(before), self.second(after)))
        return out


def test_two_stubs_are_wanted() -> None:
    paths = {
        stubs: [one.path for one in found(OneStub(stubs), pictures(), "eager").with_id("QX206")]
        for stubs in (1, 2)
    }
    assert "quant" in paths[1]
    assert "quant" not in paths[2]


@pytest.mark.parametrize("given", [None, False])
def test_the_keyword_that_decides_a_branch(given: bool | None) -> None:
    before, after = pictures()
    inputs: Any = (before, after)
    if given is not None:
        inputs = {"before": before, "after": after, "probabilities": given}
    (stop,) = found(ChangeDetector(), inputs, "fx").with_id("QX211")
    assert stop.path == ""
    assert stop.source.startswith("models.py:")
    assert "'if probabilities:'" in stop.message
    assert "self.model(before, after, probabilities=False)" in stop.fix
    assert "control flow" in error_of(ChangeDetector().train(), pictures(), "fx")


# -- functional layers by keyword -----------------------------------------------------------------


class BlurPool(nn.Module):
    def __init__(self, channels: int, by_keyword: bool) -> None:
        super().__init__()
        row = torch.tensor([1.0, 2.0, 1.0]) / 4
        kernel = (row[:, None] * row).expand(channels, 1, 3, 3).contiguous()
        self.register_buffer("kernel", kernel)
        self.channels, self.by_keyword = channels, by_keyword

    def forward(self, x: Tensor) -> Tensor:
        if self.by_keyword:
            return F.conv2d(x, weight=self.kernel, stride=2, padding=1, groups=self.channels)
        return F.conv2d(x, self.kernel, None, (2, 2), (1, 1), (1, 1), self.channels)


class Generator(nn.Module):
    def __init__(self, by_keyword: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.relu = nn.Conv2d(3, 8, 3, padding=1), nn.ReLU()
        self.pool, self.by_keyword = BlurPool(8, by_keyword), by_keyword
        self.gain = nn.Parameter(torch.randn(4, 8) * 0.3)
        self.offset = nn.Parameter(torch.zeros(4))

    def forward(self, image: Tensor) -> Tensor:
        x = self.pool(self.relu(self.conv(image))).mean([2, 3])
        if self.by_keyword:
            return F.linear(input=x, weight=self.gain, bias=self.offset)
        return F.linear(x, self.gain, self.offset)


def test_both_functional_layers_and_what_to_write() -> None:
    x = torch.rand(2, 3, 12, 12)
    assert "Dequantize index 1" in error_of(Generator(True).train(), x, "fx")
    assert error_of(Generator(False).train(), x, "fx") == ""
    findings = found(Generator(True), (x,), "fx")
    blur, last = findings.with_id("QX204")
    assert (blur.path, last.path) == ("pool", "")
    assert "F.conv2d(x, self.kernel, None, (2, 2), (1, 1), (1, 1), 8)" in blur.fix
    assert "F.linear(x, self.gain, self.offset)" in last.fix
    for one in (blur, last):
        assert one.source.startswith("test_cases_operations.py:")
        assert "Dequantize index" in one.message
    assert not found(Generator(False), (x,), "fx").with_id("QX204")


@pytest.mark.parametrize("settings", [{"non_traceable": ["pool"]}, {"qconfig": {"pool": None}}])
def test_a_functional_layer_that_stays_float_is_none_of_these(settings: Any) -> None:
    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.pool = nn.Conv2d(3, 8, 3), BlurPool(8, True)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.pool(self.conv(x))
            return out

    x = torch.rand(2, 3, 12, 12)
    session = qx.Session(Pooled().train(), (x,), flow="fx", **settings)
    session.warns = False
    assert not session.check().with_id("QX204")
    assert session.preflight().ok


# -- a detector -----------------------------------------------------------------------------------


def test_silu_stops_int8_at_all_its_places() -> None:
    x = torch.rand(2, 3, 16, 16)
    assert "aten::silu" in error_of(Yolo().train(), x, wrap=True)
    (silu,) = found(Yolo(), (x,), "eager", stubs="model").with_id("QX201")
    assert "5 times in one forward under 5 names" in silu.message
    assert not found(Yolo(), (x,), "eager", stubs="layers").errors


class NamedC2f(C2f):
    def forward(self, x: Tensor) -> Tensor:
        a, b = self.cv1(x).chunk(2, 1)
        parts = [a, b]
        parts.extend(block(parts[-1]) for block in self.m)
        return self.cv2(self.join.cat(parts, 1))


def test_the_line_that_is_not_traced_and_the_branch_that_is_frozen() -> None:
    x = torch.rand(2, 3, 16, 16)
    assert "Proxy object cannot be iterated" in error_of(Yolo().train(), x, "fx")
    (stop,) = found(Yolo(), (x,), "fx").with_id("QX211")
    assert stop.path == "block"
    assert "'parts = list(self.cv1(x).chunk(2, 1))'" in stop.message
    assert "a, b = self.cv1(x).chunk(2, 1), and write [a, b] for the list" in stop.fix
    model = Yolo()
    model.block.__class__ = NamedC2f
    findings = found(model, (x,), "fx")
    assert not findings.with_id("QX211")
    (frozen,) = findings.with_id("QX214")
    assert "returns a Tensor, and FX's graph, traced in train mode, a list of 2" in frozen.message
    with engine():  # and so it is
        mapping = tq.get_default_qat_qconfig_mapping(ENGINE)
        prepared = tq.quantize_fx.prepare_qat_fx(model.train(), mapping, (x,)).eval()
        assert isinstance(call(prepared, x), list)
    assert isinstance(model.eval()(x), Tensor)
