"""What a quantizer has annotated, in sentences: how much was taken, what shares, what was rewritten
for it and undone, and what lowering left over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from qatexplorer.snapshot.exported import fused_norms, left_over
from qatexplorer.snapshot.records import Graph, GraphNode, Snapshot
from qatexplorer.views.annotations.groups import Group, groups_of
from qatexplorer.views.annotations.words import annotated_snapshot, input_name
from qatexplorer.views.common.exported_news import annotated_words, float_operations
from qatexplorer.views.common.html import Html, code, go, join, tag
from qatexplorer.views.inspector.exported import owner_link

_MOST = 40


def summary_html(snapshots: Mapping[str, Snapshot], quantizer: str) -> Html:
    """How many operations the patterns took; loud where it is none. ``quantizer`` is its name."""
    annotated = annotated_snapshot(snapshots)
    if annotated is None:
        words = "Nothing is annotated yet: step to the stage “annotate”."
        return tag("p", words, class_="qx-muted")
    words = annotated_words(annotated)
    taken = {one.node for one in annotated.annotations}
    if not any(node.id in taken for node in float_operations(annotated)):
        why = (
            f". {quantizer}.annotate() wrote nothing on any of them: another quantizer may know "
            "them, or this one needs a setting of what to quantize."
        )
        return tag("p", tag("strong", words, why), class_="qx-ledger-warning", role="alert")
    rounds = sum(one.rounds for one in annotated.annotations)
    return tag("p", code(quantizer), f": {words}. Of {rounds:,} something is rounded.")


def below_html(snapshots: Mapping[str, Snapshot], snapshot: Snapshot) -> Html:
    """Sharing groups, what ``_fuse_conv_bn_qat`` built and convert undid, and, at the lowered
    stage, what is left over. Links are to what ``snapshot``, the stage in view, has."""
    annotated = annotated_snapshot(snapshots)
    if annotated is None:
        return Html("")
    return join(
        [
            _groups_html(snapshots, snapshot, groups_of(annotated)),
            _fused_html(snapshots, snapshot),
            _left_over_html(snapshot),
        ]
    )


def _section(title: str, items: Iterable[Html], nothing: str) -> Html:
    shown = list(items)
    more = len(shown) - _MOST
    rest = tag("li", f"and {more:,} more") if more > 0 else None
    body = tag("ul", *shown[:_MOST], rest) if shown else tag("p", nothing, class_="qx-muted")
    return tag("section", tag("h4", title), body)


def _groups_html(
    snapshots: Mapping[str, Snapshot], snapshot: Snapshot, groups: tuple[Group, ...]
) -> Html:
    items = []
    for group in groups:
        results = join((_link(snapshots, snapshot, id) for id in group.nodes), ", ")
        made = join(
            (
                join([_place(snapshots, place), " shares that of ", _place(snapshots, of)])
                for place, of in group.made_by
            ),
            "; ",
        )
        by = join([" SharedQuantizationSpec: ", made, "."]) if group.made_by else None
        items.append(tag("li", tag("b", f"Group {group.number}"), ": ", results, ".", by))
    return _section(
        "What shares one fake quant", items, "No two tensors of this model share a fake quant."
    )


def _place(snapshots: Mapping[str, Snapshot], place: str) -> str:
    """``"what relu2 gives to pool"`` for an edge, ``"output of pool"`` for a node."""
    given, arrow, taker = place.partition(" → ")
    if not arrow:
        return input_name(snapshots, given)
    to = input_name(snapshots, taker).removeprefix("output of ")
    return f"{input_name(snapshots, given)} into {to}"


def _link(snapshots: Mapping[str, Snapshot], snapshot: Snapshot, id: str) -> Html:
    """Leads to the node with that id when the quantizer annotated, where the stage has it."""
    annotated = annotated_snapshot(snapshots)
    node = _node(annotated.graph if annotated is not None else None, id)
    name = input_name(snapshots, id)
    if node is not None and node.path and node.path in snapshot.by_path:
        return go(f"module:{node.path}", name)
    here = _node(snapshot.graph, id) if snapshot.role != "int8" else None
    return go(f"node:{id}", name) if here is not None and node is not None else tag("span", name)


def _node(graph: Graph | None, id: str) -> GraphNode | None:
    return next((n for n in graph.nodes if n.id == id), None) if graph is not None else None


def _fused_html(snapshots: Mapping[str, Snapshot], snapshot: Snapshot) -> Html:
    rewritten = next((s for s in snapshots.values() if s.role == "weights"), None)
    if rewritten is None:
        return Html("")
    last = list(snapshots.values())[-1]
    left = {pair.norm.path for pair in fused_norms(last.graph)}
    items = []
    for pair in fused_norms(rewritten.graph):
        if not pair.between:
            continue
        labels = [n.label for n in (rewritten.graph.nodes if rewritten.graph else ())
                  if n.id in pair.between]  # fmt: skip
        verb = "scales" if len(labels) == 1 else "scale"
        conv, norm = (_module(snapshot, node) for node in (pair.conv, pair.norm))
        undone = (
            " convert_pt2e has multiplied the batch norm into the weight and taken them out."
            if pair.norm.path not in left
            else " convert_pt2e will multiply the batch norm into the weight and take them out."
        )
        items.append(
            tag(
                "li", conv, " with ", norm, ": the weight is scaled by the running variance, and ",
                code(", ".join(labels)), f" put between the two {verb} the result back.", undone,
            )
        )  # fmt: skip
    return _section(
        "What _fuse_conv_bn_qat built", items, "No convolution has a batch norm right behind it."
    )


def _module(snapshot: Snapshot, node: GraphNode) -> Html:
    known = node.path and node.path in snapshot.by_path
    return go(f"module:{node.path}", node.path) if known else tag("span", node.path or node.label)


def _left_over_html(snapshot: Snapshot) -> Html:
    """Where a lowered graph computes in float between two integer parts."""
    if snapshot.role != "int8" or snapshot.graph is None:
        return Html("")
    nodes = {node.id: node for node in snapshot.graph.nodes}
    items = [
        tag(
            "li",
            owner_link(nodes[one.given]) if one.given in nodes else "",
            " → ",
            owner_link(nodes[one.node]),
            " → ",
            join((owner_link(nodes[id]) for id in one.takers), ", "),
        )
        for one in left_over(snapshot.graph, snapshot.int8_nodes)
    ]
    return _section(
        "Left over after lowering: float islands",
        items,
        "Every dequantize has become a part of an int8 kernel.",
    )
