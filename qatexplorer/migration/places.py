"""The tensors that a flow rounds, each at its place in the user's float model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from qatexplorer.flows.annotations import Annotation
from qatexplorer.flows.base import Flow
from qatexplorer.flows.fusion import FusionRuns
from qatexplorer.forward.graph import Graph, GraphNode
from qatexplorer.migration.operations import (
    Operations,
    found_in_float,
    kept_or_made_anew,
    operation_name,
)
from qatexplorer.migration.records import Place, Rounding
from qatexplorer.quantizers.types import SiteKind
from qatexplorer.snapshot.records import FakeQuantSite, SitePlace, Snapshot

_EMPTY = Graph((), ())


class FloatModel:
    """The float model that all flows begin with: its modules, and the operations of its graph."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.modules = snapshot.by_path
        functional = (m.path for m in snapshot.modules if m.compute == "functional")
        self.operations = Operations(snapshot.graph or _EMPTY, functional=frozenset(functional))
        self._index: dict[str, int] = {}
        counts: dict[tuple[str, str], int] = {}
        for node in self.operations.functions(self.operations.calls.keys()):
            key = node.scope, operation_name(node)
            self._index[node.id] = counts[key] = counts.get(key, -1) + 1
        self._order = {node.id: at for at, node in enumerate(self.operations.graph.nodes)}

    def tensor(self, id: str) -> str:
        """The node whose result it is: stubs and ``nn.Identity`` give on what they get."""
        node = self.operations.by_id[id]
        while node.path and self._gives_on(node.path):
            sources = self.operations.sources[node.id]
            if len(sources) != 1:
                break
            node = self.operations.by_id[sources[0]]
        return node.id

    def _gives_on(self, path: str) -> bool:
        module = self.modules[path]
        return module.compute == "stub" or module.type_name == "Identity"

    def result(self, id: str) -> Place:
        """The place of what node ``id`` makes."""
        node = self.operations.by_id[self.tensor(id)]
        if node.op == "placeholder":
            return self._input(self.operations.inputs.index(node))
        if node.path and node.path not in self.operations.functional:
            return self.module(node.path, self.operations.calls[node.path].index(node))
        scope, name, index = node.scope, operation_name(node), self._index[node.id]
        if node.path:  # of a FloatFunctional
            scope, index = node.path, self.operations.calls[node.path].index(node)
        label = f"result of {name}{_where(scope)}{_numbered(index)}"
        return _place("output", scope, name, index, label, node.source)

    def module(self, path: str, call: int = 0) -> Place:
        """The place of what the module at ``path`` returns."""
        calls = self.operations.calls.get(path, [])
        source = calls[call].source if call < len(calls) else ""
        label = f"output of {path or 'the model'}{_numbered(call, 'call')}"
        return _place("output", path, "", call, label, source)

    def weight(self, path: str) -> Place:
        """The place of the weight that the module at ``path`` holds."""
        calls = self.operations.calls.get(path, [])
        return _place(
            "weight", path, "", 0, f"weight of {path or 'the model'}",
            calls[0].source if calls else "",
        )  # fmt: skip

    def weight_of(self, id: str) -> Place:
        """The place of the weight that the operation ``id`` takes."""
        made = self.result(id)
        label = made.label.replace("result of", "weight of", 1)
        return _place("weight", made.path, made.operation, made.index, label, made.source)

    def _input(self, index: int) -> Place:
        several = len(self.operations.inputs) > 1
        label = f"input {index + 1}" if several else "the model's input"
        return _place("input", "", "", index, label, "")

    def order(self, place: Place, id: str | None) -> tuple[int, int]:
        """Where it comes in the forward, a weight before what it makes."""
        if id is None:
            calls = self.operations.calls.get(place.path, [])
            id = calls[0].id if calls and not place.found_in else None
        at = self._order.get(id or "", len(self._order))
        return at, 0 if place.kind == "weight" else 1


@dataclass
class Reading:
    """What a flow rounds.

    Attributes:
        flow: it. roundings: by key of the place; places and nodes (of the float graph, where it has
            one) by key too.
        located: nodes of the float graph that the flow's own graph has, with their ids in it; None
            for a flow of modules.
        fused: of a node that is a part of a fused module: its path, and the node that is rounded.
        prepared: the snapshot with all fake quants.
        annotations: of a quantizer, by node of the flow's graph; None where the flow has none.
        turns: which run of its fake quant rounds a place, and how many there are in a forward, by
            key.
    """

    flow: Flow
    roundings: dict[str, Rounding] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=dict)
    nodes: dict[str, str] = field(default_factory=dict)
    located: Mapping[str, str] | None = None
    fused: dict[str, tuple[str, str]] = field(default_factory=dict)
    prepared: Snapshot | None = None
    annotations: Mapping[str, Annotation] | None = None
    turns: dict[str, tuple[int, int]] = field(default_factory=dict)


def read(
    flow: Flow, snapshots: Mapping[str, Snapshot], fusion: FusionRuns, floats: FloatModel
) -> Reading:
    """Every tensor that the flow rounds: scales are those of the newest snapshot."""
    return _Reader(flow, snapshots, fusion, floats).reading


