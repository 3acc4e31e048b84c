"""Sums over all values of tensors in two or three forms, added up batch by batch.

A tensor is gone through in pieces that stay in the CPU's last cache, so that a dozen sums cost
little more than reading it once; smaller ones cost more in calls than they save. Sums of a piece
are float32, those of all pieces float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from qatexplorer.forward.noise import decibels
from qatexplorer.quantizers.facts import Grid

_PIECE = 1 << 18
_HAIR = 1e-3  # of a step, for float32
_SHUFFLED = (torch.uint8, torch.int8, torch.float32)
_CODES = {torch.quint8: torch.uint8, torch.qint8: torch.int8, torch.qint32: torch.int32}


@dataclass
class Apart:
    """What two forms ``x`` and ``y`` of one tensor differ by.

    ``signal`` is the sum of x², ``other`` of y², ``noise`` of (x - y)², ``distance`` of |x - y|;
    ``largest`` is the largest |x - y|; ``values`` were compared.
    """

    values: int = 0
    signal: float = 0.0
    other: float = 0.0
    noise: float = 0.0
    distance: float = 0.0
    largest: float = 0.0

    def add(self, y: Tensor, gap: Tensor, signal: float, *, whole: bool = True) -> None:
        """A piece ``y`` and its difference to x, flat, float32; the latter is used up. ``signal``
        is x's sum of squares. ``whole`` adds to ``distance`` and ``largest`` too."""
        self.values += y.numel()
        self.signal += signal
        self.other += _square(y)
        self.noise += _square(gap)
        if whole:
            self.distance += float(gap.abs_().sum())
            self.largest = _larger(self.largest, float(gap.amax()))

    def add_sums(self, values: int, signal: Tensor, other: Tensor, noise: Tensor) -> None:
        """Sums that have been made by channel."""
        self.values += values
        self.signal += float(signal.sum())
        self.other += float(other.sum())
        self.noise += float(noise.sum())

    @property
    def sqnr_db(self) -> float | None:
        """``20 log10(|x| / |x - y|)``; None without values or where they are not finite."""
        if not self.values or not (math.isfinite(self.signal) and math.isfinite(self.noise)):
            return None
        value = decibels(self.signal, self.noise)
        return None if math.isnan(value) else value

    @property
    def cosine(self) -> float | None:
        size = math.sqrt(self.signal) * math.sqrt(self.other)
        if not self.values or not math.isfinite(size) or size == 0:
            return None
        product = (self.signal + self.other - self.noise) / 2  # of |x - y|² = x² - 2xy + y²
        return max(-1.0, min(1.0, product / size))


@dataclass
class InSteps:
    """How far int8 is from fake quant, in steps of the int8 grid.

    ``half`` and ``far`` count values more than 0.5 and 1.5 steps apart.
    """

    values: int = 0
    half: int = 0
    far: int = 0
    distance: float = 0.0
    largest: float = 0.0

    def add(self, gap: Tensor, step: float) -> None:
        """A piece of the difference, flat, float32, used up; ``step`` is the grid's."""
        self.values += gap.numel()
        self.distance += float(gap.abs_().sum()) / step
        most = _larger(0.0, float(gap.amax()) / step)
        self.largest = max(self.largest, most)
        if most > 0.5 + _HAIR:
            self.half += gap.numel() - _count(np.less_equal, gap, (0.5 + _HAIR) * step)
        if most > 1.5 + _HAIR:
            self.far += gap.numel() - _count(np.less_equal, gap, (1.5 + _HAIR) * step)

    @property
    def agreement(self) -> float | None:
        """Share of values less than half a step apart: int8 has the fake quant's code."""
        return 1 - self.half / self.values if self.values else None


