"""Models that the core's tests share: small ones with one peculiarity each, and timm's."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.ao.nn.quantized import FloatFunctional
from torch.ao.quantization import DeQuantStub, QuantStub, QuantWrapper

_KEPT: list[Any] = []


def declare_torchvision_operators() -> None:
    """Make torchvision importable where its compiled operators do not load.

    timm and transformers ask for torchvision. Beside a CPU build of torch the index's torchvision
    finds none of its operators; declaring the two that it looks up lets it be imported. Beside a
    torchvision that works they exist, and declaring them again would abort the interpreter.
    """
    if _KEPT:
        return
    try:
        importlib.import_module("torchvision")
    except ModuleNotFoundError:
        return
    except (ImportError, OSError, RuntimeError):
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _KEPT.append(library)


def load_timm(name: str, size: int = 32, batch: int = 4, **settings: Any) -> tuple[Any, Tensor]:
    """A timm architecture in train mode with random weights, 10 classes, and an input.

    Skips the test if timm cannot be imported.
    """
    declare_torchvision_operators()
    timm = pytest.importorskip("timm", reason="timm is not installed", exc_type=ImportError)
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False, num_classes=10, **settings)
    # BatchNorm in train mode needs more than one value per channel, also where a map is 1x1.
    return model.train(), torch.randn(batch, 3, size, size)


NARROW: dict[str, Any] = {"zero_init_last": False, "channels": (64, 32, 32, 32)}
"""For timm's ResNets: all modules and names of the network, and few of its weights."""


class ConvBnRelu(nn.Module):
    """Stubs, two conv-bn-relu runs, pool, flatten, linear."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.quant = QuantStub()
        self.conv1 = nn.Conv2d(1, 4, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(4, 6, 3, padding=1)
        self.relu2 = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.drop = nn.Dropout(0.2)
        self.fc = nn.Linear(24, classes)
        self.dequant = DeQuantStub()

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu1(self.bn1(self.conv1(self.quant(x))))
        x = self.pool(self.relu2(self.conv2(x)))
        return self.dequant(self.fc(self.drop(torch.flatten(x, 1))))


class Residual(nn.Module):
    """FloatFunctional add, mul and cat; a Sigmoid with fixed qparams; ReLU6."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU6())
        self.body = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
        self.gate = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Sigmoid())
        self.add, self.mul, self.cat = FloatFunctional(), FloatFunctional(), FloatFunctional()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(self.quant(x))
        y = self.add.add(x, self.body(x))
        z = self.mul.mul(y, self.gate(x))
        x = self.pool(self.cat.cat([y, z], dim=1))
        return self.dequant(self.fc(torch.flatten(x, 1)))


class Tied(nn.Module):
    """Two Linear layers that share one weight parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)
        self.b.weight = self.a.weight
        self.relu = nn.ReLU()
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(self.relu(self.a(self.quant(x))))
        return self.dequant(self.head(x))


class TwoNames(nn.Module):
    """One Linear under two names, both called."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.first = nn.Linear(6, 6)
        self.again = self.first
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.dequant(self.head(self.again(self.first(self.quant(x)))))


class Nested(nn.Module):
    """Sequentials three deep, and a batch norm that follows a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            QuantStub(),
            nn.Sequential(
                nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True)),
                nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.ReLU(inplace=True)),
                nn.MaxPool2d(2),
            ),
            nn.Flatten(),
            nn.Sequential(nn.Linear(16, 8), nn.BatchNorm1d(8)),
            nn.Sequential(nn.Linear(8, 8), nn.ReLU()),
            nn.Linear(8, 4),
            DeQuantStub(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class Reused(nn.Module):
    """One ReLU and one conv called twice: nothing of that may be fused."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.twice = nn.Conv2d(4, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.conv(self.quant(x)))
        x = self.relu(self.bn(self.twice(self.twice(x))))
        return self.dequant(self.fc(torch.flatten(self.pool(x), 1)))


