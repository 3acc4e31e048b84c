"""Nests of tensors and plain values as JSON plus named tensors, and back: no pickle.

What optimizers and schedulers of torch keep in their ``state_dict`` fits: tensors, numbers,
strings, None, lists, tuples, dicts with keys of any plain type, counters, dtypes and devices.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qatexplorer.errors import CheckpointError

_TAG = "~"


def pack(value: Any, place: str, tensors: dict[str, Tensor]) -> Any:
    """``value`` as something ``json.dumps`` takes; its tensors go into ``tensors``, on the CPU.

    ``place`` names ``value`` in the keys of tensors and in messages. Raises CheckpointError for
    what cannot be written as data, such as a function.
    """
    if isinstance(value, Tensor):
        tensors[place] = value.detach().to("cpu", copy=True).contiguous()
        return {_TAG: "tensor", "key": place}
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        tensors[place] = torch.from_numpy(value.copy())
        return {_TAG: "array", "key": place}
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {_TAG: "float", "text": repr(value)}
    if isinstance(value, (list, tuple, Mapping)):
        return _pack_nest(value, place, tensors)
    if isinstance(value, (torch.dtype, torch.device)):
        return {_TAG: type(value).__name__, "text": str(value).removeprefix("torch.")}
    raise CheckpointError(
        f"{place} holds a {type(value).__name__}, which cannot be saved as data.",
        why="Checkpoints are read back without unpickling, so that opening one runs no code.",
        fix="Keep tensors, numbers, strings, lists and dicts in the state_dict.",
    )


def _pack_nest(value: Any, place: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Mapping):
        items = [
            [pack(k, f"{place}/key", tensors), pack(v, f"{place}/{k}", tensors)]
            for k, v in value.items()
        ]
        return {_TAG: "counter" if isinstance(value, Counter) else "dict", "items": items}
    items = [pack(v, f"{place}/{i}", tensors) for i, v in enumerate(value)]
    return items if isinstance(value, list) else {_TAG: "tuple", "items": items}


def unpack(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    """What :func:`pack` was given. Raises CheckpointError for a tree that it did not make."""
    if isinstance(tree, list):
        return [unpack(item, tensors) for item in tree]
    if not isinstance(tree, dict):
        return tree
    kind = tree.get(_TAG)
    try:
        if kind == "tensor":
            return tensors[tree["key"]]
        if kind == "array":
            return tensors[tree["key"]].numpy()
        if kind == "float":
            return float(tree["text"])
        if kind == "tuple":
            return tuple(unpack(item, tensors) for item in tree["items"])
        if kind in ("dict", "counter"):
            made = {unpack(k, tensors): unpack(v, tensors) for k, v in tree["items"]}
            return Counter(made) if kind == "counter" else made
        if kind == "device":
            return torch.device(tree["text"])
        if kind == "dtype" and isinstance(found := getattr(torch, tree["text"]), torch.dtype):
            return found
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise CheckpointError(
            "A checkpoint is damaged.", why=f"{type(error).__name__}: {error}"
        ) from error
    raise CheckpointError("A checkpoint is damaged.", why=f"It holds an unknown kind {kind!r}.")
