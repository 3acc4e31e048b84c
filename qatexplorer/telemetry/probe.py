"""Taking a sample of the tensor at one fake quant, inside the forward: as little as possible."""

from __future__ import annotations

import math
from collections.abc import Sequence
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from qatexplorer.data import device_of
from qatexplorer.quantizers.facts import observer_of
from qatexplorer.quantizers.torchao_grids import Blocks, blocks_of, is_torchao
from qatexplorer.telemetry.watched import WatchedFakeQuant, channel_axis

MAX_CHANNELS = 16_384
REDRAW_SAMPLES = 16
"""Random positions are reused for so many samples: drawing them costs as much as reading them."""

# Rows of a probe's grid.
SCALE, ZERO_POINT, OLD_MIN, OLD_MAX, NEW_MIN, NEW_MAX = range(6)


class Clock:
    """Seconds that the hooks of one step took."""

    __slots__ = ("spent_s",)

    def __init__(self) -> None:
        self.spent_s = 0.0


class Draw:
    """Random positions in tensors of one shape, and the channel of each.

    Positions are independent and uniform, so that the error bound holds whatever the order of the
    values is; all positions if there are no more than asked for. Those of a weight stay the same
    for the whole run: its oscillation is that of the same weights.
    """

    def __init__(self, fixed: bool) -> None:
        self._fixed = fixed
        self._key: Any = None
        self._uses = 0
        self.version = 0
        self.numel = self.channels = 0
        self.index: Tensor | None = None
        self.channel: Tensor | None = None
        self.order: list[int] = []

    def fits(self, x: Tensor, wanted: int) -> bool:
        """Whether what was drawn can be used once more, for ``x``."""
        if self._key != (x.shape, x.stride(), wanted):
            return False
        self._uses += 1
        return self._fixed or self.index is None or self._uses < REDRAW_SAMPLES

    def prepare(self, x: Tensor, axis: int | None, wanted: int, generator: Any) -> None:
        """Draw for tensors like ``x``, with channels along ``axis``."""
        key = (x.shape, x.stride(), wanted)
        same = self._fixed and self._key is not None and self._key[:2] == key[:2]
        self._key, self._uses = key, 0
        self.numel = x.numel()
        strides = x.stride()
        self.order = sorted(range(x.ndim), key=strides.__getitem__, reverse=True)
        if self.numel <= wanted:
            self.index = None
        else:
            kept = self.index if same else None
            self.index = self._positions(wanted, kept, x.device, generator)
        self._find_channels(x, axis)
        self.version += 1

    def _positions(
        self, wanted: int, kept: Tensor | None, device: torch.device, generator: Any
    ) -> Tensor:
        dtype = torch.int32 if self.numel < 2**31 else torch.int64
        have = 0 if kept is None else kept.numel()
        if kept is not None and have >= wanted:
            return kept[:wanted].clone()
        new = torch.randint(
            self.numel, (wanted - have,), generator=generator, device=device, dtype=dtype
        )
        return new if kept is None else torch.cat([kept, new])

    def _find_channels(self, x: Tensor, axis: int | None) -> None:
        self.channels = x.shape[axis] if axis is not None else 1
        if axis is None:
            self.channel = None
            return
        inner = math.prod(x.shape[d] for d in self.order[self.order.index(axis) + 1 :])
        where = self.index
        if where is None:
            where = torch.arange(self.numel, device=x.device)
        spread = where.div(inner, rounding_mode="floor").remainder_(self.channels)
        self.channel = spread.to(torch.int32)

    @property
    def count(self) -> int:
        return self.numel if self.index is None else self.index.numel()


