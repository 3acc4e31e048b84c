"""Each way out that the ledger names for what stays float, done to the letter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.ao.nn.qat as nnqat
import torch.nn.functional as F
from torch import Tensor, nn
from torch.ao.nn.quantized import FloatFunctional
from torch.ao.quantization import (
    DeQuantStub,
    FakeQuantize,
    MovingAverageMinMaxObserver,
    QConfig,
    QConfigMapping,
    QuantStub,
    QuantWrapper,
    default_weight_fake_quant,
)
from torch.ao.quantization.quantization_mappings import get_default_qat_module_mappings

import qatexplorer as qx
from qatexplorer.errors import QatExplorerError
from qatexplorer.ledger import FloatRow
from qatexplorer.ledger.reasons import FX_TEXTS, TEXTS
from tests.support.custom_modules import Doubling, Int8Doubling, ObservedDoubling

X = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
IMAGES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
FF = FloatFunctional


class Mine(nn.Linear):
    """A subclass that no mapping knows."""


class Part(nn.Module):
    """Stubs around a layer and ``function(self, y)`` of its output."""

    def __init__(self, function: Callable[[Any, Tensor], Tensor], **parts: Any) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.again, self.early = QuantStub(), DeQuantStub()
        self.layer = nn.Linear(8, 8)
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.dequant(self.function(self, self.layer(self.quant(x))))


def rows(model: nn.Module, x: Any = X, flow: str = "eager", **settings: Any) -> list[FloatRow]:
    session = qx.Session(model.train(), x, flow=flow, **settings)
    session.goto("insert")
    return list(session.ledger().floats)


def row(reason: str, *args: Any, **settings: Any) -> FloatRow:
    found = [r for r in rows(*args, **settings) if r.reason == reason]
    assert found, rows(*args, **settings)
    return found[0]


def all_int8(model: nn.Module, x: Any = X, flow: str = "eager", **settings: Any) -> bool:
    """Nothing stays float, and it runs in int8."""
    return not rows(model, x, flow, **settings) and runs(model, x, flow, **settings)


def runs(model: nn.Module, x: Any = X, flow: str = "eager", **settings: Any) -> bool:
    return qx.Session(model.train(), x, flow=flow, **settings).preflight().ok


def tried(reason: str, text: str, fix: str, in_fx: bool = False) -> None:
    """``fix`` says ``text``, which is done next."""
    assert text in fix, fix
    assert reason in (FX_TEXTS if in_fx else TEXTS)


# -- functions in eager mode ------------------------------------------------------------

FUNCTIONS: dict[str, tuple[Any, str, Any]] = {
    "add": (
        lambda s, y: y + y,
        "FloatFunctional().add(a, b)",
        lambda: Part(lambda s, y: s.ff.add(y, y), ff=FF()),
    ),
    "mul": (
        lambda s, y: y * y,
        "FloatFunctional().mul(a, b)",
        lambda: Part(lambda s, y: s.ff.mul(y, y), ff=FF()),
    ),
    "matmul": (
        lambda s, y: torch.matmul(y, y.transpose(0, 1)),
        "FloatFunctional().matmul(a, b)",
        lambda: Part(lambda s, y: s.ff.matmul(y, y.transpose(0, 1)), ff=FF()),
    ),
    "linear": (
        lambda s, y: F.linear(y, torch.ones(8, 8)),
        "an nn.Linear module instead of the function",
        lambda: Part(lambda s, y: s.fc(y), fc=nn.Linear(8, 8)),
    ),
    "conv2d": (
        lambda s, y: F.conv2d(y[:, None, None], torch.ones(2, 1, 1, 1)),
        "an nn.Conv2d module instead of the function",
        lambda: Part(lambda s, y: s.conv(y[:, None, None]), conv=nn.Conv2d(1, 2, 1)),
    ),
    "softmax": (
        lambda s, y: F.softmax(y, 1),
        "keep it float: DeQuantStub before it, QuantStub after",
        lambda: Part(lambda s, y: s.again(F.softmax(s.early(y), 1))),
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_in_eager_mode(name: str) -> None:
    before, text, after = FUNCTIONS[name]
    fix = next(r.fix for r in rows(Part(before)) if r.name == name)
    tried("functional_op", text, fix)
    assert all_int8(after()) if name != "softmax" else runs(after())
    tried("functional_op", "FX mode", fix)
    if name != "conv2d":  # the FX flow has a message of its own for it
        assert runs(Part(before), flow="fx")


# -- modules --------------------------------------------------------------------------------


def test_no_qconfig() -> None:
    model = Part(lambda s, y: s.fc(y), fc=nn.Linear(8, 8))
    fix = row("no_qconfig", model, qconfig={"": None, "layer": "onednn"}).fix
    tried("no_qconfig", "set one on the root", fix)
    assert all_int8(model, qconfig={"": "onednn", "layer": "onednn"})
    fix = row("no_qconfig", model, qconfig={"": "onednn", "fc": None}).fix
    tried("no_qconfig", "take the exception for this place away", fix)
    assert all_int8(model, qconfig={"": "onednn"})


def test_type_not_in_mapping() -> None:
    model = Part(lambda s, y: s.act(y), act=nn.SiLU())
    fix = row("type_not_in_mapping", model).fix
    assert not runs(model)
    tried("type_not_in_mapping", "Replace it by a type that torch quantizes", fix)
    assert all_int8(Part(lambda s, y: s.act(y), act=nn.Hardswish()))
    tried("type_not_in_mapping", "keep it float between DeQuantStub and QuantStub", fix)
    assert runs(Part(lambda s, y: s.again(s.act(s.early(y))), act=nn.SiLU()))


def test_type_not_in_mapping_in_fx() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.SiLU())
    fix = row("type_not_in_mapping", model, flow="fx").fix
    tried("type_not_in_mapping", "keep it float: FX puts quantize and dequantize", fix, True)
    assert runs(model, flow="fx")
    tried("type_not_in_mapping", "an operation that the backend config knows", fix, True)
    assert all_int8(nn.Sequential(nn.Linear(8, 8), nn.Hardswish()), flow="fx")


def test_subclass_not_in_mapping() -> None:
    fix = row("subclass_not_in_mapping", Part(lambda s, y: s.fc(y), fc=Mine(8, 8))).fix
    tried("subclass_not_in_mapping", "Use Linear itself", fix)
    assert all_int8(Part(lambda s, y: s.fc(y), fc=nn.Linear(8, 8)))
    tried("subclass_not_in_mapping", "An entry in the mapping is not enough", fix)
    mapping = {**get_default_qat_module_mappings(), Mine: nnqat.Linear}
    with pytest.raises(QatExplorerError):
        rows(Part(lambda s, y: s.fc(y), fc=Mine(8, 8)), qat_mapping=mapping)


def test_not_fused() -> None:
    parts = {"fc": nn.Linear(8, 8), "bn": nn.BatchNorm1d(8)}
    model = Part(lambda s, y: s.bn(s.fc(y)), **parts)
    fix = row("not_fused", model, fusion=[]).fix
    tried("not_fused", "Fuse it with the convolution or linear layer right before it", fix)
    assert all_int8(model, fusion=[["fc", "bn"]])
    tried("not_fused", "it must be the only one that uses that layer's output", fix)
    both = Part(lambda s, y: s.ff.add(s.bn(s.fc(y)), s.fc(y)), ff=FF(), **parts)
    assert row("not_fused", both)  # and so it is not fused
    tried("not_fused", "Where no such layer stands before it, it stays float", fix)
    assert row("not_fused", Part(lambda s, y: s.bn(F.relu(y)), bn=nn.BatchNorm1d(8)))


def test_dtypes_that_the_backend_does_not_know() -> None:
    signed = FakeQuantize.with_args(
        observer=MovingAverageMinMaxObserver, quant_min=-128, quant_max=127, dtype=torch.qint8
    )
    odd = QConfigMapping().set_global(QConfig(signed, default_weight_fake_quant))
    model = nn.Sequential(nn.Linear(8, 8))
    fix = row("dtype_not_in_backend_config", model, flow="fx", qconfig=odd).fix
    tried("dtype_not_in_backend_config", "quint8 activations and qint8 weights", fix)
    unsigned = FakeQuantize.with_args(
        observer=MovingAverageMinMaxObserver, quant_min=0, quant_max=255, dtype=torch.quint8
    )
    good = QConfigMapping().set_global(QConfig(unsigned, default_weight_fake_quant))
    assert all_int8(model, flow="fx", qconfig=good)


def test_below_non_traceable() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Sequential(nn.Linear(8, 8)))
    fix = row("below_non_traceable", model, flow="fx", non_traceable=["1"]).fix
    tried("below_non_traceable", "take it out of non_traceable", fix)
    assert all_int8(model, flow="fx")
    tried("below_non_traceable", "or quantize it in eager mode", fix)
    assert all_int8(QuantWrapper(model))


class Sometimes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.many, self.few = nn.Linear(8, 8), nn.Softmin(1)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        x = self.many(self.quant(x))
        return self.dequant(x if y is None else self.few(x))


def test_never_executed() -> None:
    def reasons(*args: Any) -> set[str]:
        return {r.reason for r in rows(*args)}

    fix = row("never_executed", Sometimes()).fix
    tried("never_executed", "Choose example inputs that reach it", fix)
    assert "never_executed" not in reasons(Sometimes(), (X, X))
    reads = Part(lambda s, y: s.again(F.linear(s.early(y), s.fc.weight)), fc=Mine(8, 8))
    fix = row("never_executed", reads).fix
    tried("never_executed", "call the module instead", fix)
    calls = Part(lambda s, y: s.again(s.fc(s.early(y))), fc=Mine(8, 8))
    assert "never_executed" not in reasons(calls)


class Gain(nn.Module):
    """A class of one's own with a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gain


