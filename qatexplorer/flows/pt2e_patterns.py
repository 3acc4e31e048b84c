"""torchao's patterns of convolution, batch norm and dropout, traced once a process.

``convert_pt2e`` looks for convolutions with batch norms by some hundred small graphs, and exports
each of them anew in every call: 12 seconds, whatever the model, of which they know nothing.
``move_exported_model_to_eval`` does so with six for dropouts and batch norms, half a second. While
this is open, a pattern that was exported before is copied instead.
"""

from __future__ import annotations

import copy
import importlib
import types
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import fx

from qatexplorer.forward.trace import TRACE_LOCK

_USERS = ("torchao.quantization.pt2e.qat_utils", "torchao.quantization.pt2e.utils")
"""The modules in which the function is looked up: the second by those that import it when they are
called."""
_NAME = "_get_aten_graph_module_for_pattern"
_MOST = 500
_kept: dict[Any, fx.GraphModule] = {}


@contextmanager
def patterns_kept() -> Iterator[None]:
    """Inside, torchao's ``_get_aten_graph_module_for_pattern`` traces what it has not traced yet.
    One at a time is."""
    with TRACE_LOCK, ExitStack() as stack:
        for user in _USERS:
            stack.enter_context(_kept_in(importlib.import_module(user)))
        yield


@contextmanager
def _kept_in(module: types.ModuleType) -> Iterator[None]:
    original = getattr(module, _NAME, None)
    if original is None:  # another release of torchao
        yield
        return

    def kept(pattern: Any, example_inputs: Any, is_cuda: bool = False, **kwargs: Any) -> Any:
        key = _key(pattern, example_inputs, is_cuda, kwargs)
        if key is None:
            return original(pattern, example_inputs, is_cuda, **kwargs)
        if key not in _kept:
            if len(_kept) >= _MOST:
                _kept.clear()
            _kept[key] = original(pattern, example_inputs, is_cuda, **kwargs)
        # A copy: whoever asked may write into it.
        return copy.deepcopy(_kept[key])

    setattr(module, _NAME, kept)
    try:
        yield
    finally:
        setattr(module, _NAME, original)


def _key(pattern: Any, inputs: Any, is_cuda: bool, kwargs: dict[str, Any]) -> Any:
    """What a traced pattern depends on; None where that cannot be said."""
    given = (_part(inputs), is_cuda, _part(kwargs))
    known = _part(getattr(pattern, "fn", pattern))
    return None if None in (known, *given) else (type(pattern).__name__, known, *given)


def _part(value: Any) -> Any:
    """Something that can be compared for equality; None for what is unknown."""
    if isinstance(value, torch.Tensor):  # only shape and dtype are traced
        return ("tensor", tuple(value.shape), value.dtype, value.device)
    if isinstance(value, (bool, int, float, str, torch.dtype)):
        return (type(value).__name__, value)
    if isinstance(value, (tuple, list)):
        parts = tuple(map(_part, value))
        return None if None in parts else (type(value).__name__, *parts)
    if isinstance(value, dict):
        return _part(tuple((name, value[name]) for name in sorted(value)))
    if isinstance(value, types.FunctionType):
        return _function(value)
    if isinstance(value, types.BuiltinFunctionType):
        return ("builtin", value.__module__, value.__qualname__)
    return None


def _function(function: Callable[..., Any]) -> Any:
    cells = tuple(_part(cell.cell_contents) for cell in function.__closure__ or ())
    return None if None in cells else ("function", function.__module__, function.__code__, *cells)