class _Reader:
    def __init__(
        self,
        flow: Flow,
        snapshots: Mapping[str, Snapshot],
        fusion: FusionRuns,
        floats: FloatModel,
    ) -> None:
        self.flow, self.floats = flow, floats
        self.prepared = snapshots[flow.prepared_stage]
        newest = snapshots.get(flow.train_stage, self.prepared)
        self.records = {m.path: m for m in self.prepared.modules}
        self.operations = self._operations(self.prepared)
        self.traced = self.operations
        if flow.by_graph:
            traced = next(s for s in snapshots.values() if s.role == "traced")
            self.traced = self._operations(traced)
        self.located = self._located()
        self.reading = Reading(flow, prepared=self.prepared)
        if flow.by_graph:
            # The first that was found: annotations know the nodes as they were traced.
            located: dict[str, str] = {}
            for here, there in self.located.items():
                located.setdefault(there, here)
            self.reading.located = located
        written = [s.annotations for s in snapshots.values() if s.annotations]
        if written:
            self.reading.annotations = {one.node: one for one in written[0]}
        self._read_fused(fusion if flow.offers_fusion else ())
        for site in newest.sites:
            self._read_site(site)

    def _operations(self, snapshot: Snapshot) -> Operations:
        functional = (m.path for m in self.floats.snapshot.modules if m.compute == "functional")
        return Operations(snapshot.graph or _EMPTY, self._to_float, frozenset(functional))

    def _to_float(self, path: str) -> str:
        record = self.records.get(path)
        return path if record is None else record.origin

    def _located(self) -> dict[str, str]:
        """Nodes of the flow's graph, as traced and as prepared, in the float model's. They keep
        their names where a flow rewrites its graph; what it makes anew has its module's path."""
        found = found_in_float(self.traced, self.floats.operations)
        for path, calls in self.operations.calls.items():
            theirs = self.floats.operations.calls.get(path, [])
            if len(calls) == len(theirs):
                for one, other in zip(calls, theirs, strict=True):
                    found.setdefault(one.id, other.id)
        for here, there in kept_or_made_anew(self.traced, self.operations).items():
            if there in found:
                found.setdefault(here, found[there])
        return found

    def _read_fused(self, groups: FusionRuns) -> None:
        """Parts of fused modules, with what their result is now."""
        calls = self.floats.operations.calls
        for group in groups:
            ends = calls.get(group[-1], [])
            for path in group:
                for node, end in zip(calls.get(path, []), ends, strict=False):
                    self.reading.fused[node.id] = group[0], end.id
        if not self.flow.by_graph:
            return
        for record in self.prepared.modules:
            if record.fused:
                for node in self.traced.calls.get(record.origin, []):
                    chain = [node.id, *self._gone_behind(node.id)]
                    ids = [self.located[one] for one in chain if one in self.located]
                    if len(ids) == len(chain):
                        self.reading.fused |= dict.fromkeys(ids, (record.origin, ids[-1]))

    def _gone_behind(self, id: str) -> Iterator[str]:
        """Operations behind ``id`` that fusing has taken into its module."""
        followers = self.traced.followers
        while len(followers[id]) == 1 and followers[id][0] not in self.operations.by_id:
            id = followers[id][0]
            yield id

    # -- fake quants ----------------------------------------------------------------------------

    def _read_site(self, site: FakeQuantSite) -> None:
        found = [pair for place in site.places for pair in self._places(site, place)]
        labels = [place.label for place, _ in found]
        for at, (place, node) in enumerate(found):
            if self._rounds_already(place, site):
                continue
            while place.key in self.reading.roundings:
                place = _place(
                    place.kind, place.path, place.operation, place.index, place.label,
                    place.source, place.again + 1, place.found_in,
                )  # fmt: skip
            others = tuple(dict.fromkeys(one for one in labels if one != labels[at]))
            self.reading.roundings[place.key] = _rounding(site, others)
            self.reading.places[place.key] = place
            self.reading.turns[place.key] = at, len(found)
            if node is not None:
                self.reading.nodes[place.key] = node

    def _rounds_already(self, place: Place, site: FakeQuantSite) -> bool:
        """The same fake quant on the same tensor once more changes nothing: an ``nn.Identity`` is
        between the two."""
        known = self.reading.roundings.get(place.key)
        return known is not None and known.site == site.path

    def _places(self, site: FakeQuantSite, at: SitePlace) -> Iterator[tuple[Place, str | None]]:
        if site.kind == "weight":
            yield self._weight(at, site.parameter)
        elif at.nodes:
            for node in at.nodes:
                yield self._result_of(node)
        elif site.kind == "input" and self.records[at.owner].compute != "stub":
            yield from self._inputs_of_module(at.owner)
        else:
            yield from self._results_of_module(at.owner)

    def _weight(self, at: SitePlace, name: str) -> tuple[Place, str | None]:
        nodes = [self.operations.by_id[id] for id in at.nodes if id in self.operations.by_id]
        path = self._to_float(at.owner)
        if name != "weight" and path in self.floats.modules:
            label = f"{name} of {path or 'the model'}"
            return _place("weight", path, name, 0, label, self.floats.weight(path).source), None
        ids = [self.located.get(id) for id in self._takers(nodes)]
        taker = next((id for id in ids if id is not None), None)
        if taker is not None and not self.floats.operations.by_id[taker].path:
            return self.floats.weight_of(taker), taker
        if path in self.floats.modules and (path or not at.owner):
            return self.floats.weight(path), None
        return self._only_here("weight", at.owner, "", f"weight of {at.owner}"), None

    def _takers(self, nodes: list[GraphNode]) -> Iterator[str]:
        for node in nodes:
            if node.op == "get_attr":
                yield from self.operations.followers[node.id]
            else:
                yield node.id

    def _result_of(self, id: str) -> tuple[Place, str | None]:
        """The place of what a node of the flow's graph makes."""
        float_id = self.located.get(id)
        node = self.operations.by_id.get(id) or self.traced.by_id.get(id)
        if float_id is not None:
            record = self.records.get(node.path) if node is not None and node.path else None
            if record is not None and record.fused and float_id in self.reading.fused:
                float_id = self.reading.fused[float_id][1]
            float_id = self.floats.tensor(float_id)
            return self.floats.result(float_id), float_id
        path = self._to_float(node.path) if node is not None and node.path else ""
        if path in self.floats.modules and path and path not in self.floats.operations.calls:
            calls = self.operations.calls[path]
            return self.floats.module(path, calls.index(node) if node in calls else 0), None
        scope = self.operations.scope(node) if node is not None else ""
        name = operation_name(node) if node is not None else id
        label = f"result of {name}{_where(scope)} ({id})"
        source = node.source if node is not None else ""
        return self._only_here("output", scope, id, label, source), None

    def _results_of_module(self, owner: str) -> Iterator[tuple[Place, str | None]]:
        """Hooks and stubs: a module's results, in each of its calls."""
        record = self.records[owner]
        if not record.origin and owner:
            yield self._added(owner)
            return
        calls = self.floats.operations.calls.get(record.origin, [])
        if not calls:
            yield self.floats.module(record.origin), None
        for node in calls:
            end = self.reading.fused[node.id][1] if record.fused and node.id in self.reading.fused \
                else node.id  # fmt: skip
            id = self.floats.tensor(end)
            yield self.floats.result(id), id

    def _inputs_of_module(self, owner: str) -> Iterator[tuple[Place, str | None]]:
        """What a module that rounds its own input gets, in each of its calls."""
        operations = self.floats.operations
        calls = operations.calls.get(self.records[owner].origin, [])
        given = [operations.sources[node.id] for node in calls]
        if not calls or any(len(sources) != 1 for sources in given):
            yield self._only_here("input", owner, "", f"input of {owner}"), None
            return
        for (source,) in given:
            id = self.floats.tensor(source)
            yield self.floats.result(id), id

    def _added(self, owner: str) -> tuple[Place, str | None]:
        """What a module that the flow has added returns; of a stub it is what it gets."""
        nodes = [n for n in self.operations.graph.nodes if n.path == owner]
        if len(nodes) == 1 and self.records[owner].compute == "stub":
            id = self._behind_stubs(nodes[0].id)
            if id in self.located:
                found = self.floats.tensor(self.located[id])
                return self.floats.result(found), found
        return self._only_here("output", owner, "", f"output of {owner}"), None

    def _behind_stubs(self, id: str) -> str:
        while True:
            node = self.operations.by_id[id]
            record = self.records.get(node.path) if node.path else None
            sources = self.operations.sources[id]
            if record is None or record.compute != "stub" or len(sources) != 1:
                return id
            id = sources[0]

    def _only_here(
        self, kind: SiteKind, path: str, operation: str, label: str, source: str = ""
    ) -> Place:
        return _place(kind, path, operation, 0, label, source, found_in=self.flow.name)


def _place(
    kind: SiteKind,
    path: str,
    operation: str,
    index: int,
    label: str,
    source: str,
    again: int = 0,
    found_in: str = "",
) -> Place:
    key = ":".join((kind, path, operation, str(index)))
    if again:
        key += f":{again}"
    if found_in:
        key = f"{found_in}:{key}"
    return Place(key, kind, path, operation, index, again, label, source, found_in)


def _where(scope: str) -> str:
    return f" in {scope}" if scope else ""


def _numbered(index: int, what: str = "number") -> str:
    return f", {what} {index + 1}" if index else ""


def _rounding(site: FakeQuantSite, others: tuple[str, ...]) -> Rounding:
    return Rounding(
        site=site.path,
        class_name=site.fake_quant_class,
        dtype=site.dtype,
        quant_min=site.quant_min,
        quant_max=site.quant_max,
        qscheme=site.qscheme,
        ch_axis=site.ch_axis,
        scale=site.scale,
        zero_point=site.zero_point,
        min_val=site.min_val,
        max_val=site.max_val,
        seen=site.seen,
        shared_with=others,
        mechanism=site.mechanism,
    )
