"""Models as people have them, in a compact form, and the walk from float to int8."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.ao.nn.intrinsic import BNReLU2d, ConvReLU2d
from torch.ao.nn.quantized import FloatFunctional
from torch.ao.quantization import DeQuantStub, FakeQuantizeBase, QuantStub

import qatexplorer as qx
from qatexplorer.data import call_model

FLOWS = ("eager", "fx")


def batches(make: Callable[[], Any], target: Callable[[Any], Any], count: int = 3) -> Any:
    """Train and eval data from a function that makes inputs and one that makes their targets."""
    rows = [(x, target(x)) for x in (make() for _ in range(count))]
    return {"train": rows, "eval": rows}


def mean_square(output: Any, target: Any) -> Tensor:
    return F.mse_loss(output, target)


def session_of(model: nn.Module, inputs: Any, flow: str, **settings: Any) -> qx.Session:
    """On qnnpack, whose int8 transposed convolutions are right, and whose weights have one scale,
    as those want it."""
    return qx.Session(model, inputs, flow=flow, **{"qconfig": "qnnpack", **settings})


def to_int8(session: qx.Session) -> Any:
    """Train for an epoch, convert, and return the int8 model's output.

    It must follow the fake-quant model's: what computes something else is no conversion.
    """
    run = session.train(1, lr=1e-3)
    assert run.error is None
    session.goto(session.flow.int8_stage)
    inputs = session.options.example_inputs
    prepared = session._models.work
    with torch.no_grad(), session._models.engine():
        wanted = _tensors(call_model(prepared.eval(), inputs))
        found = _tensors(call_model(session.int8, inputs))
    assert len(wanted) == len(found) > 0
    for a, b in zip(wanted, found, strict=True):
        assert not b.is_quantized
        assert torch.isfinite(b).all()
        spread = float(torch.maximum(a.max() - a.min(), a.abs().max()).clamp_min(1e-3))
        assert float((a - b).abs().mean()) < 0.05 * spread, (a, b)
    return found[0]


def _tensors(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    values = output.values() if isinstance(output, dict) else output
    return [tensor for value in values for tensor in _tensors(value)]


def fake_quants(session: qx.Session) -> list[str]:
    """Paths of the working model's weight fake quants."""
    return [
        path.removesuffix(".weight_fake_quant")
        for path, module in session._models.work.named_modules()
        if isinstance(module, FakeQuantizeBase) and path.endswith("weight_fake_quant")
    ]


def state_of(model: nn.Module) -> dict[str, Any]:
    """What must not change: values, modes, hooks, classes, attributes' names."""
    return {
        "values": {name: t.detach().clone() for name, t in model.state_dict().items()},
        "modes": [(p, m.training) for p, m in model.named_modules()],
        "types": [(p, type(m)) for p, m in model.named_modules()],
        "hooks": [
            list(table.values())
            for m in model.modules()
            for table in (m._forward_hooks, m._forward_pre_hooks, m._backward_hooks)
        ],
        "attributes": [sorted(vars(m)) for m in model.modules()],
        "ids": [id(p) for p in model.parameters()],
    }


def assert_untouched(model: nn.Module, before: dict[str, Any]) -> None:
    now = state_of(model)
    values = now.pop("values")
    assert values.keys() == before["values"].keys()
    assert all(torch.equal(v, before["values"][k]) for k, v in values.items())
    assert now == {k: v for k, v in before.items() if k != "values"}


class Vocoder(nn.Module):
    """Every layer with a weight that can carry a norm, chosen by ``norm(layer)``."""

    def __init__(self, norm: Callable[[nn.Module], nn.Module]) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.first = norm(nn.Conv1d(4, 6, 3, padding=1))
        self.act = nn.ReLU()
        self.up = norm(nn.ConvTranspose1d(6, 6, 2, stride=2))
        self.flat = norm(nn.Linear(6, 5))
        self.last = norm(nn.Conv2d(1, 2, 3, padding=1))

    def forward(self, mel: Tensor) -> Tensor:  # (N, 4, frames) -> (N, 2, 2 frames, 5)
        x = self.up(self.act(self.first(self.quant(mel))))
        x = self.flat(x.transpose(1, 2))
        return self.dequant(self.last(x.unsqueeze(1)))


def mel() -> Tensor:
    return torch.rand(2, 4, 8)


class Pyramid(nn.Module):
    """Gathers features by hooks made in ``__init__``, which close over the model."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.body = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(i, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU())
                for i in (3, 8, 8)
            )
        )
        self.head = nn.Conv2d(8, 4, 1)
        self.early_out, self.middle_out = DeQuantStub(), DeQuantStub()
        self.features: dict[str, Tensor] = {}
        self.body[0][2].register_forward_hook(self._keep("early"))  # the last of its group
        self.body[1][1].register_forward_hook(self._keep("middle"))  # in the middle of its group
        self.body[2][0].register_forward_pre_hook(self._keep_input("before"))

    def _keep(self, name: str) -> Any:
        return lambda module, args, out: self.features.__setitem__(name, out)

    def _keep_input(self, name: str) -> Any:
        return lambda module, args: self.features.__setitem__(name, args[0])

    def forward(self, image: Tensor) -> Tensor:
        self.features.clear()
        total = self.dequant(self.head(self.body(self.quant(image)))).mean((1, 2, 3))
        early = self.early_out(self.features["early"]).mean((1, 2, 3))
        return total + early + self.middle_out(self.features["middle"]).mean((1, 2, 3))


class ChangeDetector(nn.Module):
    """Two images of very different ranges, and a keyword that decides a branch."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU())
        self.minus = nn.Conv2d(4, 4, 1)
        self.join = FloatFunctional()
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, before: Tensor, after: Tensor, probabilities: bool = False) -> Tensor:
        x = self.head(self.join.add(self.shared(before), self.minus(self.shared(after))))
        if probabilities:
            return torch.softmax(x, 1)
        return x


