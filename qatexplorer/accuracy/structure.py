"""The tensors of a model's output, each with its place in the structure that it returns."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from qatexplorer.forward.trace import tensors_in


def leaves(value: Any, path: str = "output") -> Iterator[tuple[str, Tensor]]:
    """``("output['boxes'][0]", tensor)`` of all tensors in nested dicts, lists, tuples and
    dataclasses, in order; a named tuple's and a dataclass's by attribute."""
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from leaves(item, f"{path}[{key!r}]")
    elif isinstance(value, (tuple, list)):
        names = getattr(value, "_fields", None)
        for number, item in enumerate(value):
            place = f"{path}[{number}]" if names is None else f"{path}.{names[number]}"
            yield from leaves(item, place)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from leaves(getattr(value, field.name, None), f"{path}.{field.name}")


def numbers_in(result: Any) -> Tensor | None:
    """The first tensor of a result, if it is one of real numbers."""
    tensor = next(tensors_in(result), None)
    if tensor is None or tensor.is_sparse or tensor.is_meta:
        return None
    return tensor if tensor.is_quantized or tensor.is_floating_point() else None
