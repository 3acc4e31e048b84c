"""What the inspector says of an exported model: whose an operation is, and who annotated it."""

from __future__ import annotations

from collections.abc import Mapping

from qatexplorer.flows.annotations import Annotation, Spec
from qatexplorer.snapshot.exported import FusedNorm, fused_norms
from qatexplorer.snapshot.records import Graph, GraphNode, ModuleRecord, Snapshot
from qatexplorer.views.annotations.words import (
    annotation_of,
    input_name,
    spec_words,
    was_there,
)
from qatexplorer.views.common.html import Html, code, go, join, tag

GUARDS = "GuardsFn"
"""Class of the module that ``torch.export`` puts beside the user's."""


def why_exported(
    snapshots: Mapping[str, Snapshot], snapshot: Snapshot, module: ModuleRecord
) -> str:
    """One sentence on what is special about a module of an exported model, ``""`` for nothing."""
    if module.type_name == GUARDS:
        return "Put there by torch.export: it raises where the inputs do not fit the graph."
    nodes = nodes_of(snapshot.graph, module.path)
    if snapshot.is_from("reference"):
        return _why_converted(snapshots, snapshot, module, nodes)
    if snapshot.is_from("inserted") and not module.stays_float:
        pair = norm_of(snapshot, module)
        return _fused_words(pair, module) if pair is not None else ""
    if not nodes:
        return ""
    if module.stays_float and snapshot.is_from("inserted"):
        return f"Stays float in the int8 model: {_why_float(snapshots, nodes)}."
    if not snapshot.is_from("qconfig"):
        return "torch.export has written its call down as an operation of the graph."
    pair = norm_of(snapshot, module)
    if pair is not None and pair.between:
        return _fused_words(pair, module)
    return _annotation_words(snapshots, nodes)


def _why_converted(
    snapshots: Mapping[str, Snapshot],
    snapshot: Snapshot,
    module: ModuleRecord,
    nodes: tuple[GraphNode, ...],
) -> str:
    lowered = snapshot.role == "int8"
    if not nodes:
        if not lowered or not module.path or any(_below(m, module) for m in snapshot.modules):
            return ""
        return (
            "No operation of the lowered graph is its own: an int8 kernel computes it along the "
            "way, or lowering has taken it out."
        )
    if module.state == "int8":
        if lowered:
            return "Computed by one of oneDNN's int8 kernels."
        if module.own_params:
            return (
                "Computes in float on an input and a weight that go through a quantize and a "
                "dequantize: what an int8 kernel will compute in one step."
            )
        return "Computes in float here; the int8 kernel before it will compute it along the way."
    if module.state == "float":
        return f"Stays float: {_why_float(snapshots, nodes)}."
    pair = norm_of(snapshot, module)
    return _fused_words(pair, module) if pair is not None else ""


def _below(record: ModuleRecord, module: ModuleRecord) -> bool:
    return record.parent == module.path and record is not module


def _why_float(snapshots: Mapping[str, Snapshot], nodes: tuple[GraphNode, ...]) -> str:
    known = (annotation_of(snapshots, node) for node in nodes)
    if any(found is not None and found.rounds for found in known):
        wide = any(n.label == "Linear" and len(n.shape or ()) > 2 for n in nodes)
        why = " (torchao 0.18: a linear layer on more than two dimensions)" if wide else ""
        return f"its tensors are rounded, but lowering finds no int8 kernel for it{why}"
    return "no pattern of the quantizer had anything of it rounded"


def _annotation_words(snapshots: Mapping[str, Snapshot], nodes: tuple[GraphNode, ...]) -> str:
    found = next((a for a in (annotation_of(snapshots, n) for n in nodes) if a is not None), None)
    if found is None:
        return "No pattern of the quantizer took it."
    who = f"pattern “{found.pattern}”" if found.pattern else "the quantizer"
    if not found.rounds:
        return f"Taken by {who} together with its neighbours; nothing of its own is rounded."
    return f"Annotated by {who}: {rounded_words(found)} will be rounded."


