"""Each fix in the table of torch's errors, done to the letter: then the int8 model runs.

A row names the rule, what its text says, and the model as that says it should be.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.ao.nn import quantizable
from torch.ao.nn import quantized as nnq
from torch.ao.nn.quantized import FloatFunctional
from torch.ao.quantization import (
    DeQuantStub,
    FakeQuantize,
    MovingAverageMinMaxObserver,
    QConfig,
    QuantStub,
    QuantWrapper,
    add_quant_dequant,
    convert,
    default_embedding_qat_qconfig,
    fuse_modules_qat,
    get_default_qat_qconfig,
    get_default_qat_qconfig_mapping,
    prepare_qat,
)
from torch.nn import functional as F
from torch.utils.data import DataLoader

import qatexplorer as qx
from qatexplorer.data import as_args
from qatexplorer.errors import Int8RunError, StageError
from qatexplorer.evaluate.int8 import run_int8
from qatexplorer.explain.translations import RULES, translate
from qatexplorer.quantizers.engine import available_engines, quantized_engine
from tests.support.int8_failures import (
    IMAGES,
    ROWS,
    Block,
    MyConv,
    MyLinear,
    conv,
    linear,
    qint8_activations,
    to_int8,
    weights,
)
from tests.support.training_models import one_thread  # noqa: F401

FIX_OF = {rule.id: rule.fix for rule in RULES}


class Island(nn.Module):
    """``inner`` in float, between a DeQuantStub and a QuantStub, with qconfig None."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.before, self.after = inner, DeQuantStub(), QuantStub()
        inner.qconfig = None  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.inner(self.before(x)))


def island(function: Callable[[Any, Tensor], Any], **parts: Any) -> nn.Module:
    return Island(Block(function, **parts))


def on_rows(part: nn.Module) -> nn.Module:
    """``part`` after an int8 linear layer."""
    return linear(lambda s, y: s.part(y), part=part)


def on_images(part: nn.Module) -> nn.Module:
    return conv(lambda s, y: s.part(y), part=part)


def no_qconfig(model: nn.Module, path: str) -> nn.Module:
    model.get_submodule(path).qconfig = None  # type: ignore[assignment]
    return model


def qconfig_at(model: nn.Module, path: str, qconfig: Any) -> nn.Module:
    model.get_submodule(path).qconfig = qconfig
    return model


def ff(function: Callable[[Any, Tensor], Any], **parts: Any) -> nn.Module:
    return linear(function, ff=FloatFunctional(), **parts)


