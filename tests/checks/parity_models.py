"""Models whose prepared or int8 form computes something else, and the same put right."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.ao.quantization import (
    DeQuantStub,
    QuantStub,
    convert,
    disable_fake_quant,
    disable_observer,
    fuse_modules_qat,
    get_default_qat_qconfig,
    get_default_qat_qconfig_mapping,
    prepare_qat,
)
from torch.ao.quantization.quantize_fx import convert_fx, prepare_qat_fx

import qatexplorer as qx
from qatexplorer.quantizers.engine import quantized_engine

TOKENS = WIDTH = 12


def image() -> Tensor:
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(3))


class TwoConvs(nn.Module):
    """One ReLU at two places, or one for each."""

    def __init__(self, shared: bool) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.conv1, self.conv2 = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
        self.relu = nn.ReLU()
        self.relu2 = None if shared else nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.conv1(self.quant(x)))
        return self.dequant((self.relu2 or self.relu)(self.conv2(x)))


class OnePath(nn.Module):
    """A conv at two places, with a batch norm behind the first."""

    def __init__(self, shared: bool) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.conv, self.bn = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.conv2 = None if shared else copy.deepcopy(self.conv)
        odd(self.bn)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(self.quant(x)))
        return self.dequant((self.conv2 or self.conv)(x))


class TwoNorms(nn.Module):
    """A conv with a batch norm at each of its two places."""

    def __init__(self, shared: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.bn1, self.bn2 = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.conv2 = None if shared else copy.deepcopy(self.conv)
        odd(self.bn1)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn2((self.conv2 or self.conv)(self.bn1(self.conv(x))))


class Dropping(nn.Module):
    """Dropout as a function that asks self.training, or as a module."""

    def __init__(self, function: bool) -> None:
        super().__init__()
        self.conv, self.drop, self.function = nn.Conv2d(3, 4, 3), nn.Dropout(0.5), function

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return F.dropout(x, 0.5, self.training) if self.function else self.drop(x)


def odd(norm: nn.BatchNorm2d) -> None:
    """Statistics as after training, which change what passes."""
    with torch.no_grad():
        norm.running_mean += 0.5
        norm.running_var *= 3.0


class Upsampling(nn.Module):
    """A transposed convolution, or a convolution of what is interpolated."""

    def __init__(self, transposed: bool) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        torch.manual_seed(2)
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.up: nn.Module = (
            nn.ConvTranspose2d(8, 4, 3, stride=2)
            if transposed
            else nn.Sequential(nn.Upsample(scale_factor=2.0), nn.Conv2d(8, 4, 3))
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.dequant(self.up(self.first(self.quant(x))))


class TokenMixer(nn.Module):
    """A Linear, then a batch norm over tokens, as in many time series models."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.embed = nn.Linear(8, WIDTH)
        self.norm: nn.Module = nn.BatchNorm1d(TOKENS)
        self.act = nn.ReLU()
        self.head = nn.Linear(WIDTH, 3)
        self._gains()

    def _gains(self) -> None:
        with torch.no_grad():
            self.norm.weight.copy_(torch.linspace(0.5, 2.0, TOKENS))  # type: ignore[operator]
            self.norm.bias.copy_(torch.linspace(-1.0, 1.0, TOKENS))  # type: ignore[operator]

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm(self.embed(self.quant(x))))
        return self.dequant(self.head(x.mean(1)))


