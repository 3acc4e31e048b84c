"""The patterns by which torchao finds convolutions with a batch norm, traced once.

torchao exports the same hundred small functions anew in each ``convert_pt2e`` of a model with a
batch norm, and a dozen in each ``prepare_qat_pt2e``; that is nearly all of the time these take.
What comes out depends on the function and on the shapes of its arguments alone, so a copy of the
first result stands for the others.
"""

from __future__ import annotations

import copy
import functools
import importlib
import types
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx

_MODULE, _NAME = "torchao.quantization.pt2e.qat_utils", "_get_aten_graph_module_for_pattern"
_traced: dict[Hashable, fx.GraphModule] = {}


@contextmanager
def patterns_kept() -> Iterator[None]:
    """Inside, each pattern that torchao asks for is traced once in the life of the process."""
    module = importlib.import_module(_MODULE)
    original = getattr(module, _NAME, None)
    if original is None or hasattr(original, "__wrapped__"):  # moved, or open already
        yield
        return
    setattr(module, _NAME, _once(original))
    try:
        yield
    finally:
        setattr(module, _NAME, original)


def _once(original: Callable[..., fx.GraphModule]) -> Callable[..., fx.GraphModule]:
    @functools.wraps(original)
    def traced(*args: Any, **kwargs: Any) -> fx.GraphModule:
        try:
            key = (_identity(args), _identity(kwargs))
            found = _traced.get(key)
        except (TypeError, ValueError, KeyError):  # an argument that has no key
            return original(*args, **kwargs)
        if found is None:
            found = _traced[key] = original(*args, **kwargs)
        return copy.deepcopy(found)

    return traced


def _identity(value: Any) -> Hashable:
    """Equal for arguments that give the same pattern: functions by their code and what they
    close over, tensors by shape and dtype."""
    if isinstance(value, torch.Tensor):
        return ("tensor", tuple(value.shape), value.dtype, value.device)
    if isinstance(value, torch.nn.Module):
        return ("module", type(value), _identity(vars(value)["fn"]))
    if isinstance(value, types.FunctionType):
        return (value.__code__, tuple(_identity(c.cell_contents) for c in value.__closure__ or ()))
    if isinstance(value, (tuple, list)):
        return tuple(map(_identity, value))
    if isinstance(value, dict):
        return tuple((name, _identity(one)) for name, one in value.items())
    hash(value)
    return (type(value), value)
