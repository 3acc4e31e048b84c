"""A forward under ``torch.compile`` that leaves what this process has compiled alone.

torch keeps compiled code with the code object of the function it was made of: to compile the
user's own forward would take places in the caches of the user's compiled models, and to empty those
caches afterwards would throw these away. So a function of our own, with a code object that nothing
else has, calls the model, and all below it is compiled into that one: as one graph or not at all.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
from torch.nn import Module

from qatexplorer.data import as_args
from qatexplorer.shown import first_line

_NOTHING = (
    "torch.compile compiled nothing: it is switched off in this process, or the forward has no "
    "operation on tensors."
)


def compile_forward(model: Module, inputs: Any) -> tuple[Callable[..., Any] | None, str]:
    """``model`` under ``torch.compile`` (inductor, one graph, these very shapes), run once.

    The mode, gradients and number of threads that are in force are compiled into it. Returns what
    to call, or None and why there is none: no C++ compiler, a graph break, an error.
    """
    try:
        return _compile(model, inputs)
    except Exception as error:
        return None, _reason(error)


def _compile(model: Module, inputs: Any) -> tuple[Callable[..., Any] | None, str]:
    # Not at the top: it takes seconds, and most sessions compile nothing.
    import torch._dynamo.config
    import torch._inductor.config
    from torch._dynamo import lookup_backend

    inductor = lookup_backend("inductor")
    graphs = []

    def backend(graph: Any, given: Any) -> Any:
        graphs.append(graph)
        return inductor(graph, given)

    compiled: Any = torch.compile(
        _own_forward(model), backend=backend, fullgraph=True, dynamic=False
    )
    args, kwargs = as_args(inputs)
    with (
        torch._dynamo.config.patch(suppress_errors=False),
        torch._inductor.config.patch(compile_threads=1),  # leaves no worker processes behind
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        compiled(*args, **kwargs)
    return (compiled, "") if graphs else (None, _NOTHING)


def _own_forward(model: Module) -> Callable[..., Any]:
    def forward(*args: Any, **kwargs: Any) -> Any:
        return model(*args, **kwargs)

    code = forward.__code__.replace(co_name="timed_forward")
    return FunctionType(code, forward.__globals__, "timed_forward", None, forward.__closure__)


def _reason(error: BaseException) -> str:
    inner = error
    while (below := getattr(inner, "inner_exception", None) or inner.__cause__) is not None:
        inner = below
    name, text = type(inner).__name__, first_line(inner)
    if name == "InvalidCxxCompiler":
        return f"torch.compile finds no C++ compiler on this machine ({text})"
    if isinstance(error, torch._dynamo.exc.Unsupported):
        text = first_line(error)
        return f"torch.compile cannot make one graph of this forward: {text}"
    return f"torch.compile failed: {name}: {text}"
