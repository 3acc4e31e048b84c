"""The grids of torchao's QAT fake quants, which most of them make anew of each tensor that comes.

A scale stands for a block of values that lie side by side in the last dimension: a group of a
weight's row, a whole row, a token of an activation. So a tensor of many blocks is a table of
(blocks, values in a block), with one scale a row. torchao is looked up where it has been imported.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_MODULE = "torchao.quantization.qat.fake_quantizer"
_WRITTEN = ("enabled", "scale", "zero_point", "_initialized")


def is_torchao(module: nn.Module) -> bool:
    """Whether it is a fake quant of ``torchao.quantization.qat``."""
    return _is(module, "FakeQuantizerBase")


def _is(module: nn.Module, name: str) -> bool:
    kind = getattr(sys.modules.get(_MODULE), name, None)
    return kind is not None and isinstance(module, kind)


@dataclass(frozen=True, eq=False)
class Blocks:
    """What a fake quant does to one tensor: ``scale`` and ``zero_point`` with one entry a block,
    and ``size``, the number of values in a block."""

    scale: Tensor
    zero_point: Tensor
    size: int


@dataclass(frozen=True, slots=True)
class Scheme:
    """How a fake quant of torchao's rounds, as its ``config`` says.

    Attributes:
        dtype: such as ``"torch.int4"``. low, high: its codes; both 0 for float8, whose values do
            not lie at even distances.
        blocks: ``"token"``, ``"row"``, ``"group"`` or ``"tensor"``: what has one scale.
        group: number of values of a group, None where it is none.
        dynamic: whether the scale is made anew of each tensor.
        symmetric: whether the zero point is 0.
    """

    dtype: str
    low: int
    high: int
    blocks: str
    group: int | None
    dynamic: bool
    symmetric: bool

    @property
    def even(self) -> bool:
        """Whether its values lie at even distances."""
        return self.low < self.high

    @property
    def words(self) -> str:
        """For people: ``"int4, a scale for each group of 32"``."""
        what = f"group of {self.group}" if self.group else self.blocks
        one = "one scale" if self.blocks == "tensor" else f"a scale for each {what}"
        return f"{self.dtype.removeprefix('torch.')}, {one}"


def scheme_of(quantizer: nn.Module) -> Scheme:
    """How ``quantizer`` rounds."""
    config: Any = quantizer.config
    if _is(quantizer, "Int4WeightFakeQuantizer"):
        symmetric = config.activation_dtype != torch.bfloat16
        return Scheme("torch.int4", -8, 7, "group", int(config.group_size), True, symmetric)
    granularity = getattr(config, "granularity", None)
    kind, group = type(granularity).__name__, getattr(granularity, "group_size", None)
    named = {"PerToken": "token", "PerAxis": "row", "PerRow": "row", "PerGroup": "group"}
    blocks = named.get(kind, "tensor")
    dtype = _dtype(getattr(config, "dtype", ""))
    low, high = _codes(dtype)
    symmetric = bool(getattr(config, "is_symmetric", True))
    dynamic = bool(getattr(config, "is_dynamic", True))
    return Scheme(dtype, low, high, blocks, group, dynamic, symmetric)


def _dtype(dtype: Any) -> str:
    """In torch's spelling; older configs hold torchao's own ``TorchAODType.INT4``."""
    name = str(getattr(dtype, "name", "") or dtype).removeprefix("torch.").lower()
    return f"torch.{name}"


def _codes(dtype: str) -> tuple[int, int]:
    found = re.fullmatch(r"torch\.(u?)int(\d+)", dtype)
    if found is None:
        return 0, 0
    bits = int(found.group(2))
    return (0, 2**bits - 1) if found.group(1) else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


@torch.no_grad()
def blocks_of(quantizer: nn.Module, x: Tensor, just_ran: bool = False) -> Blocks | None:
    """The scales with which ``quantizer`` rounds ``x`` (any shape), whether it is on or off; None
    for float8 and for what torchao refuses. The fake quant stays as it is. ``just_ran``: its last
    forward was that of ``x``, so that what it found need not be found again."""
    x = x.detach()
    if not x.numel() or not scheme_of(quantizer).even:
        return None
    if _is(quantizer, "Int4WeightFakeQuantizer"):
        return _int4_blocks(quantizer, x)
    return _intx_blocks(quantizer, x, just_ran)


@torch.no_grad()
def rounded_by(quantizer: nn.Module, x: Tensor) -> Tensor:
    """``x`` as ``quantizer`` rounds it when it is on; the fake quant stays as it is. Raises what
    torchao raises."""
    with _switched_on(quantizer):
        result: Tensor = type(quantizer).forward(quantizer, x.detach())
    return result


@contextmanager
def _switched_on(quantizer: Any) -> Iterator[None]:
    """On inside; what its forward writes to it is taken back."""
    kept = {key: value for key, value in vars(quantizer).items() if key in _WRITTEN}
    learned = dict(quantizer._parameters)
    quantizer.enabled = True
    try:
        yield
    finally:
        quantizer._parameters.clear()
        quantizer._parameters.update(learned)
        vars(quantizer).update(kept)


def stored_blocks(quantizer: nn.Module) -> tuple[Tensor, Tensor] | None:
    """(scale, zero point) that it keeps from one forward to the next; None if it keeps none."""
    found: Any = quantizer
    scale, zero_point = getattr(found, "scale", None), getattr(found, "zero_point", None)
    if scheme_of(quantizer).dynamic or scale is None or zero_point is None:
        return None
    return scale.detach(), zero_point.detach()


def _intx_blocks(quantizer: Any, x: Tensor, just_ran: bool) -> Blocks | None:
    known = just_ran and quantizer.enabled and quantizer.scale is not None
    # Its own forward finds them, and writes them down.
    try:
        with _switched_on(quantizer):
            if not known and stored_blocks(quantizer) is None:
                type(quantizer).forward(quantizer, x)
            scale, zero_point = quantizer.scale.detach(), quantizer.zero_point.detach()
    except (ValueError, NotImplementedError):  # such as a range to be learned, not begun yet
        return None
    return Blocks(scale.flatten(), zero_point.flatten(), x.numel() // max(1, scale.numel()))


def _int4_blocks(quantizer: Any, w: Tensor) -> Blocks:
    """As ``Int4WeightFakeQuantizer.forward`` makes them, which keeps nothing."""
    size, eps = int(quantizer.config.group_size), 1e-6
    if quantizer.config.activation_dtype == torch.bfloat16:
        groups = w.float().reshape(-1, size)
        low = groups.amin(-1)
        scale = torch.clamp(groups.amax(-1) - low, min=eps) / 15
        # Its zero point is a number on the axis of values; ours is one on that of codes.
        return Blocks(scale, -(low / scale + 8), size)
    largest = _in_float8(w).reshape(-1, size).abs().amax(-1)
    scale = torch.clamp(largest / 8, min=eps).float()
    return Blocks(scale, torch.zeros_like(scale), size)


def _in_float8(w: Tensor) -> Tensor:
    """``w`` rounded to float8 with a scale a row, as the int4 kernels with float8 activations
    first do."""
    most = torch.finfo(torch.float8_e4m3fn).max
    scale = torch.clamp(w.abs().amax(-1, keepdim=True), min=1e-12) / most
    codes = (w.float() / scale.float()).clamp(-most, most).to(torch.float8_e4m3fn)
    return (codes.float() * scale.float()).to(w.dtype)
