"""Examples of the rules on inputs, outputs, tracing and hooks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.ao import quantization as tq
from torch.ao.nn.quantized import FloatFunctional
from torch.ao.quantization import DeQuantStub, QuantStub, quantize_fx

from tests.checks.examples import Made, example
from tests.checks.torch_alone import ENGINE, call, engine, error_of, prepared

EAGER = {"flow": "eager", "qconfig": "qnnpack"}
FX = {"flow": "fx", "qconfig": "qnnpack"}

# -- tracing --------------------------------------------------------------------------------------


def cannot_be_traced(model: Any, inputs: Any) -> bool:
    with engine():
        try:
            prepared(model, inputs, "fx")
        except Exception:
            return True
    return False


class Split(nn.Module):
    """A block that works on the halves of a tensor."""

    def __init__(self, pieces: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.conv, self.pieces = nn.Conv2d(2, 2, 1), pieces

    def forward(self, x: Tensor) -> Tensor:
        parts = self.pieces(x)
        return torch.cat([self.conv(parts[0]), parts[1]], 1)


class Around(nn.Module):
    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.stem, self.block = nn.Conv2d(3, 4, 1), block

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.block(self.stem(x))
        return out


class Flag(nn.Module):
    """A keyword decides a branch."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor, probabilities: bool = False) -> Tensor:
        x = self.fc(x)
        if probabilities:
            return torch.softmax(x, 1)
        return x


