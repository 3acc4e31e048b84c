"""Whether an operation runs on int8 tensors, found out by running it on small change.

Nothing here is a list: the very function that the model called is called once more, with int8
tensors of the same shapes and strides full of zeros, in a process once for each form of a call.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from qatexplorer.checks.evidence.float_run import Operation, Value
from qatexplorer.forward.preserve import preserved_rng
from qatexplorer.forward.trace import tensors_in
from qatexplorer.quantizers.engine import quantized_engine
from qatexplorer.shown import first_line

_LARGEST = 2**26
"""Tensors with more values than this are not made: what would come of them is not known."""


@dataclass(frozen=True, slots=True)
class Grid:
    """An int8 tensor: how it lies in memory, and its scale, which tells one grid from another."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    scale: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """``error``: torch's, where the call raises on int8 tensors and not on float ones; ``""`` if it
    runs. ``made``: for each tensor of its result a grid, or None for a float one. ``sure`` is False
    where the call could not be made again."""

    error: str = ""
    made: tuple[Grid | None, ...] = ()
    sure: bool = True


_KNOWN: dict[Any, Outcome] = {}


def on_int8(operation: Operation, grids: Mapping[int, Grid], engine: str) -> Outcome:
    """What becomes of ``operation`` if the values numbered in ``grids`` are int8 tensors."""
    given = (operation.args, operation.kwargs)
    form = tree_map_only(Value, lambda v: (v.shape, v.stride, v.dtype, grids.get(v.number)), given)
    key = (operation.func, repr(form), engine)
    if key not in _KNOWN:
        _KNOWN[key] = _tried(operation, grids, engine)
    return _KNOWN[key]


def _tried(operation: Operation, grids: Mapping[int, Grid], engine: str) -> Outcome:
    large = any(_stored(v.shape, v.stride) > _LARGEST for v in operation.inputs)
    if large:
        return Outcome(sure=False)
    with (
        quantized_engine(engine),
        preserved_rng(),
        torch.no_grad(),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        try:
            result = _called(operation, grids)
        except Exception as error:
            try:
                _called(operation, {})
            except Exception:
                return Outcome(sure=False)  # it does not like zeros, int8 or not
            first = first_line(error).partition(" This could be")[0]
            return Outcome(f"{type(error).__name__}: {first}")
    made = tuple(_grid_of(tensor) for tensor in tensors_in(result))
    return Outcome(made=made, sure=len(made) == len(operation.outputs))


def _called(operation: Operation, grids: Mapping[int, Grid]) -> Any:
    made: dict[int, Tensor] = {}

    def tensor(value: Value) -> Tensor:
        if value.number not in made:
            made[value.number] = _zeros(value, grids.get(value.number))
        return made[value.number]

    args, kwargs = tree_map_only(Value, tensor, (operation.args, operation.kwargs))
    return operation.func(*args, **kwargs)


def _zeros(value: Value, grid: Grid | None) -> Tensor:
    shape, stride = (value.shape, value.stride) if grid is None else (grid.shape, grid.stride)
    size = _stored(shape, stride)
    if grid is None:
        return torch.zeros(size, dtype=value.dtype).as_strided(shape, stride)
    plain = torch.quantize_per_tensor(torch.zeros(size), grid.scale, 0, torch.quint8)
    return plain.as_strided(shape, stride)


def _stored(shape: tuple[int, ...], stride: tuple[int, ...]) -> int:
    return 1 + sum((n - 1) * s for n, s in zip(shape, stride, strict=False)) if all(shape) else 0


def _grid_of(tensor: Tensor) -> Grid | None:
    if not tensor.is_quantized:
        return None
    return Grid(tuple(tensor.shape), tuple(tensor.stride()), tensor.q_scale())
