"""Each of several processes gets its part of the training data, all as many batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
)

from qatexplorer.data import Batch


class Rounds:
    """Of ``size`` batches of ``source`` in a row, the one of process ``rank``.

    Each process draws all batches, so that their order must be the same in all, and computes with
    its own only. Where the last round is not full its batches are used more than once, as
    DistributedSampler does with samples.
    """

    def __init__(self, source: Iterable[Batch], rank: int, size: int) -> None:
        self._source, self._rank, self._size = source, rank, size
        # What a run's own random state takes care of.
        for name in ("generator", "sampler", "batch_sampler"):
            setattr(self, name, getattr(source, name, None))

    def __len__(self) -> int:
        return -(-len(self._source) // self._size)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Batch]:
        batches: list[Batch] = []
        for batch in self._source:
            batches.append(batch)
            if len(batches) == self._size:
                yield batches[self._rank]
                batches = []
        if batches:
            yield batches[self._rank % len(batches)]


def shard(batches: Iterable[Batch], rank: int, size: int, seed: int) -> tuple[Iterable[Batch], Any]:
    """The part of process ``rank`` of ``size``, and the DistributedSampler that makes it, or None.

    A DataLoader that draws each sample of a map-style dataset once, in order or shuffled, gets a
    DistributedSampler, ``batch_size`` being that of each process; one that has such a sampler is
    taken as it is. All else is dealt out batch by batch (:class:`Rounds`).
    """
    if isinstance(batches, DataLoader):
        if isinstance(batches.sampler, DistributedSampler):
            return batches, batches.sampler
        if _is_plain(batches):
            sampler: Any = DistributedSampler(
                batches.dataset,
                size,
                rank,
                shuffle=isinstance(batches.sampler, RandomSampler),
                seed=seed,
                drop_last=batches.drop_last,
            )
            return _with_sampler(batches, sampler), sampler
    return Rounds(batches, rank, size), None


def _is_plain(loader: DataLoader[Any]) -> bool:
    sampler = loader.sampler
    if type(loader) is not DataLoader or type(loader.batch_sampler) is not BatchSampler:
        return False  # a class of the user's may do anything
    if isinstance(loader.dataset, IterableDataset):
        return False
    if type(sampler) is RandomSampler:
        return not sampler.replacement and sampler.num_samples == len(sampler.data_source)
    return type(sampler) is SequentialSampler


def _with_sampler(loader: DataLoader[Any], sampler: Any) -> DataLoader[Any]:
    return DataLoader(
        loader.dataset,
        batch_size=loader.batch_size,
        sampler=sampler,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        drop_last=loader.drop_last,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        generator=loader.generator,
        prefetch_factor=loader.prefetch_factor,
        persistent_workers=loader.persistent_workers,
        pin_memory_device=loader.pin_memory_device,
    )