FIXES: list[tuple[str, str, Callable[[], nn.Module], Tensor]] = [
    # (rule, what it says, the model after that, input)
    ("float-into-int8", "Put a QuantStub before it", lambda: linear(lambda s, y: y), ROWS),
    (
        "float-into-int8",
        "wrap the model in QuantWrapper",
        lambda: QuantWrapper(nn.Linear(8, 8)),
        ROWS,
    ),
    (
        "float-into-int8",
        "set its qconfig to None",
        lambda: no_qconfig(nn.Sequential(nn.Linear(8, 8)), "0"),
        ROWS,
    ),
    ("quantized-twice", "Do not wrap a model that has stubs", lambda: linear(lambda s, y: y), ROWS),
    (
        "quantized-twice",
        "put a DeQuantStub before the second QuantStub",
        lambda: linear(lambda s, y: s.q(s.d(y)), q=QuantStub(), d=DeQuantStub()),
        ROWS,
    ),
    ("arithmetic", "ff.add(a, b)", lambda: ff(lambda s, y: s.ff.add(y, y)), ROWS),
    ("arithmetic", "ff.mul(a, b)", lambda: ff(lambda s, y: s.ff.mul(y, y)), ROWS),
    ("arithmetic", "ff.add_scalar(a, 2.0)", lambda: ff(lambda s, y: s.ff.add_scalar(y, 2.0)), ROWS),
    ("arithmetic", "ff.mul_scalar(a, 2.0)", lambda: ff(lambda s, y: s.ff.mul_scalar(y, 2.0)), ROWS),
    ("arithmetic", "ff.add_relu(a, b)", lambda: ff(lambda s, y: s.ff.add_relu(y, y)), ROWS),
    ("arithmetic", "ff.cat([...])", lambda: ff(lambda s, y: s.ff.cat([y, y], 1)), ROWS),
    (
        "arithmetic",
        "a - b as add of mul_scalar(b, -1)",
        lambda: ff(lambda s, y: s.ff.add(y, s.neg.mul_scalar(y, -1)), neg=FloatFunctional()),
        ROWS,
    ),
    (
        "arithmetic",
        "a / 2 as mul_scalar(a, 0.5)",
        lambda: ff(lambda s, y: s.ff.mul_scalar(y, 0.5)),
        ROWS,
    ),
    (
        "arithmetic",
        "For a division by a tensor: Keep this part in float",
        lambda: on_rows(island(lambda s, y: y / (y.abs() + 1))),
        ROWS,
    ),
    (
        "batch-norm",
        "right after a convolution use nn.BatchNorm2d and put it in the list of fused",
        lambda: torch.ao.quantization.fuse_modules_qat(
            on_images(nn.Sequential(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8))).train(),
            [["block.part.0", "block.part.1"]],
        ),
        IMAGES,
    ),
    ("batch-norm", "nn.LayerNorm", lambda: on_rows(nn.LayerNorm(8)), ROWS),
    ("batch-norm", "nn.GroupNorm", lambda: on_images(nn.GroupNorm(2, 8)), IMAGES),
    (
        "batch-norm",
        "nn.InstanceNorm2d",
        lambda: on_images(nn.InstanceNorm2d(8, affine=True)),
        IMAGES,
    ),
    ("batch-norm", "Keep this part in float", lambda: on_rows(Island(nn.BatchNorm1d(8))), ROWS),
    (
        "layer-left-float",
        "Use nn.Linear or nn.Conv2d itself",
        lambda: on_rows(nn.Linear(8, 8)),
        ROWS,
    ),
    (
        "layer-left-float",
        "Use nn.Linear or nn.Conv2d itself",
        lambda: on_images(nn.Conv2d(8, 8, 3)),
        IMAGES,
    ),
    (
        "layer-left-float",
        "ff.matmul(a, b)",
        lambda: ff(lambda s, y: s.ff.matmul(y, y.transpose(0, 1))),
        ROWS,
    ),
    ("layer-left-float", "Keep this part in float", lambda: on_rows(Island(MyLinear(8, 8))), ROWS),
    (
        "layer-left-float",
        "Keep this part in float",
        lambda: on_images(Island(MyConv(8, 8, 3))),
        IMAGES,
    ),
    (
        "int8-with-float",
        "Quantize the other tensor with a QuantStub of its own and use FloatFunctional",
        lambda: ff(lambda s, y: s.ff.add(y, s.q(s.p)), p=weights(1, 8), q=QuantStub()),
        ROWS,
    ),
    (
        "int8-with-float",
        "Quantize the other tensor with a QuantStub of its own and use FloatFunctional",
        lambda: ff(
            lambda s, y: s.ff.cat([s.q(s.p).expand(4, 8), y], 1), p=weights(1, 8), q=QuantStub()
        ),
        ROWS,
    ),
    (
        "int8-with-float",
        "Keep this part in float",
        lambda: on_rows(island(lambda s, y: y + s.p, p=weights(1, 8))),
        ROWS,
    ),
    ("no-int8-kernel", "Keep this part in float", lambda: on_rows(Island(nn.SiLU())), ROWS),
    (
        "no-int8-kernel",
        "Keep this part in float",
        lambda: on_rows(island(lambda s, y: F.softmax(y, 1))),
        ROWS,
    ),
    (
        "scalar-arithmetic",
        "ff.mul_scalar(a, 2.0)",
        lambda: ff(lambda s, y: s.ff.mul_scalar(y, 2.0)),
        ROWS,
    ),
    (
        "scalar-arithmetic",
        "ff.mul(a, b)",
        lambda: conv(
            lambda s, y: s.ff.mul(y, s.pool(y)), ff=FloatFunctional(), pool=nn.AdaptiveAvgPool2d(1)
        ),
        IMAGES,
    ),
    (
        "scalar-arithmetic",
        "Keep this part in float",
        lambda: on_rows(island(lambda s, y: y * 2)),
        ROWS,
    ),
    (
        "per-channel-tensor",
        "Call the layer instead",
        lambda: linear(lambda s, y: s.fc(y), fc=nn.Linear(8, 8)),
        ROWS,
    ),
    (
        "per-channel-tensor",
        "Keep this part in float",
        lambda: on_rows(island(lambda s, y: F.linear(y, s.fc.weight), fc=nn.Linear(8, 8))),
        ROWS,
    ),
    (
        "weight-is-a-method",
        "take the dtype of an input instead",
        lambda: linear(lambda s, y: s.fc(y).to(y.dtype), fc=nn.Linear(8, 8)),
        ROWS,
    ),
    (
        "weight-is-a-method",
        "Keep this part in float",
        lambda: on_rows(island(lambda s, y: s.fc(y.to(s.fc.weight.dtype)), fc=nn.Linear(8, 8))),
        ROWS,
    ),
    (
        "never-ran",
        "Call the layer itself",
        lambda: linear(lambda s, y: s.fc(y), fc=nn.Linear(8, 8)),
        ROWS,
    ),
    (
        "never-ran",
        "set this layer's qconfig to None",
        lambda: no_qconfig(linear(lambda s, y: y, fc=nn.Linear(8, 8)), "block.fc"),
        ROWS,
    ),
    (
        "embedding",
        "torch.ao.quantization.default_embedding_qat_qconfig",
        lambda: qconfig_at(nn.Sequential(nn.Embedding(10, 8)), "0", default_embedding_qat_qconfig),
        torch.arange(4),
    ),
    (
        "embedding",
        "or to None",
        lambda: no_qconfig(nn.Sequential(nn.Embedding(10, 8)), "0"),
        torch.arange(4),
    ),
    (
        "integer-input",
        "put the QuantStub after the embedding",
        lambda: nn.Sequential(
            qconfig_at(nn.Sequential(nn.Embedding(10, 8)), "0", None),
            QuantStub(),
            nn.Linear(8, 8),
            DeQuantStub(),
        ),
        torch.arange(4),
    ),
    (
        "transposed-per-channel",
        "per-tensor weight (the 'qnnpack' one)",
        lambda: qconfig_at(
            on_images(nn.ConvTranspose2d(8, 4, 2)), "block.part", get_default_qat_qconfig("qnnpack")
        ),
        IMAGES,
    ),
    (
        "transposed-per-channel",
        "Keep this part in float",
        lambda: on_images(Island(nn.ConvTranspose2d(8, 4, 2))),
        IMAGES,
    ),
    ("prelu", "Keep this part in float", lambda: on_rows(Island(nn.PReLU())), ROWS),
    ("prelu", "use ReLU or LeakyReLU", lambda: on_rows(nn.ReLU()), ROWS),
    ("prelu", "use ReLU or LeakyReLU", lambda: on_rows(nn.LeakyReLU()), ROWS),
    (
        "prelu",
        "per-tensor weight (the 'qnnpack' one)",
        lambda: qconfig_at(on_rows(nn.PReLU()), "block.part", get_default_qat_qconfig("qnnpack")),
        ROWS,
    ),
    (
        "tuple-output",
        "Set the qconfig of that module to None",
        lambda: no_qconfig(nn.Sequential(nn.GRU(8, 8)), "0"),
        ROWS[None],
    ),
    (
        "view",
        "Use reshape, flatten or contiguous()",
        lambda: conv(lambda s, y: y.reshape(2, -1)),
        IMAGES,
    ),
    (
        "view",
        "Use reshape, flatten or contiguous()",
        lambda: conv(lambda s, y: y.flatten(1)),
        IMAGES,
    ),
    (
        "view",
        "Use reshape, flatten or contiguous()",
        lambda: conv(lambda s, y: y.contiguous().view(2, -1)),
        IMAGES,
    ),
    ("view", "keep a group norm in float", lambda: on_images(Island(nn.GroupNorm(2, 8))), IMAGES),
]


