"""Examples of the rules on operations."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.ao import quantization as tq
from torch.ao.nn.quantized import FloatFunctional
from torch.ao.quantization import DeQuantStub, QuantStub

import qatexplorer as qx
from tests.checks.examples import Made, example
from tests.checks.torch_alone import (
    call,
    engine,
    error_of,
    fails,
    int8_is_off,
    loses_codes,
    prepared,
)

EAGER = {"flow": "eager", "qconfig": "qnnpack"}
FX = {"flow": "fx", "qconfig": "qnnpack"}


class Between(nn.Module):
    """Stubs, two convolutions, and ``middle(model, a, b)`` of what they give."""

    def __init__(self, middle: Callable[[Any, Tensor, Tensor], Any], **parts: nn.Module) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 1)
        self.out, self.again = DeQuantStub(), QuantStub()
        self.ff, self.minus = FloatFunctional(), FloatFunctional()
        self.middle = middle
        for name, part in parts.items():
            self.add_module(name, copy.deepcopy(part))  # torch prepares in place

    def forward(self, x: Tensor) -> Tensor:
        x = self.quant(x)
        return self.dequant(self.middle(self, self.first(x), self.second(x)))


def between(middle: Callable[[Any, Tensor, Tensor], Any], **parts: nn.Module) -> Any:
    def make() -> Made:
        torch.manual_seed(0)
        return Between(middle, **parts).train(), torch.rand(2, 3, 6, 6)

    return make


class OwnConv(nn.Conv2d):
    pass


FLOAT = "QuantizedCPU"
REFUSED: dict[str, tuple[Any, Any, str]] = {
    "add": (
        between(lambda m, a, b: a + b),
        between(lambda m, a, b: m.ff.add(a, b)),
        FLOAT,
    ),
    "subtract": (
        between(lambda m, a, b: a - b),
        between(lambda m, a, b: m.ff.add(a, m.minus.mul_scalar(b, -1.0))),
        FLOAT,
    ),
    "multiply": (
        between(lambda m, a, b: a * b),
        between(lambda m, a, b: m.ff.mul(a, b)),
        FLOAT,
    ),
    "in-place": (
        between(lambda m, a, b: a.add_(b)),
        between(lambda m, a, b: m.ff.add(a, b)),
        FLOAT,
    ),
    "by-a-number": (
        between(lambda m, a, b: a / 2.0),
        between(lambda m, a, b: m.ff.mul_scalar(a, 0.5)),
        "quantized",
    ),
    "negative": (
        between(lambda m, a, b: -a),
        between(lambda m, a, b: m.ff.mul_scalar(a, -1.0)),
        FLOAT,
    ),
    "product": (
        between(lambda m, a, b: a @ b),
        between(lambda m, a, b: m.ff.matmul(a, b)),
        FLOAT,
    ),
    "softmax": (
        between(lambda m, a, b: torch.softmax(a, 1)),
        between(lambda m, a, b: m.again(torch.softmax(m.out(a), 1))),
        FLOAT,
    ),
    "silu-module": (
        between(lambda m, a, b: m.act(a), act=nn.SiLU()),
        between(lambda m, a, b: m.act(a), act=nn.Hardswish()),
        FLOAT,
    ),
    "hardswish-function": (
        between(lambda m, a, b: F.hardswish(a)),
        between(lambda m, a, b: m.act(a), act=nn.Hardswish()),
        FLOAT,
    ),
    "layer-norm-function": (
        between(lambda m, a, b: F.layer_norm(a, (4, 6, 6))),
        between(lambda m, a, b: m.norm(a), norm=nn.LayerNorm((4, 6, 6))),
        FLOAT,
    ),
    "view": (
        between(lambda m, a, b: a.view(2, -1)),
        between(lambda m, a, b: a.reshape(2, -1)),
        "view size is not compatible",
    ),
    "subclass": (
        between(lambda m, a, b: m.own(a), own=OwnConv(4, 2, 1)),
        between(lambda m, a, b: m.own(a), own=nn.Conv2d(4, 2, 1)),
        "quint8",
    ),
    "stub-after-stub": (
        between(lambda m, a, b: m.again(a)),
        between(lambda m, a, b: m.again(m.out(a))),
        FLOAT,
    ),
}
for name, (broken, fixed, text) in REFUSED.items():
    example("QX201", name, broken, fixed, fails(text), EAGER)


class NoStubs(nn.Module):
    def __init__(self, add: Callable[[Any, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b, self.ff, self.add = nn.Linear(4, 4), nn.Linear(4, 4), FloatFunctional(), add

    def forward(self, x: Tensor) -> Tensor:
        return self.add(self, self.a(x), self.b(x))


example(
    "QX201", "in-a-wrapper",
    lambda: (NoStubs(lambda m, a, b: a + b).train(), torch.rand(3, 4)),
    lambda: (NoStubs(lambda m, a, b: m.ff.add(a, b)).train(), torch.rand(3, 4)),
    fails(FLOAT, wrap=True), {**EAGER, "stubs": "model"}, paths=("",),
)  # fmt: skip


class Blocks(nn.Module):
    """One activation object in two blocks."""

    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.body = nn.ModuleList(
            nn.ModuleDict({"conv": nn.Conv2d(3, 3, 1), "act": act}) for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.quant(x)
        for block in self.body:
            x = block["act"](block["conv"](x))
        return self.dequant(x)


example(
    "QX201", "shared-activation",
    lambda: (Blocks(nn.Mish()).train(), torch.rand(2, 3, 4, 4)),
    lambda: (Blocks(nn.ReLU()).train(), torch.rand(2, 3, 4, 4)),
    fails(FLOAT), EAGER, paths=("body.0.act",),
)  # fmt: skip

# -- float into int8 ------------------------------------------------------------------------------


class Partly(nn.Module):
    """A float layer between int8 ones."""

    def __init__(self, stub: bool) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.first, self.float_one, self.last = (nn.Conv2d(3, 3, 1) for _ in range(3))
        self.float_one.qconfig = None  # type: ignore[assignment]
        self.middle, self.again = DeQuantStub(), QuantStub() if stub else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.float_one(self.middle(self.first(self.quant(x))))
        return self.dequant(self.last(self.again(x)))


class Position(nn.Module):
    """A parameter is added to an int8 tensor."""

    def __init__(self, stub: bool) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.fc, self.ff = nn.Linear(4, 4), FloatFunctional()
        self.position = nn.Parameter(torch.ones(3, 4))
        self.stub = QuantStub() if stub else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.dequant(self.ff.add(self.fc(self.quant(x)), self.stub(self.position)))


class Early(nn.Module):
    """The input goes to two layers, and one of them does not get it from the stub."""

    def __init__(self, all_of_it: bool) -> None:
        super().__init__()
        self.quant, self.dequant, self.ff = QuantStub(), DeQuantStub(), FloatFunctional()
        self.a, self.b, self.all_of_it = nn.Linear(4, 4), nn.Linear(4, 4), all_of_it

    def forward(self, x: Tensor) -> Tensor:
        q = self.quant(x)
        return self.dequant(self.ff.add(self.a(q), self.b(q if self.all_of_it else x)))


example(
    "QX202", "after-a-float-layer",
    lambda: (Partly(False).train(), torch.rand(2, 3, 4, 4)),
    lambda: (Partly(True).train(), torch.rand(2, 3, 4, 4)),
    fails("quantized::conv2d"), EAGER, paths=("last",),
)  # fmt: skip
example(
    "QX202", "parameter",
    lambda: (Position(False).train(), torch.rand(3, 4)),
    lambda: (Position(True).train(), torch.rand(3, 4)),
    fails("'CPU' backend"), EAGER, paths=("ff",),
)  # fmt: skip


class Aside(nn.Module):
    """What a DeQuantStub was given goes on in int8; or what it gave does."""

    def __init__(self, given: bool) -> None:
        super().__init__()
        self.quant, self.dequant, self.aside = QuantStub(), DeQuantStub(), DeQuantStub()
        self.a, self.b, self.given = nn.Linear(4, 4), nn.Linear(4, 4), given

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.a(self.quant(x))
        aside = self.aside(x)
        return self.dequant(self.b(x if self.given else aside)), aside


example(
    "QX202", "past-the-dequantize",
    lambda: (Aside(False).train(), torch.rand(3, 4)),
    lambda: (Aside(True).train(), torch.rand(3, 4)),
    fails("quantized::linear"), EAGER, paths=("b",),
)  # fmt: skip
example(
    "QX202", "past-the-stub",
    lambda: (Early(False).train(), torch.rand(3, 4)),
    lambda: (Early(True).train(), torch.rand(3, 4)),
    fails("quantized::linear"), EAGER, paths=("b",),
)  # fmt: skip

# -- joins ----------------------------------------------------------------------------------------


def joined(join: Callable[[Any, Tensor, Tensor], Tensor]) -> Any:
    def make() -> Made:
        model, x = between(join)()
        with torch.no_grad():
            model.second.weight.mul_(30)
        return model, x

    return make


JOINS: dict[str, tuple[Any, Any]] = {
    "cat": (lambda m, a, b: torch.cat([a, b], 1), lambda m, a, b: m.ff.cat([a, b], 1)),
    "stack": (
        lambda m, a, b: torch.stack([a, b], 1),
        lambda m, a, b: m.ff.cat([a.unsqueeze(1), b.unsqueeze(1)], 1),
    ),
    "after-relu": (
        lambda m, a, b: torch.cat([F.relu(a), F.relu(b)], 1),
        lambda m, a, b: m.ff.cat([F.relu(a), F.relu(b)], 1),
    ),
    "wide-one-first": (
        lambda m, a, b: torch.cat([a, b], 1),
        lambda m, a, b: torch.cat([b, a], 1),
    ),
}
for name, (raw, own) in JOINS.items():
    if name != "wide-one-first":
        example("QX203", name, joined(raw), joined(own), int8_is_off, EAGER)
example(
    "QX203", "parts-of-one-tensor",
    joined(lambda m, a, b: torch.cat([a, b], 1)),
    joined(lambda m, a, b: torch.cat(list(a.chunk(2, 1)), 1)),
    int8_is_off, EAGER,
)  # fmt: skip

# -- functional layers in FX ----------------------------------------------------------------------


class OneCall(nn.Module):
    def __init__(self, call: Callable[..., Any], *shape: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weight = nn.Parameter(torch.randn(shape) / 5)
        self.bias = nn.Parameter(torch.zeros(shape[0]))
        self.call = call

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.call(x, self.weight, self.bias)
        return out


FULL: Any = lambda x, w, b: F.conv2d(x, w, b, (1, 1), (0, 0), (1, 1), 1)
WRITTEN: dict[str, tuple[Any, Any]] = {
    "short": (lambda x, w, b: F.conv2d(x, w, b), FULL),
    "numbers": (
        lambda x, w, b: F.conv2d(x, w, b, 2, 1),
        lambda x, w, b: F.conv2d(x, w, b, (2, 2), (1, 1), (1, 1), 1),
    ),
    "some-by-keyword": (
        lambda x, w, b: F.conv2d(x, w, b, stride=2, padding=1),
        lambda x, w, b: F.conv2d(x, w, b, (2, 2), (1, 1), (1, 1), 1),
    ),
    "no-bias": (
        lambda x, w, b: F.conv2d(x, w, padding=1),
        lambda x, w, b: F.conv2d(x, w, None, (1, 1), (1, 1), (1, 1), 1),
    ),
    "weight-by-keyword": (lambda x, w, b: F.conv2d(x, weight=w, bias=b), FULL),
}
for name, (short, full) in WRITTEN.items():
    example(
        "QX204", name,
        lambda short=short: (OneCall(short, 4, 3, 3, 3).train(), torch.rand(2, 3, 8, 8)),
        lambda full=full: (OneCall(full, 4, 3, 3, 3).train(), torch.rand(2, 3, 8, 8)),
        lambda m, i: bool(error_of(m, i, "fx")), FX, paths=("",),
    )  # fmt: skip
example(
    "QX204", "conv1d",
    lambda: (OneCall(lambda x, w, b: F.conv1d(x, w, b), 4, 3, 3).train(), torch.rand(2, 3, 8)),
    lambda: (
        OneCall(lambda x, w, b: F.conv1d(x, w, b, (1,), (0,), (1,), 1), 4, 3, 3).train(),
        torch.rand(2, 3, 8),
    ),
    lambda m, i: bool(error_of(m, i, "fx")), FX,
)  # fmt: skip
example(
    "QX204", "linear-by-keyword",
    lambda: (
        OneCall(lambda x, w, b: F.linear(input=x, weight=w, bias=b), 4, 3).train(),
        torch.rand(2, 3),
    ),
    lambda: (OneCall(lambda x, w, b: F.linear(x, w, b), 4, 3).train(), torch.rand(2, 3)),
    lambda m, i: bool(error_of(m, i, "fx")), FX,
)  # fmt: skip


class Kept(nn.Module):
    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.a, self.act, self.b = nn.Linear(4, 4), act, nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.b(self.act(self.a(x)))
        return out


def stays_float(model: Any, inputs: Any) -> bool:
    """Whether torch leaves ``act`` between a dequantize and a quantize."""
    from torch.ao.quantization import quantize_fx

    with engine():
        int8: Any = quantize_fx.convert_fx(prepared(model, inputs, "fx"))
    before = next(n for n in int8.graph.nodes if n.target == "act").args[0]
    return bool(before.target == "dequantize")


example(
    "QX205", "silu",
    lambda: (Kept(nn.SiLU()).train(), torch.rand(3, 4)),
    lambda: (Kept(nn.Hardswish()).train(), torch.rand(3, 4)),
    stays_float, FX,
)  # fmt: skip

# -- one range for several ------------------------------------------------------------------------


class TwoImages(nn.Module):
    """Two sensors, one of thirty times the range."""

    def __init__(self, stubs: int) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.other = QuantStub() if stubs == 2 else self.quant
        self.a, self.b, self.ff = nn.Conv2d(1, 2, 1), nn.Conv2d(1, 2, 1), FloatFunctional()

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        return self.dequant(self.ff.add(self.a(self.quant(before)), self.b(self.other(after))))


def two_images(stubs: int) -> Callable[[], Made]:
    def make() -> Made:
        torch.manual_seed(0)
        pictures = torch.rand(2, 1, 4, 4), torch.rand(2, 1, 4, 4) * 30
        return TwoImages(stubs).train(), pictures

    return make


class Sums(nn.Module):
    """A sum of small values and one of large ones."""

    def __init__(self, functionals: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.small, self.large = nn.Linear(4, 4), nn.Linear(4, 4)
        with torch.no_grad():
            self.large.weight.mul_(50)
        self.ff = FloatFunctional()
        self.other = FloatFunctional() if functionals == 2 else self.ff

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        small, large = self.small(self.quant(x)), self.large(self.quant(x))
        return self.dequant(self.ff.add(small, small)), self.dequant(self.other.add(large, large))


class Twins(nn.Module):
    """A layer for two inputs, or its twin with the same parameters."""

    def __init__(self, twin: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.quant, self.other, self.dequant = QuantStub(), QuantStub(), DeQuantStub()
        self.fc, self.has_twin = nn.Linear(4, 4, bias=False), twin
        if twin:
            self.twin = nn.Linear(4, 4, bias=False)
            self.twin.weight = self.fc.weight

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        second = self.twin if self.has_twin else self.fc
        return self.dequant(self.fc(self.quant(a))), self.dequant(second(self.other(b)))


example(
    "QX206", "one-stub-for-two-images", two_images(1), two_images(2), loses_codes("quant"),
    EAGER, paths=("quant",),
)  # fmt: skip
example(
    "QX206", "one-functional-for-two-sums",
    lambda: (Sums(1).train(), torch.rand(8, 4)),
    lambda: (Sums(2).train(), torch.rand(8, 4)),
    loses_codes("ff"), EAGER, paths=("ff",),
)  # fmt: skip
example(
    "QX206", "one-layer-for-two-inputs",
    lambda: (Twins(False).train(), (torch.rand(8, 4), torch.rand(8, 4) * 40)),
    lambda: (Twins(True).train(), (torch.rand(8, 4), torch.rand(8, 4) * 40)),
    loses_codes("fc"), EAGER, paths=("fc",),
)  # fmt: skip


class WithNotes(nn.Module):
    """A picture and a few numbers that go with it, through one stub or one for each."""

    def __init__(self, stubs: int) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.other = self.quant if stubs == 1 else QuantStub()
        self.conv, self.fc = nn.Conv2d(1, 2, 1), nn.Linear(3, 2)

    def forward(self, picture: Tensor, notes: Tensor) -> Any:
        notes = self.dequant(self.fc(self.other(notes)))
        return self.dequant(self.conv(self.quant(picture))).mean((2, 3)) + notes


def one_observer_for_two_shapes(model: nn.Module, inputs: Any) -> bool:
    """Whether torch has put one fake quant on tensors of two and of four dimensions."""
    with engine():
        made = prepared(model, inputs)
    seen: dict[int, set[int]] = {}
    for module in made.modules():
        if isinstance(module, tq.FakeQuantizeBase):
            module.register_forward_pre_hook(
                lambda m, args: seen.setdefault(id(m), set()).add(args[0].dim())
            )
    call(made, inputs)
    return {2, 4} in seen.values()


example(
    "QX207", "picture-and-notes",
    lambda: (WithNotes(1).train(), (torch.rand(2, 1, 4, 4), torch.rand(2, 3))),
    lambda: (WithNotes(2).train(), (torch.rand(2, 1, 4, 4), torch.rand(2, 3))),
    one_observer_for_two_shapes, EAGER, paths=("quant",),
)  # fmt: skip

__all__ = ["REFUSED", "Between", "between", "qx"]
