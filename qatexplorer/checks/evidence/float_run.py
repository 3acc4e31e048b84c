"""One forward of the float model in eval mode, with all that rules ask of it.

It is the only forward of the float model in a check. What is kept of it is bounded: shapes, ranges
a sample of each output, and what the model returns.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from qatexplorer.checks.subject import Subject
from qatexplorer.evaluate.parity import outputs_of
from qatexplorer.forward.calls import Call
from qatexplorer.forward.preserve import preserved_state
from qatexplorer.forward.record import record_here
from qatexplorer.forward.trace import tensors_in
from qatexplorer.forward.visit import MOST
from qatexplorer.quantizers.types import STUBS

SAMPLED = MOST
"""Values kept of each output."""
KEPT_CALLS = 16
"""Calls of one module of which output samples are kept, the first ones."""
JOINS = frozenset({"cat", "concat", "concatenate", "stack", "hstack", "vstack", "dstack"})
"""Operations that put several tensors into one, which on int8 tensors have one scale."""


def sampled(value: Any) -> Tensor | None:
    """At most :data:`SAMPLED` values of the first tensor in ``value``, None if there is none.

    A float32 tensor of one dimension on the CPU, dequantized if it was int8. The positions are
    random ones that depend on the number of values only, so that those of another model's tensor
    of the same shape are the same ones. Draws nothing from the user's generator.
    """
    tensor = next(tensors_in(value), None)
    if tensor is None or tensor.is_sparse or tensor.is_complex():
        return None
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    flat = tensor.detach().reshape(-1)
    if flat.numel() > SAMPLED:
        flat = flat[_positions(flat.numel()).to(flat.device)]
    return flat.to("cpu", torch.float32, copy=True)


@functools.lru_cache(maxsize=256)
def _positions(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randint(count, (SAMPLED,), generator=generator)


@dataclass(frozen=True, slots=True)
class Look:
    """A tensor as it was: ``low`` and ``high`` are its extremes, NaN where it has none (no values,
    or no real numbers)."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    low: float
    high: float

    @property
    def is_float(self) -> bool:
        return self.dtype.is_floating_point

    @property
    def span(self) -> float:
        """Width of the range that a fake quant of it would have, which always holds zero."""
        return max(self.high, 0.0) - min(self.low, 0.0)


@dataclass(frozen=True, slots=True)
class ModuleCall:
    """A call of a module.

    Attributes:
        path: the first that the module has. name: the one that it was called by, where it has
            several and the module around it tells which.
        method: of a ``FloatFunctional``, ``""`` for ``forward``.
        given, got: its first tensors; of a ``FloatFunctional`` ``others`` are the further inputs.
    """

    path: str
    name: str
    method: str
    given: Look | None
    got: Look | None
    others: tuple[Look, ...] = ()


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor by number, which changes when it is written to. ``known``: it is the model's input
    or a parameter, or an operation or module was seen to make it."""

    number: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    known: bool = True


@dataclass(frozen=True, slots=True)
class Entered:
    """A module begins. ``level`` is its depth among those that run."""

    path: str
    name: str
    method: str
    level: int
    inputs: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Returned:
    """The module at ``path`` that began at ``level`` is done."""

    path: str
    level: int
    outputs: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Operation:
    """A function or method of torch, as it was called, with :class:`Value` for tensors.

    ``path`` is the module that was running, ``source`` ``"file.py:12"`` in the user's code;
    ``ranges`` are the looks at what :data:`JOINS` were given.
    """

    func: Any
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: tuple[Value, ...]
    path: str
    source: str
    ranges: tuple[Look, ...] = ()

    @property
    def inputs(self) -> tuple[Value, ...]:
        return values_in((self.args, self.kwargs))


Event = Entered | Returned | Operation


@dataclass
class FloatRun:
    """What one forward of the float model did.

    Attributes:
        calls: its operations, see :class:`~qatexplorer.forward.calls.Call`.
        events: the same forward as module calls and operations, in order.
        runs: the calls of each module that ran, by its first path, in order.
        counts: how often each module was called, by its first path; methods of a
            ``FloatFunctional`` count.
        counts_by_name: the same by every name, for modules with several.
        outputs: for each call of a module the :func:`sampled` values of its first output tensor,
            before the user's hooks, by first path; of :data:`KEPT_CALLS` calls at most.
        parameters: names of the model's parameters and buffers, by number.
        inputs, result: the model's input and output tensors, by number.
        returned: its output tensors of numbers themselves, float32 on the CPU.
        kind: of the model's output, such as ``"Tensor"`` or ``"list of 2"``.
    """

    calls: list[Call] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    runs: dict[str, list[ModuleCall]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    counts_by_name: dict[str, int] = field(default_factory=dict)
    outputs: dict[str, list[Tensor]] = field(default_factory=dict)
    parameters: dict[int, str] = field(default_factory=dict)
    inputs: tuple[Value, ...] = ()
    result: tuple[Value, ...] = ()
    returned: list[Tensor] = field(default_factory=list)
    kind: str = ""

    @property
    def operations(self) -> Iterator[Operation]:
        return (event for event in self.events if isinstance(event, Operation))


def float_run(subject: Subject) -> FloatRun:
    """Run the float model once

    In eval mode, on the example inputs. Buffers, hooks, modes and the random state are put back.
    """
    model = subject.base
    watcher = _Watcher(model)
    with preserved_state(model), _opened_transformers():
        model.eval()
        torch.manual_seed(0)  # as before each model that this one is compared with
        recording = record_here(model, subject.options.example_inputs, watcher=watcher)
    watcher.run.calls = recording.calls
    watcher.run.returned = outputs_of(watcher.run.returned)
    return watcher.run


@contextmanager
def _opened_transformers() -> Iterator[None]:
    """In eval mode torch computes a whole transformer layer in one call, which int8 cannot."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@dataclass(slots=True)