def _id(case: Any) -> str:
    return f"{case[0]}: {case[1][:30]}"


@pytest.mark.parametrize("case", FIXES, ids=_id)
def test_eager(case: Any) -> None:
    rule, text, make, x = case
    assert text in FIX_OF[rule]
    assert torch.isfinite(run_int8(to_int8(make(), x), x, "onednn")[0]).all()


@pytest.mark.parametrize("layers", [1, 2])
def test_no_stub_and_each_layer_wrapped(layers: int) -> None:
    assert "or let add_quant_dequant wrap each layer" in FIX_OF["float-into-int8"]
    model = nn.Sequential(*(nn.Linear(8, 8) for _ in range(layers))).train()
    for layer in model:
        layer.qconfig = get_default_qat_qconfig("onednn")
    int8 = to_int8(add_quant_dequant(model), ROWS)
    assert torch.isfinite(run_int8(int8, ROWS, "onednn")).all()


def test_qint8_activations_as_quint8() -> None:
    assert "Use quint8 for activations" in FIX_OF["qint8-activation"]
    weight = qint8_activations().weight
    activation = FakeQuantize.with_args(
        observer=MovingAverageMinMaxObserver, quant_min=0, quant_max=255, dtype=torch.quint8
    )
    qconfig = QConfig(activation=activation, weight=weight)
    run_int8(to_int8(conv(lambda s, y: y), IMAGES, qconfig), IMAGES, "onednn")