class NoStubs(nn.Module):
    """Written for float: no stubs, functional ReLU and flatten."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.relu = nn.ReLU()
        self.fc1 = nn.Linear(4 * 36, 8)
        self.fc2 = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn(self.conv(x)))
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


class PlainAdd(nn.Module):
    """`+` between quantized tensors: prepares, trains, and cannot run in int8."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.block = AddBlock()
        self.fc = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.dequant(self.fc(self.block(self.quant(x))))


class AddBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


class Unused(nn.Module):
    """A layer and a FloatFunctional that no forward reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.fc = nn.Linear(6, 4)
        self.spare = nn.Linear(6, 4)
        self.spare_add = FloatFunctional()

    def forward(self, x: Tensor) -> Tensor:
        return self.dequant(self.fc(self.quant(x)))


class Branching(nn.Module):
    """Control flow on data, which torch.fx cannot trace."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 1e6:
            return self.b(x)
        return F.relu(self.a(x)) * 2


@dataclass(frozen=True)
class Case:
    """A model to walk: ``make`` builds (model, example input) with a seed of its own."""

    name: str
    make: Any

    def __call__(self) -> tuple[nn.Module, Tensor]:
        torch.manual_seed(0)
        model, x = self.make()
        return model.train(), x


def image(batch: int = 4, size: int = 8, channels: int = 1) -> Tensor:
    return torch.randn(batch, channels, size, size)


def _zoo(name: str) -> Any:
    def make() -> tuple[nn.Module, Tensor]:
        from qatexplorer import zoo

        example = zoo.load(name)
        return example.model, example.example_inputs[0][:8]

    return make


SMALL = (
    Case("conv_bn_relu", lambda: (ConvBnRelu(), image())),
    Case("residual", lambda: (Residual(), image())),
    Case("tied", lambda: (Tied(), torch.randn(4, 6))),
    Case("two_names", lambda: (TwoNames(), torch.randn(4, 6))),
    Case("nested", lambda: (Nested(), image())),
    Case("reused", lambda: (Reused(), image())),
    Case("no_stubs", lambda: (NoStubs(), image())),
    Case("wrapped", lambda: (QuantWrapper(NoStubs()), image())),
    Case("unused", lambda: (Unused(), torch.randn(4, 6))),
    Case("branching", lambda: (Branching(), torch.randn(4, 6))),
    Case("bare_linear", lambda: (nn.Linear(6, 4), torch.randn(4, 6))),
)
ZOO = tuple(Case(f"zoo_{n}", _zoo(n)) for n in ("digits_cnn", "digits_depthwise", "digits_mlp"))
TIMM_NAMES: tuple[tuple[str, int, dict[str, Any]], ...] = (
    ("resnet18", 32, {"zero_init_last": False}),
    ("mobilenetv3_small_050", 32, {}),
    ("efficientnet_lite0", 32, {}),
    ("regnetx_002", 32, {"zero_init_last": False}),
    ("lcnet_050", 32, {}),
    ("ghostnet_050", 32, {}),
    ("convnext_atto", 32, {}),
    ("vit_tiny_patch16_224", 32, {"img_size": 32, "depth": 2}),
    ("mobilevitv2_050", 64, {}),
)
TIMM = tuple(
    Case(f"timm_{name}", lambda n=name, s=size, kw=settings: load_timm(n, s, **kw))
    for name, size, settings in TIMM_NAMES
)

NARROW_RESNET = Case("timm_resnet18", lambda: load_timm("resnet18", **NARROW))


def loader(x: Tensor, classes: int = 4, batches: int = 2) -> list[tuple[Tensor, Tensor]]:
    """A list of batches like ``x`` with random classes, the same each time."""
    generator = torch.Generator().manual_seed(3)
    return [
        (
            torch.randn(x.shape, generator=generator),
            torch.randint(0, classes, (x.shape[0],), generator=generator),
        )
        for _ in range(batches)
    ]