class _Running:
    module: nn.Module
    path: str
    name: str
    method: str
    looks: list[Look]
    called: dict[int, int] = field(default_factory=dict)


class _Watcher:
    """Turns tensors into numbers, looks and samples while the forward goes on."""

    def __init__(self, model: nn.Module) -> None:
        self.run = FloatRun()
        self._names: dict[int, list[str]] = {}
        for name, module in model.named_modules(remove_duplicate=False):
            self._names.setdefault(id(module), []).append(name)
        # Their numbers, and weak references, so that none is kept and no id is taken for another.
        self._numbers: dict[int, tuple[weakref.ref[Tensor], int, bool]] = {}
        self._looks: dict[int, tuple[weakref.ref[Tensor], int, Look]] = {}
        self._count = 0
        self._stack: list[_Running] = []
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            self.run.parameters[self._new(tensor).number] = name

    # -- what the recorder says -----------------------------------------------------------------

    def given(self, args: Any, kwargs: Any) -> None:
        self.run.inputs = tuple(self._new(tensor) for tensor in tensors_in((args, kwargs)))

    def finished(self, result: Any) -> None:
        self.run.result = self._values(result)
        self.run.returned = list(tensors_in(result))
        self.run.kind = kind_of(result)

    def entered(self, module: nn.Module, path: str, method: str, args: Any, kwargs: Any) -> None:
        name = self._name_of(module)
        tensors = list(tensors_in((args, kwargs)))
        wanted = tensors if method else tensors[:1]
        running = _Running(module, path, name, method, [self._look(t) for t in wanted])
        values = tuple(self._value(tensor) for tensor in tensors)
        self.run.events.append(Entered(path, name, method, len(self._stack), values))
        self._stack.append(running)
        for counts, key in ((self.run.counts, path), (self.run.counts_by_name, name)):
            counts[key] = counts.get(key, 0) + 1

    def returned(self, module: nn.Module, out: Any) -> Any:
        while len(self._stack) > 1 and self._stack[-1].module is not module:
            self._stack.pop()  # left by an exception that was caught
        running = self._stack.pop()
        path = running.path
        made = [self._look(tensor) for tensor in list(tensors_in(out))[:1]]
        given = running.looks
        call = ModuleCall(
            path,
            running.name,
            running.method,
            given[0] if given else None,
            made[0] if made else None,
            tuple(given[1:]),
        )
        self.run.runs.setdefault(path, []).append(call)
        outputs = self.run.outputs.setdefault(path, [])
        sample = sampled(out) if len(outputs) < KEPT_CALLS else None
        if sample is not None:
            outputs.append(sample)
        # A stub hands on the very tensor that it is given; what was quantized must not be taken
        # for what was not.
        instead = out.view_as(out) if isinstance(module, STUBS) and type(out) is Tensor else None
        values = self._values(out) if instead is None else (self._new(instead),)
        self.run.events.append(Returned(path, len(self._stack), values))
        return instead

    def operation(
        self, func: Any, args: Any, kwargs: Any, path: str, source: str
    ) -> Callable[[Any], None]:
        name = str(getattr(func, "__name__", func)).strip("_")
        given, named = tree_map_only(Tensor, self._value, (args, kwargs))
        ranges = tuple(map(self._look, tensors_in(args))) if name in JOINS else ()

        def done(result: Any) -> None:
            outputs = tuple(self._new(tensor) for tensor in tensors_in(result))
            if outputs:
                made = Operation(func, name, given, named, outputs, path, source, ranges)
                self.run.events.append(made)

        return done

    # -- tensors ---------------------------------------------------------------------------------

    def _name_of(self, module: nn.Module) -> str:
        """The name that the innermost running module has it by; several are taken in turn."""
        names = self._names.get(id(module), [""])
        if len(names) == 1:
            return names[0]
        for around in reversed(self._stack):
            inside = [n for n in names if n.startswith(f"{around.name}." if around.name else "")]
            if inside:
                turn = around.called.get(id(module), 0)
                around.called[id(module)] = turn + 1
                return inside[turn % len(inside)]
        return names[0]

    def _new(self, tensor: Tensor, known: bool = True) -> Value:
        self._count += 1
        self._numbers[id(tensor)] = (weakref.ref(tensor), self._count, known)
        return _as_value(tensor, self._count, known)

    def _value(self, tensor: Tensor) -> Value:
        entry = self._numbers.get(id(tensor))
        if entry is None or entry[0]() is not tensor:
            return self._new(tensor, known=False)
        return _as_value(tensor, entry[1], entry[2])

    def _values(self, value: Any) -> tuple[Value, ...]:
        return tuple(self._value(tensor) for tensor in tensors_in(value))

    def _look(self, tensor: Tensor) -> Look:
        entry = self._looks.get(id(tensor))
        version = 0 if tensor.is_inference() else tensor._version
        if entry is not None and entry[0]() is tensor and entry[1] == version:
            return entry[2]
        look = _look(tensor)
        self._looks[id(tensor)] = (weakref.ref(tensor), version, look)
        return look