def rounded_words(found: Annotation) -> str:
    """What of an operation will be rounded, in words."""
    inputs = sum(spec is not None for _, spec in found.inputs)
    parts = [f"{inputs} of its inputs" if inputs > 1 else "one of its inputs"] * bool(inputs)
    return " and ".join([*parts, *(["its output"] if found.output is not None else [])])


def _fused_words(pair: FusedNorm, module: ModuleRecord) -> str:
    if not pair.between:
        return ""
    other = (pair.norm if module.path == pair.conv.path else pair.conv).path
    if module.path == pair.norm.path:
        return (
            f"Fused with {other}: its running variance scales the weight before it is rounded, the "
            "result is scaled back, and convert multiplies it into the weight."
        )
    return (
        f"Fused with {other}: the weight is scaled by the running variance before it is rounded, "
        "and the result is scaled back, so that training feels the int8 weight."
    )


def norm_of(snapshot: Snapshot, module: ModuleRecord) -> FusedNorm | None:
    """The convolution and batch norm of which ``module`` is one."""
    return next(
        (
            pair
            for pair in fused_norms(snapshot.graph)
            if module.path and module.path in (pair.conv.path, pair.norm.path)
        ),
        None,
    )


def nodes_of(graph: Graph | None, path: str) -> tuple[GraphNode, ...]:
    """The operations that are the work of the module at ``path``."""
    return tuple(n for n in graph.nodes if n.path == path) if graph is not None and path else ()


def why_exported_node(snapshot: Snapshot, node: GraphNode) -> str:
    """One sentence on an operation of an exported graph."""
    if node.label.startswith("quantize_per"):
        return "Rounds a float tensor to codes of integers: here an integer part begins."
    if node.label.startswith("dequantize_per"):
        return "Turns codes back into float numbers: here an integer part ends."
    pair = next((p for p in fused_norms(snapshot.graph) if node.id in p.between), None)
    if pair is not None:
        what = (
            "scales the result of {} back" if node.label == "div" else "adds the bias of {} again"
        )
        what = what.format(pair.conv.path or pair.conv.label)
        return f"Put there by _fuse_conv_bn_qat: it {what}, for {pair.norm.path or 'a batch norm'}."
    if snapshot.role == "int8" and node.id in snapshot.int8_nodes:
        return "One of oneDNN's int8 kernels."
    if node.path:
        return f"What {node.path} computes: torch.export has written its call down as this."
    return "An operation that is no module's whole work."


def mode_word(trains: bool | None) -> str:
    """The mode that an operation's own arguments say, ``""`` where it has none."""
    return "" if trains is None else "trains" if trains else "evaluates"


def mode_of_module(snapshot: Snapshot, module: ModuleRecord) -> str:
    """The mode of a module by its operations; the flag says nothing of an exported graph."""
    found = {n.trains for n in nodes_of(snapshot.graph, module.path)} - {None}
    if not found:
        return ""
    return " and ".join(sorted(mode_word(one) for one in found)) + " (an argument of its operation)"


def annotation_html(
    snapshots: Mapping[str, Snapshot], snapshot: Snapshot, node: GraphNode
) -> Html | None:
    """The specs that a quantizer has written on ``node`` of ``snapshot``; None before it annotates,
    and of what was not there then."""
    if not snapshot.is_from("qconfig") or not was_there(snapshots, snapshot, node):
        return None
    found = annotation_of(snapshots, node)
    if found is None:
        return tag("span", "none: no pattern of the quantizer took it", class_="qx-muted")
    rows = [
        tag("li", input_name(snapshots, name), ": ", _spec_html(spec))
        for name, spec in found.inputs
    ]
    rows.append(tag("li", "its output: ", _spec_html(found.output)))
    who = code(found.pattern) if found.pattern else "the quantizer"
    return join(["by pattern ", who, tag("ul", *rows)])


def _spec_html(spec: Spec | None) -> str:
    return "as it is" if spec is None else spec_words(spec)


def owner_link(node: GraphNode) -> Html:
    """Leads to the module whose work ``node`` is, else to the node."""
    if node.path:
        return go(f"module:{node.path}", node.path)
    return go(f"node:{node.id}", node.label)
