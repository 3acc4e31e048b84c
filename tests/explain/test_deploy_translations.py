"""Each row of the table against the very error that torch raises for a small model."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.ao.nn.quantized import FloatFunctional
from torch.ao.quantization import (
    QuantStub,
    QuantWrapper,
    convert,
    disable_observer,
    get_default_qat_qconfig,
    prepare_qat,
)
from torch.nn import functional as F

from qatexplorer.errors import ConvertError, Int8RunError
from qatexplorer.evaluate.int8 import convert_error, run_int8
from qatexplorer.explain.blame import place_of
from qatexplorer.explain.translations import RULES, translate
from qatexplorer.quantizers.engine import available_engines, quantized_engine
from tests.support.int8_failures import (
    IMAGES,
    ROWS,
    MyConv,
    MyLinear,
    conv,
    linear,
    qint8_activations,
    to_int8,
    weights,
)
from tests.support.training_models import one_thread  # noqa: F401


def rule_of(reported: Int8RunError, int8: nn.Module | None = None) -> str:
    """The row that answered; what it says is in ``tests/wording``."""
    assert reported.__cause__ is not None
    return translate(reported.__cause__, place_of(reported.__cause__, int8) if int8 else None).rule


INT8_RUN: dict[str, tuple[str, str, Callable[[], nn.Module], Tensor]] = {
    # name: (rule, part of .op, model, input)
    "add": ("arithmetic", "aten::add", lambda: linear(lambda s, y: y + y), ROWS),
    "sub": ("arithmetic", "aten::sub", lambda: linear(lambda s, y: y - y), ROWS),
    "mul": ("arithmetic", "aten::mul", lambda: linear(lambda s, y: y * y), ROWS),
    "times 2": ("scalar-arithmetic", "mul", lambda: linear(lambda s, y: y * 2), ROWS),
    "softmax": (
        "no-int8-kernel",
        "aten::_softmax",
        lambda: linear(lambda s, y: F.softmax(y, 1)),
        ROWS,
    ),
    "silu": (
        "no-int8-kernel",
        "aten::silu",
        lambda: linear(lambda s, y: s.act(y), act=nn.SiLU()),
        ROWS,
    ),
    "sum": ("no-int8-kernel", "aten::sum", lambda: linear(lambda s, y: y.sum(1)), ROWS),
    "layer norm": (
        "batch-norm",
        "batch_norm",
        lambda: linear(lambda s, y: F.layer_norm(y, (8,))),
        ROWS,
    ),
    "batch norm": (
        "batch-norm",
        "batch_norm",
        lambda: conv(lambda s, y: F.batch_norm(y, torch.zeros(8), torch.ones(8))),
        IMAGES,
    ),
    "linear subclass": (
        "layer-left-float",
        "linear",
        lambda: linear(lambda s, y: s.mine(y), mine=MyLinear(8, 8)),
        ROWS,
    ),
    "conv subclass": (
        "layer-left-float",
        "conv2d",
        lambda: conv(lambda s, y: s.mine(y), mine=MyConv(8, 8, 3)),
        IMAGES,
    ),
    "F.linear": (
        "layer-left-float",
        "aten::mm",
        lambda: linear(lambda s, y: F.linear(y, s.w), w=weights(8, 8)),
        ROWS,
    ),
    "F.conv2d": (
        "layer-left-float",
        "conv2d",
        lambda: conv(lambda s, y: F.conv2d(y, s.w), w=weights(8, 8, 3, 3)),
        IMAGES,
    ),
    "float parameter": (
        "int8-with-float",
        "add",
        lambda: linear(lambda s, y: y + s.p, p=weights(1, 8)),
        ROWS,
    ),
    "cat with a parameter": (
        "int8-with-float",
        "aten::qscheme",
        lambda: linear(lambda s, y: torch.cat([s.p.expand(4, 8), y], 1), p=weights(1, 8)),
        ROWS,
    ),
    "weight as attribute": (
        "weight-is-a-method",
        "",
        lambda: linear(lambda s, y: y.to(s.fc.weight.dtype), fc=nn.Linear(8, 8)),
        ROWS,
    ),
    "int8 weight in F.linear": (
        "per-channel-tensor",
        "linear",
        lambda: linear(
            lambda s, y: F.linear(y, s.fc.weight() if callable(s.fc.weight) else s.fc.weight),
            fc=nn.Linear(8, 8),
        ),
        ROWS,
    ),
    "view": ("view", "view", lambda: conv(lambda s, y: _view(y)), IMAGES),
}


def _view(y: Tensor) -> Tensor:
    return y.view(2, -1) if y.is_quantized else y.flatten(1)


@pytest.mark.parametrize("name", INT8_RUN)
def test_int8_run(name: str) -> None:
    rule, op, make, x = INT8_RUN[name]
    int8 = to_int8(make(), x)
    with pytest.raises(Int8RunError) as caught:
        run_int8(int8, x, "onednn")
    error = caught.value
    assert rule_of(error, int8) == rule
    assert op in error.op
    assert error.where is not None
    assert error.where.startswith("block")
    assert "test_deploy_translations.py:" in error.source
    assert "block" in error.why or rule == "weight-is-a-method"
    assert error.fix
    assert "{" not in error.why + error.fix


def test_the_line_and_module_of_an_addition() -> None:
    int8 = to_int8(linear(lambda s, y: y + y), ROWS)
    with pytest.raises(Int8RunError) as caught:
        run_int8(int8, ROWS)
    assert caught.value.where == "block"
    assert caught.value.op == "aten::add.out"
    assert rule_of(caught.value) == "arithmetic"
    file, _, line = caught.value.source.rpartition(":")
    with open(file) as source:
        assert "y + y" in source.readlines()[int(line) - 1]


@pytest.mark.parametrize("engine", ["onednn", "qnnpack"])
@pytest.mark.parametrize("layer", ["linear", "conv"])
def test_no_stub(engine: str, layer: str) -> None:
    model = nn.Sequential(nn.Linear(8, 8) if layer == "linear" else nn.Conv2d(3, 8, 3))
    x = ROWS if layer == "linear" else IMAGES
    with pytest.raises(Int8RunError) as caught:
        run_int8(to_int8(model, x, get_default_qat_qconfig(engine)), x, engine)
    assert caught.value.op.startswith(f"quantized::{layer}")
    assert caught.value.where == "0"
    assert rule_of(caught.value) == "float-into-int8"


def test_wrapped_although_it_has_stubs() -> None:
    with pytest.raises(Int8RunError) as caught:
        run_int8(to_int8(QuantWrapper(linear(lambda s, y: y)), ROWS), ROWS)
    assert caught.value.where == "module.quant"
    assert rule_of(caught.value) == "quantized-twice"


def takes_qint8(int8: nn.Module) -> bool:
    try:
        int8(IMAGES)
    except RuntimeError:
        return False
    return True


@pytest.mark.parametrize("engine", available_engines())
def test_qint8_activations(engine: str) -> None:
    """Each library says it in its own words, and on x86 the CPU decides whose words they are."""
    with quantized_engine(engine):
        int8 = to_int8(conv(lambda s, y: y), IMAGES, qint8_activations())
        if engine == "qnnpack" and takes_qint8(int8):
            pytest.skip("qnnpack of this torch takes qint8 (seen in 2.8)")
    with pytest.raises(Int8RunError) as caught:
        run_int8(int8, IMAGES, engine)
    assert caught.value.where == "layer"
    assert rule_of(caught.value) == "qint8-activation"


@pytest.mark.skipif("qnnpack" not in available_engines(), reason="no engine qnnpack")
def test_qnnpack_cannot_add_what_has_no_range() -> None:
    model = linear(
        lambda s, y: s.sum.add(y, s.zeros(y)), sum=FloatFunctional(), zeros=nn.Linear(8, 8)
    )
    nn.init.zeros_(model.block.zeros.weight)
    nn.init.zeros_(model.block.zeros.bias)
    with quantized_engine("qnnpack"):
        int8 = to_int8(model, ROWS)
    with pytest.raises(Int8RunError) as caught:
        run_int8(int8, ROWS, "qnnpack")
    assert caught.value.where == "block.sum"
    assert rule_of(caught.value) == "qnnpack-add"
    run_int8(int8, ROWS, "x86" if "x86" in available_engines() else None)


CONVERT: dict[str, tuple[str, str, Callable[[], nn.Module], Tensor]] = {
    # name: (rule, where, model, input)
    "transposed": (
        "transposed-per-channel",
        "block.up",
        lambda: conv(lambda s, y: s.up(y), up=nn.ConvTranspose2d(8, 4, 2)),
        IMAGES,
    ),
    "embedding": (
        "embedding",
        "0",
        lambda: nn.Sequential(nn.Embedding(10, 8)),
        torch.arange(4),
    ),
    "attention": (
        "attention",
        "0.self_attn.out_proj",
        lambda: nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)),
        ROWS[None],
    ),
    "prelu": ("prelu", "block.act", lambda: linear(lambda s, y: s.act(y), act=nn.PReLU()), ROWS),
}


@pytest.mark.parametrize("name", CONVERT)
def test_convert(name: str) -> None:
    rule, where, make, x = CONVERT[name]
    model = make()
    with pytest.raises((RuntimeError, AssertionError, IndexError)) as caught:
        to_int8(model, x)
    error = convert_error(caught.value, model)
    assert isinstance(error, ConvertError)
    assert translate(caught.value).rule == rule
    assert error.where == where
    assert error.fix


def test_fake_quant_that_never_ran() -> None:
    model = linear(lambda s, y: F.linear(y, s.fc.weight), fc=nn.Linear(8, 8)).train()
    model.qconfig = get_default_qat_qconfig("onednn")
    ready = prepare_qat(model)
    ready(ROWS)
    ready.apply(disable_observer)
    with pytest.raises(AssertionError) as caught:
        convert(ready.eval())
    error = convert_error(caught.value, ready)
    assert translate(caught.value).rule == "never-ran"
    assert error.where == "block.fc"


def _forward_error(model: nn.Module, x: Tensor) -> tuple[Exception, nn.Module]:
    model.train()
    model.qconfig = get_default_qat_qconfig("onednn")
    ready = prepare_qat(model)
    with pytest.raises(Exception) as caught:
        ready(x)
    return caught.value, ready


FORWARD: dict[str, tuple[str, str, Callable[[], nn.Module], Tensor]] = {
    "half": ("dtype", "0", lambda: nn.Sequential(nn.Linear(8, 8)).half(), ROWS.half()),
    "bfloat16": (
        "dtype",
        "0",
        lambda: nn.Sequential(nn.Linear(8, 8)).bfloat16(),
        ROWS.bfloat16(),
    ),
    "double": ("dtype", "quant", lambda: linear(lambda s, y: y).double(), ROWS.double()),
    "token ids": (
        "integer-input",
        "quant",
        lambda: QuantWrapper(nn.Embedding(10, 8)),
        torch.arange(4),
    ),
    "gru": ("tuple-output", "0", lambda: nn.Sequential(nn.GRU(8, 8)), ROWS[None]),
    "weight through a wrapper": (
        "weight-through-wrapper",
        "block.q",
        lambda: linear(lambda s, y: F.linear(y, s.q.weight), q=QuantWrapper(nn.Linear(8, 8))),
        ROWS,
    ),
    "a tensor left on another device": (
        "two-devices",
        "block",
        lambda: linear(lambda s, y: y + s.shift, shift=torch.zeros(8, device="meta")),
        ROWS,
    ),
    "one sample": (
        "one-sample",
        "1",
        lambda: nn.Sequential(QuantStub(), nn.BatchNorm1d(8)),
        ROWS[:1],
    ),
}


@pytest.mark.parametrize("name", FORWARD)
def test_qat_forward(name: str) -> None:
    rule, where, make, x = FORWARD[name]
    error, ready = _forward_error(make(), x)
    place = place_of(error, ready)
    assert translate(error, place).rule == rule
    assert place.path == where
    # The line of the model's own code: of its block (here) or of the net around it.
    assert re.search(r"/(test_deploy_translations|int8_failures)\.py:\d+$", place.source)


def test_spoiled_range() -> None:
    nothing = float("nan")
    with pytest.raises(RuntimeError) as caught:
        torch.fake_quantize_per_tensor_affine(ROWS, nothing, -(2**31), 0, 255)
    assert translate(caught.value).rule == "nan-range"


@pytest.mark.skipif(torch.cuda.is_available(), reason="the message of a build without a GPU")
def test_no_gpu() -> None:
    with pytest.raises((AssertionError, RuntimeError)) as caught:
        ROWS.cuda()
    assert translate(caught.value).rule == "cuda"


def test_unknown_errors_keep_torchs_words() -> None:
    reported = translate(ValueError("something new\nand more"))
    assert reported.rule == ""
    assert "something new" in reported.why
    assert "DeQuantStub" in reported.fix


def test_every_row_is_tested() -> None:
    tested = {row[0] for table in (INT8_RUN, CONVERT, FORWARD) for row in table.values()}
    alone = {
        "cuda",
        "float-into-int8",
        "quantized-twice",
        "qint8-activation",
        "qnnpack-add",
        "never-ran",
        "nan-range",
        # In FX only: tests/flows/test_fx_custom.py.
        "functional-arguments",
        "other-engine",
        "lstm-without-state",
        "fusion-for-eval-only",
        "fx-output",
        "transposed-batch-norm",  # tests/explain/test_fixes_translations.py
    }
    assert tested | alone == {rule.id for rule in RULES}
