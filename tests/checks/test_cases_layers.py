"""Models of people who got stuck at a layer: what torch does to them, and what a check says."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
import torch.ao.quantization as tq
from torch import Tensor, nn
from torch.ao.nn.intrinsic import ConvReLU2d
from torch.ao.quantization import DeQuantStub, QuantStub
from torch.nn.utils import parametrize
from torch.nn.utils import weight_norm as old_weight_norm
from torch.nn.utils.parametrizations import weight_norm

import qatexplorer as qx
from qatexplorer.checks.rules import RULES
from qatexplorer.errors import NotAModuleError
from tests.cases.models import batches, mean_square, to_int8
from tests.checks.examples_layers import torch_alone

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")


@pytest.fixture(autouse=True)
def _the_same_numbers() -> None:
    torch.manual_seed(0)


def session_of(model: nn.Module, make: Any, flow: str, **settings: Any) -> qx.Session:
    data = batches(make, lambda x: torch.zeros_like(model(x)).detach())
    model.train()
    session = qx.Session(
        model,
        (make(),),
        flow=flow,
        data=data,
        loss=mean_square,
        metric=mean_square,
        **settings,
    )
    session.warns = False
    return session


def error_of(model: nn.Module, inputs: Any, flow: str, fuse: Any = None) -> str:
    """torch's error on the way to int8, ``""`` for none."""
    try:
        torch_alone(copy.deepcopy(model), inputs, flow, "x86", fuse)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def is_symptom(error: str, rule: str) -> bool:
    """Whether the rule's page has torch's text, as a user would search for it."""
    symptom = " ".join(RULES[rule].symptom.split())
    return " ".join(error.split())[:45] in symptom


# -- keyword spotting: padding as a word --------------------------------------------------------


