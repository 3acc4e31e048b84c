"""News of the stages of an exported model: who took what, what was rewritten, what is left over."""

from __future__ import annotations

from collections.abc import Sequence

from qatexplorer.snapshot.diff import diff
from qatexplorer.snapshot.exported import FusedNorm, fused_norms, left_over
from qatexplorer.snapshot.records import GraphNode, Snapshot
from qatexplorer.views.common.names import count

_SHOWN = 3


def exported_news(before: Snapshot | None, now: Snapshot) -> str:
    """One sentence on what the stage has done, ``""`` where it is that of the other flows."""
    if not now.exported or before is None:
        return ""
    if now.role == "traced":
        return _traced(before, now)
    if now.role == "qconfig":
        return annotated_words(now)
    if now.role == "weights":
        return _fused(now)
    if now.role == "reference":
        return _folded(before, now) if before.role == "reference" else _converted(now)
    return ""


def left_over_words(now: Snapshot) -> str:
    """``"; 2 dequantizes are left over, before operations in float"``, ``""`` for none."""
    some = len(left_over(now.graph, now.int8_nodes)) if now.role == "int8" else 0
    if not some or not now.exported:
        return ""
    verb = "is" if some == 1 else "are"
    return f"; {count(some, 'dequantize')} {verb} left over, before operations in float"


def _traced(before: Snapshot, now: Snapshot) -> str:
    if before.role == "traced":
        change = diff(before, now)
        if not change.nodes_added and not change.nodes_removed:
            return "the quantizer left the graph as it is"
        return f"the quantizer rewrote the graph: {change.summary()}"
    operations = [n for n in now.graph.nodes if n.op.startswith("call")] if now.graph else []
    of_modules = sum(bool(node.path) for node in operations)
    return (
        f"forward became a graph of {count(len(operations), 'operation')} of torch, {of_modules:,} "
        f"of them what a module computes"
    )


def float_operations(snapshot: Snapshot) -> tuple[GraphNode, ...]:
    """The operations of its graph that give float numbers: what a quantizer can take."""
    nodes = snapshot.graph.nodes if snapshot.graph is not None else ()
    return tuple(
        n
        for n in nodes
        if n.op.startswith("call") and (n.dtype or "").startswith(("torch.float", "torch.bfloat"))
    )


def annotated_words(now: Snapshot) -> str:
    """How many operations the quantizer's patterns took, and how many none did."""
    operations = float_operations(now)
    taken = {annotation.node for annotation in now.annotations}
    some = sum(node.id in taken for node in operations)
    if not some:
        return (
            f"NO PATTERN OF THE QUANTIZER TOOK ANY OF {count(len(operations), 'OPERATION')}: "
            "nothing will be rounded"
        ).replace("OPERATIONs", "OPERATIONS")
    left = len(operations) - some
    text = f"patterns of the quantizer took {some:,} of {count(len(operations), 'operation')}"
    return text + (f"; {left:,} stay as they are" if left > 1 else "; 1 stays as it is" * left)


def _fused(now: Snapshot) -> str:
    pairs = [pair for pair in fused_norms(now.graph) if pair.between]
    if not pairs:
        return "no convolution with a batch norm behind it was rewritten"
    noun = "convolution" if len(pairs) == 1 else "convolutions"
    return f"{len(pairs):,} {noun} rewritten together with a batch norm: {_pairs(pairs, 'with')}"


def _pairs(pairs: Sequence[FusedNorm], word: str) -> str:
    named = [
        f"{pair.conv.path or pair.conv.label} {word} {pair.norm.path or pair.norm.label}"
        for pair in pairs[:_SHOWN]
    ]
    more = len(pairs) - len(named)
    return ", ".join(named) + (f" and {more:,} more" if more else "")


def _converted(now: Snapshot) -> str:
    nodes = now.graph.nodes if now.graph is not None else ()
    rounded = sum(node.label.startswith("quantize_per") for node in nodes)
    return (
        "fake quants became quantize and dequantize, around "
        f"{count(rounded, 'tensor')} and the weights; the operations between compute in float"
    )


def _folded(before: Snapshot, now: Snapshot) -> str:
    left = {pair.norm.path for pair in fused_norms(now.graph)}
    pairs = [pair for pair in fused_norms(before.graph) if pair.norm.path not in left]
    text = "weights are stored as int8"
    if not pairs:
        return f"no batch norm was there to multiply into a weight; {text}"
    noun = "batch norm" if len(pairs) == 1 else "batch norms"
    into = ", ".join(
        f"{pair.norm.path or pair.norm.label} into {pair.conv.path or pair.conv.label}"
        for pair in pairs[:_SHOWN]
    )
    more = f" and {len(pairs) - _SHOWN:,} more" if len(pairs) > _SHOWN else ""
    return f"{len(pairs):,} {noun} multiplied into the weights: {into}{more}; {text}"
