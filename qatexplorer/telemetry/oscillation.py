"""Weights that jump between two codes: what makes low-bit training noisy (Nagel et al. 2022)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

WINDOW = 8
"""A weight oscillates if it went back to the code before within so many looks."""

_LONG_AGO = 100.0

Part = tuple[str, int, int]


class FlipTracker:
    """Follows the codes of the same sampled weights from look to look.

    For each weight: the code it has, the other code that it had before its last change, and how
    many looks ago it went *back*, which is what tells an oscillation from a weight on its way.
    """

    def __init__(self) -> None:
        self._parts: list[Part] = []
        self._code = torch.empty(0)
        self._other = torch.empty(0)
        self._age = torch.empty(0)

    def update(self, codes: Tensor, parts: list[Part]) -> Tensor:
        """Shares flipped and oscillating, shape (2, sites), NaN at a site's first look.

        Args:
            codes: clamped codes of all weight sites, flat.
            parts: (path, sampled elements, all elements) of each site, in order. When fewer are
                sampled than before, the first ones are still the same weights.
        """
        if not parts:
            return codes.new_empty(2, 0)
        if parts != self._parts:
            self._lay_out(codes, parts)
        changed = (codes != self._code).logical_and_(~torch.isnan(self._code))
        back = changed & (codes == self._other)
        self._other = torch.where(changed, self._code, self._other)
        self._age = self._age.add_(1.0).masked_fill_(back, 0.0)
        known = ~torch.isnan(self._code)
        self._code = codes.clone()
        recent = (self._age < WINDOW).float()
        return torch.stack([self._mean(changed.float(), known), self._mean(recent, known)])

    def _mean(self, flags: Tensor, known: Tensor) -> Tensor:
        of = torch.segment_reduce(known.float(), "sum", offsets=self._offsets, unsafe=True)
        return torch.segment_reduce(flags, "sum", offsets=self._offsets, unsafe=True) / of

    def _lay_out(self, codes: Tensor, parts: Sequence[Part]) -> None:
        """Carry what is known about a site over to where its weights lie now."""
        states = (self._code, self._other, self._age)
        known: dict[str, tuple[int, tuple[Tensor, ...]]] = {}
        first = 0
        for path, count, total in self._parts:
            known[path] = (total, tuple(s[first : first + count] for s in states))
            first += count
        fresh = (math.nan, math.nan, _LONG_AGO)
        columns: tuple[list[Tensor], ...] = ([], [], [])
        offsets = [0]
        for path, count, total in parts:
            before_total, before = known.get(path, (total, (codes[:0],) * 3))
            for column, state, default in zip(columns, before, fresh, strict=True):
                # All elements were looked at in order, or a few at random: not the same weights.
                same = before_total == total and (state.numel() < total) == (count < total)
                kept = state[:count] if same else state[:0]
                filler = codes.new_full((count - kept.numel(),), default)
                column.append(torch.cat([kept.to(codes.device), filler]))
            offsets.append(offsets[-1] + count)
        self._code, self._other, self._age = (torch.cat(column) for column in columns)
        self._offsets = torch.tensor(offsets, device=codes.device)
        self._parts = list(parts)
