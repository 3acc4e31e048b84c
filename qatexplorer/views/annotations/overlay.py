"""Annotations as colours of the graph: by pattern, or by what shares one fake quant."""

from __future__ import annotations

from collections.abc import Mapping

from qatexplorer.snapshot.overlay import Overlay
from qatexplorer.snapshot.records import Snapshot
from qatexplorer.views.annotations.groups import groups_of
from qatexplorer.views.annotations.tables import shown_operations
from qatexplorer.views.annotations.words import annotated_snapshot

NO_PATTERN = "no pattern"
NO_GROUP = "shares with none"


def pattern_overlay(snapshots: Mapping[str, Snapshot]) -> Overlay:
    """Which of the quantizer's patterns took each operation. What belongs to a module is coloured
    at every stage, other operations at those that have a node of that name."""
    annotated = annotated_snapshot(snapshots)
    written = {one.node: one for one in annotated.annotations} if annotated is not None else {}
    words = {}
    for node in shown_operations(annotated) if annotated is not None else ():
        found = written.get(node.id)
        taken = NO_PATTERN if found is None else found.pattern or "the quantizer"
        words[node.path or node.id] = taken
    note = "Which of the quantizer's patterns took an operation, before anything was inserted."
    return Overlay.of(words, "Patterns", note=note)


def group_overlay(snapshots: Mapping[str, Snapshot]) -> Overlay:
    """Whose results share one fake quant: the number of their group."""
    annotated = annotated_snapshot(snapshots)
    graph = annotated.graph if annotated is not None else None
    paths = {node.id: node.path or node.id for node in graph.nodes} if graph is not None else {}
    words = {
        paths[node]: f"group {group.number}"
        for group in (groups_of(annotated) if annotated is not None else ())
        for node in group.nodes
        if node in paths
    }
    if words and annotated is not None:
        # A module of which one operation shares must not look as if all of it did.
        for one in shown_operations(annotated):
            words.setdefault(one.path or one.id, NO_GROUP)
    note = "Results with the same number have one fake quant together."
    if not words:
        note = "No two tensors of this model share a fake quant."
    return Overlay.of(words, "Sharing groups", note=note)
