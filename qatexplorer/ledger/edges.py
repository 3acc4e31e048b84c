"""Where in the dataflow graph of a snapshot a redundancy lies."""

from __future__ import annotations

import itertools

from qatexplorer.forward.calls import Call
from qatexplorer.forward.record import Recording
from qatexplorer.ledger.redundancy import Finding
from qatexplorer.snapshot.records import Graph, GraphNode


def edges_between(graph: Graph | None, finding: Finding, recording: Recording) -> tuple[str, ...]:
    """Selection strings of the edges from what the first fake quant looks at to the second's.

    Where both look at the output of one node, its outgoing edges. Empty without a graph.
    """
    if graph is None or finding.start is None or finding.end is None:
        return ()
    if finding.record.kind == "shared":
        return ()
    starts = _nodes_of(finding.start, recording, graph)
    ends = _nodes_of(finding.end, recording, graph)
    if not starts or not ends:
        return ()
    followers: dict[str, list[str]] = {}
    for edge in graph.edges:
        followers.setdefault(edge.source, []).append(edge.target)
    if starts & ends:
        both = starts & ends
        return tuple(f"edge:{e.source}:{e.target}" for e in graph.edges if e.source in both)
    path = _shortest(followers, starts, ends, len(finding.record.through) + 2)
    return tuple(f"edge:{a}:{b}" for a, b in itertools.pairwise(path))


def _nodes_of(call: Call, recording: Recording, graph: Graph) -> set[str]:
    """Graph nodes that make the tensor which this call of a fake quant gets."""
    by_site = {n.id for n in graph.nodes if n.path == call.name}
    if by_site:  # in an FX graph the fake quant is a node itself
        return by_site
    if call.output_of is not None and call.output_of[0]:
        found = {n.id for n in graph.nodes if n.path == call.output_of[0]}
        if found:
            return found
    source = recording.calls[call.inputs[0]] if call.inputs else None
    if source is None:
        return set()
    if source.kind == "input":
        inputs = [n.id for n in graph.nodes if n.op == "placeholder"]
        return set(inputs[int(source.name) : int(source.name) + 1])
    if source.kind == "quant":
        return _nodes_of(source, recording, graph)
    inside = {n.id for n in graph.nodes if n.path == source.scope and n.path}
    if inside:
        return inside
    same = [n for n in graph.nodes if _plain(n) == source.name]
    return {n.id for n in same[source.ordinal : source.ordinal + 1]}


def _plain(node: GraphNode) -> str:
    if node.op not in ("call_function", "call_method"):
        return ""
    return node.target.rpartition(".")[2].strip("_")


def _shortest(
    followers: dict[str, list[str]], starts: set[str], ends: set[str], longest: int
) -> list[str]:
    paths = [[node] for node in starts]
    for _ in range(longest):
        for path in paths:
            if path[-1] in ends and len(path) > 1:
                return path
        paths = [[*path, n] for path in paths for n in followers.get(path[-1], []) if n not in path]
    return next((path for path in paths if path[-1] in ends), [])
