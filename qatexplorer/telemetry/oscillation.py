"""Weights that jump between two codes: what makes low-bit training noisy (Nagel et al. 2022)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from qatexplorer.telemetry.host import on_device, per_segment

WINDOW = 8
"""A weight oscillates if it went back to the code before within so many samples."""

_LONG_AGO = 100.0
# No code, and small enough to be added to one and taken off again exactly.
_NONE = 2.0**22

Part = tuple[str, int, int]


class FlipTracker:
    """Follows the codes of the same sampled weights from sample to sample.

    For each weight: the code it has, the other code that it had before its last change, and how
    many samples ago it went *back*, which is what tells an oscillation from a weight on its way.
    """

    def __init__(self) -> None:
        self._parts: list[Part] = []
        self._code = torch.empty(0)
        self._other = torch.empty(0)
        self._age = torch.empty(0)
        self._unknown: list[bool] = []

    def update(
        self, codes: Tensor, parts: list[Part], indices: Sequence[Tensor | None] = ()
    ) -> Tensor:
        """Shares flipped and oscillating, shape (2, sites), NaN at a fake quant's first sample.

        Args:
            codes: clamped codes of all weight sites, flat.
            indices: positions of the sampled elements of each site, None for all in order.
            parts: (path, sampled elements, all elements) of each site, in order. When fewer are
                sampled than before, the first ones are still the same weights.
        """
        if not parts:
            return codes.new_empty(2, 0)
        fresh = parts != self._parts
        if fresh:
            self._lay_out(codes, parts, indices or [None] * len(parts))
        # All in floats: torch fills masks and chooses by them ten times as slowly as it adds.
        changed = torch.ne(codes, self._code, out=torch.empty_like(codes))
        back = torch.eq(codes, self._other, out=torch.empty_like(codes)).mul_(changed)
        self._other.add_(self._code.sub_(self._other).mul_(changed))
        self._age.add_(1.0)
        self._age.sub_(back.mul_(self._age))
        self._code.copy_(codes)
        recent = torch.lt(self._age, WINDOW, out=back)
        flipped, oscillating = self._share(changed), self._share(recent)
        if fresh:
            unknown = on_device(self._unknown, codes.device)
            flipped.masked_fill_(unknown, math.nan)
            oscillating.masked_fill_(unknown, math.nan)
        return torch.stack([flipped, oscillating])

    def _share(self, flags: Tensor) -> Tensor:
        return per_segment(flags, self._offsets) / self._sizes

    def _lay_out(
        self, codes: Tensor, parts: Sequence[Part], indices: Sequence[Tensor | None]
    ) -> None:
        """Carry what is known about a site over to where its weights lie now."""
        states = (self._code, self._other, self._age)
        known: dict[str, tuple[int, tuple[Tensor, ...]]] = {}
        first = 0
        for path, count, total in self._parts:
            known[path] = (total, tuple(s[first : first + count] for s in states))
            first += count
        columns: tuple[list[Tensor], ...] = ([], [], [])
        offsets = [0]
        self._unknown = []
        for (path, count, total), index in zip(parts, indices, strict=True):
            before_total, before = known.get(path, (0, (codes[:0],) * 3))
            have = before[0].numel()
            if have == before_total == total and index is not None:
                # All were followed, now some of them are.
                before = tuple(state.index_select(0, index) for state in before)
                have = count
            # All elements were taken in order, or a few at random: not the same weights.
            same = before_total == total and (have < total) == (count < total)
            kept = min(have, count) if same else 0
            self._unknown.append(not kept)
            # A weight that is new stands still so far.
            new = codes[offsets[-1] + kept : offsets[-1] + count]
            fillers = (new, torch.full_like(new, _NONE), torch.full_like(new, _LONG_AGO))
            for column, state, filler in zip(columns, before, fillers, strict=True):
                column.append(torch.cat([state[:kept].to(codes.device), filler]))
            offsets.append(offsets[-1] + count)
        self._code, self._other, self._age = (torch.cat(column) for column in columns)
        self._offsets = on_device(offsets, codes.device)
        self._sizes = (self._offsets[1:] - self._offsets[:-1]).float()
        self._parts = list(parts)
