"""Models that use a module, a stub or a weight more than once."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.ao.quantization as tq
import torch.nn.functional as F
from torch import Tensor, nn
from torch.ao.nn.quantized import FloatFunctional
from torch.ao.quantization import quantize_fx

from tests.checks.examples import Made, example

ENGINE = "qnnpack"  # all codes, and one scale for a weight: what differs is not the engine
EAGER = {"flow": "eager", "qconfig": ENGINE}
FX = {"flow": "fx", "qconfig": ENGINE}


class Net(nn.Module):
    """Named modules, and a forward that is given; stubs where it uses them."""

    def __init__(self, run: Callable[[Any, Any], Any], **modules: nn.Module) -> None:
        super().__init__()
        self.run = run
        self.quant, self.dequant = tq.QuantStub(), tq.DeQuantStub()
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, x: Tensor) -> Any:
        return self.run(self, x)


def pixels() -> Tensor:
    return torch.randn(2, 3, 6, 6)


def rows() -> Tensor:
    return torch.randn(16, 8)


def conv() -> nn.Module:
    return nn.Conv2d(3, 3, 1)


def norm() -> nn.Module:
    made = nn.BatchNorm2d(3)
    nn.init.uniform_(made.weight, 1, 2)
    nn.init.uniform_(made.bias, 1, 2)
    return made


def made(inputs: Callable[[], Any], run: Callable[[Any, Any], Any], **make: Any) -> Any:
    """A function that makes the net and its inputs; a name in place of a module is another name."""

    def build() -> Made:
        torch.manual_seed(0)
        modules: dict[str, nn.Module] = {}
        for name, one in make.items():
            modules[name] = modules[one] if isinstance(one, str) else one()
        return Net(run, **modules).train(), (inputs(),)

    return build


def off(model: nn.Module) -> nn.Module:
    """Without fake quants and observers, in eval mode."""
    model.apply(tq.disable_fake_quant).apply(tq.disable_observer)
    return model.eval()


def prepared_eager(model: nn.Module, steps: int = 0, inputs: Any = ()) -> nn.Module:
    torch.backends.quantized.engine = ENGINE
    model.qconfig = tq.get_default_qat_qconfig(ENGINE)  # type: ignore[assignment]
    return trained(tq.prepare_qat(model.train()), steps, inputs)


def prepared_fx(model: nn.Module, inputs: Any, steps: int = 0) -> nn.Module:
    torch.backends.quantized.engine = ENGINE
    mapping = tq.get_default_qat_qconfig_mapping(ENGINE)
    return trained(quantize_fx.prepare_qat_fx(model.train(), mapping, inputs), steps, inputs)


def trained(model: nn.Module, steps: int, inputs: Any) -> nn.Module:
    with torch.no_grad():
        for _ in range(steps):
            model(*inputs)
    return model.apply(tq.disable_observer) if steps else model


def differ(first: Any, second: Any, part: float = 0.05) -> bool:
    """Whether two outputs are apart by more than ``part`` of the second one's range."""
    a, b = ([x] if isinstance(x, Tensor) else list(x) for x in (first, second))
    pairs = zip(a, b, strict=True)
    return any(bool((x - y).abs().max() > part * (y.max() - y.min())) for x, y in pairs)


# -- fused and used elsewhere ---------------------------------------------------------------------


def fused_differs(group: list[str]) -> Any:
    def misbehaves(model: nn.Module, inputs: Any) -> bool:
        before = copy.deepcopy(model).eval()(*inputs)
        fused = tq.fuse_modules_qat(model, [group])
        return differ(fused.eval()(*inputs), before)

    return misbehaves


def fx_differs(model: nn.Module, inputs: Any) -> bool:
    before = copy.deepcopy(model).eval()(*inputs)
    return differ(off(prepared_fx(model, inputs))(*inputs), before)


def groups(*names: list[str]) -> Any:
    return {**EAGER, "fusion": list(names)}