class Keywords(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.stem = nn.Conv1d(1, 12, kernel_size=40, stride=4, padding="valid")
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool1d(4)
        self.body = nn.Conv1d(12, 16, kernel_size=3, padding="same")
        self.relu2 = nn.ReLU()
        self.fc = nn.Linear(16, 5)

    def forward(self, wave: Tensor) -> Tensor:
        x = self.pool(self.relu(self.stem(self.quant(wave))))
        x = self.relu2(self.body(x))
        return self.dequant(self.fc(x.mean(-1)))


def wave() -> Tensor:
    return torch.randn(4, 1, 800)


@pytest.mark.parametrize("flow", ["eager", "fx"])
def test_keyword_spotting(flow: str) -> None:
    model = Keywords()
    error = error_of(model.train(), (wave(),), flow)
    assert is_symptom(error, "QX101"), error
    session = session_of(model, wave, flow)
    found = session.check()
    assert {(one.id, one.path) for one in found.errors} == {("QX101", "stem"), ("QX101", "body")}
    fixes = {one.path: one.fix for one in found.errors}
    assert fixes == {"stem": "model.stem.padding = (0,)", "body": "model.body.padding = (1,)"}
    assert "(1,)" in next(one.message for one in found.errors if one.path == "body")
    diff = next(one.fixes[0].diff for one in found.errors if one.path == "body")
    assert diff.splitlines() == [
        "- body: Conv1d(12, 16, kernel_size=(3,), stride=(1,), padding=same)",
        "+ body: Conv1d(12, 16, kernel_size=(3,), stride=(1,), padding=(1,))",
    ]
    found.errors[0].fixes[-1].apply(session)
    assert len(session.edits) == 2
    assert not session.check().errors
    to_int8(session)
    for code in fixes.values():  # and the same in the user's own project
        exec(code, {"model": model})
    assert error_of(model.train(), (wave(),), flow) == ""


# -- vocoder: weight_norm -----------------------------------------------------------------------


class Residual(nn.Module):
    def __init__(self, width: int, dilation: int, norm: Any) -> None:
        super().__init__()
        self.act = nn.ReLU()
        self.dilated = norm(nn.Conv1d(width, width, 3, dilation=dilation, padding=dilation))
        self.point = norm(nn.Conv1d(width, width, 1))
        self.skip = nn.quantized.FloatFunctional()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.skip.add(x, self.point(self.act(self.dilated(self.act(x)))))
        return out


class Vocoder(nn.Module):
    def __init__(self, norm: Any, bands: int = 10, width: int = 16) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.first = norm(nn.Conv1d(bands, width, 5, padding=2))
        self.speaker = norm(nn.Linear(bands, bands))
        self.shift = nn.quantized.FloatFunctional()
        self.blocks = nn.ModuleList([Residual(width, d, norm) for d in (1, 3)])
        self.last = norm(nn.Conv1d(width, 4, 5, padding=2))

    def forward(self, mel: Tensor) -> Tensor:
        x = self.quant(mel)
        x = self.first(self.shift.add(x, self.speaker(x.mean(2)).unsqueeze(2)))
        for block in self.blocks:
            x = block(x)
        return self.dequant(self.last(x)).transpose(1, 2).reshape(mel.shape[0], -1)


def spectrum() -> Tensor:
    return torch.rand(4, 10, 24)


def test_vocoder() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = Vocoder(old_weight_norm)
        with pytest.raises(RuntimeError) as refused:
            copy.deepcopy(model)
        in_place = Vocoder(old_weight_norm).train()
        in_place.qconfig = tq.get_default_qat_qconfig("x86")
        with pytest.raises(TypeError) as stopped:
            tq.prepare_qat(in_place, inplace=True)
    assert is_symptom(f"RuntimeError: {refused.value}", "QX121")
    assert is_symptom(f"TypeError: {stopped.value}", "QX121")
    layers = {p for p, m in model.named_modules() if hasattr(m, "weight_g")}
    session = session_of(model, spectrum, "eager")
    found = session.check()
    normed = found.with_id("QX121")
    assert {one.path for one in normed} == layers
    assert len(layers) == 7
    assert all("weight_norm" in one.message for one in normed)
    speaker = next(one for one in normed if one.path == "speaker")
    assert str(stopped.value)[:40] in speaker.message
    # Eager mode leaves every Conv1d out; FX does not.
    left_out = {one.path for one in found.with_id("QX124")}
    assert left_out == layers - {"speaker"}
    assert not found.errors
    to_int8(session)
    assert not session.in_other_flow().check().with_id("QX124")
    # The code of the findings is what a script needs.
    with torch.no_grad():
        wanted = model.eval()(x := spectrum())
        for one in normed:
            exec(one.fix, {"torch": torch, "model": model})
        assert torch.allclose(model(x), wanted, atol=1e-5)
    prepared = tq.get_default_qat_qconfig("x86")
    model.train().qconfig = prepared
    weights = sum(hasattr(m, "weight_fake_quant") for m in tq.prepare_qat(model).modules())
    assert weights == len(layers) - len(left_out) == 1


# -- codec: parametrizations --------------------------------------------------------------------


class Codec(nn.Module):
    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.down = nn.Sequential(
            weight_norm(nn.Conv1d(1, width, 8, stride=4, padding=2)),
            nn.ReLU(),
            weight_norm(nn.Conv1d(width, width, 8, stride=4, padding=2)),
            nn.ReLU(),
        )
        self.to_code = weight_norm(nn.Linear(width, 6))

    def forward(self, sound: Tensor) -> Tensor:
        x = self.down(self.quant(sound))
        return self.dequant(self.to_code(x.transpose(1, 2)))


def sound() -> Tensor:
    return torch.randn(4, 1, 128)


@pytest.mark.parametrize("flow", ["eager", "fx"])
def test_codec(flow: str) -> None:
    model = Codec()
    error = error_of(model.train(), (sound(),), flow)
    assert error
    if flow == "eager":
        assert is_symptom(error, "QX122"), error
        model.qconfig = tq.get_default_qat_qconfig("x86")
        prepared = tq.prepare_qat(model)
        kept = {
            path: hasattr(module, "weight_fake_quant")
            for path, module in prepared.named_modules()
            if parametrize.is_parametrized(module)
        }
        assert kept == {"down.0": False, "down.2": False, "to_code": True}
        del model.qconfig
    session = session_of(model, sound, flow)
    found = session.check()
    # The two that torch cannot take, and not the one that it can.
    parametrized = found.with_id("QX122")
    assert {one.path for one in parametrized} == {"down.0", "down.2"}
    if flow == "eager":
        assert all(error in one.message for one in parametrized)
    else:  # with a ReLU behind it torch stops at the same call with other words
        assert error.startswith(
            "TypeError: cannot assign 'torch.FloatTensor' as parameter 'weight'"
        )
        assert all("prepare_qat_fx raises" in one.message for one in parametrized)
    assert not found.errors
    to_int8(session)
    for one in parametrized:
        exec(one.fix, {"torch": torch, "model": model})
    assert error_of(model.train(), (sound(),), flow) == ""


# -- face embedding: a batch norm without affine ------------------------------------------------


class FaceNet(nn.Module):
    def __init__(self, affine: bool = False, size: int = 16) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()
        )
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(8),
            nn.Dropout(0.4),
            nn.Flatten(),
            nn.Linear(8 * 8 * 8, size),
            nn.BatchNorm1d(size, affine=affine),
        )

    def forward(self, face: Tensor) -> Tensor:
        return self.dequant(self.output_layer(self.stem(self.quant(face))))


