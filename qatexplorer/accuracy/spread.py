"""Samples of a tensor's values: their histograms, the divergence of these, and points to draw."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from qatexplorer.accuracy.sums import OneGrid

BINS = 2048
SAMPLED = 16_384
"""Values of a tensor and batch that histograms are made of, always at the same places."""
POINTS = 512
_SKEW = 1e-4


def picked(flat: Tensor, most: int = SAMPLED) -> Tensor:
    """The first ``most`` of at most :data:`SAMPLED` values of a flat tensor, at random places,
    always the same ones."""
    if flat.numel() <= SAMPLED:
        return flat[:most]
    return flat.index_select(0, _places(flat.numel(), most).to(flat.device))


@functools.lru_cache(maxsize=32)
def _places(size: int, most: int) -> Tensor:
    """In order, so that memory is gone through in one direction."""
    generator = torch.Generator().manual_seed(size)
    return torch.randint(0, size, (SAMPLED,), generator=generator)[:most].sort().values


def divergence(floats: Tensor, cells: Tensor, counts: Tensor) -> float:
    """Kullback-Leibler divergence KL(p || q) in nats of two histograms.

    p are the shares of float values in :data:`BINS` bins. The fake-quant values lie on the grid's
    codes only: the share of a code is spread evenly over those bins that are rounded to it and
    have float values in them, which is q (as Migacz, "8-bit Inference with TensorRT", GTC 2017,
    expands a quantized histogram). So that it stays finite, q is mixed with 1e-4 of p (the skew
    divergence of Lee, "On the Effectiveness of the Skew Divergence", 2001).

    Args:
        floats: counts of float values by bin. cells: the code (from 0) of each bin, ``counts`` of
            fake-quant values by code.
    """
    p = floats.double() / floats.sum()
    q = counts.double() / counts.sum()
    taken = floats.nonzero().view(-1)
    p, cells = p.index_select(0, taken), cells.index_select(0, taken)
    sharing = torch.bincount(cells, minlength=q.numel())  # at least one bin for each of these cells
    spread = q.index_select(0, cells) / sharing.index_select(0, cells)
    mixed = (1 - _SKEW) * spread + _SKEW * p
    return float((p * (p / mixed).log()).sum())


@dataclass
class Spread:
    """Histograms of float and fake-quant values on one grid, over all batches."""

    low: float = 0.0
    high: float = 0.0
    floats: Tensor | None = None
    counts: Tensor | None = None
    cells: Tensor | None = None

    def add(self, x: Tensor, y: Tensor, grid: OneGrid) -> None:
        """Samples of float ``x`` and fake-quant ``y``; bins span the first batch's float values.
        Where float is exactly 0 both are left out: a ReLU makes many of them, and they lie on the
        grid."""
        there = x.nonzero().view(-1)
        x, y = x.index_select(0, there), y.index_select(0, there)
        if self.floats is None:
            low, high = (float(end) for end in torch.aminmax(x)) if x.numel() else (0.0, 0.0)
            if not (low < high and math.isfinite(high - low)):
                return
            self.low, self.high = low, high
            self.cells = _cells(torch.linspace(low, high, 2 * BINS + 1)[1::2], grid)
            levels = grid.quant_max - grid.quant_min + 1
            self.floats, self.counts = torch.zeros(BINS), torch.zeros(levels)
        assert self.counts is not None
        self.floats += torch.histc(x.clamp(self.low, self.high), BINS, self.low, self.high)
        self.counts += torch.bincount(_cells(y, grid), minlength=self.counts.numel())

    @property
    def kl(self) -> float | None:
        """See :func:`divergence`; None where float values are all the same or not finite."""
        if self.floats is None or self.cells is None or self.counts is None:
            return None
        return divergence(self.floats, self.cells, self.counts)


def _cells(values: Tensor, grid: OneGrid) -> Tensor:
    """The code of each value, counted from the first."""
    codes = (values * grid.inverse).round() + grid.zero_point
    codes = codes.nan_to_num(0).clamp(grid.quant_min, grid.quant_max)
    return (codes - grid.quant_min).long()


@dataclass
class Points:
    """Values of the first batch in each form, at the same places."""

    floats: list[float] = field(default_factory=list)
    fakes: list[float] = field(default_factory=list)
    int8: list[float] = field(default_factory=list)
