"""Sizes of the gradients that reach the fake quants, where they are wanted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from qatexplorer.telemetry.host import on_device, per_segment
from qatexplorer.telemetry.probe import Clock, Draw, Probe

FIRST, COUNT = -64, 96
"""Bins of powers of two, from 2**-64 to 2**32; smaller and larger ones are in the outer bins."""

# Rows of ``RawGradients.sums``.
ZEROS, SQUARES, LARGEST, NONFINITE = range(4)


@dataclass
class RawGradients:
    """Counts of gradient sizes, int32 sites × ``COUNT``, and float32 4 × sites of sums."""

    paths: list[str]
    sampled: list[int]
    totals: list[int]
    counts: Tensor
    sums: Tensor

    def tensors(self) -> dict[str, Tensor]:
        return {"counts": self.counts, "sums": self.sums}


class GradientProbe:
    """Takes a sample of the gradient behind one fake quant in the step that is sampled.

    A gradient hook that returns nothing leaves the gradient as it is. With a gradient scaler the
    gradients are the scaled ones, as the backward pass has them.
    """

    def __init__(self, probe: Probe, clock: Clock) -> None:
        self._probe, self._clock = probe, clock
        self.path = probe.watched.info.path
        self.draw = Draw(fixed=False)
        self.values = torch.empty(0)
        self.taken = self._hooked = False
        self._handle: RemovableHandle | None = None
        self._on_tensor: RemovableHandle | None = None

    def __deepcopy__(self, memo: Any) -> GradientProbe:
        """A copy of the model gets hooks that do nothing."""
        copy = GradientProbe.__new__(GradientProbe)
        copy._hooked = copy.taken = True
        return copy

    def arm(self) -> None:
        """Sample the next backward."""
        self.taken = self._hooked = False
        if not self._probe.failed and not self._probe.watched.info.unseen:
            self._handle = self._probe.watched.module.register_forward_hook(self._after)

    def disarm(self) -> None:
        for handle in (self._handle, self._on_tensor):
            if handle is not None:
                handle.remove()
        self._handle = self._on_tensor = None

    def _after(self, module: nn.Module, args: Any, output: Any) -> None:
        if self._hooked or torch.compiler.is_compiling() or not isinstance(output, Tensor):
            return
        if output.requires_grad:
            # Under reentrant checkpointing that is so only when the forward is run once more.
            self._hooked = True
            self._on_tensor = output.register_hook(self._take)

    def _take(self, gradient: Tensor) -> None:
        if self.taken:
            return
        started = perf_counter()
        try:
            with torch.no_grad():
                self._sample(gradient.detach())
        except Exception as error:  # a sample must never end a training
            self._probe.failed = f"{type(error).__name__}: {error}".splitlines()[0]
        self._clock.spent_s += perf_counter() - started

    def _sample(self, gradient: Tensor) -> None:
        if not gradient.numel():
            return
        generator = self._probe.generator(gradient.device)
        if not self.draw.fits(gradient, self._probe.wanted):
            self.draw.prepare(gradient, None, self._probe.wanted, generator)
        flat = gradient.permute(self.draw.order).reshape(-1)
        if self.draw.index is not None:
            flat = flat.index_select(0, self.draw.index)
        self.values = flat.to(torch.float32, copy=True)
        self.taken = True


@torch.no_grad()
def count_gradients(probes: list[GradientProbe]) -> RawGradients:
    """Counts of the gradients that ``probes`` took, on their device. None is empty."""
    values = torch.cat([p.values for p in probes]).abs_()
    sizes = [p.values.numel() for p in probes]
    device = values.device
    offsets = on_device([0, *accumulate(sizes)], device)
    finite = torch.isfinite(values)
    zeros = values == 0
    exponent = values.log2().floor_().sub_(FIRST).clamp_(0, COUNT - 1)
    exponent.masked_fill_(~finite | zeros, 0.0)
    rows = torch.arange(len(sizes), device=device, dtype=torch.int32).mul_(COUNT)
    repeats = on_device(sizes, device)
    row = rows.repeat_interleave(repeats, output_size=values.numel())
    counts = torch.zeros(len(sizes) * COUNT, dtype=torch.int32, device=device)
    counts.index_add_(0, exponent.to(torch.int32).add_(row), (finite & ~zeros).to(torch.int32))
    values.masked_fill_(~finite, 0.0)

    def per_site(data: Tensor, how: str = "sum") -> Tensor:
        return per_segment(data, offsets, how)

    sums = [
        per_site(zeros.float()),
        per_site(values * values),
        per_site(values, "max"),
        per_site((~finite).float()),
    ]
    paths, totals = [p.path for p in probes], [p.draw.numel for p in probes]
    return RawGradients(paths, sizes, totals, counts.view(-1, COUNT), torch.stack(sums))


def gradient_numbers(raw: RawGradients, index: int) -> dict[str, float]:
    """Metrics of site ``index``, whose sums are on the host."""
    zeros, squares, largest, bad = (float(v) for v in raw.sums[:, index])
    sampled = raw.sampled[index]
    finite = sampled - bad
    return {
        "grad_rms": math.sqrt(squares / finite) if finite else math.nan,
        "grad_max": largest if finite else math.nan,
        "grad_zero_share": zeros / sampled,
        "grad_nonfinite": bad / sampled,
    }
