"""Deep copies of a model, right where ``copy.deepcopy`` alone is not.

``deepcopy`` refuses tensors that a forward has computed (the ``weight`` of ``weight_norm`` and of
pruning, kept activations), and it leaves functions as they are: a hook or a lambda made in
``__init__`` would go on writing to, and reading from, the model that it was made in.
"""

from __future__ import annotations

import copy
import functools
import types
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, jit, nn

from qatexplorer.flows.user_hooks import HOOK_TABLES, UserHook

_CONTAINERS = (dict, list, set, OrderedDict, defaultdict, deque)
_HOLD_NONE = (bool, int, float, str, type(None), torch.dtype, torch.qscheme)
_DEEPEST = 8
Memo = dict[int, Any]


def copied(model: nn.Module, memo: Memo | None = None) -> nn.Module:
    """Deep copy of ``model``; what is in ``memo`` (by ``id``) is taken from there.

    Tensors with a gradient history are copied without it. Functions that close over the model, a
    part of it, or a dict or list that only they know of get the copy's. Raises what
    ``copy.deepcopy`` raises for anything else that it refuses.
    """
    memo = {} if memo is None else memo
    held = held_tensors(model)
    for tensor in (t for t in held if t.grad_fn is not None):
        memo.setdefault(id(tensor), tensor.detach().clone())
    for tensor in _plain_buffers(model, held):
        memo.setdefault(id(tensor), tensor.clone())
    for packed in (b for b in model.buffers() if b.is_mkldnn):
        memo.setdefault(id(packed), packed)  # oneDNN's own: nobody writes to it or can copy it
    for table in _empty_tables(model):
        memo.setdefault(id(table), type(table)())
    twin: nn.Module = copy.deepcopy(model, memo)
    _give_scripts_leaves(model, memo)
    _Rebinder(model, memo).visit(twin)
    return twin


def _empty_tables(model: nn.Module) -> Iterator[dict[Any, Any]]:
    """Attributes of modules that are dicts with nothing in them: each has a dozen, for hooks, which
    ``deepcopy`` takes to pieces one by one."""
    for module in model.modules():
        for value in vars(module).values():
            if type(value) in (dict, OrderedDict) and not value:
                yield value


def _plain_buffers(model: nn.Module, held: Iterable[Tensor]) -> list[Tensor]:
    """Buffers of which ``deepcopy`` would make no more than a clone, at ten times its cost: dense,
    all of a storage that nothing else which the model has ``held`` shares, and nothing attached."""
    owners: dict[int, set[int]] = {}
    for tensor in (*model.parameters(), *held):
        owners.setdefault(_storage(tensor), set()).add(id(tensor))
    return [
        buffer
        for buffer in model.buffers()
        if type(buffer) is Tensor
        and buffer.layout == torch.strided
        and owners.get(_storage(buffer)) == {id(buffer)}
        and not (buffer.requires_grad or buffer.is_quantized or buffer.is_inference())
        and buffer.is_contiguous()
        and buffer.untyped_storage().nbytes() == buffer.nbytes
        and not vars(buffer)
    ]


def _storage(tensor: Tensor) -> int:
    """Where its memory begins; 0 if it has none, or does not say (sparse ones, some subclasses)."""
    try:
        return tensor.untyped_storage().data_ptr()
    except (NotImplementedError, RuntimeError):
        return 0


def held_tensors(model: nn.Module) -> list[Tensor]:
    """Buffers, and tensors in other attributes of modules and in what those hold, each once."""
    seen: set[int] = set()
    found: list[Tensor] = []

    def visit(value: Any, depth: int) -> None:
        if depth == _DEEPEST or id(value) in seen or isinstance(value, (type, nn.Module)):
            return
        if isinstance(value, Tensor):
            seen.add(id(value))
            found.append(value)
            return
        if isinstance(value, dict):
            inside: Any = value.values()
        elif isinstance(value, (list, tuple, set, deque)):
            inside = value
        elif isinstance(value, types.MethodType):
            inside = (value.__self__,)
        elif hasattr(value, "__dict__") and not isinstance(value, types.FunctionType):
            inside = vars(value).values()
        else:
            return
        seen.add(id(value))
        for item in list(inside):
            if type(item) not in _HOLD_NONE:
                visit(item, depth + 1)

    for module in model.modules():
        if not isinstance(module, jit.ScriptModule):
            for name, value in vars(module).items():
                # Most tables of hooks are empty.
                skipped = type(value) in _HOLD_NONE or (isinstance(value, dict) and not value)
                if not skipped and name not in ("_modules", "_parameters"):
                    visit(value, 0)
    return found


def _give_scripts_leaves(model: nn.Module, memo: Memo) -> None:
    """TorchScript copies parameters with their history, and asks no memo: they would be no leaves,
    hanging on the model that they were copied from."""
    for script in model.modules():
        twin = memo.get(id(script))
        if not isinstance(script, jit.ScriptModule) or twin is None:
            continue
        parts = dict(twin.named_modules())
        for name, parameter in script.named_parameters():
            path, _, leaf = name.rpartition(".")
            if id(parameter) not in memo:
                values = parameter.detach().clone()
                memo[id(parameter)] = nn.Parameter(values, parameter.requires_grad)
            parts[path]._parameters[leaf] = memo[id(parameter)]


