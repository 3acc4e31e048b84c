"""The dataflow graph of a model, from ``torch.fx`` where it traces."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx, nn

from qatexplorer.data import as_args, cloned, device_of, on_device
from qatexplorer.explain.usercode import is_user_file
from qatexplorer.forward.graph import Graph, GraphEdge, GraphNode
from qatexplorer.forward.leaves import FUNCTIONAL_METHODS, is_leaf_call
from qatexplorer.forward.shapes import decided_by_shapes, without_values
from qatexplorer.quantizers.types import FUNCTIONAL_CLASSES


def user_source(limit: int = 60) -> str:
    """``"file.py:12"`` of the innermost frame that is neither torch's nor ours, else ``""``."""
    frame = sys._getframe(1)
    for _ in range(limit):
        name = frame.f_code.co_filename
        if is_user_file(name):
            return f"{os.path.basename(name)}:{frame.f_lineno}"
        if frame.f_back is None:
            break
        frame = frame.f_back
    return ""


@contextmanager
def functional_calls_as_nodes(model: nn.Module, call: Callable[..., Any]) -> Iterator[None]:
    """While open, methods of ``FloatFunctional``-likes go to ``call(path, op, method, *args)``.

    They are methods, not ``forward``, so neither a tracer nor a module hook sees them otherwise.
    """
    patched: list[tuple[nn.Module, str]] = []
    try:
        for path, module in model.named_modules():
            if isinstance(module, FUNCTIONAL_CLASSES):
                for op in FUNCTIONAL_METHODS:
                    method = getattr(module, op)
                    module.__dict__[op] = functools.partial(call, path, op, method)
                    patched.append((module, op))
        yield
    finally:
        for module, op in patched:
            module.__dict__.pop(op, None)


TRACE_LOCK = threading.RLock()
"""FX keeps a flag for the whole process while it traces: two threads would leave it set."""


