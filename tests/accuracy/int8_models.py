"""Models with one layer to look at, and the same arithmetic once more in NumPy."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.ao.quantization as tq
from torch import Tensor, nn

import qatexplorer as qx


class Around(nn.Module):
    """A layer between stubs."""

    def __init__(self, layer: nn.Module, relu: bool = False) -> None:
        super().__init__()
        self.quant, self.dequant = tq.QuantStub(), tq.DeQuantStub()
        self.layer = layer
        self.relu = nn.ReLU() if relu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.dequant(self.relu(self.layer(self.quant(x))))
        return out


class Joined(nn.Module):
    """Two convolutions whose results meet in an operation element by element."""

    def __init__(self, operation: str) -> None:
        super().__init__()
        self.quant, self.dequant = tq.QuantStub(), tq.DeQuantStub()
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 1)
        self.join = torch.ao.nn.quantized.FloatFunctional()
        self.operation = operation

    def forward(self, x: Tensor) -> Tensor:
        x = self.quant(x)
        a, b = self.a(x), self.b(x)
        joined = self.join.cat([a, b], 1) if self.operation == "cat" else None
        if joined is None:
            joined = getattr(self.join, self.operation)(a, b)
        out: Tensor = self.dequant(joined)
        return out


@dataclass(frozen=True)
class Kind:
    """A layer, the shape of its input, and whether a ReLU follows that is fused."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    relu: bool = False


KINDS: dict[str, Kind] = {
    "linear": Kind(lambda: nn.Linear(12, 9), (20, 12)),
    "linear relu": Kind(lambda: nn.Linear(12, 9), (20, 12), True),
    "linear tokens": Kind(lambda: nn.Linear(12, 9), (3, 5, 12)),
    "linear no bias": Kind(lambda: nn.Linear(12, 9, bias=False), (20, 12)),
    "conv1d": Kind(lambda: nn.Conv1d(4, 6, 5, padding=2, stride=2, groups=2), (3, 4, 17)),
    "conv2d": Kind(
        lambda: nn.Conv2d(4, 6, (3, 2), (2, 1), (2, 1), (2, 1), groups=2), (2, 4, 11, 9)
    ),
    "conv2d relu": Kind(lambda: nn.Conv2d(3, 8, 3, padding=1), (2, 3, 9, 9), True),
    "depthwise": Kind(lambda: nn.Conv2d(16, 16, 3, padding=1, groups=16), (2, 16, 8, 8)),
    "conv3d": Kind(lambda: nn.Conv3d(3, 4, 3, padding=1, stride=2), (1, 3, 6, 6, 6)),
}

TRANSPOSED: dict[str, Kind] = {
    "conv transpose1d": Kind(lambda: nn.ConvTranspose1d(4, 6, 4, 2, 1), (2, 4, 9)),
    "conv transpose2d": Kind(lambda: nn.ConvTranspose2d(4, 6, (3, 4), 2, (1, 0)), (2, 4, 5, 6)),
}


def per_tensor(engine: str) -> tq.QConfig:
    """The engine's own qconfig with one scale for the whole weight."""
    own = tq.get_default_qat_qconfig(engine)
    return tq.QConfig(own.activation, tq.default_weight_fake_quant)


def session_of(
    model: nn.Module, shape: tuple[int, ...], flow: str, engine: str, qconfig: Any = None
) -> qx.Session:
    """Prepared, shown some data and converted."""
    torch.manual_seed(3)
    x = torch.randn(shape) * 1.3 + 0.4
    session = qx.Session(
        model.train(), x, flow=flow, qconfig=engine if qconfig is None else qconfig, engine=engine
    )
    session.goto(session.flow.prepared_stage)
    with torch.no_grad():
        prepared = session.model
        prepared(x)
        prepared(torch.randn(shape))
    session.goto(session.flow.int8_stage)
    return session


def layer_session(kind: Kind, flow: str, engine: str, qconfig: Any = None) -> qx.Session:
    torch.manual_seed(11)
    layer = kind.make()
    if getattr(layer, "bias", None) is not None:
        nn.init.normal_(layer.bias, std=0.7)  # type: ignore[arg-type]
    return session_of(Around(layer, kind.relu), kind.shape, flow, engine, qconfig)