def test_custom_without_entry() -> None:
    own = Part(lambda s, y: s.again(s.own(s.early(y))), own=Gain())
    fix = row("custom_without_entry", own).fix
    tried("custom_without_entry", "Build it from torch's layers", fix)
    assert all_int8(Part(lambda s, y: s.own(y), own=nn.Linear(8, 8, bias=False)))
    tried("custom_without_entry", "add it to prepare_custom_config", fix)
    settings = {
        "prepare_custom_config": {
            "float_to_observed_custom_module_class": {Doubling: ObservedDoubling}
        },
        "convert_custom_config": {
            "observed_to_quantized_custom_module_class": {ObservedDoubling: Int8Doubling}
        },
    }
    custom = nn.Sequential(QuantStub(), Doubling(), DeQuantStub())
    assert runs(custom, torch.randn(4, 6), **settings)


@pytest.mark.parametrize(
    "wrap", [QuantWrapper, lambda m: nn.Sequential(QuantStub(), m, DeQuantStub())]
)
def test_root_module(wrap: Callable[[nn.Module], nn.Module]) -> None:
    fix = row("root_module", nn.Linear(8, 8)).fix
    tried("root_module", "QuantWrapper(layer)", fix)
    tried("root_module", "nn.Sequential(QuantStub(), layer, DeQuantStub())", fix)
    assert all_int8(wrap(nn.Linear(8, 8)))


