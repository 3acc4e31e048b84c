"""Which operation of the float model's graph an operation of a flow's graph is.

Nothing is guessed. An input is the input of the same number, of those that the call gives. A
module's call is the call of the same number of the module at the same path, where both graphs call
it equally often. Functions and methods are found by their names (``aten.add_.Tensor``,
``operator.iadd`` and ``Tensor.add`` are ``add``): those of one name are taken in order where both
graphs have equally many, first of the whole graph, then of one module's forward. Where a name tells
nothing, one operation that is left in a line of the user's code is the one that is left of that
line in the other graph, if its result has the same shape. In each of these, lines of the user's
code that are known must be the same. Last, operations of one name in one module's forward are taken
in order where both graphs have equally many and each has the shape of its other: exporting knows
the lines of ``forward`` only, not those of the methods that it calls.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from qatexplorer.forward.graph import Graph, GraphNode

_WORKS = ("call_module", "call_function", "call_method", "get_attr")
_IN_PLACE = frozenset({"iadd", "isub", "imul", "itruediv", "imatmul", "ifloordiv"})
_NUMBER = re.compile(r"(_\d+)+$")
Paths = Callable[[str], str]


def operation_name(node: GraphNode) -> str:
    """``"add"`` of ``operator.iadd``, ``aten.add_.Tensor`` and ``Tensor.add_``."""
    # The label of what a module does is the module's; torch names the node after the function.
    name = _NUMBER.sub("", node.id) if node.op == "call_module" else node.label
    name = name.strip("_")
    return name[1:] if name in _IN_PLACE else name


@dataclass
class Operations:
    """The operations of one graph, for finding them again in another.

    Args:
        graph: of a forward. to_float: path in the float model of a module at a path here.
        functional: paths of modules that stand for the function that is called on them, as a
            ``FloatFunctional`` does.
    """

    graph: Graph
    to_float: Paths = field(default=lambda path: path)
    functional: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        nodes = self.graph.nodes
        self.by_id = {node.id: node for node in nodes}
        self.inputs = [node for node in nodes if node.op == "placeholder"]
        self.calls: dict[str, list[GraphNode]] = defaultdict(list)
        for node in nodes:
            if node.path:
                self.calls[self.to_float(node.path)].append(node)
        self.sources: dict[str, list[str]] = defaultdict(list)
        self.followers: dict[str, list[str]] = defaultdict(list)
        for edge in self.graph.edges:
            self.sources[edge.target].append(edge.source)
            self.followers[edge.source].append(edge.target)

    def functions(self, modules: Collection[str]) -> list[GraphNode]:
        """What is no call of one of ``modules`` (paths in the float model) in the float model."""
        modules = frozenset(modules) - self.functional
        return [
            node
            for node in self.graph.nodes
            if node.op in _WORKS and not (node.path and self.to_float(node.path) in modules)
        ]

    def scope(self, node: GraphNode) -> str:
        """Path in the float model of the module whose forward makes the call."""
        inside = node.path and self.to_float(node.path) not in self.functional
        return self.to_float(node.path if inside else node.scope)

    def called_inside(self, path: str) -> list[GraphNode]:
        """Operations in the forward of the module at ``path`` of the float model, and its own."""
        return [
            node
            for node in self.graph.nodes
            if node.op in _WORKS
            and path in (self.to_float(node.path), self.to_float(node.scope))
            and (node.path or node.scope)
        ]


def found_in_float(theirs: Operations, floats: Operations) -> dict[str, str]:
    """Ids of ``theirs`` with the id in ``floats`` of the same operation, by the rules above."""
    found = _inputs(theirs.inputs, floats.inputs)
    for path, calls in floats.calls.items():
        if path not in floats.functional:
            _take(found, theirs.calls.get(path, []), calls) or _take(
                found, theirs.called_inside(path), calls
            )
    modules = floats.calls.keys()
    ours, others = theirs.functions(modules), floats.functions(modules)
    for key in (_by_name, _by_name_and_scope, _by_line, _by_name_and_shape):
        mine = _grouped(ours, key, theirs, found.keys())
        rest = _grouped(others, key, floats, found.values())
        for name in mine.keys() & rest.keys():
            one, other = mine[name], rest[name]
            if key is _by_name_and_shape:
                _take(found, one, other, lines=False) if _same_shapes(one, other) else None
            elif key is not _by_line or (len(one) == 1 and _same_shapes(one, other)):
                _take(found, one, other)
    return found


def kept_or_made_anew(before: Operations, after: Operations) -> dict[str, str]:
    """Ids of ``after`` with the id in ``before`` of the same operation, where a rewritten graph has
    other ids: of one name in one module's forward, in order where equally many are new and gone."""
    found: dict[str, str] = {}
    new = [node for node in after.graph.nodes if node.id not in before.by_id]
    gone = [node for node in before.graph.nodes if node.id not in after.by_id]
    mine = _grouped(new, _by_name_and_module, after, ())
    rest = _grouped(gone, _by_name_and_module, before, ())
    for name in mine.keys() & rest.keys():
        _take(found, mine[name], rest[name])
    return found


def _inputs(mine: Sequence[GraphNode], others: Sequence[GraphNode]) -> dict[str, str]:
    """By number; a graph that is traced also has the arguments that the call leaves out."""
    if len(mine) != len(others):
        mine, others = ([n for n in nodes if n.shape is not None] for nodes in (mine, others))
    if len(mine) != len(others):
        return {}
    return {a.id: b.id for a, b in zip(mine, others, strict=True)}


def _take(
    found: dict[str, str],
    mine: Sequence[GraphNode],
    others: Sequence[GraphNode],
    *,
    lines: bool = True,
) -> bool:
    """Note the pairs in order, if there are equally many and no line of code speaks against it."""
    if not mine or len(mine) != len(others):
        return False
    if lines and any(a.source != b.source for a, b in zip(mine, others, strict=True)
                     if a.source and b.source):  # fmt: skip
        return False
    found.update((a.id, b.id) for a, b in zip(mine, others, strict=True))
    return True


def _grouped(
    nodes: Iterable[GraphNode],
    key: Callable[[GraphNode, Operations], Hashable],
    within: Operations,
    taken: Iterable[str],
) -> Mapping[Hashable, list[GraphNode]]:
    taken = frozenset(taken)
    groups: dict[Hashable, list[GraphNode]] = defaultdict(list)
    for node in nodes:
        if node.id not in taken and key(node, within):
            groups[key(node, within)].append(node)
    return groups


def _by_name(node: GraphNode, _within: Operations) -> Hashable:
    return operation_name(node)


def _by_name_and_scope(node: GraphNode, within: Operations) -> Hashable:
    return operation_name(node), within.scope(node)


def _by_line(node: GraphNode, _within: Operations) -> Hashable:
    return node.source


def _by_name_and_shape(node: GraphNode, within: Operations) -> Hashable:
    # Numbers that are computed of shapes are no tensors, and exporting leaves them out.
    return _by_name_and_scope(node, within) if node.shape is not None else ""


def _by_name_and_module(node: GraphNode, within: Operations) -> Hashable:
    return operation_name(node), within.to_float(node.path), within.to_float(node.scope)


def _same_shapes(mine: Sequence[GraphNode], others: Sequence[GraphNode]) -> bool:
    """Each that of its other; exporting has -1 for a batch of any size."""
    return len(mine) == len(others) and all(
        a.shape is not None
        and b.shape is not None
        and len(a.shape) == len(b.shape)
        and all(m == n or -1 in (m, n) for m, n in zip(a.shape, b.shape, strict=True))
        for a, b in zip(mine, others, strict=True)
    )