example(
    "QX151", "one-relu-for-two",
    made(pixels, lambda m, x: m.dequant(m.relu(m.b(m.relu(m.a(m.quant(x)))))),
         a=conv, b=conv, relu=nn.ReLU),
    made(pixels, lambda m, x: m.dequant(m.relu2(m.b(m.relu(m.a(m.quant(x)))))),
         a=conv, b=conv, relu=nn.ReLU, relu2=nn.ReLU),
    fused_differs(["a", "relu"]), groups(["a", "relu"]), paths=("relu",),
)  # fmt: skip
example(
    "QX151", "conv-with-and-without-norm-eager",
    made(pixels, lambda m, x: m.norm(m.conv(x)) + m.conv(x * 2), conv=conv, norm=norm),
    made(pixels, lambda m, x: m.norm(m.conv(x)) + m.other(x * 2), conv=conv, norm=norm, other=conv),
    fused_differs(["conv", "norm"]), groups(["conv", "norm"]), paths=("conv",),
)  # fmt: skip
example(
    "QX151", "whole-group-twice",  # called twice as a whole: the same function
    made(pixels, lambda m, x: m.relu(m.norm(m.conv(x))) + m.relu(m.conv(x)),
         conv=conv, norm=norm, relu=nn.ReLU),
    made(pixels, lambda m, x: m.relu(m.norm(m.conv(x))) + m.relu(m.norm(m.conv(x * 2))),
         conv=conv, norm=norm, relu=nn.ReLU),
    fused_differs(["conv", "norm", "relu"]), groups(["conv", "norm", "relu"]),
)  # fmt: skip
for _name, _broken, _fixed, _parts in (
    ("conv-with-and-without-norm",
     lambda m, x: m.norm(m.conv(x)) + m.conv(x * 2),
     lambda m, x: m.norm(m.conv(x)) + m.norm(m.conv(x * 2)), {"norm": norm}),
    ("conv-with-two-norms",
     lambda m, x: m.norm(m.conv(x)) + m.other(m.conv(x * 2)),
     lambda m, x: m.norm(m.conv(x)) + m.norm(m.conv(x * 2)), {"norm": norm, "other": norm}),
    ("conv-with-and-without-relu",
     lambda m, x: m.relu(m.conv(x)) + m.conv(x * 2),
     lambda m, x: m.relu(m.conv(x)) + F.relu(m.conv(x * 2)), {"relu": nn.ReLU}),
    ("conv-with-and-without-a-functional-relu",
     lambda m, x: F.relu(m.conv(x)) + m.conv(x * 2),
     lambda m, x: F.relu(m.conv(x)) + torch.relu(m.other(x * 2)), {"other": conv}),
    ("conv-on-its-own-result",
     lambda m, x: m.norm(m.conv(m.conv(x))),
     lambda m, x: m.norm(m.other(m.conv(x))), {"norm": norm, "other": conv}),
):  # fmt: skip
    example(
        "QX151", _name, made(pixels, _broken, conv=conv, **_parts),
        made(pixels, _fixed, conv=conv, **_parts), fx_differs, FX, paths=("conv",),
    )  # fmt: skip
example(
    "QX151", "linear-with-and-without-relu",
    made(rows, lambda m, x: m.relu(m.fc(x)) + m.fc(x * 2), fc=lambda: nn.Linear(8, 8),
         relu=nn.ReLU),
    made(rows, lambda m, x: m.relu(m.fc(x)) + m.relu(m.fc(x * 2)), fc=lambda: nn.Linear(8, 8),
         relu=nn.ReLU),
    fx_differs, FX, paths=("fc",),
)  # fmt: skip
example(
    "QX151", "norm-with-and-without-relu",
    made(pixels, lambda m, x: m.relu(m.norm(x)) + m.norm(x * 2), norm=norm, relu=nn.ReLU),
    made(pixels, lambda m, x: m.relu(m.norm(x)) + m.relu(m.norm(x * 2)), norm=norm, relu=nn.ReLU),
    fx_differs, FX, paths=("norm",),
)  # fmt: skip


example(
    "QX151", "one-conv-under-two-names",
    made(pixels, lambda m, x: m.norm(m.conv(x)) + m.conv_2(x * 2), conv=conv, norm=norm,
         conv_2="conv"),
    made(pixels, lambda m, x: m.norm(m.conv(x)) + m.conv_2(x * 2), conv=conv, norm=norm,
         conv_2=conv),
    fx_differs, FX, paths=("conv",),
)  # fmt: skip


# -- two names ------------------------------------------------------------------------------------


def unlike_types(first: str, second: str) -> Any:
    """The two names hold modules of different types once prepared or converted."""

    def misbehaves(model: nn.Module, inputs: Any) -> bool:
        prepared = prepared_eager(model, 1, inputs)
        int8 = tq.convert(copy.deepcopy(prepared).eval())
        kinds = [type(m.get_submodule(name)) for m in (prepared, int8) for name in (first, second)]
        return kinds[0] is not kinds[1] or kinds[2] is not kinds[3]

    return misbehaves


def linear() -> nn.Module:
    return nn.Linear(8, 8)


def twice(m: Any, x: Tensor) -> Tensor:
    return m.dequant(m.b(m.a(m.quant(x))))