# -- where training begins ------------------------------------------------------------------------


def prepared(model: nn.Module, qconfig: Any = None) -> nn.Module:
    model.train()
    model.qconfig = qconfig or get_default_qat_qconfig("onednn")
    return prepare_qat(model)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.half, torch.double])
def test_other_dtypes_as_float(dtype: torch.dtype) -> None:
    assert "model.float(), inputs.float(), no autocast" in FIX_OF["dtype"]
    model = linear(lambda s, y: y).to(dtype)
    prepared(model.float())(ROWS.to(dtype).float()).sum().backward()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.half])
def test_autocast_with_the_unfused_fake_quant(dtype: torch.dtype) -> None:
    assert "get_default_qat_qconfig(backend, version=0)" in FIX_OF["dtype"]
    for version, works in ((1, False), (0, True)):
        model = prepared(conv(lambda s, y: y), get_default_qat_qconfig("onednn", version=version))
        with torch.autocast("cpu", dtype=dtype):
            if works:
                model(IMAGES).float().sum().backward()
                continue
            with pytest.raises(RuntimeError) as caught:
                model(IMAGES)
            assert translate(caught.value).rule == "dtype"


def test_one_sample() -> None:
    assert "drop_last=True in the DataLoader, or a larger batch" in FIX_OF["one-sample"]
    model = prepared(nn.Sequential(QuantStub(), nn.BatchNorm1d(8)))
    rows = [(row, 0) for row in torch.randn(5, 8)]
    last = [x for x, _ in DataLoader(rows, batch_size=2)][-1]
    with pytest.raises(ValueError, match="more than 1 value"):
        model(last)
    for x, _ in DataLoader(rows, batch_size=2, drop_last=True):
        model(x)


class ConvBn(nn.Module):
    """Conv and batch norm, with a gamma of zero."""

    def __init__(self, gamma: float) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        nn.init.constant_(self.bn.weight, gamma)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


def fused(gamma: float) -> nn.Module:
    model = QuantWrapper(ConvBn(gamma)).train()
    return prepared(fuse_modules_qat(model, ["module.conv", "module.bn"]))


def test_a_gamma_of_zero() -> None:
    reported = FIX_OF["nan-range"]
    model = fused(0.0)
    assert not torch.isfinite(model(IMAGES)).all()
    with pytest.raises(RuntimeError) as caught:  # from the second batch on
        model(IMAGES)
    assert translate(caught.value).rule == "nan-range"
    assert "zero_init_last=False" in reported  # gammas of one
    assert torch.isfinite(fused(1.0)(IMAGES)).all()
    assert "train the float model first" in reported  # then gammas are not zero
    assert torch.isfinite(fused(1e-3)(IMAGES)).all()
    assert "module._enable_slow_path_for_better_numerical_stability = True" in reported
    model = fused(0.0)
    model.module.conv._enable_slow_path_for_better_numerical_stability = True  # type: ignore
    assert torch.isfinite(model(IMAGES)).all()


# -- attention, and FX ----------------------------------------------------------------------------


def is_fixed(session: qx.Session) -> bool:
    session.goto(session.flow.train_stage)
    session.model(*as_args(session.options.example_inputs)[0])
    session.goto(session.flow.int8_stage)
    return True