def test_float_input() -> None:
    between = Part(lambda s, y: s.again(s.act(s.early(y))), act=nn.ReLU())
    fix = row("float_input", between).fix
    tried("float_input", "unless what comes before it should be int8: then quantize that", fix)
    assert all_int8(Part(lambda s, y: s.act(y), act=nn.ReLU()))


def test_every_way_out_is_tried() -> None:
    untried = {"not_matched"}  # says where to look, and nothing to do
    here = Path(__file__).read_text()
    assert {reason for reason in TEXTS if f'tried("{reason}"' not in here} == untried
    assert "fix, True)" in here  # FX's own text for a type without a pattern


# -- warnings of the whole ledger ----------------------------------------------------------


def warned(model: nn.Module, x: Any = X, flow: str = "eager", **settings: Any) -> str:
    session = qx.Session(model.train(), x, flow=flow, **settings)
    session.goto("insert")
    return " ".join(session.ledger().warnings)


@pytest.mark.parametrize("fusion", [[], "auto"])
def test_layers_that_eager_mode_does_not_simulate(fusion: Any) -> None:
    x = torch.randn(4, 3, 16)
    model = nn.Sequential(nn.Conv1d(3, 4, 3), nn.ReLU())
    reported = warned(QuantWrapper(model), x, fusion=fusion)
    assert "never rounded their weights: module.0" in reported
    assert "Fix: use flow='fx'" in reported
    assert "never rounded" not in warned(model, x, flow="fx")
    up = QuantWrapper(nn.ConvTranspose1d(3, 4, 3))
    reported = warned(up, x, qconfig="qnnpack")
    assert "Give them the qconfig None" in reported
    assert "fx" not in reported
    off = nn.Sequential(nn.ConvTranspose1d(3, 4, 3), QuantWrapper(nn.Linear(18, 4)))
    assert "never rounded" not in warned(off, x, qconfig={"": "qnnpack", "0": None})


def test_second_names() -> None:
    one = nn.Linear(8, 8)
    twice = Part(lambda s, y: s.two(s.one(y)), one=one, two=one)
    reported = warned(twice)
    assert "Give each place a module of its own" in reported
    apart = Part(lambda s, y: s.two(s.one(y)), one=one, two=nn.Linear(8, 8))
    assert warned(apart) == ""


class Bad(nn.Module):
    """A custom module whose int8 form raises on what FX gives it."""

    def forward(self, x: Tensor) -> Tensor:
        return x


class BadObserved(Bad):
    @classmethod
    def from_float(cls, module: nn.Module) -> nn.Module:
        observed = cls()
        observed.qconfig = module.qconfig  # type: ignore[assignment]
        return observed


class BadInt8(Bad):
    @classmethod
    def from_observed(cls, module: nn.Module) -> nn.Module:
        return cls()

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(x)


def test_advice_in_fx_needs_no_stubs() -> None:
    """The int8 model does not run: eager mode says stubs, FX says what FX takes."""
    settings = {
        "prepare_custom_config": {"float_to_observed_custom_module_class": {Bad: BadObserved}},
        "convert_custom_config": {
            "observed_to_quantized_custom_module_class": {BadObserved: BadInt8}
        },
    }
    reported = warned(nn.Sequential(nn.Linear(8, 8), Bad()), flow="fx", **settings)
    assert "The int8 model does not run" in reported
    assert "Stub" not in reported
    assert "non_traceable=[…]" in reported
    reported = warned(Part(lambda s, y: F.silu(y)))
    assert "The int8 model does not run" in reported
    assert "DeQuantStub before" in reported
