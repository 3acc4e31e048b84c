"""Batches as the loop takes them: how many, of what form, and where to go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from qatexplorer.errors import CheckpointError, InputError


def length(batches: Any) -> int:
    """Batches per epoch, 0 if the data does not know."""
    try:
        return len(batches)
    except (TypeError, NotImplementedError):
        return 0


def pair(batch: Any) -> tuple[Any, Any]:
    """Input and target of a batch. Raises InputError if it is no pair."""
    if isinstance(batch, (tuple, list)) and len(batch) == 2:
        return batch[0], batch[1]
    raise InputError(
        f"the training data gives a {type(batch).__name__} that is not an (input, target) pair.",
        remedy="Yield (input, target); the input may be a tensor, a tuple or a dict of arguments.",
    )


def skip(batches: Iterator[Any], count: int, epoch: int, should_stop: Callable[[], bool]) -> bool:
    """Draw ``count`` batches and throw them away; False if it was stopped on the way.

    Raises CheckpointError if there are fewer.
    """
    for done in range(count):
        if should_stop():
            return False
        try:
            next(batches)
        except StopIteration:
            raise CheckpointError(
                f"The training data has {done} batches; the checkpoint was made after {count} "
                f"batches of epoch {epoch}.",
                remedy="Resume with the data that the run was made with.",
            ) from None
    return True