@dataclass
class Alone:
    """The error of a grid on float values that no other rounding has touched.

    ``noise`` is the sum of (x - x_q)², ``clipping`` that of (x - clip(x))², and the rest of
    ``noise`` is rounding: a value that is cut off lands on a code, so the two do not mix.
    ``clipped`` counts values that are rounded to a code outside of the grid.
    """

    values: int = 0
    signal: float = 0.0
    noise: float = 0.0
    clipping: float = 0.0
    clipped: int = 0

    def add(self, x: Tensor, grid: OneGrid, scratch: Scratch, *, known: Known) -> None:
        """A flat float32 piece, of which ``known`` holds what is known; a piece of ``scratch``
        is written to."""
        self.values += x.numel()
        self.signal += known.signal
        if known.ends is None:
            known.ends = float(x.amin()), float(x.amax())
        low, high = known.ends
        steps = torch.mul(x, grid.inverse, out=scratch[0][: x.numel()]).round_()
        least, most = grid.quant_min - grid.zero_point, grid.quant_max - grid.zero_point
        if math.isnan(low):
            self.clipping = math.nan
        if not low >= grid.low:
            self._cut_off(np.less, x, grid.low, steps, least)
            steps.clamp_(min=least)
        if not high <= grid.high:
            self._cut_off(np.greater, x, grid.high, steps, most)
            steps.clamp_(max=most)
        self.noise += _square(torch.sub(x, steps, alpha=grid.scale, out=steps))

    def _cut_off(self, beyond: np.ufunc, x: Tensor, end: float, steps: Tensor, code: float) -> None:
        """Values of ``x`` beyond an end of the grid, and ``steps`` beyond its code: few, most
        often, which NumPy finds in a fraction of torch's time for a sum over all."""
        places = torch.from_numpy(np.flatnonzero(beyond(x.numpy(), end)))
        self.clipping += _square(x.index_select(0, places).sub_(end))
        self.clipped += _count(beyond, steps.index_select(0, places), code)

    def add_whole(self, x: Tensor, rounded: Tensor) -> None:
        """Of a fake quant whose grid is not one for the whole tensor: errors are not split."""
        self.values += x.numel()
        self.signal += float(x.double().square().sum())
        self.noise += float((x.double() - rounded.double()).square().sum())
        self.clipping = math.nan

    @property
    def sqnr_db(self) -> float | None:
        return Apart(self.values, self.signal, noise=self.noise).sqnr_db

    def share(self, total: float) -> float | None:
        """``total`` a value; None if it is not known."""
        return total / self.values if self.values and math.isfinite(total) else None


@dataclass(frozen=True)
class OneGrid:
    """A grid for the whole tensor, as numbers. ``low`` and ``high`` are its ends in real units."""

    scale: float
    inverse: float
    zero_point: int
    quant_min: int
    quant_max: int

    @classmethod
    def of(cls, grid: Grid) -> OneGrid | None:
        """None for a grid per channel, or without a usable scale."""
        scale, zero = grid.scale.detach().flatten(), grid.zero_point.detach().flatten()
        if scale.numel() != 1 or zero.is_floating_point() or grid.quant_min >= grid.quant_max:
            return None
        inverse = float(scale.float().reciprocal())
        if not (math.isfinite(inverse) and inverse > 0):
            return None
        return cls(float(scale), inverse, int(zero), grid.quant_min, grid.quant_max)

    @property
    def low(self) -> float:
        return (self.quant_min - self.zero_point) * self.scale

    @property
    def high(self) -> float:
        return (self.quant_max - self.zero_point) * self.scale


@dataclass
class Known:
    """Of a piece of float values: its sum of squares, its smallest and largest value."""

    signal: float
    ends: tuple[float, float] | None = None


@dataclass
class Scratch:
    """Memory for pieces, used again and again."""

    kept: list[Tensor] = field(default_factory=list)

    def __getitem__(self, number: int) -> Tensor:
        while len(self.kept) <= number:
            self.kept.append(torch.empty(_PIECE))
        return self.kept[number]


@dataclass
class ByChannel:
    """The SQNR of each channel of an activation, on the first sample of each batch."""

    signal: Tensor | None = None
    noise: Tensor | None = None

    def add(self, x: Tensor, y: Tensor) -> None:
        """Float and fake quant, (N, C, …); of (N, C) all samples. Where it is not known which
        dimension is that of channels, as in (N, L, C), nothing is added."""
        if x.dim() not in (2, 4, 5):
            return
        most = 1 if x.dim() > 2 else x.shape[0]
        a, b = (one[:most].transpose(0, 1).flatten(1) for one in (x, y))
        signal, noise = row_squares(a), row_squares(a - b)
        if self.signal is None or self.noise is None:
            self.signal, self.noise = signal, noise
        elif self.signal.shape == signal.shape:
            self.signal, self.noise = self.signal + signal, self.noise + noise

    @property
    def decibels(self) -> tuple[float, ...]:
        """Of each channel; infinite where equal, NaN without signal."""
        if self.signal is None or self.noise is None:
            return ()
        return row_decibels(self.signal, self.noise)


def row_squares(rows: Tensor) -> Tensor:
    """The sum of squares of each row."""
    norms: Tensor = torch.linalg.vector_norm(rows, dim=1)
    return norms.double().square_()


def row_decibels(signal: Tensor, noise: Tensor) -> tuple[float, ...]:
    """:func:`~qatexplorer.forward.noise.decibels` of many."""
    found = 10 * torch.log10(signal / noise)
    found[signal == 0] = math.nan
    found[noise == 0] = math.inf
    return tuple(found.tolist())


