"""Several processes that train one model together, as ``torchrun`` starts them.

Each computes on its part of the data (:mod:`~qatexplorer.training.shard`); torch's
``DistributedDataParallel`` averages the gradients, so that all make the same step. The first
process (rank 0) evaluates, writes the run folder and hears what is requested of the run; the
others wait for it meanwhile.

**Ranges.** Each process sees other activations, and its observers and batch norms move with them.
Before each forward DDP sends the buffers of rank 0 to all (``broadcast_buffers``): the ranges that
count, and that a checkpoint keeps, are those that rank 0 has seen, a moving average over its part
of the data. That is torch's own way; merging the ranges of all would be a new observer, of which
the int8 model would not be what torch's recipe gives. After the last step the others get the
buffers of rank 0 once more, so that all have the same model. Learned step sizes are parameters, and
their observers set them to what a batch gives, so that those of rank 0 are sent after each step.

**Random numbers** are drawn anew from seed, rank and step in each step: a checkpoint of rank 0 is
then enough to go on from in all processes, bit for bit on the CPU.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Module
from torch.nn.parallel import DistributedDataParallel

from qatexplorer.data import Data
from qatexplorer.errors import TrainingError
from qatexplorer.training.rng import OwnRandomState
from qatexplorer.training.shard import shard

GO, WAIT, STOP = 0, 1, 2
"""What the processes say to one another between two steps; the largest counts."""

PATIENCE = timedelta(days=7)
"""How long one waits for another, which may evaluate for hours. One that has ended is noticed at
once, since its connections are closed."""

_DRAW, _STEP = 0, 1
_SPEAKS_OF_OTHERS = re.compile(r"gloo|nccl|by peer", re.IGNORECASE)


class Alone:
    """One process, which trains as if there were no others."""

    rank, size = 0, 1

    @property
    def writes(self) -> bool:
        """Whether this process evaluates and keeps the run."""
        return self.rank == 0

    def share(self, data: Data, seed: int) -> Data:
        """This process's part of the training data, and all of the evaluation data."""
        return data

    def wrap(self, model: Module) -> Module:
        """What to call in place of ``model``, so that gradients are averaged."""
        return model

    def begin_epoch(self, random: OwnRandomState, epoch: int) -> None:
        """Before an iterator of the data is made."""

    def begin_draw(self, random: OwnRandomState, step: int) -> None:
        """Before the batch of ``step`` is drawn."""

    def begin_step(self, random: OwnRandomState, step: int) -> None:
        """Before the forward of ``step``."""

    def stops(self, asked: Callable[[], bool], still: bool) -> bool:
        """Whether all stop now: ``asked`` says so in one of them. ``still``: there is no step
        next, and the others go on waiting."""
        return asked()

    def idle(self) -> bool:
        """The others are to wait on; whether one of them was asked to stop."""
        return False

    def released(self) -> bool:
        """The others are to go on after waiting; whether one of them was asked to stop."""
        return False

    def all_have(self, mine: bool) -> bool:
        """Whether all have a batch."""
        return mine

    def mean(self, loss: float, samples: int) -> tuple[float, int]:
        """Mean loss, and samples, of the step in all processes."""
        return loss, samples

    def level(self, tensors: Iterable[Tensor]) -> None:
        """Give ``tensors`` the values of rank 0 in all processes, in place."""

    def lost(self, error: Exception) -> TrainingError | None:
        """What to say if ``error`` means that another process is gone."""
        return None


class Team(Alone):
    """The processes of torch's default process group. Each method but ``share`` and the seeds is
    called by all of them in the same order, or all of them hang."""

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self._seed = 0
        self._sampler: Any = None

    def share(self, data: Data, seed: int) -> Data:
        self._seed = seed
        train, self._sampler = shard(data.train, self.rank, self.size, seed)
        return replace(data, train=train)

    def wrap(self, model: Module) -> Module:
        # Also a fake quant that no gradient reaches in some step must not break the averaging.
        # With it DDP keeps its buckets as they are, and sums in the same order after a resume.
        return DistributedDataParallel(model, broadcast_buffers=True, find_unused_parameters=True)

    def begin_epoch(self, random: OwnRandomState, epoch: int) -> None:
        if self._sampler is not None:
            self._sampler.set_epoch(epoch)

    def begin_draw(self, random: OwnRandomState, step: int) -> None:
        # Where all draw the same batches, all must draw the same random numbers.
        rank = self.rank if self._sampler is not None else 0
        random.reseed(self._mixed(_DRAW, rank, step))

    def begin_step(self, random: OwnRandomState, step: int) -> None:
        random.reseed(self._mixed(_STEP, self.rank, step))

    def _mixed(self, *numbers: int) -> int:
        return int(np.random.SeedSequence([self._seed, *numbers]).generate_state(1)[0])

    def stops(self, asked: Callable[[], bool], still: bool) -> bool:
        if self.writes:
            return self._largest(STOP if asked() else WAIT if still else GO) == STOP
        while True:
            found = self._largest(STOP if asked() else GO)
            if found != WAIT:
                return found == STOP

    def idle(self) -> bool:
        return self.writes and self._largest(WAIT) == STOP

    def released(self) -> bool:
        return self._largest(GO) == STOP

    def all_have(self, mine: bool) -> bool:
        return self._largest(0 if mine else 1) == 0

    def _largest(self, mine: int) -> int:
        found = torch.tensor([mine])
        dist.all_reduce(found, op=dist.ReduceOp.MAX)
        return int(found)

    def mean(self, loss: float, samples: int) -> tuple[float, int]:
        both = torch.tensor([loss, float(samples)], dtype=torch.float64)
        dist.all_reduce(both)
        total, count = both.tolist()
        return total / self.size, int(count)

    @torch.no_grad()
    def level(self, tensors: Iterable[Tensor]) -> None:
        for tensor in tensors:
            sent = tensor.detach().contiguous()
            dist.broadcast(sent, 0)
            if sent.data_ptr() != tensor.data_ptr():
                tensor.copy_(sent)

    def lost(self, error: Exception) -> TrainingError | None:
        text = str(error)
        if not isinstance(error, RuntimeError) or not _SPEAKS_OF_OTHERS.search(text):
            return None
        return TrainingError(
            "Another process of this run has ended, and this one cannot go on without it.",
            why=text.strip().splitlines()[0],
            fix="See what that process says; then go on from the last checkpoint with --resume.",
        )


_current: Alone = Alone()


def current() -> Alone:
    """The processes that this one trains with: none but inside :func:`together`."""
    return _current


@contextmanager
def together() -> Iterator[Alone]:
    """Inside, a run of training is one run of all processes that ``torchrun`` has started.

    Without torchrun, or with one process of it, nothing is different. Raises TrainingError if the
    processes do not find one another.
    """
    global _current
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield _current
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        dist.init_process_group(backend, timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise TrainingError(
            "The processes of this run do not find one another.",
            why=f"WORLD_SIZE is set, and torch.distributed says: {error}",
            fix="Start them with torchrun, or unset WORLD_SIZE to train in one process.",
        ) from error
    try:
        _current = Team()
        yield _current
    finally:
        _current = Alone()
        dist.destroy_process_group()
