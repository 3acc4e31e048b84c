"""A forward on tensors without values: torch works out shapes and dtypes, and computes nothing.

It tells what a forward that computes would tell, where no value decides what happens. Whether that
is so is asked first, of torch's trace and of what it calls. Where it is not, and wherever the
forward without values raises, a real one has to be run, whose errors are those that a user sees.
"""

from __future__ import annotations

import copy
import operator
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from qatexplorer.data import as_args
from qatexplorer.quantizers.facts import family_of
from qatexplorer.quantizers.types import CONTAINERS, FUNCTIONAL_CLASSES, STUBS

# Torch's modules and functions that look at no value of the float tensors that they are given.
_FILES = (
    *("activation", "batchnorm", "conv", "dropout", "flatten", "instancenorm", "linear"),
    *("normalization", "padding", "pixelshuffle", "pooling", "upsampling"),
)
_PLACES = frozenset(f"torch.nn.modules.{name}" for name in _FILES) | {
    "torch.ao.nn.qat.modules.conv",
    "torch.ao.nn.qat.modules.linear",
}
_FUSED_PLACES = ("torch.ao.nn.intrinsic.modules.", "torch.ao.nn.intrinsic.qat.modules.")
# The first looks at masks, the next at indices; the others, without values, torch lets take
# channels or dimensions that do not fit.
_NOT = (
    *(nn.MultiheadAttention, nn.MaxUnpool1d, nn.MaxUnpool2d, nn.MaxUnpool3d),
    *(nn.modules.conv._ConvTransposeNd, nn.Softmax, nn.Softmin, nn.LogSoftmax, nn.Softmax2d),
)
_FUNCTIONS: Mapping[Any, tuple[str, ...]] = {
    operator: ("add", "iadd", "sub", "mul", "imul", "truediv", "floordiv", "neg", "getitem"),
    torch: (
        *("add", "sub", "mul", "div", "matmul", "cat", "stack", "chunk", "split", "flatten"),
        *("reshape", "permute", "transpose", "squeeze", "unsqueeze", "mean", "relu", "sigmoid"),
        "tanh",
    ),
    F: (
        *("relu", "relu6", "gelu", "silu", "mish", "elu", "leaky_relu", "sigmoid", "tanh"),
        *("hardswish", "hardsigmoid", "hardtanh", "dropout", "linear", "pad"),
        *("batch_norm", "layer_norm", "group_norm", "interpolate", "max_pool2d", "avg_pool2d"),
        *("adaptive_avg_pool2d", "scaled_dot_product_attention"),
    ),
}
_KNOWN_FUNCTIONS = {getattr(place, name) for place, names in _FUNCTIONS.items() for name in names}
_KNOWN_METHODS = frozenset(
    (
        *("add", "add_", "sub", "mul", "mul_", "div", "matmul", "chunk", "split", "flatten"),
        *("view", "reshape", "permute", "transpose", "squeeze", "unsqueeze", "unflatten"),
        *("expand", "contiguous", "size", "dim", "mean", "sum", "relu", "relu_", "sigmoid"),
        "tanh",
    )
)


def decided_by_shapes(graph: fx.Graph, model: nn.Module, inputs: Any) -> bool:
    """Whether no value decides what a forward of ``model`` does, nor what shapes come of it.

    ``graph`` is FX's trace, which no control flow by values has passed: what it calls must be known
    to look at shapes only, and all tensors must be dense ones of float32.
    """
    modules = dict(model.named_modules())
    calls = all(_is_known_call(node, modules) for node in graph.nodes)
    return calls and all(map(_is_plain, _leaves(as_args(inputs)))) and _is_as_torch_has_it(model)


def still_decided_by_shapes(model: nn.Module, before: nn.Module) -> bool:
    """The same for what torch has prepared of a model ``before`` for which it was so."""
    traced = {type(module) for module in before.modules()}
    return _is_as_torch_has_it(model) and all(
        type(module) in traced or _is_known(module) or family_of(module) is not None
        for module in model.modules()
        if not isinstance(module, CONTAINERS)
    )


def _is_known_call(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    if node.op == "call_module":
        return _is_known(modules[str(node.target)])
    if node.op == "call_function":
        owner = getattr(node.target, "__self__", None)
        is_getattr = node.target is getattr and node.args[1] in ("shape", "ndim", "dtype", "device")
        known = isinstance(owner, FUNCTIONAL_CLASSES) or node.target in _KNOWN_FUNCTIONS
        return known or is_getattr
    if node.op == "get_attr":  # a plain attribute may lie on another device, and no check saw it
        owner, _, name = str(node.target).rpartition(".")
        holder = modules.get(owner)
        return holder is not None and (name in holder._parameters or name in holder._buffers)
    return node.op != "call_method" or node.target in _KNOWN_METHODS


def _is_known(module: nn.Module) -> bool:
    place = type(module).__module__
    known = place in _PLACES or place.startswith(_FUSED_PLACES)
    return (known and not isinstance(module, _NOT)) or type(module) in (*STUBS, *FUNCTIONAL_CLASSES)


def _is_as_torch_has_it(model: nn.Module) -> bool:
    """Whether nothing but torch's own code stands around the modules' forwards, and all tensors
    are such as the user's own check has let pass: no hooks but torch's, no autocast, no fake quant
    that does more than torch's fused kernel."""
    everywhere = (
        nn.modules.module._global_forward_hooks,
        nn.modules.module._global_forward_pre_hooks,
    )
    autocast = torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda")
    if any(everywhere) or autocast or next(model.parameters(), None) is None:
        return False
    inside: set[int] = set()
    for module in model.modules():
        state = vars(module)
        for table in (state.get("_forward_hooks"), state.get("_forward_pre_hooks")):
            if table is None or any(_is_users(hook) for hook in table.values()):
                return False
        if "forward" in state:
            return False
        family = family_of(module)
        if family is not None:
            fused = family.is_fake_quant(module) and family.kernel_observes(module)
            if not fused and id(module) not in inside:
                return False
            inside.add(id(family.observer(module)))
        else:
            counts = isinstance(module, nn.modules.batchnorm._NormBase)
            tensors = (*module._parameters.values(), *(() if counts else module._buffers.values()))
            if not all(map(_is_plain, tensors)):
                return False
    return True


def _is_users(hook: Any) -> bool:
    return not str(getattr(hook, "__module__", "")).startswith("torch.ao.quantization.")


def _is_plain(value: Any) -> bool:
    """Whether it is a dense tensor of float32, or a number, a flag, a text or nothing."""
    if not isinstance(value, Tensor):
        return isinstance(value, (bool, int, float, str, type(None)))
    dense = value.layout == torch.strided and not value.is_meta
    return type(value) in (Tensor, nn.Parameter) and value.dtype == torch.float32 and dense


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, (tuple, list)):
        for part in value:
            yield from _leaves(part)
    else:
        yield value