@dataclass
class Sums:
    """What is to be added to; None is left out.

    ``fake`` and ``int8`` are float against the other two, ``alone`` is the error of ``grid`` on
    float values, ``steps`` int8 against fake quant.
    """

    fake: Apart | None = None
    alone: Alone | None = None
    grid: OneGrid | None = None
    int8: Apart | None = None
    steps: InSteps | None = None


def add_up(
    x: Tensor | None,
    y: Tensor | None,
    z: Tensor | None,
    grid: tuple[float, int] | None,
    sums: Sums,
    scratch: Scratch,
    known: dict[int, Known] | None = None,
) -> None:
    """Float ``x``, fake-quant ``y`` and int8 ``z``, flat and of one length, into ``sums``.

    x and y are float32, z codes on ``grid`` (scale and zero point), or values where that is None.
    Each is read from memory once. ``known`` takes what is found of x alone, by where a piece
    begins: given again with the same x, that is not computed again.
    """
    size = next(one.numel() for one in (x, y, z) if one is not None)
    known = {} if known is None else known
    for start in range(0, size, _PIECE):
        stop = min(start + _PIECE, size)
        gap, found = scratch[0][: stop - start], scratch[1][: stop - start]
        a = None if x is None else x[start:stop]
        b = None if y is None else y[start:stop]
        if a is not None and start not in known:
            known[start] = Known(_square(a))
        signal = 0.0 if a is None else known[start].signal
        if a is not None and b is not None and sums.fake is not None:
            sums.fake.add(b, torch.sub(a, b, out=gap), signal)
        if a is not None and sums.alone is not None and sums.grid is not None:
            sums.alone.add(a, sums.grid, scratch, known=known[start])
        if z is None:
            continue
        found = _values(z[start:stop], grid, found)
        if a is not None and sums.int8 is not None:
            sums.int8.add(found, torch.sub(a, found, out=gap), signal, whole=False)
        if b is not None and sums.steps is not None and grid is not None:
            sums.steps.add(found.sub_(b), grid[0])


def _values(z: Tensor, grid: tuple[float, int] | None, found: Tensor) -> Tensor:
    """Those of codes, in ``found``."""
    if grid is None:
        return z
    found.copy_(z)
    if grid[1]:
        found.sub_(grid[1])
    return found.mul_(grid[0])


def _square(x: Tensor) -> float:
    return float(torch.dot(x, x))


def _count(compare: np.ufunc, values: Tensor, bound: float) -> int:
    """How many values compare so; by NumPy, which takes a sixth of torch's time for it."""
    return int(np.count_nonzero(compare(values.numpy(), bound)))


def _larger(one: float, other: float) -> float:
    return max(one, math.inf if math.isnan(other) else other)


def codes_of(tensor: Tensor) -> Tensor:
    """The codes of a quantized tensor in its own memory: ``int_repr`` copies them one by one."""
    dtype = _CODES.get(tensor.dtype)
    if dtype is None or tensor.device.type != "cpu":
        return tensor.int_repr()
    where = tensor.storage_offset(), tensor.shape, tensor.stride()
    return torch.empty(0, dtype=dtype).set_(tensor.untyped_storage(), *where)


def flat_alike(*forms: Tensor | None) -> list[Tensor | None]:
    """All flat, values that belong together at the same places; copies where a layout differs.

    The order is that of the first in memory, so that it need not be copied. None stays None.
    """
    first = next(one for one in forms if one is not None)
    order = sorted(range(first.dim()), key=first.stride, reverse=True)
    return [None if one is None else _flat(one.permute(order)) for one in forms]


def _flat(tensor: Tensor) -> Tensor:
    """``reshape(-1)``. Where a sample lies in memory with two groups of its dimensions swapped, as
    channels_last beside contiguous, one matrix is transposed for each sample: ``channel_shuffle``
    does that with torch's vector kernel, which for codes is ten times faster than a copy."""
    if tensor.dim() < 3 or tensor.is_contiguous() or tensor.dtype not in _SHUFFLED:
        return tensor.reshape(-1)
    if tensor.dtype == torch.int8:
        return _flat(tensor.view(torch.uint8)).view(torch.int8)
    for split in range(2, tensor.dim()):
        lying = tensor.permute(0, *range(split, tensor.dim()), *range(1, split))
        if lying.is_contiguous():
            samples, size = len(tensor), tensor[0].numel()
            strides = size, 1, size, size  # of channels_last: of no others it is fast
            rows = lying.as_strided((samples, size, 1, 1), strides)
            return torch.channel_shuffle(rows, math.prod(tensor.shape[split:])).reshape(-1)
    return tensor.reshape(-1)