class Unfolded(TokenMixer):
    """The same function: BatchNorm2d over (batch, tokens, features, 1) is not fused."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(TOKENS)
        self._gains()

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(self.quant(x)).unsqueeze(-1)
        return self.dequant(self.head(self.act(self.norm(x).squeeze(-1)).mean(1)))


def tokens(count: int = 9) -> list[Tensor]:
    """Batches (16, 12, 8) whose late tokens are louder."""
    generator = torch.Generator().manual_seed(5)
    ramp = torch.linspace(0.2, 3.0, TOKENS)[None, :, None]
    return [torch.randn(16, TOKENS, 8, generator=generator) * ramp for _ in range(count)]


class Twice(nn.Module):
    """A Linear on a small and on a large input, or one for each."""

    def __init__(self, shared: bool) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.fc = nn.Linear(8, 8)
        self.fc2 = None if shared else copy.deepcopy(self.fc)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.fc(x).flatten(1), (self.fc2 or self.fc)(x * 0.05).flatten(1)], 1)


class Activated(nn.Module):
    """A conv, then something."""

    def __init__(self, what: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.conv, self.act, self.last = nn.Conv2d(3, 8, 3), what, nn.Conv2d(8, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.act(self.conv(x)))


class Behind(nn.Module):
    """A conv, then something, between stubs."""

    def __init__(self, what: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.conv, self.act = nn.Conv2d(3, 8, 3), what

    def forward(self, x: Tensor) -> Tensor:
        return self.dequant(self.act(self.conv(self.quant(x))))


class Doubled(Activated):
    """``x * 2``, or ``x + x``."""

    def __init__(self, by_factor: bool) -> None:
        super().__init__(nn.ReLU())
        self.by_factor = by_factor

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.conv(x))
        return self.last(x * 2 if self.by_factor else x + x)


class Small(nn.Module):
    """Two linear layers between stubs, with a qconfig of its own."""

    def __init__(self, qconfig: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.fc1, self.relu, self.fc2 = nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4)
        self.qconfig = qconfig
        self.wide_at_the_end = False

    def forward(self, x: Tensor) -> Tensor:
        return self.dequant(self.fc2(self.relu(self.fc1(self.quant(x)))))


def rows(scale: float = 1.0) -> Tensor:
    return torch.randn(32, 16, generator=torch.Generator().manual_seed(8)) * scale


# -- what torch alone does -------------------------------------------------------------------------


def _call(model: nn.Module, x: Any) -> Tensor:
    torch.manual_seed(0)
    with torch.no_grad():
        found: Tensor = model(*x) if isinstance(x, tuple) else model(x)
    return found.dequantize() if found.is_quantized else found


def _share(wanted: Tensor, found: Tensor) -> float:
    return float((wanted - found).abs().max() / (wanted.max() - wanted.min()))


def fused_apart(model: nn.Module, x: Any, group: list[str]) -> float:
    """Of the range of the output, between the model and the one that fuse_modules_qat makes."""
    fused = fuse_modules_qat(copy.deepcopy(model).train(), [group])
    return _share(_call(model.eval(), x), _call(fused.eval(), x))


def prepared_apart(model: nn.Module, x: Any) -> float:
    """The same for FX, fake quants and observers off."""
    mapping = get_default_qat_qconfig_mapping("x86")
    prepared = prepare_qat_fx(copy.deepcopy(model).train(), mapping, (x,))
    prepared.apply(disable_fake_quant).apply(disable_observer)
    return _share(_call(model.eval(), x), _call(prepared.eval(), x))


def converted_apart(
    model: nn.Module, x: Any, flow: str, *, qconfig: str, engine: str, groups: Any = ()
) -> float:
    """Of the range of the output, between fake quant and int8, after three batches of ``x``."""
    model = copy.deepcopy(model).train()
    with quantized_engine(engine):
        if flow == "fx":
            mapping = get_default_qat_qconfig_mapping(qconfig)
            model = prepare_qat_fx(model, mapping, (x,))
        else:
            if groups:
                fuse_modules_qat(model, [list(group) for group in groups], inplace=True)
            model.qconfig = get_default_qat_qconfig(qconfig)  # type: ignore[assignment]
            prepare_qat(model, inplace=True)
        for _ in range(3):
            _call(model, x)
        model.apply(disable_observer).eval()
        wanted = _call(model, x)
        int8 = (convert_fx if flow == "fx" else convert)(copy.deepcopy(model))
        return _share(wanted, _call(int8, x))


def mixed(model: nn.Module, flow: str, engine: str) -> qx.Session:
    """Ranges of twelve rounds, nothing learned, as in the report."""
    batches = tokens(10)
    session = qx.Session(model.train(), batches[9], flow=flow, qconfig=engine)
    session.goto("train")
    prepared = session.model.train()
    with torch.no_grad():
        for _ in range(12):
            for x in batches[:9]:
                prepared(x)
    prepared.apply(disable_observer)
    return session
