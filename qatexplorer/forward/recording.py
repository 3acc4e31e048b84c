"""One forward, followed value by value: every operation, every fake quant, and what fed it.

Finer than the dataflow graph of a snapshot: operations inside of torch's own modules show, and a
fake quant is an operation like any other, so that "two fake quants in a row" can be seen in any
prepared model, whichever flow made it.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import fx, nn
from torch.overrides import TorchFunctionMode

from qatexplorer.data import as_args, cloned, device_of, on_device
from qatexplorer.forward.leaves import FUNCTIONAL_CLASSES, is_leaf_call, is_quantizer
from qatexplorer.forward.macs import MacCounter
from qatexplorer.forward.preserve import preserved_state
from qatexplorer.forward.scripted import python_modules
from qatexplorer.forward.trace import (
    first_tensor_info,
    functional_calls_as_nodes,
    tensors_in,
    user_source,
)
from qatexplorer.snapshot.records import Mechanism
from qatexplorer.snapshot.sites import observer_of

_READS = frozenset(
    {"size", "dim", "stride", "numel", "is_floating_point", "is_contiguous", "storage_offset"}
    | {"__get__", "__set__", "__len__", "item", "tolist", "data_ptr", "get_device", "is_complex"}
)


@dataclass(frozen=True, slots=True)
class Call:
    """One thing that happened; ``index`` is its place in the forward.

    Attributes:
        kind: model input, parameter or buffer, operation, fake quant (or observer), model output.
        name: of the operation without underscores, of the parameter, or the fake quant's path.
        scope: path of the module that was running.
        mechanism: how a fake quant was called, ``""`` for the rest.
        inputs: indices of the calls that made its tensors.
        inner: it happened inside of one of torch's own modules.
        ordinal: how many calls of this kind and name came before; of operations, the inner ones
            are counted for each module, the others over the whole model.
        output_of: (path, port) of the module whose raw output the quantized tensor is, else None.
        macs: multiply-accumulates.
    """

    index: int
    kind: Literal["input", "param", "op", "quant", "output"]
    name: str
    scope: str
    mechanism: str = ""
    inputs: tuple[int, ...] = ()
    ordinal: int = 0
    inner: bool = False
    output_of: tuple[str, int] | None = None
    shape: tuple[int, ...] | None = None
    dtype: str = ""
    source: str = ""
    macs: int = 0


@dataclass
class Recording:
    """What one forward did. Module counts and MACs are by path (the first of several names).

    ``observer_writes`` are the fake quants whose observer's range was written to meanwhile.
    """

    calls: list[Call] = field(default_factory=list)
    module_calls: dict[str, int] = field(default_factory=dict)
    module_dtypes: dict[str, str] = field(default_factory=dict)
    module_macs: dict[str, int] = field(default_factory=dict)
    observer_writes: set[str] = field(default_factory=set)

    @property
    def quants(self) -> list[Call]:
        return [call for call in self.calls if call.kind == "quant"]

    def consumers(self) -> dict[int, list[Call]]:
        """Calls that take the result of each call, by its index."""
        found: dict[int, list[Call]] = {}
        for call in self.calls:
            for index in dict.fromkeys(call.inputs):
                found.setdefault(index, []).append(call)
        return found

    def on_data_path(self) -> set[int]:
        """Indices of the calls whose result the model's output depends on."""
        live: set[int] = set()
        waiting = [call.index for call in self.calls if call.kind == "output"]
        while waiting:
            index = waiting.pop()
            if index not in live:
                live.add(index)
                waiting += self.calls[index].inputs
        return live


