"""What the explorer accepts as data, models' inputs and outputs, brought to one form."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch.nn.utils.rnn import PackedSequence
from torch.utils._pytree import tree_map

from qatexplorer.errors import InputError

Batch = tuple[Any, Any]
"""(input, target); input is a tensor, a tuple of positional or a dict of keyword arguments."""


@dataclass(frozen=True)
class Data:
    """Train and eval batches of (input, target), re-iterable (a DataLoader, a list)."""

    train: Iterable[Batch]
    eval: Iterable[Batch]
    name: str = "data"


def as_data(data: Any) -> Data | None:
    """Bring ``data`` to :class:`Data`.

    Accepts None, an object with ``train`` and ``eval`` attributes, a dict with those keys, or a
    pair (train, eval). Raises InputError for anything else, and for iterators, which one epoch
    would use up.
    """
    if data is None:
        return None
    if isinstance(data, Mapping) and {"train", "eval"} <= set(data):
        train, evaluation = data["train"], data["eval"]
    elif hasattr(data, "train") and hasattr(data, "eval"):
        train, evaluation = data.train, data.eval
    elif isinstance(data, Sequence) and len(data) == 2:
        train, evaluation = data
    else:
        raise InputError(
            f"data is a {type(data).__name__}, which has no train and eval part.",
            why="The explorer trains on one iterable of (input, target) and evaluates on another.",
            fix="Pass data={'train': loader, 'eval': loader}, a pair, or an object with .train "
            "and .eval.",
        )
    for name, part in (("train", train), ("eval", evaluation)):
        # Not iter(part): a DataLoader would start its workers and draw from the user's generator.
        if not isinstance(part, Iterable) or isinstance(part, Iterator):
            raise InputError(
                f"data.{name} is a {type(part).__name__}, which cannot be iterated again.",
                why="Every epoch goes through the data once more; an iterator is empty after one.",
                fix="Pass a DataLoader or a list of (input, target) batches.",
            )
    return Data(
        cast(Iterable[Batch], train),
        cast(Iterable[Batch], evaluation),
        getattr(data, "name", "data"),
    )


def as_args(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Example inputs or a batch's input as (args, kwargs): tensor, tuple/list, or dict."""
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    if isinstance(inputs, (tuple, list)):
        return tuple(inputs), {}
    return (inputs,), {}


def cloned(inputs: Any) -> Any:
    """``inputs`` with each tensor copied: a forward may write to its input in place."""
    if isinstance(inputs, torch.Tensor):
        return inputs.clone()
    if isinstance(inputs, Mapping):
        return {key: cloned(value) for key, value in inputs.items()}
    if type(inputs) in (tuple, list):
        return type(inputs)(cloned(value) for value in inputs)
    return inputs


def device_of(model: torch.nn.Module) -> torch.device:
    """Where the parameters (or buffers) of ``model`` lie; the CPU if it has none, as int8 models
    have none."""
    for tensors in (model.parameters(), model.buffers()):
        for tensor in tensors:
            return tensor.device
    return torch.device("cpu")


def on_device(value: Any, device: torch.device) -> Any:
    """``value`` with every tensor in it on ``device``; those that are there already are not copied.

    Tuples, lists, dicts and what else torch knows as containers are gone through; other things
    that have a ``to`` (a batch of a tokenizer) are asked to move themselves.
    """
    # From pinned memory a copy to a GPU need not be waited for; the other way round it must.
    blocking = device.type != "cuda"

    def move(item: Any) -> Any:
        if isinstance(item, torch.Tensor):
            return item if item.device == device else item.to(device, non_blocking=not blocking)
        return item.to(device) if callable(getattr(item, "to", None)) else item

    if isinstance(value, torch.Tensor):
        return move(value)
    # A packed sequence keeps its lengths on the CPU, and knows it.
    return tree_map(move, value, is_leaf=lambda item: isinstance(item, PackedSequence))


def synchronize(device: torch.device) -> None:
    """Wait for what ``device`` has been given to do; on the CPU there is nothing to wait for."""
    if device.type != "cpu":
        wait = getattr(torch.get_device_module(device), "synchronize", None)
        if wait is not None:
            wait(device)


def call_model(model: torch.nn.Module, inputs: Any) -> Any:
    """``model(*args, **kwargs)`` for any accepted form of ``inputs``, moved to its device."""
    args, kwargs = as_args(on_device(inputs, device_of(model)))
    return model(*args, **kwargs)


def main_output(output: Any) -> torch.Tensor:
    """The tensor that losses and metrics are taken of: itself, ``.logits``, or the first tensor.

    Raises InputError if there is none.
    """
    if isinstance(output, torch.Tensor):
        return output
    logits = getattr(output, "logits", None)
    if isinstance(logits, torch.Tensor):
        return logits
    values = output.values() if isinstance(output, Mapping) else output
    if isinstance(values, Iterable):
        for value in values:
            if isinstance(value, torch.Tensor):
                return value
    raise InputError(
        f"the model returns a {type(output).__name__} without a tensor in it.",
        fix="Pass loss= and metric= functions that take what your model returns.",
    )
