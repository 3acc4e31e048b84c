"""The picture of a snapshot's dataflow graph as plain data, ready for the browser.

Nothing here knows where a box is drawn: the browser lays out a group when it is opened.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from qatexplorer.ledger.records import Ledger
from qatexplorer.snapshot.records import Graph, GraphNode, ModuleRecord, Snapshot
from qatexplorer.views.common.names import count
from qatexplorer.views.graph.fold import fold_name, fold_repeats, passing_nodes
from qatexplorer.views.graph.groups import ROOT, SceneGroup, SceneTree, build_tree, split_large
from qatexplorer.views.graph.marks import place_marks, site_entry

_INT8_PACKAGES = ("torch.ao.nn.quantized.", "torch.ao.nn.intrinsic.quantized.")
_REFERENCE_PACKAGE = "torch.ao.nn.quantized.reference."
_TRACED = "torch.fx.graph_module."
_BARE_MODULE = "torch.nn.modules.module.Module"
_QAT_PACKAGES = ("torch.ao.nn.qat.", "torch.ao.nn.intrinsic.qat.")
# These live in the quantized package and compute in float until convert swaps them.
_FLOAT_IN_INT8_PACKAGE = frozenset({"FloatFunctional", "FXFloatFunctional"})


def build_scene(
    snapshot: Snapshot,
    diff_paths: frozenset[str] = frozenset(),
    *,
    max_children: int = 40,
    redundant: frozenset[str] = frozenset(),
    before: Snapshot | None = None,
) -> dict[str, Any]:
    """The nested boxes, operations, edges and fake quants of ``snapshot.graph``.

    Args:
        snapshot: what to draw.
        diff_paths: paths of modules and fake quants (or graph node ids) that the step changed.
        max_children: no group holds more; larger ones are split into ranges.
        redundant: selection strings of edges whose tensor is fake-quantized twice.
        before: the float stage: it knows the types of containers that tracing made bare modules.

    Returns:
        A JSON-able dict:

        - ``reason``: why there is nothing to draw, ``""`` if there is something; ``stage``,
          ``origin`` and ``note`` as in the snapshot.
        - ``groups``: parents before children, the first is the root (``"g:"``). Each has ``id``,
          ``parent``, ``children`` (item ids in execution order), ``label``, ``sub``, ``path``,
          ``sel`` (``""`` if synthetic), ``ops`` (operations inside but those that pass), ``sites``
          (fake quants inside by kind), ``changed`` (itself), ``inside`` (something in it changed),
          ``int8`` (int8 operations inside), ``synthetic``, ``tip`` and ``marks``; where it is so,
          ``repeat`` (how many equal blocks it holds, nothing else), ``passes`` (how many
          operations inside pass) and ``twice`` (how many redundant edges are inside).
        - ``nodes``: execution order. Each has ``id`` (``"n:<graph node id>"``), ``parent``,
          ``label``, ``sub``, ``path``, ``op``, ``sel``, ``precision`` (``"float"``, ``"fq"``,
          ``"int8"``), ``changed``, ``shape``, ``tip`` and ``marks``; ``passes`` is True for an
          ``nn.Identity`` that an edge can stand for.
        - ``edges``: ``[source index, target index, back]`` into ``nodes``; ``back`` is 1 where the
          edge closes a cycle. Its selection is ``edge:<source>:<target>`` with graph node ids.
        - ``redundant``: indices into ``edges`` of those that ``redundant`` names.
        - ``sites``: by path; ``sel``, ``kind``, ``letter``, ``changed``, ``off``, ``tip``.

        A mark is ``{"site", "role"}``, see :func:`~qatexplorer.views.graph.marks.place_marks`.

    Raises:
        ValueError: ``max_children`` is below 2.
    """
    scene: dict[str, Any] = {
        "reason": "",
        "stage": snapshot.stage,
        "origin": "",
        "note": "",
        "groups": [],
        "nodes": [],
        "edges": [],
        "redundant": [],
        "sites": {s.path: site_entry(s, s.path in diff_paths) for s in snapshot.sites},
    }
    graph = snapshot.graph
    if graph is None or not graph.nodes:
        scene["reason"] = _why_empty(snapshot)
        return scene
    tree = build_tree(snapshot, graph)
    marks = place_marks(snapshot.sites, graph, tree)
    passing = passing_nodes(snapshot, graph, marks)
    fold_repeats(tree, snapshot, graph, marks)
    split_large(tree, max_children, passing)
    scene["origin"], scene["note"] = graph.origin, graph.note
    scene["nodes"] = [
        _node(node, tree, snapshot, marks.get(f"n:{node.id}", []), diff_paths)
        for node in graph.nodes
    ]
    for node in scene["nodes"]:
        if node["id"][2:] in passing:
            node["passes"] = True
    scene["edges"] = _edges(graph)
    scene["redundant"] = [
        at
        for at, (source, target, _) in enumerate(scene["edges"])
        if f"edge:{graph.nodes[source].id}:{graph.nodes[target].id}" in redundant
    ]
    scene["groups"] = _groups(tree, _Types(snapshot, before), scene, marks, diff_paths)
    return scene


def redundant_edges(ledger: Ledger | None) -> frozenset[str]:
    """Selection strings of the edges that ``ledger`` found to be quantized twice; none for None."""
    faults = ledger.faults if ledger is not None else ()
    return frozenset(edge for found in faults for edge in found.edges)


def _why_empty(snapshot: Snapshot) -> str:
    graph = snapshot.graph
    note = graph.note if graph is not None else " ".join(snapshot.notes)
    what = "has no dataflow graph" if graph is None else "has a graph without operations"
    return f"The stage {snapshot.stage!r} {what}." + (f" {note}" if note else "")


def precision_of(record: ModuleRecord | None, fake_quantized: bool) -> str:
    """``"int8"``, ``"fq"`` or ``"float"``: in which numbers a module computes at this stage."""
    if record is not None:
        name = record.qualified_type
        if name.startswith(_REFERENCE_PACKAGE):
            return "fq"
        if name.startswith(_INT8_PACKAGES) and record.type_name not in _FLOAT_IN_INT8_PACKAGE:
            return "int8"
        if name.startswith(_QAT_PACKAGES):
            return "fq"
    return "fq" if fake_quantized else "float"


def shape_text(shape: tuple[int, ...] | None) -> str:
    """``"1×3×8×8"``, ``"scalar"`` for no dimensions, ``""`` if unknown."""
    if shape is None:
        return ""
    return "×".join("any" if n < 0 else str(n) for n in shape) or "scalar"


def _relative(path: str, parent: str) -> str:
    """The path as seen from inside ``parent``; a number with the nearest name before it."""
    if not parent or not path.startswith(parent + "."):
        return path
    rest = path[len(parent) + 1 :]
    while rest.partition(".")[0].isdigit() and rest != path:
        parent, _, last = parent.rpartition(".")
        rest = f"{last}.{rest}"
    return rest


def _node(
    node: GraphNode,
    tree: SceneTree,
    snapshot: Snapshot,
    marks: list[dict[str, str]],
    diff_paths: frozenset[str],
) -> dict[str, Any]:
    group_of = tree.group_of[node.id]
    record = snapshot.by_path.get(node.path) if node.path else None
    is_module = node.op == "call_module" and bool(node.path)
    kind = record.type_name if record is not None else ""
    if node.path and not is_module:
        kind = f"{kind or node.path}.{node.label}"
    label = _relative(node.path, tree.groups[group_of].path) if node.path else node.label
    shape = shape_text(node.shape)
    changed = node.id in diff_paths or bool(node.path and node.path in diff_paths)
    changed = changed or any(mark["site"] in diff_paths for mark in marks)
    return {
        "id": f"n:{node.id}",
        "parent": group_of,
        "label": label or node.id,
        "sub": " · ".join(filter(None, (kind or _op_text(node), shape))),
        "path": node.path,
        "op": node.op,
        "sel": f"module:{node.path}" if node.path else f"node:{node.id}",
        "precision": _precision(node, record, snapshot, bool(marks)),
        "changed": changed,
        "shape": " ".join(filter(None, (shape, (node.dtype or "").removeprefix("torch.")))),
        "tip": _node_tip(node, record),
        "marks": marks,
    }


def _precision(
    node: GraphNode, record: ModuleRecord | None, snapshot: Snapshot, marked: bool
) -> str:
    if snapshot.exported and snapshot.role == "int8":
        return "int8" if node.id in snapshot.int8_nodes or _gives_codes(node) else "float"
    return "int8" if _is_quantized(node) else precision_of(record, marked)


def _gives_codes(node: GraphNode) -> bool:
    return node.label.startswith("quantize_per")


def _is_quantized(node: GraphNode) -> bool:
    """In a converted graph the operations compute on quantized tensors, module or not."""
    return (node.dtype or "").startswith(("torch.qint", "torch.quint"))


def _op_text(node: GraphNode) -> str:
    names = {"placeholder": "model input", "output": "model output", "get_attr": "constant"}
    return names.get(node.op, "method" if node.op == "call_method" else "function")


def _node_tip(node: GraphNode, record: ModuleRecord | None) -> list[str]:
    """What the box itself has no room for."""
    lines = []
    if record is not None:
        lines.append(f"{record.qualified_type}({record.extra_repr})")
    elif node.target and node.target != node.label:
        lines.append(node.target)
    if node.source:
        lines.append(node.source)
    return lines


def _edges(graph: Graph) -> list[list[int]]:
    index = {node.id: i for i, node in enumerate(graph.nodes)}
    pairs: dict[tuple[int, int], None] = {}
    for edge in graph.edges:
        if edge.source in index and edge.target in index:
            pairs[index[edge.source], index[edge.target]] = None
    return [[source, target, int(source >= target)] for source, target in pairs]


class _Types:
    """Records of the modules that groups stand for, and what to call their types."""

    def __init__(self, snapshot: Snapshot, before: Snapshot | None) -> None:
        self._now = snapshot.by_path
        self._before = before.by_path if before is not None else {}

    def of(self, path: str) -> tuple[ModuleRecord | None, str]:
        """The record at ``path`` and its class name, ``""`` where that is a bare ``nn.Module``."""
        record = self._now.get(path)
        if record is None:
            return None, ""
        known = self._before.get(record.origin or path)
        if record.qualified_type.startswith(_TRACED) and known is not None:
            return record, known.type_name
        if record.qualified_type != _BARE_MODULE:
            return record, record.type_name
        return known or record, known.type_name if known is not None else ""


def _groups(
    tree: SceneTree,
    types: _Types,
    scene: dict[str, Any],
    marks: dict[str, list[dict[str, str]]],
    diff_paths: frozenset[str],
) -> list[dict[str, Any]]:
    """Group records, parents before children, with what is inside summed up."""
    nodes = {node["id"]: node for node in scene["nodes"]}
    order = [ROOT]
    for group_id in order:
        order += [c for c in tree.groups[group_id].children if c.startswith("g:")]
    records: dict[str, dict[str, Any]] = {}
    inside: dict[str, set[str]] = {}
    twice = _redundant_inside(tree, scene)
    for group_id in reversed(order):
        group = tree.groups[group_id]
        items = [nodes[c] if c.startswith("n:") else records[c] for c in group.children]
        own = marks.get(group_id, [])
        found = {mark["site"] for mark in own}
        for item in items:
            found |= inside.get(item["id"], {mark["site"] for mark in item["marks"]})
        inside[group_id] = found
        passes = sum(int(item.get("passes", 0)) for item in items)
        records[group_id] = {
            "id": group_id,
            "parent": group.parent,
            "children": group.children,
            "path": group.path,
            "sel": "" if group.synthetic else f"module:{group.path}",
            "synthetic": group.synthetic,
            "ops": sum(item.get("ops", int("passes" not in item)) for item in items),
            "int8": sum(item.get("int8", int(item.get("precision") == "int8")) for item in items),
            "sites": _by_kind(scene["sites"][path] for path in found),
            "changed": not group.synthetic and group.path in diff_paths,
            "inside": any(item["changed"] or item.get("inside", False) for item in items)
            or bool(found & diff_paths),
            "marks": own,
            **({"repeat": len(group.blocks)} if group.blocks else {}),
            **({"passes": passes} if passes else {}),
            **({"twice": twice[group_id]} if group_id in twice else {}),
        }
        if group.blocks:
            records[group_id] |= _fold_text([records[block] for block in group.blocks], types)
        else:
            records[group_id] |= _group_text(group, tree, types, items)
        if passes:
            records[group_id]["tip"].append(
                f"{count(passes, 'Identity module')} that pass a tensor on"
            )
    return [records[group_id] for group_id in order]


def _redundant_inside(tree: SceneTree, scene: dict[str, Any]) -> Counter[str]:
    """How many redundant edges run inside each group, by its id."""
    inside: Counter[str] = Counter()
    for at in scene["redundant"]:
        source, target, _ = scene["edges"][at]
        ends = (scene["nodes"][source]["parent"], scene["nodes"][target]["parent"])
        ways = [[group.id for group in tree.ancestors(end)] for end in ends]
        inside.update(set(ways[0]) & set(ways[1]))
    return inside


def _by_kind(entries: Iterable[dict[str, Any]]) -> dict[str, int]:
    found = {"weight": 0, "input": 0, "output": 0}
    for entry in entries:
        found[entry["kind"]] += 1
    return found


def _group_text(
    group: SceneGroup, tree: SceneTree, types: _Types, items: list[dict[str, Any]]
) -> dict[str, Any]:
    around = tree.groups[group.parent].path if group.parent is not None else ""
    record, kind = types.of(group.path)
    if group.synthetic:
        first, last = str(items[0]["label"]), str(items[-1]["label"])
        label = f"{first.split(' … ')[0]} … {last.split(' … ')[-1]}"
        return {"label": label, "sub": "", "tip": [f"{len(items)} in a row, grouped to fit"]}
    label = _relative(group.path, around) if group.path else (kind or "model")
    if group.visit > 1:
        label += f" (call {group.visit})"
    tip = [f"{group.path or 'the model itself'}"]
    if record is not None:
        settings = f"({record.extra_repr})" if record.extra_repr else ""
        tip.append(f"{record.qualified_type}{settings}, {record.param_count:,} parameters")
    return {"label": label, "sub": kind if group.path else "", "tip": tip}


def _fold_text(blocks: list[dict[str, Any]], types: _Types) -> dict[str, Any]:
    """The blocks' names and type, and in how many of them something is marked if not in all."""
    first, last = blocks[0], blocks[-1]
    record, kind = types.of(first["path"])
    label = fold_name(str(first["label"]), str(last["label"]))
    tip = [f"{len(blocks)} equal blocks in a row: {first['path']} … {last['path']}"]
    if record is not None:
        tip.append(f"each {record.qualified_type}, {record.param_count:,} parameters")
    marked = {
        "changed": [block["label"] for block in blocks if block["changed"] or block["inside"]],
        "quantized twice": [block["label"] for block in blocks if block.get("twice")],
    }
    some = []
    for what, where in marked.items():
        if 0 < len(where) < len(blocks):
            some.append(f"{what} in {len(where)} of {len(blocks)}")
            tip.append(f"{what}: {', '.join(where)}")
    return {
        "label": f"×{len(blocks)} {label}",
        "sub": " · ".join(filter(None, (kind, *some))),
        "tip": tip,
    }
