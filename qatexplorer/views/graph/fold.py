"""What a graph need not show one by one: Identity modules, and blocks that repeat.

Both are decided from the records alone. What differs in structure, in fake quants or in what stays
float is never folded together; the constants that a function is called with are not recorded, so
blocks that differ in nothing else count as equal.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from qatexplorer.snapshot.records import (
    FakeQuantSite,
    Graph,
    GraphNode,
    ModuleRecord,
    Snapshot,
)
from qatexplorer.views.graph.groups import SceneGroup, SceneTree

Marks = Mapping[str, Sequence[Mapping[str, str]]]
"""Fake quants by item id, see :func:`~qatexplorer.views.graph.marks.place_marks`."""

_IDENTITY = "torch.nn.modules.linear.Identity"


def passing_nodes(snapshot: Snapshot, graph: Graph, marks: Marks) -> frozenset[str]:
    """Ids of the graph nodes that only pass on a tensor: an edge can stand for them.

    They call an ``nn.Identity`` (fusion leaves them) without hooks and without a fake quant, on one
    tensor that somebody uses, made before it.
    """
    at = {node.id: i for i, node in enumerate(graph.nodes)}
    fed: dict[str, list[str]] = {}
    used: set[str] = set()
    for source, target in {(edge.source, edge.target) for edge in graph.edges}:
        fed.setdefault(target, []).append(source)
        if at.get(source, -1) < at.get(target, -1):
            used.add(source)
    found = set()
    for node in graph.nodes:
        record = snapshot.by_path.get(node.path) if node.op == "call_module" else None
        if record is None or record.qualified_type != _IDENTITY or record.hooks:
            continue
        sources = fed.get(node.id, [])
        once = len(sources) == 1 and at.get(sources[0], len(at)) < at[node.id]
        if once and node.id in used and not marks.get(f"n:{node.id}"):
            found.add(node.id)
    return frozenset(found)


def fold_repeats(tree: SceneTree, snapshot: Snapshot, graph: Graph, marks: Marks) -> None:
    """Put runs of equal blocks, each feeding the next, into groups of their own.

    Blocks are groups beside each other under one parent. They are equal if they hold the same
    operations under the same names, with the same types, settings, shapes, edges, fake quants and
    states. All that leaves a block has to enter the next; what else enters (a mask, say) has to
    come from the same operations and enter at the same places in each.
    """
    shapes = _Shapes(tree, snapshot, graph, marks)
    # Parents come first: siblings are compared before anything inside them is folded.
    for group in list(tree.groups.values()):
        ids = list(group.children)
        blocks = [tree.groups.get(child) for child in ids]
        if sum(block is not None for block in blocks) < 2:
            continue
        start = 0
        while start < len(blocks):
            end = _end_of_run(blocks, start, shapes)
            if end - start > 1:
                _fold(tree, group, ids[start:end])
            start = end


def _end_of_run(blocks: Sequence[SceneGroup | None], start: int, shapes: _Shapes) -> int:
    """Where the run of equal blocks that begins at ``start`` ends; ``start + 1`` if none does."""
    first = blocks[start]
    if first is None:
        return start + 1
    run, way = [first], None
    for block in blocks[start + 1 :]:
        if block is None or not shapes.equal(first, block):
            break
        here = shapes.link(run[-1], block, first)
        if here is None or way not in (None, here):
            break
        if way is None and not shapes.enters_alike(first, block):
            break
        run, way = [*run, block], here
    return start + len(run)


def _fold(tree: SceneTree, group: SceneGroup, ids: Sequence[str]) -> None:
    fold_id = f"{ids[0]}×{len(ids)}"
    fold = SceneGroup(fold_id, group.path, group.id, group.visit, synthetic=True)
    fold.children, fold.blocks = list(ids), tuple(ids)
    tree.groups[fold_id] = fold
    at = group.children.index(ids[0])
    group.children[at : at + len(ids)] = [fold_id]
    for child in ids:
        tree.groups[child].parent = fold_id


Link = tuple[frozenset[tuple[int, int]], frozenset[tuple[int, int]]]
"""Edges between a block and the next, by positions in both; what else enters the next, from
where (position in the graph) and at which position in it."""


class _Shapes:
    """Structure of groups as numbers: equal numbers, equal structure. Made where two are compared.

    A group is a range of the execution order, so an edge inside is two positions in that range.
    """

    def __init__(self, tree: SceneTree, snapshot: Snapshot, graph: Graph, marks: Marks) -> None:
        self._tree, self._snapshot, self._marks = tree, snapshot, marks
        self._sites = {site.path: site for site in snapshot.sites}
        self._numbers: dict[Any, int] = {}
        self._nodes = graph.nodes
        self._at = {node.id: i for i, node in enumerate(graph.nodes)}
        self._feeds: list[list[int]] = [[] for _ in graph.nodes]
        self._fed: list[list[int]] = [[] for _ in graph.nodes]
        for edge in graph.edges:
            if edge.source in self._at and edge.target in self._at:
                source, target = self._at[edge.source], self._at[edge.target]
                self._feeds[source].append(target)
                self._fed[target].append(source)
        self._ends: dict[str, tuple[int, int]] = {}
        for group in reversed(list(tree.groups.values())):
            ends = [self._range_of(group.children[at]) for at in (0, -1)]
            self._ends[group.id] = (ends[0][0], ends[1][1])
        self._of: dict[str, int] = {}

    def _range_of(self, child: str) -> tuple[int, int]:
        if child in self._ends:
            return self._ends[child]
        at = self._at[child[2:]]
        return at, at + 1

    def equal(self, one: SceneGroup, other: SceneGroup) -> bool:
        """Whether both have the same structure."""
        return self._look(one) == self._look(other) and self._shape(one) == self._shape(other)

    def _look(self, group: SceneGroup) -> tuple[Any, ...]:
        """What is seen of a structure without going through it."""
        record = self._snapshot.by_path.get(group.path)
        low, high = self._ends[group.id]
        kind = "" if record is None else record.qualified_type
        shapes = (self._nodes[low].shape, self._nodes[high - 1].shape)
        return kind, high - low, len(group.children), shapes

    def _number(self, key: Any) -> int:
        return self._numbers.setdefault(key, len(self._numbers))

    def _shape(self, group: SceneGroup) -> int:
        known = self._of.get(group.id)
        if known is not None:
            return known
        parts: list[Any] = []
        for child in group.children:
            inner = self._tree.groups.get(child)
            if inner is not None:
                parts.append((_beneath(inner.path, group.path), self._shape(inner)))
            else:
                node = self._nodes[self._at[child[2:]]]
                parts.append(self._number(self._node_key(node, group)))
        low, high = self._ends[group.id]
        edges = sorted(
            (source - low, target - low)
            for source in range(low, high)
            for target in self._feeds[source]
            if low <= target < high
        )
        record = self._snapshot.by_path.get(group.path)
        key = (_module_key(record), self._marks_key(group.id), tuple(parts), tuple(edges))
        self._of[group.id] = self._number(key)
        return self._of[group.id]

    def _node_key(self, node: GraphNode, group: SceneGroup) -> tuple[Any, ...]:
        record = self._snapshot.by_path.get(node.path) if node.path else None
        what = node.label if node.path else node.target
        name = _beneath(node.path or (node.target if node.op == "get_attr" else ""), group.path)
        if node.op == "get_attr":
            what = ""
        seen = (node.op, what, name, node.shape, node.dtype)
        return (*seen, _module_key(record), self._marks_key(f"n:{node.id}"))

    def _marks_key(self, item: str) -> tuple[Any, ...]:
        return tuple(
            (mark["role"], _site_key(self._sites[mark["site"]]))
            for mark in self._marks.get(item, ())
        )

    def link(self, block: SceneGroup, after: SceneGroup, first: SceneGroup) -> Link | None:
        """How ``block`` feeds ``after`` in a run from ``first``; None if they are not a chain."""
        low, high = self._ends[block.id]
        begin, end = self._ends[after.id]
        for source in range(low, high):
            if any(
                not low <= target < high and not begin <= target < end
                for target in self._feeds[source]
            ):
                return None
        within, beside = set(), set()
        for target in range(begin, end):
            for source in self._fed[target]:
                if low <= source < high:
                    within.add((source - low, target - begin))
                elif not begin <= source < end:
                    beside.add((source, target - begin))
        if not within or any(source >= self._ends[first.id][0] for source, _ in beside):
            return None
        return frozenset(within), frozenset(beside)

    def enters_alike(self, first: SceneGroup, after: SceneGroup) -> bool:
        """Whether tensors from outside enter both blocks at the same positions."""
        return self._entries(first) == self._entries(after)

    def _entries(self, block: SceneGroup) -> set[int]:
        low, high = self._ends[block.id]
        return {
            target - low
            for target in range(low, high)
            if any(not low <= source < high for source in self._fed[target])
        }


def _beneath(path: str, scope: str) -> str:
    """``path`` as seen from inside ``scope``; whole if it lies elsewhere."""
    return path[len(scope) + 1 :] if scope and path.startswith(scope + ".") else path


def _module_key(record: ModuleRecord | None) -> tuple[Any, ...]:
    if record is None:
        return ()
    return (
        record.qualified_type,
        record.extra_repr,
        record.param_count,
        tuple((t.name, t.shape, t.dtype, t.requires_grad) for t in record.tensors),
        record.qconfig,
        record.training,
        record.hooks,
        record.compute,
        record.state,
        record.stays_float,
    )


def _site_key(site: FakeQuantSite) -> tuple[Any, ...]:
    """All of a fake quant but its name, what it has measured and who outside shares it."""
    # In FX one fake quant can stand at several nodes, some of them in no block.
    calls = (
        None if site.calls_per_forward is None else site.calls_per_forward / max(1, len(site.nodes))
    )
    return (
        site.kind,
        site.fake_quant_class,
        site.observer_class,
        site.dtype,
        site.quant_min,
        site.quant_max,
        site.qscheme,
        site.ch_axis,
        site.mechanism,
        calls,
        site.observer_enabled,
        site.fake_quant_enabled,
        site.seen,
    )


def fold_name(first: str, last: str) -> str:
    """``"layer3.1–5"`` for ``"layer3.1"`` and ``"layer3.5"``: both ends of a run of paths."""
    around, _, one = first.rpartition(".")
    beside, _, other = last.rpartition(".")
    shared = "".join(
        a
        for a, _ in itertools.takewhile(
            lambda pair: pair[0] == pair[1], zip(one, other, strict=False)
        )
    ).rstrip("0123456789")
    if around == beside and one[len(shared) :].isdigit() and other[len(shared) :].isdigit():
        return f"{first}–{other[len(shared) :]}"
    return f"{first} … {other if around == beside else last}"
