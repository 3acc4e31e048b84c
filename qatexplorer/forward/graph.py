"""The dataflow graph of one forward, as records: text and numbers only."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from qatexplorer.quantizers.types import SiteKind

NodeOp = Literal["placeholder", "call_module", "call_function", "call_method", "get_attr", "output"]


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a fake quant stands that is a node of an FX graph; fields as in FakeQuantSite."""

    kind: SiteKind
    owner: str
    owner_type: str
    nodes: tuple[str, ...]
    call: str = ""
    shared_by: tuple[str, ...] = ()
    parameter: str = "weight"


@dataclass(frozen=True, slots=True)
class GraphNode:
    """One operation of the dataflow graph.

    Attributes:
        id: unique within the graph.
        op: the FX opcode.
        target: module path (``call_module``), qualified function or method name, or input name.
        label: short name to draw.
        path: module path for ``call_module`` and for methods of a ``FloatFunctional``, else ``""``.
        scope: path of the module whose ``forward`` makes this call (``""`` is the root).
        shape, dtype: of the output (first tensor of it), None if unknown.
        source: ``"file.py:12"`` in the user's code, ``""`` if unknown.
        trains: of an operation of an exported graph that does one thing in training and another in
            eval mode (a dropout, a batch norm): which of them its arguments say; None of others.
    """

    id: str
    op: NodeOp
    target: str
    label: str
    path: str = ""
    scope: str = ""
    shape: tuple[int, ...] | None = None
    dtype: str | None = None
    source: str = ""
    trains: bool | None = None


@dataclass(frozen=True, slots=True)
class GraphEdge:
    """A tensor flowing from node ``source`` to node ``target`` (ids).

    ``sites`` are the paths of the fake quants that are nodes on the way, in order.
    """

    source: str
    target: str
    sites: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Graph:
    """Dataflow of one forward, nodes in execution order.

    ``origin`` is ``"torch.fx"``, ``"torch.export"`` or ``"recorded forward"``; ``note`` says why FX
    was not used.
    ``by_shapes``: no value decides what the forward does, see :mod:`~qatexplorer.forward.shapes`.
    """

    nodes: tuple[GraphNode, ...]
    edges: tuple[GraphEdge, ...]
    origin: str = "torch.fx"
    note: str = ""
    by_shapes: bool = False

    @property
    def exported(self) -> bool:
        """Whether ``torch.export`` made it."""
        return self.origin == "torch.export"

    def connected(self, ids: Collection[str]) -> dict[str, str]:
        """The nodes ``ids`` by connected group: of each, the id of one that stands for its group.

        Edges from and to other nodes connect nothing.
        """
        parent = {id: id for id in ids}

        def root(id: str) -> str:
            while parent[id] != id:
                parent[id] = parent[parent[id]]
                id = parent[id]
            return id

        for edge in self.edges:
            if edge.source in parent and edge.target in parent:
                parent[root(edge.source)] = root(edge.target)
        return {id: root(id) for id in parent}