class _Watcher(TorchFunctionMode):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.found = Recording()
        self.macs = MacCounter()
        self._paths: dict[int, str] = {}
        for path, module in model.named_modules():
            self._paths.setdefault(id(module), path)
        self._stack: list[tuple[nn.Module, str]] = [(model, "forward")]
        self._made: dict[int, tuple[weakref.ref[torch.Tensor], int]] = {}
        self._raw: dict[int, tuple[weakref.ref[torch.Tensor], str, int]] = {}
        self._ordinals: dict[tuple[str, str, str], int] = {}
        self._names = {id(p): n for n, p in model.named_parameters()}
        self._names |= {id(b): n for n, b in model.named_buffers()}
        self._quant_started: list[tuple[int, list[tuple[torch.Tensor, torch.Tensor]]]] = []
        self._busy = 0

    def path(self, module: nn.Module) -> str:
        return self._paths.get(id(module), "")

    def add(self, kind: Any, name: str, inputs: Any, result: Any, **more: Any) -> Call:
        producers = tuple(p for p in map(self._producer, tensors_in(inputs)) if p is not None)
        info = first_tensor_info(result if kind != "quant" else inputs)
        shape, dtype = info or (None, "")
        more.setdefault("scope", self.path(self._stack[-1][0]))
        inner = kind == "op" and any(_closed(m) for m, _ in self._stack[1:])
        key = (kind, name, more["scope"] if inner else "")
        ordinal = self._ordinals.get(key, 0)
        self._ordinals[key] = ordinal + 1
        index = len(self.found.calls)
        call = Call(
            index,
            kind,
            name,
            inputs=producers,
            ordinal=ordinal,
            inner=inner,
            shape=shape,
            dtype=dtype,
            **more,
        )
        self.found.calls.append(call)
        for tensor in tensors_in(result):
            self._made[id(tensor)] = (weakref.ref(tensor), index)
            self._raw.pop(id(tensor), None)
        return call

    def _producer(self, tensor: torch.Tensor) -> int | None:
        entry = self._made.get(id(tensor))
        if entry is not None and entry[0]() is tensor:
            return entry[1]
        if id(tensor) in self._names:
            return self.add("param", self._names[id(tensor)], (), tensor).index
        return None

    # -- operations -----------------------------------------------------------------------------

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = str(getattr(func, "__name__", func))
        if self._busy or name in _READS:
            return func(*args, **kwargs)
        self._busy += 1
        before = self.macs.total
        try:
            result = func(*args, **kwargs)
        finally:
            self._busy -= 1
        spent = self.macs.total - before
        if spent:
            table, path = self.found.module_macs, self.path(self._stack[-1][0])
            table[path] = table.get(path, 0) + spent
        if first_tensor_info(result) is not None:
            plain = name.strip("_")
            # The code of a GraphModule is generated: the reader's line is not on the stack.
            generated = isinstance(self._stack[-1][0], fx.GraphModule)
            source = "" if generated else user_source()
            self.add("op", plain, (args, kwargs), result, macs=spent, source=source)
        return result

    def functional(self, path: str, op: str, method: Any, *args: Any, **kwargs: Any) -> Any:
        self._stack.append((method.__self__, "forward"))
        try:
            return method(*args, **kwargs)
        finally:
            self._stack.pop()

    # -- modules --------------------------------------------------------------------------------

    def enter(self, module: nn.Module, args: Any) -> None:
        path = self.path(module)
        self.found.module_calls[path] = self.found.module_calls.get(path, 0) + 1
        if is_quantizer(module) and not self._busy:
            # What it gets is looked up now: a fake quant that is off returns the very same tensor.
            holder, phase = self._stack[-1]
            raw = None
            for tensor in tensors_in(args):
                entry = self._raw.get(id(tensor))
                if entry is not None and entry[0]() is tensor:
                    raw = (entry[1], entry[2])
                break
            mechanism: Mechanism = "forward" if phase == "forward" else "hook"
            if phase == "forward" and isinstance(holder, fx.GraphModule):
                mechanism = "node"
            call = self.add("quant", path, args, (), mechanism=mechanism, output_of=raw)
            self._busy += 1  # nothing that is done here belongs to the model
            self._quant_started.append((call.index, _poke(module)))
            self._busy -= 1
        if is_quantizer(module):
            self._busy += 1
        self._stack.append((module, "pre-hooks"))

    def running(self, module: nn.Module, _args: Any) -> None:
        self._stack[-1] = (module, "forward")

    def returned(self, module: nn.Module, args: Any, out: Any) -> None:
        self._stack[-1] = (module, "hooks")
        info = first_tensor_info(out)
        path = self.path(module)
        if info is not None:
            self.found.module_dtypes[path] = info[1]
        if is_quantizer(module):
            if self._busy == 1 and self._quant_started:
                index, ranges = self._quant_started.pop()
                if any(t.shape != old.shape or not torch.equal(t, old) for t, old in ranges):
                    self.found.observer_writes.add(path)
                for tensor in tensors_in(out):
                    self._made[id(tensor)] = (weakref.ref(tensor), index)
                    self._raw.pop(id(tensor), None)
            self._busy -= 1
        elif not self._busy and not any(is_leaf_call(m) for m, _ in self._stack[2:-1]):
            if isinstance(module, nn.Identity):
                # It hands on the very same tensor, and yet it is a step of its own.
                self.add("op", "identity", args, out, scope=path)
            for port, tensor in enumerate(tensors_in(out)):
                entry = self._raw.get(id(tensor))
                known = entry is not None and entry[0]() is tensor
                if not known:
                    self._raw[id(tensor)] = (weakref.ref(tensor), path, port)

    def left(self, _module: nn.Module, _args: Any, _out: Any) -> None:
        self._stack.pop()

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        handles: list[Any] = []
        try:
            for module in python_modules(model):
                handles += [
                    module.register_forward_pre_hook(self.enter, prepend=True),
                    module.register_forward_pre_hook(self.running),
                    module.register_forward_hook(self.returned, prepend=True),
                    module.register_forward_hook(self.left),
                ]
            with functional_calls_as_nodes(model, self.functional):
                yield
        finally:
            for handle in handles:
                handle.remove()


def _closed(module: nn.Module) -> bool:
    """Whether what happens in its forward is torch's own business."""
    return is_leaf_call(module) and not isinstance(module, FUNCTIONAL_CLASSES)


def _poke(quantizer: nn.Module) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Widen the observer's range by a hair and return what it was set to.

    The fused kernel writes through raw pointers and leaves no version behind; a moving average
    that runs changes these values, one that does not leaves them. The caller puts them back.
    """
    observer: Any = observer_of(quantizer)
    low, high = getattr(observer, "min_val", None), getattr(observer, "max_val", None)
    moving = hasattr(observer, "averaging_constant")
    if not moving or not isinstance(low, torch.Tensor) or not isinstance(high, torch.Tensor):
        return []
    if low.numel() and low.shape == high.shape:
        width = torch.where(torch.isfinite(high - low), (high - low) * 1e-2 + 1e-6, 0.0)
        low.sub_(width)
        high.add_(width)
    return [(tensor, tensor.clone()) for tensor in (low, high)]


def record_forward(model: nn.Module, inputs: Any) -> Recording:
    """Run ``model(inputs)`` once under ``no_grad`` and return what happened.

    The model runs in the mode it is in; buffers, hooks, flags and the random state are put back.
    Raises whatever the model's own forward raises.
    """
    args, kwargs = as_args(cloned(on_device(inputs, device_of(model))))
    with preserved_state(model), torch.no_grad():
        watcher = _Watcher(model)
        with watcher.watching(model), watcher.macs, watcher:
            for index, tensor in enumerate(tensors_in((args, kwargs))):
                watcher.add("input", str(index), (), tensor)
            result = model(*args, **kwargs)
            watcher.add("output", "output", result, ())
    return watcher.found
