"""The user's module tree at the stages of an exported model, and in what its modules compute.

``torch.export`` leaves of the tree only what holds parameters, under a class without a name. The
rest stands on the graph's nodes: which modules are called, and of which class they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from torch import fx, nn

from qatexplorer.forward.exported import (
    calls_of,
    folded_norms,
    gone_in_int8,
    is_int8_kernel,
    quantized_operations,
)
from qatexplorer.forward.graph import Graph, GraphNode
from qatexplorer.quantizers.types import State
from qatexplorer.snapshot.records import Inside, ModuleRecord
from qatexplorer.snapshot.states import ModuleState, States, around, in_one_word

_ROUNDING = "quantize_per"


@dataclass(frozen=True)
class FusedNorm:
    """A batch norm behind a convolution, and what torchao has put between the two so that the
    weight that is rounded is the one that int8 will have; ``between`` are ids, empty before."""

    conv: GraphNode
    norm: GraphNode
    between: tuple[str, ...]


def fused_norms(graph: Graph | None) -> tuple[FusedNorm, ...]:
    """Batch norms behind convolutions of an exported graph, in its order."""
    if graph is None:
        return ()
    nodes = {node.id: node for node in graph.nodes}
    into: dict[str, list[str]] = {}
    for edge in graph.edges:
        into.setdefault(edge.target, []).append(edge.source)
    found = []
    for norm in graph.nodes:
        if not norm.label.lower().replace("_", "").startswith("batchnorm"):
            continue
        between: list[str] = []
        sources = into.get(norm.id, [])
        while len(sources) == 1 and nodes[sources[0]].label in ("div", "add"):
            between.append(sources[0])
            sources = into.get(sources[0], [])
        if len(sources) == 1 and nodes[sources[0]].label.lower().startswith("conv"):
            found.append(FusedNorm(nodes[sources[0]], norm, tuple(reversed(between))))
    return tuple(found)


@dataclass(frozen=True)
class LeftOver:
    """A dequantize of a lowered graph that no int8 kernel took: ids of it, of what gives it codes,
    and of the operations in float behind it."""

    node: str
    given: str
    takers: tuple[str, ...]


def left_over(graph: Graph | None, int8: frozenset[str]) -> tuple[LeftOver, ...]:
    """Where a lowered graph goes from codes to operations in float; ``int8`` are the ids of its
    int8 kernels."""
    edges = graph.edges if graph is not None else ()
    found = []
    for node in graph.nodes if graph is not None else ():
        if node.label.startswith(f"de{_ROUNDING}"):
            given = next((e.source for e in edges if e.target == node.id), "")
            takers = tuple(e.target for e in edges if e.source == node.id and e.target not in int8)
            if takers:
                found.append(LeftOver(node.id, given, takers))
    return tuple(found)


@dataclass(frozen=True)
class Walked:
    """What is known of the user's modules: their records at the float stage by path, the class of
    each one called in the exported model by path, how often it is called, and whether that is
    lowered."""

    base: Mapping[str, ModuleRecord]
    types: Mapping[str, str]
    calls: Mapping[str, int] = field(default_factory=dict)
    lowered: bool = False

    @classmethod
    def of(
        cls, model: nn.Module, base: Mapping[str, ModuleRecord], types: Mapping[str, str]
    ) -> Walked:
        """Of an exported model; ``types`` by path."""
        assert isinstance(model, fx.GraphModule)
        lowered = any(map(is_int8_kernel, model.graph.nodes))
        return cls(base, types, calls_of(model), lowered)

    def tree(
        self, records: Iterable[ModuleRecord], states: Mapping[str, ModuleState]
    ) -> tuple[ModuleRecord, ...]:
        """``records`` of the exported model with the user's classes, and with those of the user's
        modules that hold nothing and are called; in the order of the float model, new ones last.
        ``states`` by path."""
        held = {record.path: record for record in records}
        mode = held[""].training
        mine = [
            self._named(record, held.get(record.path), mode, states)
            for path, record in self.base.items()
            if path in held or path in self.types
        ]
        known = {record.path for record in mine}
        new = [record for path, record in held.items() if path not in known]
        there = known | {record.path for record in new}
        return tuple(
            replace(record, children=tuple(dict.fromkeys(_children(record, there, new))))
            for record in (*mine, *new)
        )

    def _named(
        self,
        base: ModuleRecord,
        held: ModuleRecord | None,
        mode: bool,
        states: Mapping[str, ModuleState],
    ) -> ModuleRecord:
        known = states.get(base.path, ModuleState())
        kind = self.types.get(base.path, base.qualified_type)
        record = held
        if record is None:
            # Its number must be none of those that the exported model's own modules have.
            number = -1 - base.identity
            record = replace(
                base, tensors=(), param_count=0, own_params=0, hooks=(), identity=number
            )
        return replace(
            record,
            type_name=kind.rpartition(".")[2],
            qualified_type=kind,
            children=base.children if held is None else (*base.children, *held.children),
            qconfig=None,
            training=mode if held is None else held.training,
            extra_repr=base.extra_repr,
            # Of what a kernel computes along the way nothing is left to be counted.
            calls=self.calls.get(base.path, None if self.lowered else 0),
            compute=base.compute,
            state=known.state,
            stays_float=known.stays_float,
            inside=known.inside,
            own_state=known.own_state,
        )


def _children(record: ModuleRecord, there: set[str], new: list[ModuleRecord]) -> Iterable[str]:
    yield from (child for child in record.children if child in there)
    yield from (one.path for one in new if one.parent == record.path and one.path != "")


def exported_states(model: nn.Module, graph: Graph | None, walked: Walked, lowered: bool) -> States:
    """In what each of the user's modules computes in the int8 model that an exported one leads to;
    of the ``lowered`` model: in what it does compute.

    What oneDNN's lowering has int8 kernels for are convolutions and linear layers whose input and
    weight are rounded; everything else is computed in float between a dequantize and a quantize.
    """
    assert isinstance(model, fx.GraphModule)
    int8 = quantized_operations(model)
    if lowered:
        int8 = frozenset(node.name for node in model.graph.nodes if is_int8_kernel(node))
    gone, norms = gone_in_int8(model), folded_norms(model)
    nodes = [n for n in (graph.nodes if graph is not None else ()) if n.id not in gone]
    folded: dict[str, State] = {
        node.path: "int8" if norms[node.id] in int8 else "float"
        for node in (graph.nodes if graph is not None else ())
        if node.path and node.id in norms  # its parameters go into those of the convolution
    }
    found: dict[str, ModuleState] = {}
    tallies: dict[str, list[tuple[bool, bool]]] = {}
    at: dict[str, list[GraphNode]] = {}
    for node in nodes:
        if node.path:
            at.setdefault(node.path, []).append(node)
        if _computes(node):
            layer = bool(node.path) and walked.base[node.path].own_params > 0
            for above in around(node.path or node.scope):
                tallies.setdefault(above, []).append((node.id in int8, layer))
    for path in {*walked.base, *at}:
        states = {node.id in int8 for node in at.get(path, ()) if _computes(node)}
        state: State = in_one_word(states)
        inside = _inside(tallies.get(path, ()))
        own = state if path in walked.base and walked.base[path].own_params else ""
        own = own or folded.get(path, "")
        found[path] = ModuleState(state or inside.state, state == "float", inside, own)
    return States(found, int8)


def _computes(node: GraphNode) -> bool:
    return (
        node.op in ("call_module", "call_function")
        and (node.dtype or "").startswith(("torch.float", "torch.uint8", "torch.int8"))
        and _ROUNDING not in node.target
    )


def _inside(counted: Iterable[tuple[bool, bool]]) -> Inside:
    layers = [int8 for int8, layer in counted if layer]
    others = [int8 for int8, layer in counted if not layer]
    return Inside(len(layers), sum(layers), len(others), sum(others))
