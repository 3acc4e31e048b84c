"""How much of a model is int8 and how much float at a stage: its parameters and its MACs.

Read off the records alone, without running or converting anything; what they do not tell is counted
as unknown. The ledger measures the same by converting a copy; the two agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from qatexplorer.quantizers.types import State
from qatexplorer.snapshot.exported import fused_norms
from qatexplorer.snapshot.records import GraphNode, Snapshot
from qatexplorer.snapshot.states import operations_state


@dataclass(frozen=True, slots=True)
class Share:
    """How many of something are int8, float, and of an unknown kind."""

    int8: int = 0
    float: int = 0
    unknown: int = 0

    @property
    def total(self) -> int:
        return self.int8 + self.float + self.unknown


def params_at(now: Snapshot, prepared: Snapshot | None = None) -> dict[str, int]:
    """Parameter elements by the path of the module of ``now`` that holds them, or that has taken
    them in.

    int8 modules have packed their weights and folded their batch norms: those elements are counted
    in ``prepared``, the stage that ``now`` was converted from (None: ``now`` itself).
    """
    before = prepared or now
    taken_by = {pair.norm.path: pair.conv.path for pair in fused_norms(before.graph)}
    computing = {node.path for node in now.graph.nodes} if now.graph is not None else set()
    found: dict[str, int] = {}
    for module in before.modules:
        if module.own_params:
            path = module.path
            if path not in computing:  # a batch norm that its convolution has taken in
                path = taken_by.get(path, path)
            while path not in now.by_path:
                path = path.rpartition(".")[0]
            found[path] = found.get(path, 0) + module.own_params
    return found


def params_share(now: Snapshot, prepared: Snapshot | None = None) -> Share:
    """In what the parameters of the model take part in computing; see :func:`params_at`.

    At a stage with all fake quants it is what becomes of them, before it they are all float.
    """
    held = params_at(now, prepared)
    if not now.is_from("inserted"):
        return Share(float=sum(held.values()))
    nodes = _Nodes(now)
    counts: dict[State, int] = {}
    for path, number in held.items():
        state = now.by_path[path].own_state or nodes.operations_of(path)
        counts[state] = counts.get(state, 0) + number
    return _share(counts)


def macs_share(now: Snapshot, macs: Mapping[str, int]) -> Share:
    """The same for multiply-accumulates.

    ``macs`` are those of the float model by path, what is below included, as
    :func:`~qatexplorer.forward.costs.count_macs` gives them.
    """
    own = dict(macs)
    for path, number in macs.items():
        if path:
            around = path.rpartition(".")[0]
            own[around] = own.get(around, 0) - number
    if not now.is_from("inserted"):
        return Share(float=sum(own.values()))
    nodes, places = _Nodes(now), _places(now)
    counts: dict[State, int] = {}
    for path, number in own.items():
        if not number:
            continue
        states = [nodes.computing_at(p) for p in places.get(path, ())]
        state: State = next((state for state in states if state), "")
        counts[state] = counts.get(state, 0) + number
    return _share(counts)


def _share(counts: Mapping[State, int]) -> Share:
    int8, floats = counts.get("int8", 0), counts.get("float", 0)
    return Share(int8, floats, sum(counts.values()) - int8 - floats)


def _places(now: Snapshot) -> dict[str, list[str]]:
    """Paths of ``now`` by their place in the float model."""
    found: dict[str, list[str]] = {}
    for module in now.modules:
        if module.origin or not module.path:
            found.setdefault(module.origin, []).append(module.path)
    # A wrapper around the whole model has taken the root's place.
    found.setdefault("", []).extend(m.path for m in now.modules if m.path and not m.origin)
    return found


class _Nodes:
    """The graph's nodes by the module that they call, and by the one whose forward they are in."""

    def __init__(self, now: Snapshot) -> None:
        self.now = now
        self.at: dict[str, list[GraphNode]] = {}
        self.within: dict[str, list[GraphNode]] = {}
        for node in now.graph.nodes if now.graph is not None else ():
            self.within.setdefault(node.scope, []).append(node)
            if node.path:
                self.at.setdefault(node.path, []).append(node)

    def operations_of(self, path: str) -> State:
        """In what the operations compute that the forward of the module makes itself."""
        return operations_state(self.within.get(path, ()), self.now.int8_nodes)

    def computing_at(self, path: str) -> State:
        """In what the module multiplies: by its own operations, or as a layer."""
        record = self.now.by_path[path]
        state = self.operations_of(path) or record.own_state
        if not state and path in self.at:
            int8 = {node.id in self.now.int8_nodes for node in self.at[path]}
            state = "mixed" if len(int8) > 1 else "int8" if int8.pop() else "float"
        return state