def face() -> Tensor:
    return torch.randn(8, 3, 16, 16)


STEM, HEAD = ["stem.0", "stem.1", "stem.2"], ["output_layer.3", "output_layer.4"]


def test_what_torch_does_to_a_face_embedding() -> None:
    affine = "AssertionError: Only support fusing BatchNorm1d with affine set to True"
    alone = "NotImplementedError: Could not run 'aten::native_batch_norm'"
    assert error_of(FaceNet().train(), (face(),), "eager", [STEM, HEAD]) == affine
    assert error_of(FaceNet().train(), (face(),), "fx") == affine
    assert error_of(FaceNet().train(), (face(),), "eager", [STEM]).startswith(alone)
    for flow in ("eager", "fx"):
        assert error_of(FaceNet(affine=True).train(), (face(),), flow, [STEM, HEAD]) == ""


@pytest.mark.parametrize("flow", ["eager", "fx"])
def test_face_embedding(flow: str) -> None:
    model = FaceNet()
    session = session_of(model, face, flow)
    found = session.check()
    (error,) = found.errors
    assert (error.id, error.path) == ("QX105", "output_layer.4")
    assert "torch cannot fuse it with output_layer.3" in error.message
    error.fixes[0].apply(session)
    assert tuple(HEAD) in session.fusion
    assert not session.check().errors
    to_int8(session)
    # The first batch norm has no convolution before it: it stays a layer of its own.
    prepared = session.snapshots[session.flow.prepared_stage]
    names = {module.path: module.type_name for module in prepared.modules}
    assert names["output_layer.0"] == "BatchNorm2d"
    exec(error.fix, {"torch": torch, "nn": nn, "model": model})
    assert error_of(model.train(), (face(),), flow, [STEM, HEAD]) == ""


# -- TorchScript --------------------------------------------------------------------------------


