"""Fake quants as marks: where in the picture each one is drawn, and what its tooltip says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from qatexplorer.snapshot.records import FakeQuantSite, Graph
from qatexplorer.views.common.names import seen_words
from qatexplorer.views.graph.groups import ROOT, SceneTree, parent_path

LETTERS = {"weight": "W", "input": "I", "output": "A"}

_TAIL_KINDS = frozenset({"input", "output"})


def number(value: float) -> str:
    """Four significant digits."""
    return f"{value:.4g}"


def _spread(name: str, values: Sequence[float]) -> str:
    if not values:
        return f"{name} not set"
    low, high = min(values), max(values)
    if len(values) == 1:
        return f"{name} {number(values[0])}"
    if low == high:
        return f"{name} {number(low)} in all {len(values)} channels"
    return f"{name} {number(low)} … {number(high)} over {len(values)} channels"


def _how_it_runs(site: FakeQuantSite) -> str:
    if site.mechanism == "unused" or site.calls_per_forward == 0:
        return "does not run"
    ways = {"forward": "in its owner's forward", "hook": "by a forward hook", "node": "as a node"}
    calls = site.calls_per_forward
    times = "" if calls is None else (", once per forward" if calls == 1 else f", {calls} times")
    return f"runs {ways[site.mechanism]}{times}"


def _where(site: FakeQuantSite) -> str:
    if not site.nodes:
        return f"of {site.owner or 'the model'}"
    if site.kind == "weight":
        return f"of {', '.join(site.nodes)}"
    more = f" and {len(site.nodes) - 3} more" if len(site.nodes) > 3 else ""
    shared = " (one shared by all)" if len(site.nodes) > 1 else ""
    return f"after {', '.join(site.nodes[:3])}{more}{shared}"


def site_tip(site: FakeQuantSite) -> list[str]:
    """Lines of the tooltip of one fake quant: what it is, its qparams, its range, how it runs."""
    axis = "" if site.ch_axis is None else f", axis {site.ch_axis}"
    codes = f"{site.dtype.removeprefix('torch.')} {site.quant_min}…{site.quant_max}"
    lines = [
        f"{site.kind} fake quant {_where(site)}",
        f"{codes}, {site.qscheme.removeprefix('torch.')}{axis}",
    ]
    # Before it has seen data, its scale is torch's initial 1, which says nothing of the model.
    if site.seen != "nothing":
        lines += [_spread("scale", site.scale), _spread("zero_point", site.zero_point)]
    if site.seen in ("all", "partly"):
        low, high = number(min(site.min_val)), number(max(site.max_val))
        lines.append(f"observed {low} … {high}")
    if site.seen != "all":
        lines.append(seen_words(site) + (" yet" if site.seen == "nothing" else ""))
    lines.append(_how_it_runs(site))
    off = [
        name
        for name, enabled in (
            ("observer", site.observer_enabled or not site.observer_class),
            ("fake quant", site.fake_quant_enabled),
        )
        if not enabled
    ]
    if off:
        lines.append(f"{' and '.join(off)} disabled")
    return lines


def site_entry(site: FakeQuantSite, changed: bool) -> dict[str, Any]:
    """What the browser needs to draw and to describe a fake quant."""
    return {
        "sel": f"site:{site.path}",
        "kind": site.kind,
        "letter": LETTERS[site.kind],
        "changed": changed,
        "off": site.mechanism == "unused" or site.calls_per_forward == 0,
        "tip": site_tip(site),
    }


def place_marks(
    sites: Sequence[FakeQuantSite], graph: Graph, tree: SceneTree
) -> dict[str, list[dict[str, str]]]:
    """Marks by item id. Every site gets at least one; one per call of its owner.

    ``role`` of a mark: ``"side"`` on the border of its node (a weight, a swapped layer's input),
    ``"tail"`` on the node's outgoing edge (an activation), ``"inside"`` in a node that hides the
    owner, ``"head"`` in the title of the group that holds the owner.
    """
    nodes: dict[str, list[str]] = {}
    for node in graph.nodes:
        if node.path:
            nodes.setdefault(node.path, []).append(f"n:{node.id}")
    groups: dict[str, list[str]] = {}
    for group in tree.groups.values():
        if not group.synthetic:
            groups.setdefault(group.path, []).append(group.id)
    constants = {node.id for node in graph.nodes if node.op == "get_attr"}
    marks: dict[str, list[dict[str, str]]] = {}
    for site in sites:
        anchors, role = _anchor(site, nodes, groups)
        if site.nodes:
            anchors = [f"n:{i}" for i in site.nodes if i in tree.group_of] or anchors
            # In an exported graph a parameter is no node: its operation stands for it.
            takers = site.kind == "weight" and not any(i in constants for i in site.nodes)
            role = "side" if takers else "tail"
        for item in anchors:
            marks.setdefault(item, []).append({"site": site.path, "role": role})
    return marks


def _anchor(
    site: FakeQuantSite, nodes: Mapping[str, list[str]], groups: Mapping[str, list[str]]
) -> tuple[list[str], str]:
    if site.owner in nodes:
        # One with blocks rounds what its own layer takes, not what it hands on.
        tail = site.kind in _TAIL_KINDS and not site.blocks
        return nodes[site.owner], "tail" if tail else "side"
    path = site.owner
    while path:
        if path in nodes:
            return nodes[path], "inside"
        if path in groups:
            return groups[path], "head"
        path = parent_path(path)
    return [ROOT], "head"
