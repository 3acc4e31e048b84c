"""Snapshots made by hand, of any size and nesting, for tests and benchmarks of the graph."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import replace

from qatexplorer.snapshot.records import (
    FakeQuantSite,
    Graph,
    GraphEdge,
    GraphNode,
    ModuleRecord,
    SiteKind,
    Snapshot,
)


def module(path: str, type_name: str = "Block", qualified: str = "") -> ModuleRecord:
    parent = None if not path else path.rpartition(".")[0]
    return ModuleRecord(path, type_name, qualified or f"models.{type_name}", path, parent)


def site(owner: str, kind: SiteKind, name: str = "", **changes: object) -> FakeQuantSite:
    child = name or ("weight_fake_quant" if kind == "weight" else "activation_post_process")
    fields: dict[str, object] = {
        "path": f"{owner}.{child}" if owner else child,
        "kind": kind,
        "owner": owner,
        "owner_type": "Conv2d",
        "stage": "insert",
        "call": "prepare",
        "mechanism": "forward" if kind == "weight" else "hook",
        "fake_quant_class": "FusedMovingAvgObsFakeQuantize",
        "observer_class": "MovingAverageMinMaxObserver",
        "observer_path": "",
        "observer_runs": "fused kernel",
        "dtype": "torch.qint8" if kind == "weight" else "torch.quint8",
        "quant_min": -128 if kind == "weight" else 0,
        "quant_max": 127 if kind == "weight" else 255,
        "qscheme": "torch.per_tensor_affine",
        "ch_axis": None,
        "scale": (0.05,),
        "zero_point": (0,),
        "min_val": (-1.0,),
        "max_val": (1.5,),
        "seen": "all",
        "observer_enabled": True,
        "fake_quant_enabled": True,
        "calls_per_forward": 1,
    }
    fields |= changes
    fields.setdefault("seen", "all" if fields["min_val"] else "nothing")
    return FakeQuantSite(**fields)  # type: ignore[arg-type]


def call(node_id: str, path: str, scope: str) -> GraphNode:
    label = path.rpartition(".")[2]
    return GraphNode(
        node_id, "call_module", path, label, path, scope, (1, 8, 8, 8), "torch.float32"
    )


def function(node_id: str, scope: str, target: str = "torch.add") -> GraphNode:
    label = target.rpartition(".")[2]
    return GraphNode(node_id, "call_function", target, label, "", scope, (1, 8, 8, 8))


def snapshot(
    nodes: Sequence[GraphNode],
    edges: Iterable[tuple[str, str]],
    sites: Sequence[FakeQuantSite] = (),
    modules: Sequence[ModuleRecord] = (),
    stage: str = "insert",
) -> Snapshot:
    """A snapshot with these nodes; modules that are not given are made up from the paths."""
    known = {m.path: m for m in modules}
    paths = [p for n in nodes for p in (n.path, n.scope)] + [s.owner for s in sites]
    for path in ["", *paths]:
        parts = path.split(".") if path else []
        for end in range(len(parts) + 1):
            prefix = ".".join(parts[:end])
            known.setdefault(prefix, module(prefix))
    graph = Graph(tuple(nodes), tuple(GraphEdge(a, b) for a, b in edges))
    return Snapshot("eager", stage, tuple(known.values()), tuple(sites), graph)


def chain_edges(nodes: Sequence[GraphNode]) -> list[tuple[str, str]]:
    return [(a.id, b.id) for a, b in itertools.pairwise(nodes)]


def residual_net(stages: int, blocks: int, layers: int, alike: bool = False) -> Snapshot:
    """``stages × blocks`` residual blocks of ``layers`` convolutions and an add each.

    Blocks have shapes of their own, unless they are to be ``alike`` within a stage.
    """
    nodes = [GraphNode("x", "placeholder", "x", "x", shape=(1, 3, 32, 32), dtype="torch.float32")]
    edges: list[tuple[str, str]] = []
    sites: list[FakeQuantSite] = []
    last = "x"
    for s in range(stages):
        for b in range(blocks):
            scope, start = f"stage{s}.{b}", last
            channels = 8 * (s + 1) if alike else 8 + s * blocks + b
            shape = (1, channels, 8, 8)
            for k in range(layers):
                node_id = f"s{s}_{b}_conv{k}"
                nodes.append(replace(call(node_id, f"{scope}.conv{k}", scope), shape=shape))
                edges.append((last, node_id))
                sites.append(site(f"{scope}.conv{k}", "weight"))
                sites.append(site(f"{scope}.conv{k}", "output"))
                last = node_id
            add = f"s{s}_{b}_add"
            nodes.append(replace(function(add, scope), shape=shape))
            edges += [(last, add), (start, add)]
            last = add
    nodes.append(GraphNode("output", "output", "output", "output"))
    edges.append((last, "output"))
    return snapshot(nodes, edges, sites)


def flat_net(length: int) -> Snapshot:
    """A ``Sequential`` of ``length`` layers, with a skip over five every tenth."""
    nodes = [call(f"layer{i}", f"{i}", "") for i in range(length)]
    edges = chain_edges(nodes) + [(f"layer{i}", f"layer{i + 5}") for i in range(0, length - 5, 10)]
    return snapshot(nodes, edges, [site(f"{i}", "output") for i in range(length)])