class Probe:
    """Hooks of one fake quant during a step that is sampled, and what they took.

    ``values`` (float32, flat) is a copy, on the device of the tensor. The grid of the tensor is
    copied in the forward in the first samples. Where nothing touches it until the end of the step,
    later ones read it then, for all fake quants at once: right after a large convolution
    each small operation costs several times what it does elsewhere. A second forward in a step
    (accumulation, checkpointing, an evaluation) is counted, and the copies in the forward come
    back.
    """

    def __init__(self, watched: WatchedFakeQuant, clock: Clock) -> None:
        self.watched, self._clock = watched, clock
        self.draw = Draw(fixed=watched.info.kind == "weight")
        self.values = torch.empty(0)
        self.taken = False
        self.failed = ""
        self.wanted = 0
        self._grid: Tensor | None = None
        self._missing = torch.empty(0)
        self._averages = watched.averaging_constant is not None
        self._in_blocks = is_torchao(watched.module)
        self._blocks: Blocks | None = None
        observer = observer_of(watched.module)
        self._observer = None if observer is None else observer._buffers
        self._generator: torch.Generator | None = None
        self._handles: list[RemovableHandle] = []
        self._old: tuple[Tensor, Tensor] | None = None
        self._first_batch = self._late = False
        self._calls = self._taken_at = 0

    def __deepcopy__(self, memo: Any) -> Probe:
        """A copy of the model (an average of weights, say) gets hooks that do nothing."""
        copy = Probe.__new__(Probe)
        copy.taken, copy._calls = True, 0
        return copy

    def arm(self, wanted: int) -> bool:
        """Sample the next forward, at ``wanted`` elements. True if :func:`remember_ranges` is to
        read the range before it."""
        self.taken, self.wanted, self._old, self._grid = False, wanted, None, None
        self._first_batch = False
        self._calls = self._taken_at = 0
        if self.failed or self.watched.info.unseen:
            return False
        if self.watched.weight:
            owner: Any = self.watched.owner
            self._take(owner.weight)
            return False
        module = self.watched.module
        self._handles = [module.register_forward_hook(self._after)]
        if self._late:
            return self._averages
        self._handles.append(module.register_forward_pre_hook(self._before))
        return False

    def disarm(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def settle(self) -> None:
        """At the end of the step: is the grid still the one that the values were put on?"""
        if not self.taken or self.watched.weight:
            return
        stands = self._calls == self._taken_at
        if self._late:
            if self._taken_at > 1:
                # An evaluation came first, and moved the range: what it was before is not known.
                self._old = None
            self.taken = stands
        self._late = stands

    def _before(self, module: nn.Module, args: Any) -> None:
        if self._ignores(module):
            return
        started = perf_counter()
        if self._averages:
            # The moving average after this forward, less the one before, is the batch's own
            # range: the fused kernel has read all the values, we need not do it again.
            ranges = self.ranges()
            self._first_batch = ranges is None
            if ranges is not None:
                self._old = (ranges[0].clone(), ranges[1].clone())
        self._clock.spent_s += perf_counter() - started

    def _after(self, module: nn.Module, args: Any, output: Any) -> None:
        self._calls += 1
        if self._ignores(module) or not args or not isinstance(args[0], Tensor):
            return
        started = perf_counter()
        self._take(args[0])
        self._clock.spent_s += perf_counter() - started

    def _ignores(self, module: nn.Module) -> bool:
        # Once per step: not again for a second micro-batch, nor when checkpointing runs the
        # forward once more. A forward in eval mode without gradients is an evaluation.
        if self.taken or torch.compiler.is_compiling():
            return True
        return not module.training and not torch.is_grad_enabled()

    def _take(self, tensor: Tensor) -> None:
        try:
            x = tensor.detach()
            if x.is_quantized:
                x = x.dequantize()
            if not x.numel():
                return
            if self._in_blocks:
                x = self._blocks_of(x)
            self._sample(x)
            self._taken_at = self._calls
            if not self._late:
                self._copy_grid()
            self.taken = True
        except Exception as error:  # a sample must never end a training
            self.failed = f"{type(error).__name__}: {error}".splitlines()[0]

    def _blocks_of(self, x: Tensor) -> Tensor:
        """``x`` as blocks with a scale each, which torchao makes of this very tensor."""
        self._blocks = blocks_of(self.watched.module, x, just_ran=True)
        if self._blocks is None:
            raise ValueError("torchao gives no scale for it")
        return x.reshape(-1, self._blocks.size)

    def _sample(self, x: Tensor) -> None:
        draw = self.draw
        if not draw.fits(x, self.wanted):
            draw.prepare(x, self._axis(x), self.wanted, self.generator(x.device))
            self.values = torch.empty(draw.count, device=x.device)
        if x.is_contiguous():
            flat = x.view(-1)
        else:
            # In order of memory, so that a channels-last tensor is flattened without a copy.
            flat = x.permute(draw.order).reshape(-1)
        if draw.index is None:
            self.values.copy_(flat)
        elif flat.dtype is torch.float32:
            torch.index_select(flat, 0, draw.index, out=self.values)
        else:
            self.values.copy_(flat.index_select(0, draw.index))

    def _axis(self, x: Tensor) -> int | None:
        axis = channel_axis(self.watched, x.ndim)
        if axis is not None and self.watched.info.ch_axis is None and x.shape[axis] > MAX_CHANNELS:
            return None  # dead channels of so many are not worth their table
        return axis

    def generator(self, device: torch.device) -> torch.Generator:
        """Our own random numbers: the user's must not notice."""
        if self._generator is None or self._generator.device != device:
            self._generator = torch.Generator(device)
            self._generator.manual_seed(0x9E37 + len(self.watched.info.path))
        return self._generator

    def _scale(self) -> Tensor:
        if self._in_blocks:
            return self._nothing if self._blocks is None else self._blocks.scale
        found = self.watched.module._buffers.get("scale")
        if found is not None:
            return found
        learned: Any = self.watched.module
        return learned.scale.detach()  # type: ignore[no-any-return]

    def _zero_point(self) -> Tensor:
        if self._in_blocks:
            return self._nothing if self._blocks is None else self._blocks.zero_point
        found: Any = self.watched.module
        return found.zero_point  # type: ignore[no-any-return]

    @property
    def fractional(self) -> bool:
        """Whether the zero point is no whole number."""
        return self._zero_point().is_floating_point()

    @property
    def _nothing(self) -> Tensor:
        """One scale that is not known."""
        owner = self.watched.owner
        device = device_of(owner) if owner is not None else None
        return torch.full((1,), math.nan, device=device)

    def ranges(self) -> tuple[Tensor, Tensor] | None:
        """(min_val, max_val) of the observer as they are now; None before it has seen data."""
        if self._observer is None:
            return None
        low, high = self._observer.get("min_val"), self._observer.get("max_val")
        return None if low is None or high is None or not low.numel() else (low, high)

    def remember(self, low: Tensor, high: Tensor) -> None:
        """The range before the forward, read for all probes at once."""
        self._old = (low, high)

    def _copy_grid(self) -> None:
        self._grid = torch.cat(self.grid_parts())

    @property
    def grids(self) -> int:
        """One, or one per channel."""
        return self._scale().numel()

    @property
    def device(self) -> torch.device:
        """Where the grid lies."""
        return self._scale().device

    def grid_parts(self) -> list[Tensor]:
        """Flat parts that make 6 × ``grids`` numbers: scale, zero point, the observer's range
        before and after the forward; of the forward if it was copied there, else as they are."""
        if self._grid is not None:
            return [self._grid]
        scale = self._scale().reshape(-1)
        zero_point = self._zero_point()
        grids = scale.numel()
        missing = self._missing
        if missing.numel() != grids or missing.device != scale.device:
            self._missing = missing = torch.full_like(scale, math.nan)
        if self._first_batch:
            # As observers that hold one number per tensor have it before the first batch.
            self._first_batch = False
            self._old = (torch.full_like(scale, math.inf),) * 2
        parts = [scale, zero_point.detach().reshape(-1)]
        for pair in (self._old, self.ranges()):
            if pair is None or pair[0].numel() != grids:
                parts += [missing, missing]
            else:
                parts += [pair[0].reshape(-1), pair[1].reshape(-1)]
        return parts


def remember_ranges(probes: Sequence[Probe]) -> None:
    """Copy the ranges of ``probes`` as they are before the forward, one operation per device."""
    known = [(probe, probe.ranges()) for probe in probes]
    pairs = [(probe, pair) for probe, pair in known if pair is not None]
    for device in dict.fromkeys(pair[0].device for _, pair in pairs):
        here = [(probe, pair) for probe, pair in pairs if pair[0].device == device]
        parts = [end.reshape(-1) for _, pair in here for end in pair]
        copies = torch.cat(parts).split([part.numel() for part in parts])
        for index, (probe, _) in enumerate(here):
            probe.remember(copies[2 * index], copies[2 * index + 1])
