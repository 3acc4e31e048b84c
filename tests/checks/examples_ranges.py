"""Models that lose accuracy or speed in int8: ranges that do not fit, and float in between."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.ao.nn.quantized import DeQuantize, FloatFunctional
from torch.ao.quantization import (
    DeQuantStub,
    FakeQuantize,
    FakeQuantizeBase,
    MovingAverageMinMaxObserver,
    QConfig,
    QConfigMapping,
    QuantStub,
    convert,
    default_per_channel_weight_fake_quant,
    disable_observer,
    get_default_qat_qconfig,
    prepare_qat,
)
from torch.ao.quantization.quantize_fx import convert_fx, prepare_qat_fx
from torch.utils._python_dispatch import TorchDispatchMode

import qatexplorer as qx
from tests.against_torch.reference import engine
from tests.checks.examples import Made, example

BACKEND = "onednn"
PASSES = 150  # an observer that several tensors share averages their ranges, by a hundredth each
FX = {"flow": "fx"}


def seeded(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


def rows(x: Tensor) -> dict[str, Any]:
    """Data that is the example input alone."""
    batches = [(x, torch.zeros(1))]
    return {"train": batches, "eval": batches}


def to_prepared(session: qx.Session) -> None:
    session.goto(session.flow.prepared_stage)


def calibrated(session: qx.Session) -> None:
    session.goto(session.flow.train_stage)
    session.calibrate(1)


# -- torch alone -----------------------------------------------------------------------------------


def prepared(model: Any, inputs: Tensor, flow: str, backend: str) -> nn.Module:
    """By torch's one call, calibrated on the inputs until ranges stand still, observers off."""
    qconfig = getattr(model, "qconfig", None) or get_default_qat_qconfig(backend)
    made: Any
    if flow == "fx":
        mapping = QConfigMapping().set_global(qconfig)
        made = prepare_qat_fx(copy.deepcopy(model), mapping, (inputs,))
    else:
        made = copy.deepcopy(model)
        made.qconfig = qconfig
        made = prepare_qat(made)
    with torch.no_grad():
        made.eval()
        for _ in range(PASSES):
            made(inputs)
    made.apply(disable_observer)
    return made  # type: ignore[no-any-return]


def int8(model: Any, inputs: Tensor, flow: str) -> Any:
    with engine(BACKEND):
        made = prepared(model, inputs, flow, BACKEND)
        return convert_fx(made) if flow == "fx" else convert(made)


def coarse(flow: str, backend: str = BACKEND) -> Callable[[Any, Tensor], bool]:
    """Whether rounding takes more than 5 % of an output channel, the median one."""

    def asked(model: Any, inputs: Tensor) -> bool:
        with torch.no_grad():
            exact = copy.deepcopy(model).eval()(inputs)
            rounded = prepared(model, inputs, flow, backend)(inputs)
        error = (rounded - exact).transpose(0, 1).flatten(1).std(1)
        return bool((error / exact.transpose(0, 1).flatten(1).std(1)).median() > 0.05)

    return asked


# -- QX601 -----------------------------------------------------------------------------------------


class Branches(nn.Module):
    """Two branches joined; the second gives ``factor`` times what the first gives."""

    def __init__(self, factor: float, functional: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 4)
        with torch.no_grad():
            self.b.weight.mul_(factor)
        self.join = FloatFunctional() if functional else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.quant(x)
        both = [self.a(x), self.b(x)]
        joined = self.join.cat(both, 1) if self.join is not None else torch.cat(both, 1)
        return self.dequant(joined)  # type: ignore[no-any-return]


def branches(factor: float, functional: bool) -> Callable[[], Made]:
    return lambda: (Branches(factor, functional).train(), seeded(64, 8))


example(
    "QX601",
    "eager-functional",
    branches(60.0, True),
    branches(1.0, True),
    coarse("eager"),
    paths=("join",),
)
example("QX601", "fx-cat", branches(60.0, False), branches(1.0, False), coarse("fx"), FX)
example("QX601", "fx-functional", branches(60.0, True), branches(1.0, True), coarse("fx"), FX)
example(
    "QX601",
    "fx-prepared",
    branches(60.0, False),
    branches(1.0, False),
    coarse("fx"),
    FX,
    walk=to_prepared,
)


# -- QX602 -----------------------------------------------------------------------------------------


