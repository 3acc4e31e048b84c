"""The dataflow graph of a model that is an FX graph already, with its fake quants as marks.

In torch's graph an activation fake quant is a node between two operations. Here it is no box: the
operations are joined by an edge that names it, and a :class:`~.graph.Placement` says where it
stands. A shared fake quant, one object under several names, has a placement for each name.
"""

from __future__ import annotations

import functools
import inspect
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn

from qatexplorer.data import as_args, device_of, on_device
from qatexplorer.explain.usercode import is_user_file
from qatexplorer.forward.graph import Graph, GraphEdge, GraphNode, NodeOp, Placement
from qatexplorer.forward.preserve import preserved_state
from qatexplorer.forward.trace import Info, ShapeRun, qualified_function, writes_in_place
from qatexplorer.quantizers.facts import is_quantizer, kind_of_node
from qatexplorer.shown import error_line

_FRAME = re.compile(r'File "([^"]+)", line (\d+)')
# What converting puts beside each operation: numbers, not data that flows.
_QPARAM = re.compile(r"(?:_scale|_zero_point|_axis)_\d+$")


def positional_inputs(model: nn.Module, inputs: Any) -> tuple[Any, ...]:
    """Example inputs in any accepted form as positional arguments of ``model.forward``.

    What is not given takes its default. Raises TypeError if they do not fit the signature.
    """
    args, kwargs = as_args(inputs)
    return _bound(model, inputs).args if kwargs else args


def bound_arguments(model: nn.Module, inputs: Any) -> dict[str, Any]:
    """Each argument of ``model.forward`` by name, those not given at their default. Raises
    TypeError if the example inputs do not fit the signature."""
    return dict(_bound(model, inputs).arguments)


def _bound(model: nn.Module, inputs: Any) -> inspect.BoundArguments:
    args, kwargs = as_args(inputs)
    bound = inspect.signature(model.forward).bind(*args, **kwargs)
    bound.apply_defaults()
    return bound


class GraphRunError(RuntimeError):
    """A graph does not run on the example inputs; ``source`` is the line that made the node."""

    def __init__(self, message: str, source: str) -> None:
        super().__init__(message)
        self.source = source


def shapes_of(module: fx.GraphModule, inputs: Any) -> dict[str, Info]:
    """Shape and dtype of the first tensor of each node's result, by node id.

    Runs ``module`` once on ``inputs`` under ``no_grad``; state and RNG are put back. Raises
    GraphRunError from what running raises.
    """
    run = ShapeRun(module)
    try:
        with preserved_state(module), torch.no_grad():
            run.run(*positional_inputs(module, on_device(inputs, device_of(module))))
    except Exception as error:
        source = source_of(run.at) if run.at is not None else ""
        raise GraphRunError(error_line(error), source) from error
    return run.found


@dataclass
class Scopes:
    """Path of the module in whose forward each traced node is.

    ``by_node`` has it by node id; ``by_lines`` by the lines of the user's code that made the
    node, in execution order: converting gives some operations a new id and keeps the lines.
    """

    by_node: dict[str, str] = field(default_factory=dict)
    by_lines: dict[str, list[str]] = field(default_factory=dict)


def scopes_of(module: fx.GraphModule) -> Scopes:
    """Scopes of all nodes of a prepared model that tracing made."""
    found = Scopes()
    for node in module.graph.nodes:
        if node.stack_trace:
            stack = node.meta.get("nn_module_stack") or {}
            paths = [str(path) for path, _ in stack.values()]
            own = str(node.target) if node.op == "call_module" else None
            scope = next((p for p in reversed(paths) if p != own), "")
            found.by_node[node.name] = scope
            found.by_lines.setdefault(node.stack_trace, []).append(scope)
    return found


def graph_of_module(
    module: fx.GraphModule, shapes: Mapping[str, Info], scopes: Scopes, note: str = ""
) -> tuple[Graph, dict[str, Placement]]:
    """Graph of ``module`` and the placements of its fake quants by path.

    Args:
        shapes: from :func:`shapes_of`. scopes: what is known; torch's own nodes stand with their
            input.
        note: what to say of the graph.
    """
    reader = _Reader(module, shapes, scopes)
    return reader.graph(note), reader.placements()