class Gate(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(x) * torch.sigmoid(x)


class Tabular(nn.Module):
    def __init__(self, script: bool) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.first = nn.Sequential(nn.Linear(10, 16), nn.ReLU())
        gate = Gate(16)
        self.gate = torch.jit.script(gate) if script else gate
        self.last = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.dequant(self.last(self.gate(self.first(self.quant(x)))))


def rows() -> Tensor:
    return torch.randn(16, 10)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("flow", ["eager", "fx"])
def test_a_scripted_part(flow: str) -> None:
    model = Tabular(script=True)
    error = error_of(model.train(), (rows(),), flow)
    assert bool(error) == (flow == "eager")
    assert not error or is_symptom(error, "QX125")
    session = session_of(model, rows, flow)
    found = session.check()
    (part,) = found.with_id("QX125")
    assert part.path == "gate"
    total = sum(p.numel() for p in model.parameters())
    assert f"272 of the model's {total} parameters" in part.message
    assert not found.errors
    to_int8(session)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_torchscript_archive() -> None:
    archive = torch.jit.script(Tabular(script=False))
    archive.train()
    archive.qconfig = tq.get_default_qat_qconfig("x86")
    before = archive.eval()(x := rows())
    archive.train()
    silent = tq.prepare_qat(archive, inplace=True)
    assert not any(isinstance(m, tq.FakeQuantizeBase) for m in silent.modules())
    assert torch.equal(tq.convert(silent.eval())(x), before)  # "int8" is float, bit by bit
    with pytest.raises(NotAModuleError, match="load_state_dict"):
        qx.Session(torch.jit.script(Tabular(script=False)), (x,))


# -- transposed convolutions, engine by engine --------------------------------------------------


@pytest.mark.parametrize("flow", ["eager", "fx"])
@pytest.mark.parametrize("engine", ["x86", "onednn"])
@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        (nn.ConvTranspose1d, (2, 3, 12)),
        (nn.ConvTranspose2d, (2, 3, 6, 6)),
        (nn.ConvTranspose3d, (2, 3, 4, 4, 4)),
    ],
)
def test_a_transposed_convolution_of_an_engine_that_computes_something_else(
    kind: Any, shape: tuple[int, ...], engine: str, flow: str
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(QuantStub(), nn.Conv1d(1, 1, 1), DeQuantStub())
    model[1] = kind(3, 4, 3)
    x = torch.randn(shape)
    fake, int8 = torch_alone(
        copy.deepcopy(model).train(), (x,), flow, one_scale(flow), None, engine
    )
    assert float((fake - int8).abs().mean()) > 0.05 * float(fake.max() - fake.min())
    session = session_of(model, lambda: x, flow, qconfig="qnnpack", engine=engine)
    (wrong,) = session.check().with_id("wrong-kernel")
    assert wrong.path.endswith("1")
    wrong.fixes[0].apply(session)
    assert not session.check().with_id("wrong-kernel")


def one_scale(flow: str) -> Any:
    whole = tq.get_default_qat_qconfig("qnnpack")
    return tq.QConfigMapping().set_global(whole) if flow == "fx" else whole


# -- U-Net: intrinsic modules in the float model ------------------------------------------------


def conv(i: int, o: int) -> nn.Module:
    return ConvReLU2d(nn.Conv2d(i, o, 3, padding=1), nn.ReLU(inplace=True))


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enc1, self.enc2, self.bottom = conv(1, 8), conv(8, 16), conv(16, 16)
        self.pool = nn.MaxPool2d(2)
        self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.dec2, self.dec1 = conv(32, 8), conv(16, 8)
        self.mask = nn.Conv2d(8, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.enc1(x)
        b = self.enc2(self.pool(a))
        c = self.bottom(self.pool(b))
        y = self.dec2(torch.cat([self.up(c), b], 1))
        y = self.dec1(torch.cat([self.up(y), a], 1))
        return self.mask(y)


def test_one_cause_is_said_once() -> None:
    """At a batch norm that cannot be fused: not that it is unfused, nor that its kernel lacks."""
    found = session_of(FaceNet(), face, "eager").check()
    assert [one.id for one in found if one.path == "output_layer.4"] == ["QX105"]
    zeros = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    nn.init.zeros_(zeros[1].weight)
    found = session_of(zeros, face, "fx").check()
    assert [(one.id, one.path) for one in found.errors] == [("QX108", "1")]


def test_unet_with_intrinsic_modules() -> None:
    def picture() -> Tensor:
        return torch.rand(2, 1, 16, 16)

    model = UNet()
    assert error_of(model.train(), (picture(),), "fx") == ""
    session = session_of(model, picture, "fx")
    found = session.check()
    assert not found.errors, found
    layer = next(m for m in session.snapshot.modules if m.path == "enc1")
    assert layer.type_name == "ConvReLU2d"
    to_int8(session)
    session.goto(session.flow.int8_stage)
    times = session.overlay("time")
    assert any("up" in path for path in times.values)
    # In eager mode torch.cat as written takes the first tensor's scale, and it is said.
    eager = session_of(model, picture, "eager", stubs="model").check()
    assert eager.with_id("raw-join")