class _Tracer(fx.Tracer):
    """FX's tracer with our leaf rule, module scopes and source lines.

    FX patches ``nn.Module.__call__`` for the whole process; calls of other threads (a training
    run) are passed through untouched.
    """

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()
        self._scopes: list[str] = [""]

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return is_leaf_call(m)

    def call_module(
        self,
        m: nn.Module,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        if threading.get_ident() != self._thread:
            return forward(*args, **kwargs)
        if self.is_leaf_module(m, ""):
            return self.create_proxy("call_module", self.path_of_module(m), args, kwargs)
        self._scopes.append(self.path_of_module(m))
        try:
            return forward(*args, **kwargs)
        finally:
            self._scopes.pop()

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        if threading.get_ident() != self._thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        node = super().create_node(*args, **kwargs)
        node.meta["qx_scope"] = self._scopes[-1]
        node.meta["qx_source"] = user_source()
        return node

    def functional_call(self, path: str, op: str, method: Any, *args: Any, **kwargs: Any) -> Any:
        proxy = self.create_proxy("call_function", method, args, kwargs)
        proxy.node.meta["qx_functional"] = (path, op)
        return proxy


Info = tuple[tuple[int, ...], str]
"""Shape and dtype of a tensor."""


class ShapeRun(fx.Interpreter):
    """Runs a graph once, the model's own unless another is given, and notes the first tensor of
    every result by node id beside the graph, which stays as it is. ``at`` is the node in hand."""

    def __init__(self, model: nn.Module, graph: fx.Graph | None = None) -> None:
        super().__init__(model, garbage_collect_values=True, graph=graph)
        self.found: dict[str, Info] = {}
        self.at: fx.Node | None = None

    def run_node(self, n: fx.Node) -> Any:
        self.at = n
        result = super().run_node(n)
        info = first_tensor_info(result)
        if info is not None:
            self.found[n.name] = info
        return result


def first_tensor_info(value: Any) -> Info | None:
    """(shape, dtype) of the first tensor in ``value``, None if there is none."""
    for tensor in tensors_in(value):
        return tuple(tensor.shape), str(tensor.dtype)
    return None


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """All tensors in nested tuples, lists, dicts and dataclasses, in order."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors_in(item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from tensors_in(getattr(value, field.name, None))


def fx_graph(model: nn.Module, inputs: Any) -> Graph:
    """Trace ``model`` with FX and run the result once for the shapes, on values where they matter.

    The caller preserves the model's state. Raises whatever tracing or running raises.
    """
    args, kwargs = as_args(cloned(on_device(inputs, device_of(model))))
    signature = inspect.signature(model.forward)
    bound = signature.bind(*args, **kwargs)
    given = set(bound.arguments)
    bound.apply_defaults()
    constants = {k: v for k, v in bound.arguments.items() if k not in given and v != ()}
    tracer = _Tracer()
    with TRACE_LOCK, functional_calls_as_nodes(model, tracer.functional_call):
        traced = tracer.trace(model, concrete_args=constants or None)
    placeholders = [n for n in traced.nodes if n.op == "placeholder"]
    values = [bound.arguments[name] for name in list(signature.parameters)[: len(placeholders)]]
    run = ShapeRun(model, traced)
    by_shapes = decided_by_shapes(traced, model, inputs) and _runs_without_values(run, values)
    if not by_shapes:
        run = ShapeRun(model, traced)
        with torch.no_grad():
            run.run(*values)
    return _to_records(traced, model, run.found, by_shapes)


def _runs_without_values(run: ShapeRun, values: Any) -> bool:
    try:
        with without_values(run.module) as device:
            run.run(*on_device(values, device))
    except Exception:  # the forward with values says what is wrong
        return False
    return True


def _only_guards(traced: fx.Graph) -> set[fx.Node]:
    """Nodes that only check an argument FX has fixed to its default: no part of the dataflow."""
    guards: set[fx.Node] = set()
    for node in reversed(traced.nodes):
        is_assert = "_assert" in getattr(node.target, "__name__", "")
        unused = node.op != "output" and all(user in guards for user in node.users)
        if is_assert or (unused and (node.users or node.op == "placeholder")):
            guards.add(node)
    return guards


def _to_records(
    traced: fx.Graph, model: nn.Module, shapes: Mapping[str, Info], by_shapes: bool
) -> Graph:
    nodes = []
    edges: dict[tuple[str, str], GraphEdge] = {}
    guards = _only_guards(traced)
    # FX gives an in-place operation a value of its own; who reads the old one gets the new.
    written: dict[fx.Node, fx.Node] = {}
    for node in traced.nodes:
        if node in guards:
            continue
        nodes.append(_node_record(node, shapes.get(node.name)))
        for source in node.all_input_nodes:
            start = written.get(source, source).name
            edges.setdefault((start, node.name), GraphEdge(start, node.name))
        if node.args and isinstance(node.args[0], fx.Node) and writes_in_place(node, model):
            newest = written.get(node.args[0], node.args[0])
            written |= {old: node for old, new in written.items() if new is newest}
            written |= {node.args[0]: node, newest: node}
    return Graph(tuple(nodes), tuple(edges.values()), origin="torch.fx", by_shapes=by_shapes)


def writes_in_place(node: fx.Node, model: nn.Module) -> bool:
    if node.op == "call_module":
        return getattr(model.get_submodule(str(node.target)), "inplace", False) is True
    if node.op not in ("call_method", "call_function"):
        return False
    name = str(getattr(node.target, "__name__", node.target))
    return node.kwargs.get("inplace") is True or (name.endswith("_") and name[-2:] != "__")


def _node_record(node: fx.Node, info: Info | None) -> GraphNode:
    shape, dtype = info or (None, None)
    scope = node.meta.get("qx_scope", "")
    functional = node.meta.get("qx_functional")
    op: Any = node.op
    path = ""
    if functional is not None:
        path, method = functional
        op, target, label = "call_module", path, method
    elif node.op == "call_module":
        path = target = str(node.target)
        label = path.rpartition(".")[2]
    elif node.op == "call_function":
        target = qualified_function(node.target)
        label = getattr(node.target, "__name__", str(node.target))
    else:
        target = str(node.target)
        label = target.rpartition(".")[2] if node.op == "get_attr" else target
    return GraphNode(
        id=node.name,
        op=op,
        target=target,
        label=label,
        path=path,
        scope=scope,
        shape=shape,
        dtype=dtype,
        source=node.meta["qx_source"] if op not in ("placeholder", "output") else "",
    )


def qualified_function(function: Any) -> str:
    """Dotted name of a function, e.g. ``"torch.nn.functional.relu"``, ``"quantized.add"``."""
    if isinstance(function, (torch._ops.OpOverload, torch._ops.OpOverloadPacket)):
        return str(function)
    namespace = getattr(function, "__module__", "") or ""
    name = getattr(function, "__qualname__", getattr(function, "__name__", str(function)))
    return f"{namespace}.{name}" if namespace else str(name)