class _Reader:
    """Reads one GraphModule into records."""

    def __init__(self, module: fx.GraphModule, info: Mapping[str, Info], scopes: Scopes) -> None:
        self.module = module
        self.info = info
        self.scopes = scopes.by_node
        self.from_lines = _matched(module, scopes.by_lines)
        self.modules = dict(module.named_modules(remove_duplicate=False))
        self.nodes: dict[str, GraphNode] = {}
        for node in module.graph.nodes:
            if not self._is_quantizer(node) and not _is_qparam(node):
                self.nodes[node.name] = self._record(node)

    def _is_quantizer(self, node: fx.Node) -> bool:
        return node.op == "call_module" and is_quantizer(self.modules[str(node.target)])

    def _behind(self, node: fx.Node) -> tuple[fx.Node, tuple[str, ...]]:
        """The operation whose result ``node`` is, and the fake quants it went through."""
        sites: list[str] = []
        while self._is_quantizer(node) and node.all_input_nodes:
            sites.append(str(node.target))
            node = node.all_input_nodes[0]
        return node, tuple(reversed(sites))

    def graph(self, note: str) -> Graph:
        edges: dict[tuple[str, str], GraphEdge] = {}
        written: dict[fx.Node, fx.Node] = {}
        for node in self.module.graph.nodes:
            if node.name not in self.nodes:
                continue
            for given in node.all_input_nodes:
                source, sites = self._behind(given)
                source = written.get(source, source) if not sites else source
                if source.name in self.nodes:
                    key = (source.name, node.name)
                    edges.setdefault(key, GraphEdge(*key, sites))
            if node.args and isinstance(node.args[0], fx.Node):
                first, sites = self._behind(node.args[0])
                if not sites and writes_in_place(node, self.module):
                    written |= {old: node for old, new in written.items() if new is first}
                    written[first] = node
        return Graph(tuple(self.nodes.values()), tuple(edges.values()), "torch.fx", note)

    def placements(self) -> dict[str, Placement]:
        found: dict[str, Placement] = {}
        for node in self.module.graph.nodes:
            if not self._is_quantizer(node):
                continue
            source, _ = self._behind(node)
            record = self.nodes.get(source.name)
            if record is None:
                continue
            path = str(node.target)
            place = Placement(kind_of_node(source), *self._owner(record), (record.id,))
            if path in found:  # one name called at two places
                nodes = (*found[path].nodes, record.id)
                place = Placement(place.kind, place.owner, place.owner_type, nodes)
            found[path] = place
        return found

    def _owner(self, record: GraphNode) -> tuple[str, str]:
        if record.path:
            return record.path, type(self.modules[record.path]).__name__
        return record.scope, record.label

    def _record(self, node: fx.Node) -> GraphNode:
        op: NodeOp = node.op  # type: ignore[assignment]
        target, path = str(node.target), ""
        label = target.rpartition(".")[2] if op in ("get_attr", "call_module") else target
        if op == "call_module":
            path = target
        elif op == "call_function":
            target = qualified_function(node.target)
            label = getattr(node.target, "__name__", str(node.target))
        shape, dtype = self.info.get(node.name, (None, None))
        scope = "" if op in ("placeholder", "output") else self._scope(node)
        source = "" if op in ("placeholder", "output") else source_of(node)
        return GraphNode(node.name, op, target, label, path, scope, shape, dtype, source)

    def _scope(self, node: fx.Node) -> str:
        """The module in whose forward it is; what torch put in stands with its input."""
        own = str(node.target) if node.op == "call_module" else None
        stack = node.meta.get("nn_module_stack")
        if stack:
            paths = [str(path) for path, _ in stack.values()]
            return next((p for p in reversed(paths) if p != own), "")
        if node.name in self.scopes:
            scope = self.scopes[node.name]
            return scope if scope != own else own.rpartition(".")[0]
        if id(node) in self.from_lines:
            return self.from_lines[id(node)]
        if own is not None:
            return own.rpartition(".")[0]
        sources = (self._behind(given)[0].name for given in node.all_input_nodes)
        return next((self.nodes[name].scope for name in sources if name in self.nodes), "")


def _matched(module: fx.GraphModule, by_lines: Mapping[str, Sequence[str]]) -> dict[int, str]:
    """Scopes by ``id`` of the node, where a line made as many nodes then as it has now."""
    made: dict[str, list[fx.Node]] = {}
    for node in module.graph.nodes:
        if node.stack_trace in by_lines:
            made.setdefault(str(node.stack_trace), []).append(node)
    return {
        id(node): scope
        for lines, nodes in made.items()
        if len(nodes) == len(by_lines[lines])
        for node, scope in zip(nodes, by_lines[lines], strict=True)
    }


def _is_qparam(node: fx.Node) -> bool:
    return node.op == "get_attr" and _QPARAM.search(str(node.target)) is not None


def source_of(node: fx.Node) -> str:
    """``"file.py:12"`` of the innermost line of the user's that made the node."""
    return _line_in(node.stack_trace or "")


@functools.lru_cache(maxsize=2048)  # each is read at every stage
def _line_in(trace: str) -> str:
    for file, line in reversed(_FRAME.findall(trace)):
        if is_user_file(file):
            return f"{os.path.basename(file)}:{line}"
    return ""
