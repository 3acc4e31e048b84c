"""Annotations in words: whose they are, and how a tensor will be rounded."""

from __future__ import annotations

from collections.abc import Mapping

from qatexplorer.flows.annotations import Annotation, Spec
from qatexplorer.snapshot.records import GraphNode, Snapshot
from qatexplorer.views.common.names import number, plain_dtype


def annotated_snapshot(snapshots: Mapping[str, Snapshot]) -> Snapshot | None:
    """The stage at which the quantizer has just annotated, None before it."""
    return next(
        (
            snapshot
            for snapshot in snapshots.values()
            if snapshot.role == "qconfig" and snapshot.exported
        ),
        None,
    )


def was_there(snapshots: Mapping[str, Snapshot], snapshot: Snapshot, node: GraphNode) -> bool:
    """Whether ``node`` of ``snapshot`` was there when the quantizer annotated. Lowering traces the
    graph anew: there only what a module computes is known again."""
    annotated = annotated_snapshot(snapshots)
    nodes = annotated.graph.nodes if annotated is not None and annotated.graph else ()
    if node.path:
        return any(one.path == node.path for one in nodes)
    return snapshot.role != "int8" and any(one.id == node.id for one in nodes)


def annotation_of(snapshots: Mapping[str, Snapshot], node: GraphNode) -> Annotation | None:
    """What the quantizer wrote on ``node``, which may be one of a later stage's graph; None for
    nothing. What rewrites the graph gives new ids, so one of a module is found by its path."""
    annotated = annotated_snapshot(snapshots)
    if annotated is None or annotated.graph is None:
        return None
    written = {one.node: one for one in annotated.annotations}
    known = [n for n in annotated.graph.nodes if n.path == node.path] if node.path else []
    same = {n.id for n in known} or {n.id for n in annotated.graph.nodes}
    if node.id in same:
        return written.get(node.id)
    return next((written[n.id] for n in known if n.id in written), None)


def input_name(snapshots: Mapping[str, Snapshot], id: str) -> str:
    """An input of an operation for a user: the module that makes it, the model's input, or the
    parameter by its name in the graph."""
    annotated = annotated_snapshot(snapshots)
    graph = annotated.graph if annotated is not None else None
    node = next((n for n in graph.nodes if n.id == id), None) if graph is not None else None
    if node is None:
        return f"parameter {parameter_name(annotated, id)}"
    if node.op == "placeholder":
        return f"the model's input {node.label}"
    return f"output of {node.path or node.label}"


def parameter_name(snapshot: Snapshot | None, id: str) -> str:
    """``"block.0.weight"`` for the graph's ``"block_0_weight"``, where that is one of the model's
    parameters and buffers; else ``id``."""
    for module in snapshot.modules if snapshot is not None else ():
        for tensor in module.tensors:
            path = f"{module.path}.{tensor.name}".lstrip(".")
            if path.replace(".", "_") == id:
                return path
    return id


def spec_words(spec: Spec) -> str:
    """How a tensor will be rounded, in one line.

    ``"uint8 0..255, per_tensor_affine, by FusedMovingAvgObsFakeQuantize"``
    """
    if spec.kind == "shared":
        return f"shares the fake quant of {', '.join(spec.of)} (SharedQuantizationSpec)"
    parts = [grid_words(spec)]
    if spec.qscheme:
        parts.append(spec.qscheme.removeprefix("torch."))
    if spec.ch_axis is not None:
        parts.append(f"per channel along axis {spec.ch_axis}")
    if spec.dynamic:
        parts.append("dynamic: the range of each batch")
    if spec.kind == "derived":
        parts.append(f"scale and zero point computed of {' and '.join(spec.of)}")
    if spec.kind == "fixed":
        parts.append("scale and zero point fixed by the operation")
    if spec.observer:
        parts.append(f"by {spec.observer}")
    return ", ".join(parts)


def grid_words(spec: Spec) -> str:
    """``"uint8 0..255"``; the dtype alone where the range is the dtype's."""
    dtype = plain_dtype(spec.dtype) if spec.dtype else ""
    if spec.quant_min is None or spec.quant_max is None:
        return dtype
    return f"{dtype} {number(spec.quant_min)}..{number(spec.quant_max)}"