class _Rebinder:
    """Gives functions of a copy the copies of what they close over."""

    def __init__(self, model: nn.Module, memo: Memo) -> None:
        self._memo = memo
        self._done: dict[int, Any] = {}
        # What the model's own code reads must stay the one object that hooks write to.
        self._shared = _named_by(_methods(model))

    def visit(self, twin: nn.Module) -> None:
        """Look through the attributes and hooks of all modules of ``twin``, in place."""
        for module in twin.modules():
            if isinstance(module, jit.ScriptModule):
                continue
            state = vars(module)
            for name, value in list(state.items()):
                if type(value) in _HOLD_NONE or name in ("_modules", "_parameters", "_buffers"):
                    continue
                if name == "forward" and _is_compiled_forward(module, value):
                    del state[name]  # the class's own forward computes the same
                elif isinstance(value, (dict, list)):
                    if value:
                        self._visit_container(value, hooks=name in HOOK_TABLES)
                else:
                    state[name] = self._of(value)

    def _visit_container(self, container: Any, hooks: bool) -> None:
        items = container.items() if isinstance(container, dict) else enumerate(container)
        for key, value in list(items):
            if isinstance(value, UserHook):
                value.function = self._of(value.function, hook=True)
            elif isinstance(value, (types.FunctionType, types.MethodType, functools.partial)):
                container[key] = self._of(value, hooks)

    def _of(self, value: Any, hook: bool = False) -> Any:
        """The copy's counterpart of ``value``, or ``value`` itself."""
        if isinstance(value, types.FunctionType):
            return self._function(value, hook)
        if isinstance(value, types.MethodType):
            owner = self._memo.get(id(value.__self__), value.__self__)
            return value if owner is value.__self__ else types.MethodType(value.__func__, owner)
        if isinstance(value, functools.partial):
            inner = self._of(value.func, hook)
            return (
                value
                if inner is value.func
                else functools.partial(inner, *value.args, **value.keywords)
            )
        return value

    def _content(self, value: Any) -> Any:
        """The same for what a function closes over; containers of its own are copied."""
        if id(value) in self._memo:
            return self._memo[id(value)]
        if type(value) in _CONTAINERS and id(value) not in self._shared:
            try:
                return copy.deepcopy(value, self._memo)
            except Exception:
                return value  # holds something that cannot be copied: it stays shared
        return self._of(value)

    def _function(self, function: types.FunctionType, hook: bool) -> types.FunctionType:
        if id(function) in self._done:
            return self._done[id(function)]  # type: ignore[no-any-return]
        self._done[id(function)] = function  # a function may close over itself
        cells = [_content_of(cell) for cell in function.__closure__ or ()]
        contents = [self._content(value) for value in cells]
        defaults = [self._content(value) for value in function.__defaults__ or ()]
        own = {name: self._content(v) for name, v in _sinks(function).items()} if hook else {}
        before = [*cells, *(function.__defaults__ or ()), *_sinks(function).values()]
        after = [*contents, *defaults, *(own.values() if hook else _sinks(function).values())]
        if all(a is b for a, b in zip(before, after, strict=True)):
            return function
        twin = types.FunctionType(
            function.__code__,
            function.__globals__ | own if own else function.__globals__,
            function.__name__,
            tuple(defaults) or None,
            tuple(types.CellType(value) for value in contents) or None,
        )
        for name in functools.WRAPPER_ASSIGNMENTS:
            with suppress(AttributeError):
                setattr(twin, name, getattr(function, name))
        twin.__dict__.update(function.__dict__)
        twin.__kwdefaults__ = function.__kwdefaults__
        self._done[id(function)] = twin
        return twin


def _sinks(function: types.FunctionType) -> dict[str, Any]:
    """Dicts and lists among the globals that ``function`` names, by name."""
    found = {name: function.__globals__.get(name) for name in function.__code__.co_names}
    return {name: value for name, value in found.items() if type(value) in _CONTAINERS}


def _methods(model: nn.Module) -> Iterator[types.FunctionType]:
    """Functions of the user's classes in ``model``."""
    classes = {base for module in model.modules() for base in type(module).__mro__}
    for cls in classes:
        if not cls.__module__.startswith("torch."):
            yield from (f for f in vars(cls).values() if isinstance(f, types.FunctionType))


def _named_by(functions: Iterator[types.FunctionType]) -> set[int]:
    """``id`` of what ``functions`` close over and of the globals that they name."""
    found: set[int] = set()
    for function in functions:
        found.update(id(_content_of(cell)) for cell in function.__closure__ or ())
        found.update(id(value) for value in _sinks(function).values())
    return found


def _content_of(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


def _is_compiled_forward(module: nn.Module, value: Any) -> bool:
    """Whether it is ``module.forward = torch.compile(module.forward)``."""
    inner = getattr(value, "_torchdynamo_orig_callable", None)
    return inner is not None and getattr(inner, "__func__", inner) is type(module).forward