class Fixed(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.model(x, probabilities=False)
        return out


class ByValue(nn.Module):
    def __init__(self, by_value: bool) -> None:
        super().__init__()
        self.fc, self.by_value = nn.Linear(4, 4), by_value

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc(x)
        if self.by_value:
            return x if x.sum() > 0 else -x
        return torch.where(x.sum() > 0, x, -x)


def listed(x: Tensor) -> Any:
    parts = list(x.chunk(2, 1))
    return parts


def named(x: Tensor) -> Any:
    a, b = x.chunk(2, 1)
    return [a, b]


def looped(x: Tensor) -> Any:
    return [part for part in x.split(2, 1)]  # noqa: C416 - as people write it


def image() -> Tensor:
    return torch.rand(2, 3, 4, 4)


for name, pieces in {"list-of-chunks": listed, "loop-over-pieces": looped}.items():
    example(
        "QX211", name,
        lambda pieces=pieces: (Around(Split(pieces)).train(), image()),
        lambda: (Around(Split(named)).train(), image()),
        cannot_be_traced, FX, paths=("block",),
    )  # fmt: skip
example(
    "QX211", "flag",
    lambda: (Flag().train(), torch.rand(2, 4)),
    lambda: (Fixed(Flag()).train(), torch.rand(2, 4)),
    cannot_be_traced, FX, paths=("",),
)  # fmt: skip
example(
    "QX211", "by-value",
    lambda: (nn.Sequential(ByValue(True)).train(), torch.rand(2, 4)),
    lambda: (nn.Sequential(ByValue(False)).train(), torch.rand(2, 4)),
    cannot_be_traced, FX, paths=("0",),
)  # fmt: skip


class TwoBlocks(nn.Module):
    def __init__(self, pieces: Callable[[Tensor], Any], by_value: bool) -> None:
        super().__init__()
        self.body = Around(Split(pieces))
        self.value = ByValue(by_value)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.value(self.body(x))
        return out


example(
    "QX211", "two-places",
    lambda: (TwoBlocks(listed, True).train(), image()),
    lambda: (TwoBlocks(named, False).train(), image()),
    cannot_be_traced, FX, paths=("body.block", "value"),
)  # fmt: skip

# -- inputs ---------------------------------------------------------------------------------------


class Words(nn.Module):
    """Token ids, an embedding, a layer."""

    def __init__(self, stub: str) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.words, self.fc, self.stub = nn.Embedding(10, 4), nn.Linear(4, 2), stub
        self.words.qconfig = None  # type: ignore[assignment]

    def forward(self, ids: Tensor) -> Tensor:
        if self.stub == "ids":
            return self.dequant(self.fc(self.words(self.quant(ids))))
        return self.dequant(self.fc(self.quant(self.words(ids))))


class Bare(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.fc = nn.Embedding(10, 4), nn.Linear(4, 2)
        self.words.qconfig = None  # type: ignore[assignment]

    def forward(self, ids: Tensor) -> Tensor:
        out: Tensor = self.fc(self.words(ids))
        return out


def ids() -> Tensor:
    return torch.randint(0, 10, (3, 5))


def eager_fails(model: Any, inputs: Any) -> bool:
    return bool(error_of(model, inputs))


example(
    "QX212", "stub-on-ids",
    lambda: (Words("ids").train(), ids()), lambda: (Words("floats").train(), ids()),
    eager_fails, EAGER, paths=("quant",),
)  # fmt: skip


def wrapper_fails(model: Any, inputs: Any) -> bool:
    """torch's QuantWrapper around a model without stubs."""
    own = any(isinstance(module, QuantStub) for module in model.modules())
    return bool(error_of(model, inputs, wrap=not own))


example(
    "QX212", "wrapper-on-ids",
    lambda: (Bare().train(), ids()), lambda: (Words("floats").train(), ids()),
    wrapper_fails, {**EAGER, "stubs": "model"}, EAGER, paths=("",),
)  # fmt: skip


class TwoInputs(nn.Module):
    def __init__(self, stubs: bool) -> None:
        super().__init__()
        self.ff, self.fc = FloatFunctional(), nn.Linear(4, 2)
        if stubs:
            self.first, self.second, self.dequant = QuantStub(), QuantStub(), DeQuantStub()
        self.stubs = stubs

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        if self.stubs:
            return self.dequant(self.fc(self.ff.add(self.first(a), self.second(b))))
        out: Tensor = self.fc(self.ff.add(a, b))
        return out


class Gathered(nn.Module):
    """Values, and the rows of them that are wanted."""

    def __init__(self, stubs: bool) -> None:
        super().__init__()
        self.fc, self.stubs = nn.Linear(4, 2), stubs
        if stubs:
            self.quant, self.dequant = QuantStub(), DeQuantStub()

    def forward(self, values: Tensor, rows: Tensor) -> Tensor:
        out: Tensor = self.fc(self.quant(values) if self.stubs else values)
        return (self.dequant(out) if self.stubs else out)[rows]


example(
    "QX213", "two-images",
    lambda: (TwoInputs(False).train(), (torch.rand(2, 4), torch.rand(2, 4))),
    lambda: (TwoInputs(True).train(), (torch.rand(2, 4), torch.rand(2, 4))),
    wrapper_fails, {**EAGER, "stubs": "model"}, EAGER, paths=("",),
)  # fmt: skip
example(
    "QX213", "values-and-rows",
    lambda: (Gathered(False).train(), (torch.rand(3, 4), torch.tensor([0, 2]))),
    lambda: (Gathered(True).train(), (torch.rand(3, 4), torch.tensor([0, 2]))),
    wrapper_fails, EAGER, paths=("",),
)  # fmt: skip

# -- outputs --------------------------------------------------------------------------------------


class Heads(nn.Module):
    """Several outputs in training, one in eval mode; or always several."""

    def __init__(self, kind: str, *, same: bool) -> None:
        super().__init__()
        self.a, self.b, self.kind, self.same = nn.Linear(4, 2), nn.Linear(4, 2), kind, same

    def forward(self, x: Tensor) -> Any:
        a, b = self.a(x), self.b(x)
        if self.training or self.same:
            return {"list": [a, b], "tuple": (a, b), "dict": {"out": a, "aux": b}}[self.kind]
        return a


def graph_gives_another_kind(model: Any, inputs: Any) -> bool:
    wanted = call(model.eval(), inputs)
    with engine():
        found = call(prepared(model.train(), inputs, "fx"), inputs)
    return isinstance(wanted, Tensor) != isinstance(found, Tensor)


for kind in ("list", "tuple", "dict"):
    example(
        "QX214", kind,
        lambda kind=kind: (Heads(kind, same=False).train(), torch.rand(3, 4)),
        lambda kind=kind: (Heads(kind, same=True).train(), torch.rand(3, 4)),
        graph_gives_another_kind, FX,
    )  # fmt: skip

# -- hooks ----------------------------------------------------------------------------------------


class Hooked(nn.Module):
    """A hook at ``path`` of a convolution, batch norm and ReLU, or of the block of them."""

    def __init__(self, path: str, kind: str) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU())
        self.kept: list[int] = []
        place = self.get_submodule(path)
        if kind == "forward":
            place.register_forward_hook(lambda module, args, out: self.kept.append(1))
        else:
            place.register_forward_pre_hook(lambda module, args: self.kept.append(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.dequant(self.net(self.quant(x)))


GROUP = [["net.0", "net.1", "net.2"]]


def hook_is_lost(flow: str) -> Callable[[Any, Any], bool]:
    """Whether torch's prepared model does not call the hook any more."""

    def misbehaves(model: Any, inputs: Any) -> bool:
        kept = model.kept
        with engine(), torch.no_grad():
            if flow == "fx":
                mapping = tq.get_default_qat_qconfig_mapping(ENGINE)
                model = quantize_fx.prepare_qat_fx(model, mapping, (inputs,))
            else:
                tq.fuse_modules_qat(model, GROUP, inplace=True)
                model.qconfig = tq.get_default_qat_qconfig(ENGINE)
                tq.prepare_qat(model, inplace=True)
        kept.clear()
        model(inputs)
        return not kept

    return misbehaves


def hooked(path: str, kind: str) -> Callable[[], Made]:
    return lambda: (Hooked(path, kind).train(), image())


FUSED = {**EAGER, "fusion": GROUP}
for path, kind, better in (
    ("net.0", "forward", "net.2"),
    ("net.1", "forward", "net"),
    ("net.1", "pre", "net.0"),
    ("net.2", "pre", "net"),
):
    example(
        "QX910", f"{kind}-on-{path}", hooked(path, kind), hooked(better, kind),
        hook_is_lost("eager"), FUSED, paths=(path,),
    )  # fmt: skip
    example(
        "QX910", f"{kind}-on-{path}-seen", hooked(path, kind), hooked(better, kind),
        hook_is_lost("eager"), FUSED, walk=lambda session: session.goto("insert"), paths=(path,),
    )  # fmt: skip


class Traced(nn.Module):
    def __init__(self, path: str) -> None:
        super().__init__()
        self.body, self.kept = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten()), list[int]()
        self.head = nn.Linear(64, 2)
        self.get_submodule(path).register_forward_hook(lambda m, args, out: self.kept.append(1))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(x))
        return out


for path in ("body", ""):
    example(
        "QX910", f"fx-{path or 'root'}",
        lambda path=path: (Traced(path).train(), image()),
        lambda: (Traced("head").train(), image()),
        hook_is_lost("fx"), FX, paths=(path,),
    )  # fmt: skip


class Detector(nn.Module):
    """Maps in training, one tensor in use; or maps in both."""

    def __init__(self, joined: bool) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.maps = nn.ModuleList([nn.Conv2d(3, 4, 1) for _ in range(2)])
        self.joined = joined

    def forward(self, image: Tensor) -> Any:
        x = self.quant(image)
        maps = [self.dequant(conv(x)) for conv in self.maps]
        return maps if self.training or not self.joined else torch.cat(maps, 1)


def another_kind(model: nn.Module, inputs: Any) -> bool:
    return type(model.train()(inputs)) is not type(model.eval()(inputs))


for flow in ("eager", "fx"):
    example(
        "QX215",
        flow,
        lambda: (Detector(True).train(), torch.randn(2, 3, 6, 6)),
        lambda: (Detector(False).train(), torch.randn(2, 3, 6, 6)),
        another_kind,
        {"flow": flow},
        paths=("",),
        thorough=True,
    )
