"""Which observers, fake quants and batch norms were on in which step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from qatexplorer.runs.samples import StateChange
from qatexplorer.telemetry.host import HostCopy
from qatexplorer.telemetry.watched import WatchedFakeQuant

State = tuple[bool, bool, "bool | None"]
Plain = dict[int, tuple[bool, bool]]


class Timeline:
    """Changes of state, found without reading the flags in every step.

    The flags are tensors, on a GPU as likely as not; reading them would wait for it. Torch counts
    the writes to a tensor, and that count lies on the host: the flags are read when it moves.
    """

    def __init__(self, all_watched: Sequence[WatchedFakeQuant]) -> None:
        self._all_watched = all_watched
        self._flags: list[tuple[Tensor | None, Tensor | None]] = []
        self._present: list[Tensor] = []
        self._versions = -1
        self._norms: list[Any] = [t.batch_norm for t in all_watched]
        self._owners: list[Any] = [t.owner for t in all_watched]
        self._with_norm = [i for i, norm in enumerate(self._norms) if norm is not None]
        self._watched = [(self._norms[i], self._owners[i]) for i in self._with_norm]
        self._moving: list[bool] = []
        self._frozen: list[bool | None] = [None] * len(all_watched)
        self._on: list[tuple[bool, bool]] = [(True, True)] * len(all_watched)
        self._reported: list[State | None] = [None] * len(all_watched)
        self._plain = {i: now for i, t in enumerate(all_watched) if (now := t.plain_flags())}
        self._pending: list[tuple[int, list[bool | None], Plain, HostCopy]] = []
        self.find_flags()

    def find_flags(self) -> None:
        """Look the buffers up again: ``model.to`` and loading a state dict may replace them."""
        self._flags = [watched.flags() for watched in self._all_watched]
        present = [flag for pair in self._flags for flag in pair if flag is not None]
        if len(present) != len(self._present) or any(
            a is not b for a, b in zip(present, self._present, strict=True)
        ):
            self._present, self._versions = present, -1

    def update(self, step: int) -> list[StateChange]:
        """What has changed by step ``step``; on a GPU it may be known a few steps late."""
        norms = [
            norm.training and not owner.__dict__.get("freeze_bn", False)
            for norm, owner in self._watched
        ]
        versions = sum([flag._version for flag in self._present])
        plain = {
            index: self._all_watched[index].plain_flags() or (True, True) for index in self._plain
        }
        moved = versions != self._versions or plain != self._plain
        self._plain = plain
        if not moved and norms == self._moving:
            return self.collect() if self._pending else []
        self._moving = norms
        frozen = self._frozen_now()
        if moved:
            self._versions = versions
            if self._present:
                read = torch.cat([f.detach().reshape(-1)[:1].float() for f in self._present])
                self._pending.append((step, frozen, plain, HostCopy({"flags": read})))
            else:
                self._pending.append((step, frozen, plain, HostCopy({"flags": torch.empty(0)})))
        elif not self._pending:
            self._frozen = frozen
            return self._report(step)
        self._frozen = frozen
        return self.collect() if self._pending else []

    def collect(self, wait: bool = False) -> list[StateChange]:
        """Changes whose flags have arrived on the host."""
        found: list[StateChange] = []
        while self._pending and (wait or self._pending[0][3].ready):
            step, frozen, plain, copy = self._pending.pop(0)
            values = iter(bool(v) for v in copy.wait()["flags"].tolist())
            self._on = [
                (True if a is None else next(values), True if b is None else next(values))
                for a, b in self._flags
            ]
            for index, flags in plain.items():
                self._on[index] = flags
            found += self._report(step, frozen)
        return found

    @property
    def observing(self) -> list[bool]:
        """Whether the observer of each site is on, as far as is known."""
        return [observer for observer, _ in self._on]

    def _frozen_now(self) -> list[bool | None]:
        frozen: list[bool | None] = [None] * len(self._all_watched)
        for index in self._with_norm:
            owner = self._owners[index]
            frozen[index] = bool(getattr(owner, "freeze_bn", False)) or not (
                self._norms[index].training
            )
        return frozen

    def _report(self, step: int, frozen: list[bool | None] | None = None) -> list[StateChange]:
        found = []
        for index, norm in enumerate(self._frozen if frozen is None else frozen):
            state = (*self._on[index], norm)
            if state != self._reported[index]:
                self._reported[index] = state
                path = self._all_watched[index].info.path
                found.append(StateChange(step, path, *state))
        return found
