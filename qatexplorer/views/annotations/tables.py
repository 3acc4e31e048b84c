"""What a quantizer's patterns took and what none took, as rows of a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from qatexplorer.flows.annotations import Annotation, Spec
from qatexplorer.snapshot.records import GraphNode, Snapshot
from qatexplorer.views.annotations.groups import Group, groups_of
from qatexplorer.views.annotations.words import (
    annotated_snapshot,
    grid_words,
    input_name,
    spec_words,
)
from qatexplorer.views.common.exported_news import float_operations

COLUMNS = (
    {"label": "Operation", "width": "minmax(150px, 1.2fr)", "mono": True},
    {"label": "Line", "width": "minmax(120px, 0.8fr)"},
    {"label": "Pattern", "width": "minmax(130px, 1fr)", "mono": True},
    {"label": "Inputs", "width": "minmax(220px, 2.2fr)"},
    {"label": "Output", "width": "minmax(150px, 1.2fr)"},
    {"label": "Shares", "width": "90px"},
)
FILTERS = (
    {"flag": "taken", "label": "Taken by a pattern"},
    {"flag": "none", "label": "Taken by none"},
    {"flag": "shared", "label": "Shared"},
    {"flag": "derived", "label": "Derived"},
)


def annotation_rows(snapshots: Mapping[str, Snapshot]) -> list[dict[str, Any]]:
    """A row for each operation that a quantizer can take, and for each that it annotated, as the
    table widget has them; none before it has annotated."""
    annotated = annotated_snapshot(snapshots)
    if annotated is None:
        return []
    written = {one.node: one for one in annotated.annotations}
    groups = groups_of(annotated)
    return [
        _row(snapshots, node, written.get(node.id), groups) for node in shown_operations(annotated)
    ]


def shown_operations(annotated: Snapshot) -> Iterator[GraphNode]:
    """Operations that give float numbers, and what else was annotated, in order of the graph. A
    counter that a batch norm adds to is no node of the graph."""
    able = {node.id for node in float_operations(annotated)}
    written = {one.node for one in annotated.annotations}
    for node in annotated.graph.nodes if annotated.graph is not None else ():
        if node.id in able | written:
            yield node


def _row(
    snapshots: Mapping[str, Snapshot],
    node: GraphNode,
    found: Annotation | None,
    groups: tuple[Group, ...],
) -> dict[str, Any]:
    inputs = found.inputs if found is not None else ()
    output = found.output if found is not None else None
    mine = [str(group.number) for group in groups if node.id in group.nodes]
    rounded = [(input_name(snapshots, id), spec) for id, spec in inputs if spec is not None]
    cells = [
        node.path or node.label,
        node.source,
        "none" if found is None else found.pattern or "the quantizer",
        "; ".join(f"{name}: {_short(spec)}" for name, spec in rounded) or "as they are",
        _short(output) if output is not None else "as it is",
        f"group {', '.join(mine)}" if mine else "",
    ]
    specs = [spec for _, spec in rounded] + ([output] if output is not None else [])
    return {
        "id": node.id,
        "sel": f"module:{node.path}" if node.path else f"node:{node.id}",
        "kind": "",
        "flags": _flags(found, specs, bool(mine)),
        "cells": cells,
        "sort": list(cells),
        "tips": {
            "0": node.target if not node.path else f"{node.label}, node {node.id}",
            "3": "\n".join(f"{name}: {spec_words(spec)}" for name, spec in rounded),
            "4": spec_words(output) if output is not None else "",
        },
    }


def _flags(found: Annotation | None, specs: list[Spec], in_group: bool) -> list[str]:
    flags = ["none" if found is None else "taken"]
    flags += ["shared"] * (in_group or any(spec.kind == "shared" for spec in specs))
    return flags + ["derived"] * any(spec.kind == "derived" for spec in specs)


def _short(spec: Spec) -> str:
    """The grid, and what is special about it."""
    if spec.kind == "shared":
        return f"that of {', '.join(spec.of)}"
    words = grid_words(spec)
    words += ", per channel" if spec.ch_axis is not None else ""
    words += ", dynamic" if spec.dynamic else ""
    words += f", derived from {', '.join(spec.of)}" if spec.kind == "derived" else ""
    return words + (", fixed" if spec.kind == "fixed" else "")