@pytest.mark.parametrize("settings", [{"qat_mapping": "attention"}, {"qconfig": {"0": None}}])
def test_attention(settings: dict[str, Any]) -> None:
    reported = FIX_OF["attention"]
    assert "Pass qat_mapping='attention'" in reported
    assert "Or set its qconfig to None" in reported
    model = nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True))
    session = qx.Session(model.train(), ROWS[None], **settings)
    session.goto("train")
    session.model(ROWS[None])


class Reads(nn.Module):
    """Reads ``attribute`` of a layer that stubs='layers' wraps."""

    def __init__(self, read: Callable[[Any], Any]) -> None:
        super().__init__()
        self.layer, self.read = nn.Linear(8, 8), read

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        read = self.read(self.layer)
        return y + read if isinstance(read, Tensor) else y[:, : int(read)]


def test_reading_through_a_wrapper() -> None:
    def session(read: Callable[[Any], Any], **settings: Any) -> qx.Session:
        model = nn.Sequential(Reads(read), nn.Linear(8, 8))
        return qx.Session(model.train(), ROWS, stubs="layers", **settings)

    weight, size = (lambda m: m.weight.sum()), (lambda m: m.in_features)
    for read, name in ((weight, "weight"), (size, "in_features")):
        with pytest.raises(StageError, match=f"no attribute '{name}'") as caught:
            session(read).goto("insert")
        assert "Give this layer the qconfig None" in caught.value.fix
        assert is_fixed(session(read, qconfig={"0.layer": None}))
        assert f"read layer.module.{name}" in caught.value.fix
    assert is_fixed(session(lambda m: getattr(m, "module", m).in_features))


def fx_text(make: Callable[[], nn.Module], x: Any, rule: str, **settings: Any) -> str:
    """What the error says to do that FX stops with on this model."""
    settings.setdefault("qconfig", "qnnpack")
    session = qx.Session(make().train(), x, flow="fx", **settings)
    with pytest.raises(StageError) as caught:
        is_fixed(session)
    cause: Any = caught.value
    while cause.__cause__ is not None:
        cause = cause.__cause__
    assert translate(cause, in_fx=True).rule == rule
    assert "Stub" not in caught.value.fix
    return caught.value.fix


def fx_works(model: nn.Module, x: Any, flow: str = "fx", **settings: Any) -> bool:
    settings.setdefault("qconfig", "qnnpack")
    return is_fixed(qx.Session(model.train(), x, flow=flow, **settings))


def up(norm: bool = True) -> nn.Module:
    model = nn.Sequential()
    model.up = nn.ConvTranspose2d(3, 4, 3)
    if norm:
        model.bn = nn.BatchNorm2d(4)
    return model


def test_fx_transposed_convolution_with_a_batch_norm() -> None:
    reported = fx_text(up, IMAGES, "transposed-batch-norm")
    line = (
        "model.up = torch.nn.utils.fuse_conv_bn_eval(model.up.eval(), model.bn.eval(), "
        "transpose=True)"
    )
    assert line in reported
    assert "model.bn = nn.Identity()" in reported
    names = {"torch": torch, "nn": nn, "model": up()}
    before = names["model"].eval()(IMAGES)
    exec(f"{line}; model.bn = nn.Identity()", names)
    assert torch.allclose(names["model"](IMAGES), before, atol=1e-5)
    assert fx_works(names["model"], IMAGES)
    assert "use flow='eager'" in reported
    assert fx_works(up(), IMAGES, flow="eager", stubs="model")


class Pieces(nn.Module):
    def __init__(self, pieces: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.pieces, self.head = nn.Linear(8, 8), pieces, nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pieces(self.layer(x)))


def named(y: Tensor) -> Tensor:
    a, b = y.chunk(2, 1)
    return torch.cat([a, b], 1)


