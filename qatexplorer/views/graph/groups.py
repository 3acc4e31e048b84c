"""The nesting of a graph: which group each operation is drawn in.

Groups are contiguous runs of the execution order, so the picture of every group is free of
cycles whenever the graph itself is: a block that is called twice becomes two groups, and a bare
``ModuleList`` whose members alternate with other calls is not drawn as a group at all.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from qatexplorer.snapshot.records import Graph, GraphNode, Snapshot

ROOT = "g:"
"""Id of the group of the whole model."""

_PURE_CONTAINERS = frozenset({"ModuleList", "ModuleDict"})


@dataclass
class SceneGroup:
    """One box that holds others.

    ``children`` are item ids (``"n:<graph node id>"`` or ``"g:…"``) in execution order. ``visit``
    counts the calls of the module, from 1. A ``synthetic`` group stands for no module: it holds a
    range of the children of a group that has too many, or equal ``blocks`` (ids of groups).
    """

    id: str
    path: str
    parent: str | None
    visit: int = 1
    synthetic: bool = False
    children: list[str] = field(default_factory=list)
    blocks: tuple[str, ...] = ()


@dataclass
class SceneTree:
    """All groups by id (parents before children), and the group of each graph node by its id."""

    groups: dict[str, SceneGroup]
    group_of: dict[str, str]

    def ancestors(self, group_id: str) -> Iterator[SceneGroup]:
        """The group and everything around it, innermost first."""
        current: str | None = group_id
        while current is not None:
            group = self.groups[current]
            yield group
            current = group.parent


def parent_path(path: str) -> str:
    """``"a.b"`` for ``"a.b.c"``; ``""`` for ``"a"`` and for the root."""
    return path.rpartition(".")[0]


def is_below(path: str, scope: str) -> bool:
    """Whether ``path`` names a module inside the module at ``scope``."""
    return path != scope and (not scope or path.startswith(scope + "."))


def _prefixes(path: str) -> list[str]:
    """``["", "a", "a.b"]`` for ``"a.b"``: outermost first."""
    if not path:
        return [""]
    parts = path.split(".")
    return [""] + [".".join(parts[: i + 1]) for i in range(len(parts))]


def _container(node: GraphNode) -> str:
    """Path of the module in whose box the node belongs.

    A module is drawn beside its siblings in the module tree; one that is called from elsewhere
    (a module of another branch) is drawn where it is called.
    """
    if node.path and is_below(node.path, node.scope):
        return parent_path(node.path)
    return node.scope


def _runs(chains: Sequence[Sequence[str]]) -> Counter[str]:
    """How many uninterrupted runs each path has in execution order."""
    count: Counter[str] = Counter()
    previous: Sequence[str] = ()
    for chain in chains:
        kept = _common(previous, chain)
        count.update(chain[kept:])
        previous = chain
    return count


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    kept = 0
    for a, b in zip(one, other):  # noqa: B905 - the shorter one decides
        if a != b:
            break
        kept += 1
    return kept


def _chains(graph: Graph, snapshot: Snapshot) -> list[list[str]]:
    """For each node the paths of the groups around it, outermost first."""
    chains = [_prefixes(_container(node)) for node in graph.nodes]
    count = _runs(chains)
    scattered = {
        path
        for path, runs in count.items()
        if path
        and runs > count[parent_path(path)]
        and path in snapshot.by_path
        and snapshot.by_path[path].type_name in _PURE_CONTAINERS
    }
    if not scattered:
        return chains
    return [[path for path in chain if path not in scattered] for chain in chains]


def build_tree(snapshot: Snapshot, graph: Graph) -> SceneTree:
    """Nest the nodes of ``graph`` by module."""
    groups: dict[str, SceneGroup] = {ROOT: SceneGroup(ROOT, "", None)}
    group_of: dict[str, str] = {}
    visits: Counter[str] = Counter({"": 1})
    stack: list[tuple[str, str]] = [("", ROOT)]
    for node, chain in zip(graph.nodes, _chains(graph, snapshot)):  # noqa: B905 - same length
        kept = _common([path for path, _ in stack], chain)
        del stack[kept:]
        for path in chain[kept:]:
            visits[path] += 1
            visit = visits[path]
            group_id = f"g:{path}" if visit == 1 else f"g:{path}#{visit}"
            parent = stack[-1][1]
            groups[group_id] = SceneGroup(group_id, path, parent, visit)
            groups[parent].children.append(group_id)
            stack.append((path, group_id))
        group_of[node.id] = stack[-1][1]
        groups[stack[-1][1]].children.append(f"n:{node.id}")
    return SceneTree(groups, group_of)


def split_large(tree: SceneTree, max_children: int, passing: frozenset[str] = frozenset()) -> None:
    """Put ranges of children into synthetic groups until no group has more than ``max_children``.

    ``passing`` are ids of graph nodes that are not drawn as a rule: they do not count, and stay
    with the child before them.

    Raises:
        ValueError: ``max_children`` is below 2.
    """
    if max_children < 2:
        raise ValueError(f"max_children must be at least 2, got {max_children}")
    waiting = [g for g in tree.groups.values() if len(g.children) > max_children]
    while waiting:
        group = waiting.pop()
        shown = _with_passing(group.children, passing)
        count = len(shown)
        if count <= max_children:
            continue
        chunks = _chunks(count, max_children)
        size, longer = divmod(count, chunks)
        group.children, start = [], 0
        for index in range(chunks):
            end = start + size + (index < longer)
            part_id = f"{group.id}~{index}"
            part = SceneGroup(part_id, group.path, group.id, group.visit, synthetic=True)
            part.children = [child for some in shown[start:end] for child in some]
            tree.groups[part_id] = part
            group.children.append(part_id)
            for child in part.children:
                if child.startswith("n:"):
                    tree.group_of[child[2:]] = part_id
                else:
                    tree.groups[child].parent = part_id
            waiting.append(part)
            start = end


def _with_passing(children: Sequence[str], passing: frozenset[str]) -> list[list[str]]:
    """Each child that is drawn, with those after it that are not."""
    shown: list[list[str]] = []
    for child in children:
        if shown and child[2:] in passing and child.startswith("n:"):
            shown[-1].append(child)
        else:
            shown.append([child])
    return shown


def _chunks(count: int, most: int) -> int:
    """How many parts to make of ``count`` children: the same number at every level of nesting."""
    levels, room = 1, most
    while room < count:
        levels, room = levels + 1, room * most
    parts = max(2, math.ceil(math.pow(count, 1 / levels) - 1e-9))
    return min(most, parts)
