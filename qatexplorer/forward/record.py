"""One forward, watched once: the dataflow graph, what ran and how often, and every operation.

Module calls are seen by the hooks of :mod:`~.hooks`, functional operations by a
``TorchFunctionMode``. :mod:`~.visit` hands out the results of a forward that somebody else runs (an
int8 model's, say), from the same hooks. What is wanted is built while it happens:
:class:`Probe` always, :class:`~.graph.Graph` and the list of :class:`~.calls.Call` where asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import fx, nn
from torch.overrides import TorchFunctionMode

from qatexplorer.data import as_args, cloned, device_of, on_device
from qatexplorer.forward.calls import Call, CallList, Frame
from qatexplorer.forward.graph import Graph
from qatexplorer.forward.hooks import hooked
from qatexplorer.forward.leaves import is_leaf_call
from qatexplorer.forward.macs import MacCounter
from qatexplorer.forward.nodes import NodeList
from qatexplorer.forward.preserve import preserved_state
from qatexplorer.forward.scripted import named_python_modules
from qatexplorer.forward.shapes import still_decided_by_shapes, without_values
from qatexplorer.forward.trace import (
    first_tensor_info,
    functional_calls_as_nodes,
    tensors_in,
    user_source,
)
from qatexplorer.quantizers.facts import family_of, find_quantizers, is_quantizer, switch
from qatexplorer.quantizers.types import Mechanism

# Reading a shape or a flag is no operation on data.
_READS = frozenset(
    {"size", "dim", "stride", "numel", "is_floating_point", "is_contiguous", "storage_offset"}
    | {"__get__", "__set__", "__len__", "item", "tolist", "data_ptr", "get_device", "is_complex"}
)


@dataclass
class Probe:
    """What one forward did, keyed by ``id`` of the module; meaningless once the model is gone.

    Attributes:
        calls: of every module. only_quantizers: nothing is known of other modules.
        mechanisms: how each fake quant or observer that ran was called.
        shapes: of the tensor that each of them saw.
        fed: ``"param"`` or ``"input"`` for those that got a parameter or an input of the model as
            it is.
        wrote: fake quants whose observer's range was written to meanwhile. switched_off: those
            whose kernel was off, of which nothing of the sort is known.
    """

    calls: dict[int, int] = field(default_factory=dict)
    mechanisms: dict[int, Mechanism] = field(default_factory=dict)
    shapes: dict[int, tuple[int, ...]] = field(default_factory=dict)
    fed: dict[int, str] = field(default_factory=dict)
    wrote: set[int] = field(default_factory=set)
    switched_off: set[int] = field(default_factory=set)
    only_quantizers: bool = False


@dataclass
class Recording:
    """What one forward did. Module counts and MACs are by path (the first of several names).

    ``observer_writes`` are the fake quants whose observer's range was written to meanwhile;
    ``calls`` is empty and ``graph`` None where they were not asked for.
    """

    calls: list[Call] = field(default_factory=list)
    module_calls: dict[str, int] = field(default_factory=dict)
    module_dtypes: dict[str, str] = field(default_factory=dict)
    module_macs: dict[str, int] = field(default_factory=dict)
    observer_writes: set[str] = field(default_factory=set)
    graph: Graph | None = None
    probe: Probe = field(default_factory=Probe)

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


Ranges = list[tuple[torch.Tensor, torch.Tensor]]
OnQuant = Callable[[str, nn.Module, torch.Tensor], Any]


class Watcher(Protocol):
    """Sees the tensors themselves, as they are used; it keeps none of them."""

    def given(self, args: Any, kwargs: Any) -> None:
        """The model's inputs, before it runs."""

    def entered(self, module: nn.Module, path: str, method: str, args: Any, kwargs: Any) -> None:
        """``module`` (its first path) begins its forward: the user's pre-hooks are done. ``method``
        is that of a ``FloatFunctional``, ``""`` for ``forward``."""

    def returned(self, module: nn.Module, out: Any) -> Any:
        """Its forward is over; the user's hooks come next. What is not None takes the place of
        ``out``."""

    def operation(
        self, func: Any, args: Any, kwargs: Any, path: str, source: str
    ) -> Callable[[Any], None]:
        """A function or method of torch begins, outermost ones only, in the module at ``path``;
        what this returns is called with its result."""

    def finished(self, result: Any) -> None:
        """The model's output."""