example(
    "QX152", "linear", made(rows, twice, a=linear, b="a"), made(rows, twice, a=linear, b=linear),
    unlike_types("a", "b"), EAGER, paths=("a",),
)  # fmt: skip
example(
    "QX152", "only-the-second-is-called",
    made(rows, lambda m, x: m.dequant(m.b(m.quant(x))), a=linear, b="a"),
    made(rows, lambda m, x: m.dequant(m.b(m.quant(x))), a=linear, b=linear),
    unlike_types("a", "b"), EAGER, paths=("a",),
)  # fmt: skip
example(
    "QX152", "conv",
    made(pixels, twice, a=conv, b="a"), made(pixels, twice, a=conv, b=conv),
    unlike_types("a", "b"), EAGER, paths=("a",),
)  # fmt: skip
example(
    "QX152", "stub",
    made(rows, lambda m, x: m.dequant(m.fc(m.b(m.dequant(m.fc(m.a(x)))))),
         fc=linear, a=tq.QuantStub, b="a"),
    made(rows, lambda m, x: m.dequant(m.fc(m.b(m.dequant(m.fc(m.a(x)))))),
         fc=linear, a=tq.QuantStub, b=tq.QuantStub),
    unlike_types("a", "b"), EAGER, paths=("a",),
)  # fmt: skip
example(
    "QX152", "functional",
    made(rows, lambda m, x: m.dequant(m.b.add(m.a.add(m.quant(x), m.quant(x)), m.quant(x))),
         a=FloatFunctional, b="a"),
    made(rows, lambda m, x: m.dequant(m.b.add(m.a.add(m.quant(x), m.quant(x)), m.quant(x))),
         a=FloatFunctional, b=FloatFunctional),
    unlike_types("a", "b"), EAGER, paths=("a",),
)  # fmt: skip


# -- one range ------------------------------------------------------------------------------------


def runs_more_than_once(path: str) -> Any:
    """The fake quant of the module at ``path`` runs several times in one forward."""

    def misbehaves(model: nn.Module, inputs: Any) -> bool:
        prepared = prepared_eager(model)
        ran: list[int] = []
        fake_quant = prepared.get_submodule(path).activation_post_process
        fake_quant.register_forward_hook(lambda *_: ran.append(1))
        prepared(*inputs)
        return len(ran) > 1

    return misbehaves


example(
    "QX153", "add-and-add",
    made(rows, lambda m, x: m.dequant(m.f.add(m.f.add(m.fc(m.quant(x)), m.fc2(m.quant(x))),
                                              m.fc3(m.quant(x)))),
         f=FloatFunctional, fc=linear, fc2=linear, fc3=linear),
    made(rows, lambda m, x: m.dequant(m.g.add(m.f.add(m.fc(m.quant(x)), m.fc2(m.quant(x))),
                                              m.fc3(m.quant(x)))),
         f=FloatFunctional, g=FloatFunctional, fc=linear, fc2=linear, fc3=linear),
    runs_more_than_once("f"), EAGER, paths=("f",),
)  # fmt: skip
example(
    "QX153", "scalars-are-not-observed",
    made(rows, lambda m, x: m.dequant(m.f.cat([m.f.add(m.quant(x), m.quant(x)), m.quant(x)])),
         f=FloatFunctional),
    made(rows, lambda m, x: m.dequant(m.f.mul_scalar(m.f.add(m.quant(x), m.quant(x)), 3.0)),
         f=FloatFunctional),
    runs_more_than_once("f"), EAGER, paths=("f",),
)  # fmt: skip
# -- tied weights ---------------------------------------------------------------------------------


class Tied(nn.Module):
    def __init__(self, tied: bool) -> None:
        super().__init__()
        self.quant, self.dequant = tq.QuantStub(), tq.DeQuantStub()
        self.a, self.b = linear(), linear()
        if tied:
            self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.dequant(self.b(self.a(self.quant(x))))
        return out


def grows(flow: str) -> Any:
    """What was held once in float is held twice in int8."""

    def misbehaves(model: nn.Module, inputs: Any) -> bool:
        once = model.a.weight.data_ptr() == model.b.weight.data_ptr()
        if flow == "eager":
            int8 = tq.convert(prepared_eager(model, 1, inputs).eval())
        else:
            int8 = quantize_fx.convert_fx(prepared_fx(model, inputs, 1).eval())
        weights: Any = [int8.a.weight(), int8.b.weight()]
        return once and weights[0].data_ptr() != weights[1].data_ptr()

    return misbehaves


for _flow, _settings in (("eager", EAGER), ("fx", FX)):
    example(
        "QX157", _flow, lambda: (Tied(True).train(), (rows(),)),
        lambda: (Tied(False).train(), (rows(),)), grows(_flow), _settings, paths=("a",),
    )  # fmt: skip


# -- many names -----------------------------------------------------------------------------------


class Block(nn.Module):
    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.fc, self.act = linear(), act

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act(self.fc(x))
        return out


def blocks(shared: bool, act: type[nn.Module]) -> Any:
    def build() -> Made:
        one = act()
        return nn.Sequential(*(Block(one if shared else act()) for _ in range(3))).train(), (
            rows(),
        )

    return build


def qconfig_is_not_looked_at(model: nn.Module, inputs: Any) -> bool:
    """A qconfig of None for the last activation leaves a fake quant after it."""
    mapping = tq.get_default_qat_qconfig_mapping(ENGINE).set_module_name("2.act", None)
    prepared: Any = quantize_fx.prepare_qat_fx(model, mapping, inputs)
    last = prepared.graph.output_node().args[0]
    return str(last.target).startswith("activation_post_process")


for _act in (nn.Hardswish, nn.LeakyReLU):
    example(
        "QX158", _act.__name__, blocks(True, _act), blocks(False, _act), qconfig_is_not_looked_at,
        FX, paths=("0.act",),
    )  # fmt: skip
