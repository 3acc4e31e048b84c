"""The dataflow graph of a model from one recorded forward, for models that FX cannot trace.

Module calls are seen by hooks, functional operations by a ``TorchFunctionMode``; tensors are
followed by identity, through weak references, so that nothing is kept alive.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode, resolve_name

from qatexplorer.data import as_args, cloned, device_of, on_device
from qatexplorer.forward.leaves import is_leaf_call
from qatexplorer.forward.scripted import named_python_modules
from qatexplorer.forward.trace import (
    first_tensor_info,
    functional_calls_as_nodes,
    tensors_in,
    user_source,
)
from qatexplorer.snapshot.records import Graph, GraphEdge, GraphNode, NodeOp

# Reading a shape or a flag is no operation on data.
_NOT_OPERATIONS = frozenset(
    {"size", "dim", "stride", "numel", "is_floating_point", "is_contiguous", "storage_offset"}
    | {"__get__", "__set__"}
)


class _Recorder(TorchFunctionMode):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.nodes: list[GraphNode] = []
        self.edges: dict[tuple[str, str], GraphEdge] = {}
        self._producers: dict[int, tuple[weakref.ref[torch.Tensor], str]] = {}
        self._names = {id(p): name for name, p in model.named_parameters()}
        self._names |= {id(b): name for name, b in model.named_buffers()}
        self._scopes: list[str] = [""]
        self._inside_leaf = 0

    def add(self, op: NodeOp, target: str, label: str, path: str, inputs: Any, result: Any) -> None:
        producers = [self._producer(tensor) for tensor in tensors_in(inputs)]
        node_id = f"n{len(self.nodes)}"
        for producer in producers:
            if producer is not None:
                self.edges.setdefault((producer, node_id), GraphEdge(producer, node_id))
        shape, dtype = first_tensor_info(result) or (None, None)
        source = "" if op in ("placeholder", "output") else user_source()
        self.nodes.append(
            GraphNode(node_id, op, target, label, path, self._scopes[-1], shape, dtype, source)
        )
        for tensor in tensors_in(result):
            self._producers[id(tensor)] = (weakref.ref(tensor), node_id)

    def _producer(self, tensor: torch.Tensor) -> str | None:
        entry = self._producers.get(id(tensor))
        if entry is not None and entry[0]() is tensor:
            return entry[1]
        if id(tensor) in self._names:
            name = self._names[id(tensor)]
            self.add("get_attr", name, name.rpartition(".")[2], "", (), tensor)
            return self.nodes[-1].id
        return None

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if self._inside_leaf:
            return func(*args, **kwargs)
        self._inside_leaf += 1
        try:
            result = func(*args, **kwargs)
        finally:
            self._inside_leaf -= 1
        name = getattr(func, "__name__", str(func))
        if (
            first_tensor_info(result) is None
            or name in _NOT_OPERATIONS
            or name in ("__get__", "__set__")
        ):
            return result
        target = resolve_name(func) or name
        is_method = target.startswith("torch.Tensor.")
        self.add(
            "call_method" if is_method else "call_function",
            target,
            name.strip("_"),
            "",
            (args, kwargs),
            result,
        )
        return result

    def enter(self, path: str, leaf: bool) -> None:
        if leaf or self._inside_leaf:
            self._inside_leaf += 1
        else:
            self._scopes.append(path)

    def leave(self, path: str, leaf: bool, inputs: Any, result: Any) -> None:
        if self._inside_leaf:
            self._inside_leaf -= 1
            if leaf and not self._inside_leaf:
                self.add("call_module", path, path.rpartition(".")[2], path, inputs, result)
        else:
            self._scopes.pop()

    def functional_call(self, path: str, op: str, method: Any, *args: Any, **kwargs: Any) -> Any:
        outermost = not self._inside_leaf
        self._inside_leaf += 1
        try:
            result = method(*args, **kwargs)
        finally:
            self._inside_leaf -= 1
        if outermost:
            self.add("call_module", path, op, path, (args, kwargs), result)
        return result


def recorded_graph(model: nn.Module, inputs: Any, note: str = "") -> Graph:
    """Run ``model(inputs)`` once under ``no_grad`` and return what happened as a graph.

    ``note`` says why FX was not used. The caller preserves the model's state. Raises whatever the
    forward raises.
    """
    args, kwargs = as_args(cloned(on_device(inputs, device_of(model))))
    recorder = _Recorder(model)
    handles = []
    for path, module in named_python_modules(model):
        if path == "":
            continue
        leaf = is_leaf_call(module)

        def before(_m: nn.Module, _args: Any, path: str = path, leaf: bool = leaf) -> None:
            recorder.enter(path, leaf)

        def after(
            _m: nn.Module, a: Any, kw: Any, out: Any, path: str = path, leaf: bool = leaf
        ) -> None:
            recorder.leave(path, leaf, (a, kw), out)

        handles.append(module.register_forward_pre_hook(before, prepend=True))
        handles.append(module.register_forward_hook(after, with_kwargs=True))
    try:
        for index, tensor in enumerate(tensors_in((args, kwargs))):
            name = f"input{index + 1}" if index else "input"
            recorder.add("placeholder", name, name, "", (), tensor)
        with torch.no_grad(), functional_calls_as_nodes(model, recorder.functional_call), recorder:
            result = model(*args, **kwargs)
        recorder.add("output", "output", "output", "", result, None)
    finally:
        for handle in handles:
            handle.remove()
    return Graph(tuple(recorder.nodes), tuple(recorder.edges.values()), "recorded forward", note)
