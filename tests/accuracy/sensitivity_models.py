"""Models and sessions for the tests of the sensitivity, and the same numbers by torch's calls."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.ao.quantization import DeQuantStub, QuantStub, disable_observer
from torch.nn import functional as F

import qatexplorer as qx
from qatexplorer.quantizers.facts import fake_quants
from tests.support.models import ConvBnRelu, Residual, Reused, image, loader

Numbers = dict[str, tuple[float, float]]


class Writes(nn.Module):
    """Writes in place to a result, a view of one, and its own input; pools in the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.a, self.b = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.relu, self.pool = nn.ReLU(inplace=True), nn.MaxPool2d(2)
        self.fc = nn.Linear(64, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(self.quant(x))
        same = x.view(x.shape[0], -1)
        same.mul_(0.5)  # seen through x
        y = self.relu(x)
        y += 0.25
        z = self.b(y) + x  # x is y by now
        return self.dequant(self.fc(self.pool(z).flatten(1)))


class Drops(nn.Module):
    """Dropout that goes on in eval mode, before, between and after the layers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.drop, self.b = nn.Linear(6, 8), nn.Dropout(0.3), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.dropout(self.a(F.dropout(x, 0.2, True)), 0.4, True)
        return self.b(self.drop(x)) + 0.1 * torch.randn(4)


class Decides(nn.Module):
    """Which layers run hangs on the values that come out of the first one."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        x = self.b(x) if float(x.mean()) > 0 else self.c(x).relu()
        return self.head(x)


class Remembers(nn.Module):
    """A module leaves something in its attributes that a later one reads."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 4)
        self.left: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.left = self.a(x)
        y = self.b(self.left).relu()
        return self.c(y + self.left)


class Alternates(nn.Module):
    """Calls its layers in another order in every other forward."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 4)
        self.count = 0

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        first, second = (self.a, self.b) if self.count % 2 else (self.b, self.a)
        return self.c(second(first(x)))


MODELS: dict[str, Any] = {
    "conv_bn_relu": (ConvBnRelu, image, {}),
    "residual": (Residual, image, {}),
    "reused": (Reused, image, {}),
    "writes": (Writes, image, {}),
    "drops": (Drops, lambda: torch.randn(4, 6), {"stubs": "model"}),
    "decides": (Decides, lambda: torch.randn(4, 6), {"stubs": "model"}),
    "remembers": (Remembers, lambda: torch.randn(4, 6), {"stubs": "model"}),
}
NO_GRAPH = {"decides", "remembers"}


def session_of(name: str, flow: str = "eager", batches: int = 2, **more: Any) -> qx.Session:
    """A calibrated one; ``digits_cnn`` and the others of the zoo are known too."""
    torch.manual_seed(0)
    if name.startswith("digits"):
        example = qx.zoo.load(name)
        settings: dict[str, Any] = {k: v for k, v in example.suggested.items() if k == "qconfig"}
        session = qx.Session(
            example.model, example.example_inputs, data=example.data, flow=flow, **settings
        )
    else:
        make, inputs, settings = MODELS[name]
        x = inputs()
        data = {"train": loader(x, batches=4), "eval": loader(x, batches=batches)}
        settings = settings if flow == "eager" else {}
        session = qx.Session(make().train(), x, data=data, flow=flow, **settings, **more)
    session.warns = False
    session.calibrate(4)
    return session


def by_torch(session: qx.Session, batches: Iterable[Any], on: Iterable[str]) -> tuple[float, float]:
    """(accuracy, cross entropy) of a copy with only the fake quants ``on``, by whole forwards."""
    model, wanted = session.copy_model().eval(), set(on)
    model.apply(disable_observer)
    for path, module in fake_quants(model).items():
        module.enable_fake_quant(path in wanted)  # type: ignore[operator]
    right, loss, samples = 0.0, 0.0, 0
    with torch.no_grad(), torch.random.fork_rng():
        for x, y in batches:
            torch.manual_seed(0)
            out = model(x)
            right += float((out.argmax(1) == y).sum())
            loss += float(F.cross_entropy(out, y)) * len(y)
            samples += len(y)
    return right / samples, loss / samples