class Depthwise(nn.Module):
    """A depthwise convolution whose first channel is ``factor`` times as wide as the others, by its
    weight or by the batch norm that is fused into it."""

    def __init__(self, factor: float, norm: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.conv = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.bn = nn.BatchNorm2d(8) if norm else None
        with torch.no_grad():
            (self.conv.weight if self.bn is None else self.bn.weight)[0] *= factor

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(self.quant(x))
        return self.dequant(x if self.bn is None else self.bn(x))  # type: ignore[no-any-return]


class Rows(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.fc = nn.Linear(16, 64)
        with torch.no_grad():
            self.fc.weight[0] *= factor

    def forward(self, x: Tensor) -> Tensor:
        return self.dequant(self.fc(self.quant(x)))  # type: ignore[no-any-return]


def depthwise(factor: float, norm: bool = False) -> Callable[[], Made]:
    return lambda: (Depthwise(factor, norm).train(), seeded(4, 8, 8, 8))


def linear(factor: float) -> Callable[[], Made]:
    return lambda: (Rows(factor).train(), seeded(64, 16))


QNNPACK = {"qconfig": "qnnpack"}
for flow in ("eager", "fx"):
    example(
        "QX602",
        f"{flow}-depthwise",
        depthwise(100.0),
        depthwise(1.0),
        coarse(flow, "qnnpack"),
        {**QNNPACK, "flow": flow},
        paths=("conv",),
    )
    example(
        "QX602",
        f"{flow}-linear",
        linear(100.0),
        linear(1.0),
        coarse(flow, "qnnpack"),
        {**QNNPACK, "flow": flow},
        paths=("fc",),
    )
example(
    "QX602",
    "fx-batch-norm",
    depthwise(100.0, norm=True),
    depthwise(1.0, norm=True),
    coarse("fx", "qnnpack"),
    {**QNNPACK, **FX},
    walk=to_prepared,
)


# -- QX603 -----------------------------------------------------------------------------------------


for flow in ("eager", "fx"):
    example(
        "QX603",
        f"{flow}-linear",
        linear(60.0),
        linear(1.0),
        coarse(flow),
        {"flow": flow, "data": rows(seeded(64, 16))},
        walk=calibrated,
        paths=("fc",),
    )


# -- QX604 -----------------------------------------------------------------------------------------


def activation(qscheme: torch.qscheme) -> QConfig:
    fake_quant = FakeQuantize.with_args(
        observer=MovingAverageMinMaxObserver,
        quant_min=0,
        quant_max=255,
        dtype=torch.quint8,
        qscheme=qscheme,
    )
    return QConfig(activation=fake_quant, weight=default_per_channel_weight_fake_quant)


class Positive(nn.Module):
    """Values from 0 to 1 and a ReLU; its qconfig is its own."""

    def __init__(self, qscheme: torch.qscheme, act: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.fc, self.act = nn.Linear(8, 16), act
        self.qconfig = activation(qscheme)

    def forward(self, x: Tensor) -> Tensor:
        return self.dequant(self.act(self.fc(self.quant(x))))  # type: ignore[no-any-return]


def positive(qscheme: torch.qscheme, act: type[nn.Module]) -> Callable[[], Made]:
    return lambda: (Positive(qscheme, act()).train(), seeded(64, 8).abs())


def half_of_the_codes(flow: str) -> Callable[[Any, Tensor], bool]:
    """Whether the smallest value that came to an activation's fake quant has a code past 100."""

    def asked(model: Any, inputs: Tensor) -> bool:
        made = prepared(model, inputs, flow, BACKEND)
        codes = [
            float(site.activation_post_process.min_val / site.scale + site.zero_point)
            for path, site in made.named_modules()
            if isinstance(site, FakeQuantizeBase) and not path.endswith("weight_fake_quant")
        ]
        return max(codes) > 100

    return asked


for flow in ("eager", "fx"):
    example(
        "QX604",
        f"{flow}-relu",
        positive(torch.per_tensor_symmetric, nn.ReLU),
        positive(torch.per_tensor_affine, nn.ReLU),
        half_of_the_codes(flow),
        {"flow": flow, "data": rows(seeded(64, 8).abs())},
        walk=calibrated,
    )
example(
    "QX604",
    "eager-hardswish",
    positive(torch.per_tensor_symmetric, nn.Hardswish),
    positive(torch.per_tensor_affine, nn.Hardswish),
    half_of_the_codes("eager"),
    {"data": rows(seeded(64, 8).abs())},
    walk=calibrated,
)


# -- QX605 -----------------------------------------------------------------------------------------


class Between(nn.Module):
    """Two layers and what stands between them; ``leaves`` dequantizes there."""

    def __init__(self, act: nn.Module, leaves: bool = False) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.out, self.back = (DeQuantStub(), QuantStub()) if leaves else (None, None)
        self.a, self.act, self.b = nn.Linear(8, 8), act, nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(self.quant(x))
        if self.out is not None and self.back is not None:
            x = self.back(self.act(self.out(x)))
        else:
            x = self.act(x)
        return self.dequant(self.b(x))  # type: ignore[no-any-return]


def between(act: Callable[[], nn.Module], leaves: bool = False) -> Callable[[], Made]:
    return lambda: (Between(act(), leaves).train(), seeded(4, 8))


def goes_back_and_forth(flow: str) -> Callable[[Any, Tensor], bool]:
    """Whether the int8 model dequantizes more than once."""

    def asked(model: Any, inputs: Tensor) -> bool:
        made = int8(model, inputs, flow)
        if flow == "fx":
            return sum(node.target == "dequantize" for node in made.graph.nodes) > 1
        return sum(isinstance(module, DeQuantize) for module in made.modules()) > 1

    return asked


for name, act in (("silu", nn.SiLU), ("mish", nn.Mish)):
    example(
        "QX605",
        f"fx-{name}",
        between(act),
        between(nn.ReLU),
        goes_back_and_forth("fx"),
        FX,
        walk=to_prepared,
        paths=("act",),
    )
example(
    "QX605",
    "eager-stubs",
    between(nn.SiLU, leaves=True),
    between(nn.ReLU),
    goes_back_and_forth("eager"),
    walk=to_prepared,
    paths=("act",),
)


# -- QX606 -----------------------------------------------------------------------------------------


class Text(nn.Module):
    """An embedding that stays float, and two layers."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.words = nn.Embedding(words, 32)
        self.words.qconfig = None  # type: ignore[assignment]
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.a, self.b = nn.Linear(32, 256), nn.Linear(256, 32)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.quant(self.words(ids))
        return self.dequant(self.b(torch.relu(self.a(x))))  # type: ignore[no-any-return]


def text(words: int) -> Callable[[], Made]:
    return lambda: (Text(words).train(), torch.arange(8).reshape(2, 4))


def hardly_smaller(model: Any, inputs: Tensor) -> bool:
    """Whether int8 keeps more than 62 % of the size on disk."""
    return size(int8(model, inputs, "eager")) > 0.62 * size(model)


def size(model: nn.Module) -> int:
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    return buffer.tell()


example(
    "QX606",
    "embedding",
    text(2000),
    text(16),
    hardly_smaller,
    walk=to_prepared,
    paths=("words",),
)


# -- QX607 -----------------------------------------------------------------------------------------


class Upsampling(nn.Module):
    def __init__(self, mode: str, by_function: bool) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.down, self.last = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 2, 1)
        self.up = None if by_function else nn.Upsample(scale_factor=2, mode=mode)
        self.mode = mode

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(self.quant(x))
        x = F.interpolate(x, scale_factor=2, mode=self.mode) if self.up is None else self.up(x)
        return self.dequant(self.last(x))  # type: ignore[no-any-return]


def upsampling(mode: str, by_function: bool = False) -> Callable[[], Made]:
    return lambda: (Upsampling(mode, by_function).train(), seeded(1, 3, 32, 32))


def bilinear_in_int8(flow: str) -> Callable[[Any, Tensor], bool]:
    """Whether torch interpolates bilinearly on an int8 tensor in the format of the slow kernel.

    How slow it is, tests/benchmarks/bench_upsampling.py measures: a shared machine may stand still.
    """

    def asked(model: Any, inputs: Tensor) -> bool:
        made = int8(model, inputs, flow)
        with engine(BACKEND), torch.no_grad(), Upsampled() as seen:
            made(inputs)
        (kernel, taken), *others = seen.calls
        assert not others
        assert taken.is_quantized
        slow = kernel.overloadpacket is torch.ops.aten.upsample_bilinear2d
        return slow and taken.is_contiguous(memory_format=torch.channels_last)

    return asked


class Upsampled(TorchDispatchMode):
    """The kernels of upsampling that are called, each with the tensor it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.__name__.startswith("upsample_"):
            self.calls.append((func, args[0]))
        return func(*args, **(kwargs or {}))


# FX leaves nn.Upsample float.
for name, flow, by_function in (
    ("eager-module", "eager", False),
    ("eager-function", "eager", True),
    ("fx-function", "fx", True),
):
    example(
        "QX607",
        name,
        upsampling("bilinear", by_function),
        upsampling("nearest", by_function),
        bilinear_in_int8(flow),
        {"flow": flow},
        walk=to_prepared,
    )