class _Recorder(TorchFunctionMode):
    """Follows which module is running, and whether it is in its forward or in its hooks."""

    def __init__(
        self,
        model: nn.Module,
        operations: bool,
        graph: bool,
        on_quant: Any,
        watcher: Watcher | None = None,
    ) -> None:
        super().__init__()
        self.watcher = watcher
        self.found = Recording()
        self.stack: list[Frame] = [Frame(model, "", False, False)]
        self.stack[0].phase = "forward"
        self.list = CallList(model, self.stack, on_quant) if operations else None
        self.nodes = NodeList(model) if graph else None
        self.macs = MacCounter() if operations else None
        self._known: dict[int, tuple[str, bool, bool]] = {}
        for path, module in model.named_modules():
            self._known[id(module)] = (path, is_leaf_call(module), is_quantizer(module))
        self._fed = {id(p): "param" for p in model.parameters()}
        self._poked: list[Ranges] = []
        self._busy = 0

    def given(self, args: Any, kwargs: Any) -> None:
        """The model's inputs, before it runs."""
        if self.watcher is not None:
            self.watcher.given(args, kwargs)
        for index, tensor in enumerate(tensors_in((args, kwargs))):
            self._fed[id(tensor)] = "input"
            if self.list is not None:
                self.list.add("input", str(index), (), tensor)
            if self.nodes is not None:
                name = f"input{index + 1}" if index else "input"
                self.nodes.add("placeholder", name, name, "", (), tensor)

    def result(self, result: Any, note: str) -> Recording:
        """The model's output, and with it all that was found."""
        found = self.found
        if self.watcher is not None:
            self.watcher.finished(result)
        if self.list is not None:
            self.list.add("output", "output", result, ())
            found.calls, found.module_macs = self.list.calls, self.list.macs_at
            found.module_dtypes = self.list.dtypes
        if self.nodes is not None:
            self.nodes.add("output", "output", "output", "", result, None)
            found.graph = self.nodes.graph(note)
        return found

    # -- operations -----------------------------------------------------------------------------

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = str(getattr(func, "__name__", func))
        fine = self.list is not None and not self.list.busy
        coarse = self.nodes is not None and not self.nodes.inside
        watched = self.watcher if not self._busy else None
        if watched is not None and name == "__get__":
            result = func(*args, **kwargs)
            if isinstance(result, torch.Tensor):  # x.T is an operation, x.shape is none
                path, source = self.stack[-1].path, user_source()
                watched.operation(func, args, kwargs, path, source)(result)
            return result
        if self._busy or name in _READS or not (fine or coarse):
            return func(*args, **kwargs)
        before = self.macs.total if self.macs is not None else 0
        source = user_source()
        with self._inside_an_operation():
            if watched is not None:
                done = watched.operation(func, args, kwargs, self.stack[-1].path, source)
            result = func(*args, **kwargs)
            if watched is not None:
                done(result)
        if fine and self.list is not None and self.macs is not None:
            spent = self.macs.total - before
            self.list.operation(name, (args, kwargs), result, spent, source)
        if coarse and self.nodes is not None:
            self.nodes.operation(func, name, (args, kwargs), result, source)
        return result

    @contextmanager
    def _inside_an_operation(self) -> Iterator[None]:
        self._busy += 1
        if self.nodes is not None:
            self.nodes.inside += 1
        try:
            yield
        finally:
            self._busy -= 1
            if self.nodes is not None:
                self.nodes.inside -= 1

    def functional(self, path: str, op: str, method: Any, *args: Any, **kwargs: Any) -> Any:
        """A method of a ``FloatFunctional``: a module that runs, though nothing calls it."""
        frame = Frame(method.__self__, path, True, False)
        frame.phase = "forward"
        self.stack.append(frame)
        nodes = self.nodes
        outermost = nodes is not None and not nodes.inside
        if nodes is not None:
            nodes.inside += 1
        try:
            if self.watcher is not None:
                with self._inside_an_operation():
                    self.watcher.entered(frame.module, path, op, args, kwargs)
            result = method(*args, **kwargs)
            if self.watcher is not None:
                with self._inside_an_operation():
                    self.watcher.returned(frame.module, result)
        finally:
            self.stack.pop()
            if nodes is not None:
                nodes.inside -= 1
        if nodes is not None and outermost:
            nodes.add("call_module", path, op, path, (args, kwargs), result)
        return result

    # -- modules --------------------------------------------------------------------------------

    def enter(self, _path: str, module: nn.Module, args: Any, _kwargs: Any) -> None:
        path, leaf, quantizer = self._known.get(id(module), ("", False, False))
        found, key = self.found, id(module)
        found.module_calls[path] = found.module_calls.get(path, 0) + 1
        found.probe.calls[key] = found.probe.calls.get(key, 0) + 1
        frame = Frame(module, path, leaf, quantizer)
        if quantizer:
            self._enter_quantizer(frame, args)
        if self.nodes is not None:
            self.nodes.entered(frame)
        self.stack.append(frame)

    def _enter_quantizer(self, frame: Frame, args: Any) -> None:
        around, probe, key = self.stack[-1], self.found.probe, id(frame.module)
        probe.mechanisms[key] = "forward" if around.phase == "forward" else "hook"
        info = first_tensor_info(args)
        if info is not None:
            probe.shapes[key] = info[0]
        for tensor in tensors_in(args):
            if id(tensor) in self._fed:
                probe.fed[key] = self._fed[id(tensor)]
            break
        if self.list is not None:
            in_graph = around.phase == "forward" and isinstance(around.module, fx.GraphModule)
            self.list.entered(frame, "node" if in_graph else probe.mechanisms[key], args)
        seen_at_work = key in probe.wrote or key in probe.switched_off
        with self._inside_an_operation():
            self._poked.append([] if seen_at_work else _poke(frame.module))

    def running(self, _path: str, module: nn.Module, args: Any, kwargs: Any) -> None:
        frame = self._frame(module)
        frame.phase = "forward"
        if self.watcher is not None:
            with self._inside_an_operation():
                self.watcher.entered(module, frame.path, "", args, kwargs)

    def returned(self, _path: str, module: nn.Module, args: Any, _kwargs: Any, out: Any) -> Any:
        frame = self._frame(module)
        frame.phase = "hooks"
        if frame.quantizer:
            with self._inside_an_operation():
                ranges = self._poked.pop()
                if any(not _same(tensor, old) for tensor, old in ranges):
                    self.found.observer_writes.add(frame.path)
                    self.found.probe.wrote.add(id(module))
        instead = None
        if self.watcher is not None:
            with self._inside_an_operation():
                instead = self.watcher.returned(module, out)
        if self.list is not None:
            if instead is not None:
                self.list.add("op", "identity", args, instead, scope=frame.path)
            self.list.returned(frame, args, out)
        return instead

    def left(self, _path: str, module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
        frame = self._frame(module)
        self.stack.pop()
        if self.nodes is not None:
            self.nodes.left(frame, (args, kwargs), out)

    def _frame(self, module: nn.Module) -> Frame:
        """The frame of ``module``; those above were left by an exception that was caught."""
        while len(self.stack) > 1 and self.stack[-1].module is not module:
            self.stack.pop()
        return self.stack[-1]

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(
                hooked(
                    named_python_modules(model),
                    begun=self.enter,
                    running=self.running,
                    returned=self.returned,
                    left=self.left,
                )
            )
            if self.list is not None or self.nodes is not None:
                stack.enter_context(functional_calls_as_nodes(model, self.functional))
                if self.macs is not None:
                    stack.enter_context(self.macs)
                stack.enter_context(self)
            yield


def _poke(quantizer: nn.Module) -> Ranges:
    """Widen the observer's range by a hair and return what it was set to.

    The fused kernel writes through raw pointers and leaves no version behind; a moving average
    that runs changes these values, one that does not leaves them. The caller puts them back.
    """
    family = family_of(quantizer)
    observer = family.observer(quantizer) if family is not None else None
    ends = family.range_buffers(quantizer) if family is not None else None
    if ends is None or not hasattr(observer, "averaging_constant"):
        return []
    low, high = ends
    # A range that is not complete is about to be made, and is not to be made wider than it is.
    if low.numel() and low.shape == high.shape and bool(torch.isfinite(high - low).all()):
        width = (high - low) * 1e-2 + 1e-6
        low.sub_(width)
        high.add_(width)
    return [(tensor, tensor.clone()) for tensor in (low, high)]


def _same(tensor: torch.Tensor, old: torch.Tensor) -> bool:
    return tensor.shape == old.shape and torch.equal(tensor.nan_to_num(), old.nan_to_num())


def record_forward(
    model: nn.Module,
    inputs: Any,
    *,
    operations: bool = True,
    graph: bool = False,
    note: str = "",
    on_quant: OnQuant | None = None,
) -> Recording:
    """Run ``model(inputs)`` once under ``no_grad`` and return what happened.

    The model runs in the mode it is in; buffers, hooks, flags and the random state are put back.
    Raises whatever the model's own forward raises.

    Args:
        operations: list every operation, with its multiply-accumulates. graph: make the dataflow
            graph, whose ``note`` says why FX was not used.
        on_quant: called with (path, fake quant, tensor) before a fake quant runs.
    """
    with preserved_state(model):
        return record_here(
            model, inputs, operations=operations, graph=graph, note=note, on_quant=on_quant
        )


def probe(model: nn.Module, inputs: Any, before: nn.Module | None = None) -> Probe:
    """The same, without operations and graph, and without torch's fused kernels.

    Who is called does not depend on them, and on weights they cost more than the layers do. Other
    fake quants stay on: whether they call their observer is what is looked at. ``before`` is the
    float model of ``model`` if its graph is ``by_shapes``: values are then computed only where
    those fake quants look at them.
    """
    if before is not None and still_decided_by_shapes(model, before):
        fused = {id(module) for module in find_quantizers(model).values()}
        try:
            with without_values(model), preserved_state(model, buffers=False):
                return record_here(model, inputs, operations=False, skipped=fused).probe
        except Exception:  # the forward with values says what is wrong
            pass
    with preserved_state(model), torch.no_grad():
        skipped = set()
        for module in model.modules():
            family = family_of(module)
            if family is not None and family.kernel_observes(module):
                switch(module, observer=False, fake_quant=False)
                skipped.add(id(module))
        return record_here(model, inputs, operations=False, skipped=skipped).probe


def recorded_graph(model: nn.Module, inputs: Any, note: str = "") -> Graph:
    """The dataflow graph of one forward. The caller preserves the model's state."""
    graph = record_here(model, inputs, operations=False, graph=True, note=note).graph
    assert graph is not None
    return graph


def record_here(
    model: nn.Module,
    inputs: Any,
    *,
    operations: bool = True,
    graph: bool = False,
    note: str = "",
    on_quant: OnQuant | None = None,
    skipped: Iterable[int] = (),
    watcher: Watcher | None = None,
) -> Recording:
    """:func:`record_forward` whose caller preserves the model's state, or keeps what it learned.

    ``skipped`` are ids of fake quants whose kernel the caller has switched off. ``watcher`` sees
    the tensors (with ``operations``).
    """
    args, kwargs = as_args(cloned(on_device(inputs, device_of(model))))
    recorder = _Recorder(model, operations, graph, on_quant, watcher)
    recorder.found.probe.switched_off |= set(skipped)
    with torch.no_grad(), recorder.watching(model):
        recorder.given(args, kwargs)
        result = model(*args, **kwargs)
        return recorder.result(result, note)


def calls_in_graph(model: nn.Module, graph: Graph) -> Probe:
    """The same for weight fake quants, from the calls of their owners in the forward that made
    ``graph``: a QAT module's forward calls its ``weight_fake_quant`` once. It saves a forward
    before the stage that inserts the others; that one is measured and covers these too.
    """
    calls: dict[str, int] = {}
    for node in graph.nodes:
        if node.op == "call_module" and node.path:
            calls[node.path] = calls.get(node.path, 0) + 1
    found = Probe(only_quantizers=True)
    for path, module in model.named_modules():
        quantizer = getattr(module, "weight_fake_quant", None)
        if isinstance(quantizer, nn.Module) and calls.get(path):
            found.calls[id(quantizer)] = calls[path]
            found.mechanisms[id(quantizer)] = "forward"
            found.switched_off.add(id(quantizer))
            weight = getattr(module, "weight", None)
            if isinstance(weight, torch.Tensor):
                found.shapes[id(quantizer)] = tuple(weight.shape)
    return found