@pytest.mark.parametrize("way", ["chunk", "split", "unbind"])
def test_fx_pieces_as_one_list(way: str) -> None:
    lists: dict[str, Callable[[Tensor], Tensor]] = {
        "chunk": lambda y: torch.cat(y.chunk(2, 1), 1),
        "split": lambda y: torch.cat(y.split(4, 1), 1),
        "unbind": lambda y: torch.stack(y.unbind(1), 1),
    }
    try:
        torch.fx.symbolic_trace(Pieces(lists[way]))
    except TypeError:
        pytest.skip("this torch cannot trace cat or stack of pieces (seen in 2.8)")
    reported = fx_text(lambda: Pieces(lists[way]), ROWS, "tuple-output")
    assert "a, b = x.chunk(2, 1); torch.cat([a, b], 1)" in reported
    assert fx_works(Pieces(named), ROWS)


class Functional(nn.Module):
    def __init__(self, *arguments: Any, bias: bool = False) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(4, 3, 3, 3))
        self.bias = nn.Parameter(torch.zeros(4)) if bias else None
        self.arguments = arguments

    def forward(self, x: Tensor) -> Tensor:
        if self.bias is not None:
            return F.conv2d(x, self.kernel, self.bias, *self.arguments)
        return F.conv2d(x, self.kernel, *self.arguments)


@pytest.mark.parametrize(
    "before",
    [Functional(), Functional(None), Functional(bias=True), Functional(1, 0, 1, 1, bias=True)],
    ids=["nothing", "None", "bias", "numbers"],
)
def test_fx_arguments_of_a_functional_convolution(before: nn.Module) -> None:
    reported = fx_text(lambda: before, IMAGES, "functional-arguments")
    assert "Use nn.Conv2d" in reported
    assert fx_works(nn.Sequential(nn.Conv2d(3, 4, 3)), IMAGES)
    assert "F.conv2d(x, weight, bias, (1, 1), (0, 0), (1, 1), 1)" in reported
    assert fx_works(Functional((1, 1), (0, 0), (1, 1), 1, bias=True), IMAGES)
    assert "bias may be None" in reported
    assert fx_works(Functional(None, (1, 1), (0, 0), (1, 1), 1), IMAGES)
    assert "set that function to None in the QConfigMapping" in reported
    mapping = get_default_qat_qconfig_mapping("qnnpack").set_object_type(F.conv2d, None)
    assert fx_works(before, IMAGES, qconfig=mapping, engine="qnnpack")


class Lstm(nn.Module):
    def __init__(self, state: str = "") -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.lstm, self.state = nn.LSTM(8, 8), state
        self.register_buffer("zeros", torch.zeros(1, 4, 8))

    def forward(self, x: Tensor, state: Tensor | None = None) -> Tensor:
        x = self.quant(x)
        if not self.state:
            return self.dequant(self.lstm(x)[0])
        h = {"argument": state, "buffer": self.zeros}.get(self.state)
        h = torch.zeros(1, x.shape[1], 8) if h is None else h
        return self.dequant(self.lstm(x, (h, h))[0])


def custom_lstm() -> dict[str, Any]:
    custom = {"float_to_observed_custom_module_class": {nn.LSTM: quantizable.LSTM}}
    observed = {"observed_to_quantized_custom_module_class": {quantizable.LSTM: nnq.LSTM}}
    return {"prepare_custom_config": custom, "convert_custom_config": observed}


def test_fx_lstm_without_its_state() -> None:
    # qnnpack refuses some ratios of scales inside of an untrained LSTM.
    settings: dict[str, Any] = {**custom_lstm(), "qconfig": "onednn"}
    x, zeros = ROWS[None], torch.zeros(1, 4, 8)
    reported = fx_text(Lstm, x, "lstm-without-state", **settings)
    assert "the state as a buffer of zeros (register_buffer)" in reported
    assert fx_works(Lstm("buffer"), x, **settings)
    assert "or as an argument of forward" in reported
    assert fx_works(Lstm("argument"), (x, zeros), **settings)
    assert "FX puts no fake quant on zeros made in forward from x.shape" in reported
    with pytest.raises(StageError):
        fx_works(Lstm("made"), x, **settings)
    assert "Or use flow='eager'" in reported
    assert fx_works(Lstm(), x, flow="eager", fusion=[], qconfig="onednn")


class Returning(nn.Module):
    def __init__(self, number: bool) -> None:
        super().__init__()
        self.layer, self.number = nn.Linear(8, 8), number

    def forward(self, x: Tensor) -> Any:
        return (self.layer(x), 3) if self.number else (self.layer(x),)


