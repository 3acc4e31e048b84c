"""A random state of the run's own, so that training is reproducible and the user's is untouched."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


class OwnRandomState:
    """The random numbers that torch, Python and NumPy give inside are a stream of our own.

    Generators of ``sources`` (a DataLoader's and its samplers') are part of it: otherwise the
    order of the batches would depend on how often the user has iterated before.

    torch's default generator belongs to the process, not to a thread: random numbers that another
    thread draws while a background run is inside come out of the run's stream.
    """

    def __init__(self, seed: int, sources: Iterable[Any] = ()) -> None:
        self._generators = list(_generators(sources))
        self._inside = False
        theirs = self._read()
        try:
            torch.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed % 2**32)
            for generator in self._generators:
                generator.manual_seed(seed)
            self._ours = self._read()
        finally:
            self._write(theirs)
        self._theirs: tuple[Any, ...] | None = None

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Our stream inside, theirs again after, also on errors."""
        self.enter()
        try:
            yield
        finally:
            self.leave()

    @contextmanager
    def outside(self) -> Iterator[None]:
        """Their stream for a while, in the middle of :meth:`inside` (a pause)."""
        was_inside = self._inside
        self.leave()
        try:
            yield
        finally:
            if was_inside:
                self.enter()

    def enter(self) -> None:
        if not self._inside:
            self._theirs = self._read()
            self._write(self._ours)
            self._inside = True

    def leave(self) -> None:
        if self._inside and self._theirs is not None:
            self._ours = self._read()
            self._write(self._theirs)
            self._inside = False

    def now(self) -> tuple[Any, ...]:
        """The state of our stream, to be given to :meth:`become` later."""
        return self._read() if self._inside else self._ours

    def become(self, state: tuple[Any, ...]) -> None:
        """Our stream goes on from ``state``."""
        if self._inside:
            self._write(state)
        else:
            self._ours = state

    def reseed(self, seed: int) -> None:
        """Our stream begins anew, inside only: a step of its own random numbers."""
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        for generator in self._generators:
            generator.manual_seed(seed)

    def cheap_now(self) -> tuple[Any, ...]:
        """A cheap :meth:`now`, inside only: NumPy's state, which is slow to read, is left out."""
        own = [generator.get_state() for generator in self._generators]
        return torch.get_rng_state(), _cuda_state(), random.getstate(), own

    def rewound(self, cheap_now: tuple[Any, ...]) -> tuple[Any, ...]:
        """:meth:`now`, with what :meth:`cheap_now` saw earlier put in."""
        cpu, cuda, python, own = cheap_now
        _, _, _, numpy, _ = self.now()
        return cpu, cuda, python, numpy, own

    def _read(self) -> tuple[Any, ...]:
        own = [generator.get_state() for generator in self._generators]
        return torch.get_rng_state(), _cuda_state(), random.getstate(), np.random.get_state(), own

    def _write(self, state: tuple[Any, ...]) -> None:
        cpu, cuda, python, numpy, own = state
        torch.set_rng_state(cpu)
        # A run may go on on a machine with fewer GPUs, or none.
        for index, value in enumerate((cuda or ())[: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(value, index)
        random.setstate(python)
        np.random.set_state(numpy)
        for generator, value in zip(self._generators, own, strict=True):
            generator.set_state(value)


def _cuda_state() -> list[torch.Tensor] | None:
    """States of all GPUs' generators, which lie on the host; None while CUDA is not in use."""
    return torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None


def _generators(sources: Iterable[Any]) -> Iterator[torch.Generator]:
    seen: set[int] = {id(torch.default_generator)}
    for source in sources:
        batches = getattr(source, "batch_sampler", None)
        for owner in (source, getattr(source, "sampler", None), getattr(batches, "sampler", None)):
            generator = getattr(owner, "generator", None)
            if isinstance(generator, torch.Generator) and id(generator) not in seen:
                seen.add(id(generator))
                yield generator