class Gate(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Linear(width, width)
        self.norm = nn.BatchNorm1d(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.mix(x)) * torch.sigmoid(x)


class TwoWays(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Linear(width, width)

    def forward(self, x: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        return self.mix(x) * scale, torch.sigmoid(x)


class Tabular(nn.Module):
    """A Python model with one part that somebody has scripted."""

    def __init__(self, gate: nn.Module) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.first = nn.Sequential(nn.Linear(6, 8), nn.ReLU())
        self.gate = gate
        self.last = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.dequant(self.last(self.gate(self.first(self.quant(x)))))


class UNet(nn.Module):
    """A float model with torch's intrinsic modules in it, pool and upsampling used twice."""

    def __init__(self) -> None:
        super().__init__()

        def conv(i: int, o: int) -> nn.Module:
            return ConvReLU2d(nn.Conv2d(i, o, 3, padding=1), nn.ReLU(inplace=True))

        self.enc1, self.enc2, self.bottom = conv(1, 4), conv(4, 4), conv(4, 4)
        self.pool = nn.MaxPool2d(2)
        self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.dec2, self.dec1 = conv(8, 4), conv(8, 4)
        self.norm = BNReLU2d(nn.BatchNorm2d(4), nn.ReLU())
        self.mask = nn.Conv2d(4, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.enc1(x)
        b = self.enc2(self.pool(a))
        y = self.dec2(torch.cat([self.up(self.bottom(self.pool(b))), b], 1))
        y = self.norm(self.dec1(torch.cat([self.up(y), a], 1)))
        return self.mask(y)


class Conv(nn.Module):
    default_act = nn.SiLU()  # one object for the whole model

    def __init__(self, i: int, o: int, k: int = 1, s: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(i, o, k, s, k // 2, bias=False)
        self.bn = nn.BatchNorm2d(o, eps=1e-3, momentum=0.03)
        self.act = self.default_act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))


class C2f(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.cv1, self.cv2 = Conv(c, c), Conv(3 * c // 2, c)
        self.m = nn.ModuleList([Conv(c // 2, c // 2, 3)])
        self.join = FloatFunctional()

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.cv1(x).chunk(2, 1))
        parts.extend(block(parts[-1]) for block in self.m)
        return self.cv2(self.join.cat(parts, 1))


class Yolo(nn.Module):
    """A list of maps in training, one tensor in eval."""

    def __init__(self, outputs: int = 7) -> None:
        super().__init__()
        self.stem, self.block, self.down = Conv(3, 8, 3, 2), C2f(8), Conv(8, 8, 3, 2)
        self.maps = nn.ModuleList([nn.Conv2d(8, outputs, 1) for _ in range(2)])

    def forward(self, image: Tensor) -> Any:
        near = self.block(self.stem(image))
        found = [conv(f) for conv, f in zip(self.maps, (near, self.down(near)), strict=True)]
        return found if self.training else torch.cat([m.flatten(2) for m in found], 2)


def yolo_loss(output: Any, target: list[Tensor]) -> Tensor:
    if isinstance(output, (list, tuple)):
        return sum((F.mse_loss(o, t) for o, t in zip(output, target, strict=True)), torch.zeros(()))
    return F.mse_loss(output, torch.cat([t.flatten(2) for t in target], 2))


class BoxNet(nn.Module):
    """The convention of torchvision's detectors: a list of images of any size and a list of dicts
    in; a dict of losses in training, a list of dicts in eval."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.Conv2d(4, 5, 1))

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None) -> Any:
        found = [self.body(image[None]).mean((2, 3))[0] for image in images]
        if not self.training:
            return [{"box": f[:4], "score": f[4:].sigmoid()} for f in found]
        assert targets is not None
        pairs = list(zip(found, targets, strict=True))
        return {
            "box": torch.stack([F.l1_loss(f[:4], t["box"]) for f, t in pairs]).mean(),
            "score": torch.stack([(f[4] - t["score"]).square() for f, t in pairs]).mean(),
        }


class Iris(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.fc1, self.relu1 = nn.Linear(4, 16), nn.ReLU()
        self.fc2, self.relu2 = nn.Linear(16, 16), nn.ReLU()
        self.fc3 = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Any:
        x = self.relu1(self.fc1(self.quant(x)))
        return self.dequant(self.fc3(self.relu2(self.fc2(x))))


def iris() -> tuple[nn.Module, list[tuple[Tensor, Tensor]]]:
    torch.manual_seed(0)
    g = torch.Generator().manual_seed(15)
    centres = torch.tensor([[-1.0, 0.9, -1.3, -1.2], [0.1, -0.6, 0.3, 0.2], [0.9, 0.0, 1.0, 1.1]])
    data = []
    for _ in range(10):
        y = torch.randint(0, 3, (15,), generator=g)
        data.append((centres[y] + 0.4 * torch.randn(15, 4, generator=g), y))
    return Iris().train(), data
