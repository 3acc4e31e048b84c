"""The dataflow graph of a model from one recorded forward, for models that FX cannot trace.

Tensors are followed by identity, through weak references, so that nothing is kept alive.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import nn
from torch.overrides import resolve_name

from qatexplorer.forward.calls import Frame
from qatexplorer.forward.graph import Graph, GraphEdge, GraphNode, NodeOp
from qatexplorer.forward.trace import first_tensor_info, tensors_in, user_source


class NodeList:
    """Makes the nodes and edges of the graph from what the recorder sees."""

    def __init__(self, model: nn.Module) -> None:
        self.nodes: list[GraphNode] = []
        self.edges: dict[tuple[str, str], GraphEdge] = {}
        self._producers: dict[int, tuple[weakref.ref[torch.Tensor], str]] = {}
        self._names = {id(p): name for name, p in model.named_parameters()}
        self._names |= {id(b): name for name, b in model.named_buffers()}
        self._scopes: list[str] = [""]
        self.inside = 0  # of a module that is one node

    def graph(self, note: str) -> Graph:
        return Graph(tuple(self.nodes), tuple(self.edges.values()), "recorded forward", note)

    def add(
        self,
        op: NodeOp,
        target: str,
        label: str,
        path: str,
        inputs: Any,
        result: Any,
        source: str | None = None,
    ) -> None:
        producers = [self._producer(tensor) for tensor in tensors_in(inputs)]
        node_id = f"n{len(self.nodes)}"
        for producer in producers:
            if producer is not None:
                self.edges.setdefault((producer, node_id), GraphEdge(producer, node_id))
        shape, dtype = first_tensor_info(result) or (None, None)
        if source is None:
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

    def operation(self, func: Any, name: str, given: Any, result: Any, source: str) -> None:
        """A function or method of torch has run, outside of every module that is one node."""
        if self.inside or first_tensor_info(result) is None:
            return
        target = resolve_name(func) or name
        op: NodeOp = "call_method" if target.startswith("torch.Tensor.") else "call_function"
        self.add(op, target, name.strip("_"), "", given, result, source)

    def entered(self, frame: Frame) -> None:
        if frame.path and (frame.leaf or self.inside):
            self.inside += 1
        elif frame.path:
            self._scopes.append(frame.path)

    def left(self, frame: Frame, given: Any, result: Any) -> None:
        path = frame.path
        if path and self.inside:
            self.inside -= 1
            if frame.leaf and not self.inside:
                self.add("call_module", path, path.rpartition(".")[2], path, given, result)
        elif path:
            self._scopes.pop()