def _as_value(tensor: Tensor, number: int, known: bool) -> Value:
    strided = tensor.layout == torch.strided
    stride = tuple(tensor.stride()) if strided else ()
    return Value(number, tuple(tensor.shape), stride, tensor.dtype, known)


def _look(tensor: Tensor) -> Look:
    low = high = float("nan")
    plain = tensor.layout == torch.strided and not tensor.is_complex() and not tensor.is_quantized
    if plain and tensor.numel() and tensor.device.type != "meta":
        ends = torch.aminmax(tensor.detach())
        low, high = float(ends.min), float(ends.max)
    return Look(tuple(tensor.shape), tensor.dtype, low, high)


def values_in(given: Any) -> tuple[Value, ...]:
    """All :class:`Value` in nested arguments, in order."""
    if isinstance(given, Value):
        return (given,)
    if isinstance(given, dict):
        return tuple(value for item in given.values() for value in values_in(item))
    if isinstance(given, (tuple, list)):
        return tuple(value for item in given for value in values_in(item))
    return ()


def kind_of(output: Any) -> str:
    """What a model returns: ``"Tensor"``, ``"list of 2"``, ``"dict of out, aux"``, its class."""
    if isinstance(output, Tensor):
        return "Tensor"
    if isinstance(output, dict):
        return f"dict of {', '.join(map(str, output))}"
    for kind in (tuple, list):
        if isinstance(output, kind):
            return f"{kind.__name__} of {len(output)}"
    return type(output).__name__
