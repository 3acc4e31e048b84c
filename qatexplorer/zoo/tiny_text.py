"""The text of the small language model: sentences of a grammar that are written here, by a seed."""

from __future__ import annotations

import random
from functools import lru_cache

import torch
from torch.utils.data import DataLoader, TensorDataset

from qatexplorer.data import Data

ALPHABET = " ,.abcdefghijklmnopqrstuvwxyz"
"""Token numbers are places in it."""

LENGTH = 64
TRAIN_SEQUENCES, EVAL_SEQUENCES = 1024, 128
BATCH = 32

_NAMES = ("ada", "ben", "cleo", "dan", "eva", "finn")
_THINGS = ("apple", "book", "candle", "drum", "egg", "feather")
_PLACES = ("table", "shelf", "wall", "hill", "boat", "garden")
_NUMBERS = [
    "no",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
]


def sentence(choose: random.Random) -> str:
    """One sentence, with a name, a thing or a sum in its end that follows from its beginning."""
    one, other = choose.sample(_NAMES, 2)
    thing, place = choose.choice(_THINGS), choose.choice(_PLACES)
    more = choose.randrange(2, 7)
    less = choose.randrange(1, more)

    def many(count: int) -> str:
        return f"{_NUMBERS[count]} {thing}{'' if count == 1 else 's'}"

    left, sum_ = many(more - less), many(more + less)
    return choose.choice(
        (
            f"{one} has {many(more)} and gives {_NUMBERS[less]} to {other}, so {one} has {left}.",
            f"{one} has {many(more)} and {other} has {many(less)}, so they have {sum_}.",
            f"the {thing} of {one} is on the {place}, and on the {place} {other} sees the {thing}.",
            f"{other} asks {one} for the {thing}, and {one} gives the {thing} to {other}.",
        )
    )


def text(seed: int, characters: int) -> str:
    """At least so many characters of sentences, the same for the same seed everywhere."""
    choose = random.Random(seed)
    parts: list[str] = []
    length = 0
    while length < characters:
        parts.append(sentence(choose))
        length += len(parts[-1]) + 1
    return " ".join(parts)


def tokens(words: str) -> torch.Tensor:
    """int64, one for each character."""
    return torch.tensor([ALPHABET.index(character) for character in words])


def _pairs(seed: int, count: int) -> TensorDataset:
    """``count`` sequences of :data:`LENGTH` tokens, and of each token the next one."""
    needed = count * LENGTH + 1
    numbers = tokens(text(seed, needed)[:needed])
    return TensorDataset(numbers[:-1].view(count, LENGTH), numbers[1:].view(count, LENGTH))


@lru_cache(maxsize=1)
def _parts() -> tuple[TensorDataset, TensorDataset]:
    return _pairs(0, TRAIN_SEQUENCES), _pairs(1, EVAL_SEQUENCES)


def text_data() -> Data:
    """Batches of (tokens, next tokens), both int64 (N, 64): training batches shuffled by torch's
    random state, and evaluation batches of other sentences."""
    training, evaluation = _parts()
    return Data(
        DataLoader(training, batch_size=BATCH, shuffle=True),
        # A generator of its own, so that an evaluation does not move the user's random state.
        DataLoader(evaluation, batch_size=BATCH, generator=torch.Generator()),
        "sentences made by the package",
    )


def example_tokens(count: int = 8) -> torch.Tensor:
    """The first ``count`` evaluation sequences, int64 (count, 64), a copy."""
    return _parts()[1].tensors[0][:count].clone()