def test_fx_number_in_the_output() -> None:
    reported = fx_text(lambda: Returning(True), ROWS, "fx-output")
    assert "Return tensors only" in reported
    assert fx_works(Returning(False), ROWS)
    assert "or use flow='eager'" in reported
    assert fx_works(nn.Sequential(QuantStub(), Returning(True)), ROWS, flow="eager")


class Adds(nn.Module):
    def __init__(self, norm: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.bn = nn.BatchNorm2d(3) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return (y if self.bn is None else self.bn(y)) + x


@pytest.mark.parametrize("config", [None, "native", "fbgemm"])
def test_fx_fusion_that_is_for_eval_mode(config: str | None) -> None:
    reported = fx_text(lambda: Adds(True), IMAGES, "fusion-for-eval-only", backend_config="onednn")
    assert "Leave backend_config=None or take 'native' or 'fbgemm'" in reported
    assert fx_works(Adds(True), IMAGES, backend_config=config)


def test_fx_operation_of_another_engine() -> None:
    reported = fx_text(lambda: Adds(False), IMAGES, "other-engine", backend_config="onednn")
    assert "Leave backend_config=None" in reported
    assert fx_works(Adds(False), IMAGES)
    assert "engine='onednn'" in reported
    assert fx_works(Adds(False), IMAGES, backend_config="onednn", engine="onednn")


@pytest.mark.parametrize("settings", [{"qconfig": {"body": None}}, {"non_traceable": ["body"]}])
def test_fx_island(settings: dict[str, Any]) -> None:
    """What is said where no rule knows the error: this part in float, without stubs."""
    reported = translate(ValueError("new"), in_fx=True).fix
    assert "give its path or type the qconfig None, or name it in non_traceable=[…]" in reported
    model = nn.Sequential(nn.Linear(8, 8))
    model.body = nn.Sequential(nn.Linear(8, 8), nn.PReLU())
    if "qconfig" in settings:
        settings = {"qconfig": {"": "qnnpack", **settings["qconfig"]}}
    session = qx.Session(model.train(), ROWS, flow="fx", **settings)
    assert is_fixed(session)
    assert any(type(m) is nn.Linear for m in session.int8.modules())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_int8_of_a_copy_on_the_cpu() -> None:
    assert "copy.deepcopy(model).cpu().eval(), inputs.cpu()" in FIX_OF["cuda"]
    model = linear(lambda s, y: y).cuda().train()
    ready = prepared(model)
    ready(ROWS.cuda())
    int8 = convert(copy.deepcopy(ready).cpu().eval())
    assert torch.isfinite(int8(ROWS.cuda().cpu())).all()


@pytest.mark.skipif("qnnpack" not in available_engines(), reason="no engine qnnpack")
@pytest.mark.parametrize(("engine", "gain"), [("qnnpack", 0.0), ("qnnpack", 1.0), ("x86", 0.0)])
def test_an_addition_that_qnnpack_cannot_do(engine: str, gain: float) -> None:
    """Both fixes: a branch that gives something, and another engine."""
    if engine not in available_engines():
        pytest.skip(f"this build of torch has no engine {engine}")
    branch = nn.Linear(8, 8, bias=False)
    nn.init.constant_(branch.weight, gain)
    model = linear(lambda s, y: s.sum.add(y, s.branch(y)), sum=FloatFunctional(), branch=branch)
    with quantized_engine(engine):
        int8 = to_int8(model, ROWS, get_default_qat_qconfig(engine))
    if (engine, gain) == ("qnnpack", 0.0):
        with pytest.raises(Int8RunError) as caught:
            run_int8(int8, ROWS, engine)
        assert translate(caught.value.__cause__ or caught.value).rule == "qnnpack-add"
    else:
        assert torch.isfinite(run_int8(int8, ROWS, engine)).all()


def test_every_fix_is_tried() -> None:
    apart = {
        "qnnpack-add",
        "qint8-activation",
        "dtype",
        "one-sample",
        "nan-range",
        "attention",
        "cuda",
        "transposed-batch-norm",
        "functional-arguments",
        "other-engine",
        "lstm-without-state",
        "fx-output",
        "fusion-for-eval-only",
        "weight-through-wrapper",
        "two-devices",
    }
    assert {row[0] for row in FIXES} | apart == {rule.id for rule in RULES}