# -- running it -----------------------------------------------------------------------------------


@contextmanager
def without_values(model: nn.Module) -> Iterator[torch.device]:
    """While open, parameters and buffers of ``model`` have shapes only, and so must its inputs:
    gives the device to put them on. The model's own tensors are put back untouched.

    Raises what torch raises where it needs a value, and RuntimeError at the end if the model's code
    has kept something of the forward, which must not stay in it.
    """
    twins: dict[int, Tensor] = {}
    tables = []
    kept = [
        (m, _kept_by(m)) for m in model.modules() if not type(m).__module__.startswith("torch.")
    ]
    for module in model.modules():
        state = vars(module)
        tables.append((state, state["_parameters"], state["_buffers"]))
        for name in ("_parameters", "_buffers"):
            state[name] = {key: _twin(tensor, twins) for key, tensor in state[name].items()}
    try:
        with torch.no_grad(), _NoValues():
            yield torch.device("meta")
    finally:
        for state, parameters, buffers in tables:
            state["_parameters"], state["_buffers"] = parameters, buffers
        # No `any` of a generator: all of them must be put back.
        changed = [_put_back(module, before) for module, before in kept]
    if any(changed):
        raise RuntimeError("the model keeps something of its forward")


def _twin(tensor: Tensor | None, twins: dict[int, Tensor]) -> Tensor | None:
    if tensor is None:
        return None
    if id(tensor) not in twins:
        twin = torch.empty_like(tensor, device="meta")
        is_parameter = isinstance(tensor, nn.Parameter)
        twins[id(tensor)] = nn.Parameter(twin, tensor.requires_grad) if is_parameter else twin
    return twins[id(tensor)]


_TABLES = frozenset(["_parameters", "_buffers", "_modules"])


def _kept_by(module: nn.Module) -> dict[str, tuple[Any, Any]]:
    """Each attribute, with a copy of what is in it if it is a container."""
    containers = (list, dict, set, deque)
    return {
        name: (value, copy.copy(value) if type(value) in containers else None)
        for name, value in vars(module).items()
        if name not in _TABLES
    }


def _put_back(module: nn.Module, before: Mapping[str, tuple[Any, Any]]) -> bool:
    """Whether ``module`` has other attributes now; they are as ``before`` again."""
    state, changed = vars(module), False
    for name in [name for name in state if name not in before and name not in _TABLES]:
        del state[name]
        changed = True
    for name, (value, content) in before.items():
        changed = changed or state.get(name, state) is not value
        state[name] = value
        if content is not None and len(content) != len(value):
            changed = True
            value.clear()
            (value.extend if isinstance(value, (list, deque)) else value.update)(content)
    return changed


class _NoValues(TorchFunctionMode):
    """What torch can do without values only slowly, or not at all, and gives the shape it takes."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.fused_moving_avg_obs_fake_quant:
            return args[0]
        if func is F.relu and not (kwargs or {}).get("inplace"):
            return torch.empty_like(args[0])
        if func is F.batch_norm:
            return _normed(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") in _POINTWISE and not kwargs:
            return _pointwise(func, args)
        return func(*args, **(kwargs or {}))


_POINTWISE = frozenset(["add", "sub", "mul", "div", "sqrt", "__truediv__", "__add__", "__mul__"])


def _pointwise(func: Any, args: tuple[Any, ...]) -> Any:
    tensors = [value for value in args if isinstance(value, Tensor)]
    if any(t.dtype != torch.float32 or not t.is_meta for t in tensors):
        return func(*args)
    shape = torch.broadcast_shapes(*(t.shape for t in tensors))
    return torch.empty(shape, dtype=torch.float32, device="meta")


def _normed(
    x: Tensor, mean: Any, var: Any, weight: Any = None, bias: Any = None, training: bool = False,
    **_: Any,
) -> Tensor:  # fmt: skip
    channels = x.shape[1]
    given = [t for t in (mean, var, weight, bias) if t is not None]
    if any(t.numel() != channels for t in given) or (training and x.numel() <= channels):
        raise RuntimeError("torch's batch norm does not take this")
    return torch.empty_like(x)