def seen_by(session: qx.Session, path: str, engine: str) -> tuple[Tensor, Tensor]:
    """Input and output of a module of the int8 model, by a hook of our own."""
    found: list[tuple[Tensor, Tensor]] = []
    layer = session.int8.get_submodule(path)
    handle = layer.register_forward_hook(lambda _m, args, out: found.append((args[0], out)))
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = engine
    try:
        with torch.no_grad():
            session.int8(session.options.example_inputs)
    finally:
        torch.backends.quantized.engine = before
        handle.remove()
    return found[0]


def integers(layer: Any, x: Tensor, y: Tensor, *, whole_bias: bool = True) -> np.ndarray:
    """The codes of all outputs by loops over integers: nothing of the package is used."""
    weight, bias = layer.weight(), layer.bias()
    name = type(layer).__name__
    transposed, linear = "Transpose" in name, "Linear" in name
    codes = x.int_repr().numpy().astype(np.int64) - x.q_zero_point()
    w = weight.int_repr().numpy().astype(np.int64)
    channels = y.shape[-1] if linear else y.shape[1]
    if weight.qscheme() in (torch.per_channel_affine, torch.per_channel_symmetric):
        scales = weight.q_per_channel_scales().double().numpy()
    else:
        scales = np.full(channels, weight.q_scale())
    product = scales * x.q_scale()
    if linear:
        total = codes @ w.T
    elif transposed:
        total = _transposed(layer, codes, w, tuple(y.shape))
    else:
        total = _convolved(layer, codes, w, tuple(y.shape))
    shape = [1] * total.ndim
    shape[-1 if linear else 1] = channels
    sums = total.astype(np.float64)
    if bias is not None:
        added = bias.detach().double().numpy() / product
        sums += (np.rint(added) if whole_bias else added).reshape(shape)
    steps = sums * (product / y.q_scale()).reshape(shape)
    low = y.q_zero_point() if "ReLU" in name else 0
    return np.clip(np.rint(steps) + y.q_zero_point(), low, 255).astype(np.int64)


def _each(value: Any, dims: int) -> tuple[int, ...]:
    given = tuple(value) if isinstance(value, (tuple, list)) else (value,) * dims
    return given[-dims:]


def _convolved(layer: Any, x: np.ndarray, w: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    dims = w.ndim - 2
    stride, padding = _each(layer.stride, dims), _each(layer.padding, dims)
    dilation = _each(layer.dilation, dims)
    padded = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in padding)])
    total = np.zeros(shape, dtype=np.int64)
    group_out, group_in = w.shape[0] // layer.groups, w.shape[1]
    for channel, place in itertools.product(range(shape[1]), np.ndindex(*shape[2:])):
        first = channel // group_out * group_in
        at = tuple(
            slice(p * s, p * s + (k - 1) * d + 1, d)
            for p, s, d, k in zip(place, stride, dilation, w.shape[2:], strict=True)
        )
        window = padded[(slice(None), slice(first, first + group_in), *at)]
        total[(slice(None), channel, *place)] = (window * w[channel]).reshape(len(x), -1).sum(1)
    return total


def _transposed(layer: Any, x: np.ndarray, w: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Each input is scattered, as the operation is defined (groups = 1)."""
    dims = w.ndim - 2
    stride, padding = _each(layer.stride, dims), _each(layer.padding, dims)
    total = np.zeros(shape, dtype=np.int64)
    for place, kernel in itertools.product(np.ndindex(*x.shape[2:]), np.ndindex(*w.shape[2:])):
        at = tuple(p * s - q + k for p, s, q, k in zip(place, stride, padding, kernel, strict=True))
        if all(0 <= a < n for a, n in zip(at, shape[2:], strict=True)):
            given = x[(slice(None), slice(None), *place)]
            total[(slice(None), slice(None), *at)] += given @ w[(slice(None), slice(None), *kernel)]
    return total
