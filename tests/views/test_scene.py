"""The scene of a graph: nesting, splitting, where fake quants are drawn, what is said."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qatexplorer.snapshot.records import Graph, GraphNode, Snapshot
from qatexplorer.views.graph.scene import build_scene, precision_of
from tests.support.graph_models import (
    call,
    chain_edges,
    flat_net,
    function,
    module,
    residual_net,
    site,
    snapshot,
)


def table(scene: dict, what: str) -> dict:
    return {entry["id"]: entry for entry in scene[what]}


def marks(scene: dict) -> list[tuple[str, str, str]]:
    items = [*scene["nodes"], *scene["groups"]]
    return [(m["site"], m["role"], item["id"]) for item in items for m in item["marks"]]


def check_tree(scene: dict, max_children: int) -> None:
    """Every node and group is the child of exactly one group, and no group has too many."""
    groups, nodes = table(scene, "groups"), table(scene, "nodes")
    children = [c for g in scene["groups"] for c in g["children"]]
    assert sorted(children) == sorted([*nodes, *(g for g in groups if g != "g:")])
    for group in scene["groups"]:
        assert 1 <= len(group["children"]) <= max_children
        for child in group["children"]:
            assert (nodes.get(child) or groups[child])["parent"] == group["id"]
    seen: set[str] = set()
    for group in scene["groups"]:
        assert group["parent"] is None or group["parent"] in seen, "parents come first"
        seen.add(group["id"])
    order: list[str] = []
    stack = ["g:"]
    while stack:
        item = stack.pop()
        if item in groups:
            stack += reversed(groups[item]["children"])
        else:
            order.append(item)
    assert order == [n["id"] for n in scene["nodes"]], "execution order is kept"


names = st.sampled_from(["a", "b", "c0", "layer"])
paths = st.lists(names, max_size=4).map(".".join)


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    """Calls in any order: scopes interleave, modules are called twice or from another branch."""
    nodes: list[GraphNode] = []
    for i in range(draw(st.integers(1, 60))):
        scope = draw(paths)
        if draw(st.booleans()):
            below = f"{scope}.m{draw(st.integers(0, 3))}" if scope else "m"
            nodes.append(call(f"n{i}", draw(st.one_of(st.just(below), paths)) or "m", scope))
        else:
            nodes.append(function(f"n{i}", scope))
    index = st.integers(0, len(nodes) - 1)
    edges = draw(st.lists(st.tuples(index, index), max_size=80))
    owners = draw(st.lists(st.one_of(paths, st.sampled_from([n.path for n in nodes])), max_size=12))
    kinds = st.sampled_from(["weight", "input", "output"])
    sites = [site(owner, draw(kinds), f"fq{i}") for i, owner in enumerate(owners)]
    kind = draw(st.sampled_from(["Block", "ModuleList"]))
    made = [module(p, kind) for p in {"a", "a.b", "b", "layer"}]
    return snapshot(nodes, [(f"n{a}", f"n{b}") for a, b in edges], sites, made)


@pytest.mark.slow
@settings(max_examples=80, deadline=None)
@given(snapshots(), st.integers(2, 9))
def test_any_nesting_keeps_every_node_edge_and_site(snap: Snapshot, max_children: int) -> None:
    scene = build_scene(snap, max_children=max_children)
    json.dumps(scene)
    check_tree(scene, max_children)
    assert snap.graph is not None
    assert [n["id"] for n in scene["nodes"]] == [f"n:{n.id}" for n in snap.graph.nodes]
    ids = [n.id for n in snap.graph.nodes]
    drawn = {(ids[s], ids[t]) for s, t, _ in scene["edges"]}
    assert drawn == {(e.source, e.target) for e in snap.graph.edges}
    placed = marks(scene)
    assert len(placed) == len(set(placed))
    calls = {n.path: 0 for n in snap.graph.nodes}
    for node in snap.graph.nodes:
        calls[node.path] += 1
    for one in snap.sites:
        mine = [m for m in placed if m[0] == one.path]
        if one.owner and one.owner in calls:
            assert len(mine) == calls[one.owner], "one mark per call"
        else:
            assert mine, "a site whose owner is not called is drawn all the same"
    assert scene["groups"][0]["ops"] == len(snap.graph.nodes)


def has_cycle_between_children(scene: dict) -> bool:
    """Whether some group's picture has an edge against the order of its children."""
    groups, nodes = table(scene, "groups"), table(scene, "nodes")

    def chain(item: str) -> list[str]:
        found = [item]
        while (parent := (nodes.get(found[0]) or groups[found[0]])["parent"]) is not None:
            found.insert(0, parent)
        return found

    for s, t, _ in scene["edges"]:
        a, b = chain(scene["nodes"][s]["id"]), chain(scene["nodes"][t]["id"])
        for (above, x), (_, y) in zip(itertools.pairwise(a), itertools.pairwise(b)):  # noqa: B905
            if x != y:
                order = groups[above]["children"]
                if order.index(x) > order.index(y):
                    return True
                break
    return False


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(snapshots())
def test_collapsing_never_makes_a_cycle(snap: Snapshot) -> None:
    """Edges along the execution order stay along it in the picture of every group."""
    assert snap.graph is not None
    at = {n.id: i for i, n in enumerate(snap.graph.nodes)}
    forward = [(e.source, e.target) for e in snap.graph.edges if at[e.source] < at[e.target]]
    scene = build_scene(snapshot(snap.graph.nodes, forward, snap.sites, snap.modules))
    assert not has_cycle_between_children(scene)
    assert all(back == 0 for _, _, back in scene["edges"])


@pytest.mark.parametrize("length", [40, 41, 1000, pytest.param(5000, marks=pytest.mark.slow)])
def test_a_flat_graph_is_split_into_ranges(length: int) -> None:
    scene = build_scene(flat_net(length))
    check_tree(scene, 40)
    parts = [g for g in scene["groups"] if g["synthetic"]]
    assert bool(parts) == (length > 40)
    if parts:
        assert parts[0]["label"].startswith("0 … ")
        assert scene["groups"][0]["sites"] == {"weight": 0, "input": 0, "output": length}


def test_fake_quants_are_drawn_where_they_work() -> None:
    nodes = [
        call("quant", "quant", ""),
        call("conv", "body.conv", "body"),
        call("lstm", "lstm", ""),
        call("tail", "tail", ""),
    ]
    sites = [
        site("quant", "input"),
        site("body.conv", "weight"),
        site("body.conv", "output"),
        site("lstm.cells.0", "weight"),
        site("body", "output", "extra"),
        site("gone", "output"),
    ]
    scene = build_scene(snapshot(nodes, chain_edges(nodes), sites))
    assert set(marks(scene)) == {
        ("quant.activation_post_process", "tail", "n:quant"),
        ("body.conv.weight_fake_quant", "side", "n:conv"),
        ("body.conv.activation_post_process", "tail", "n:conv"),
        ("lstm.cells.0.weight_fake_quant", "inside", "n:lstm"),
        ("body.extra", "head", "g:body"),
        ("gone.activation_post_process", "head", "g:"),
    }
    assert table(scene, "groups")["g:body"]["sites"] == {"weight": 1, "input": 0, "output": 2}


def test_a_module_called_twice_is_two_nodes_with_one_selection() -> None:
    nodes = [call("act", "act", ""), call("conv", "conv", ""), call("act_1", "act", "")]
    scene = build_scene(snapshot(nodes, chain_edges(nodes), [site("act", "output")]))
    first, _, second = scene["nodes"]
    assert first["sel"] == second["sel"] == "module:act"
    assert [m[2] for m in marks(scene)] == ["n:act", "n:act_1"]
    assert scene["groups"][0]["sites"]["output"] == 1, "it is one fake quant"


def test_a_block_called_twice_is_two_groups() -> None:
    nodes = [
        call("c", "block.conv", "block"),
        function("relu", ""),
        call("c_1", "block.conv", "block"),
    ]
    scene = build_scene(snapshot(nodes, chain_edges(nodes)))
    labels = [(g["label"], g["sel"]) for g in scene["groups"][1:]]
    assert labels == [("block", "module:block"), ("block (call 2)", "module:block")]


def test_a_module_list_between_other_calls_is_no_group() -> None:
    nodes = [
        call("a", "blocks.0.conv", "blocks.0"),
        function("add", ""),
        call("b", "blocks.1.conv", "blocks.1"),
    ]
    modules = [module("blocks", "ModuleList")]
    scene = build_scene(snapshot(nodes, chain_edges(nodes), (), modules))
    assert [g["label"] for g in scene["groups"][1:]] == ["blocks.0", "blocks.1"]


def test_changes_are_marked_and_reach_the_groups_around() -> None:
    nodes = [call("a", "one.conv", "one"), call("b", "two.conv", "two")]
    sites = [site("one.conv", "weight"), site("two.conv", "weight")]
    snap = snapshot(nodes, chain_edges(nodes), sites)
    scene = build_scene(snap, frozenset({"one.conv.weight_fake_quant"}))
    groups, drawn = table(scene, "groups"), table(scene, "nodes")
    assert drawn["n:a"]["changed"]
    assert not drawn["n:b"]["changed"]
    assert groups["g:one"]["inside"]
    assert not groups["g:one"]["changed"]
    assert not groups["g:two"]["inside"]
    assert scene["sites"]["one.conv.weight_fake_quant"]["changed"]
    assert not scene["sites"]["two.conv.weight_fake_quant"]["changed"]


@pytest.mark.parametrize(
    ("qualified", "expected"),
    [
        ("torch.nn.modules.conv.Conv2d", "float"),
        ("torch.ao.nn.qat.modules.conv.Conv2d", "fq"),
        ("torch.ao.nn.quantized.modules.conv.Conv2d", "int8"),
        ("torch.ao.nn.intrinsic.quantized.modules.conv_relu.ConvReLU2d", "int8"),
        ("torch.ao.nn.quantized.modules.functional_modules.FloatFunctional", "float"),
        ("torch.ao.nn.quantized.modules.functional_modules.QFunctional", "int8"),
    ],
)
def test_precision(qualified: str, expected: str) -> None:
    record = module("m", qualified.rpartition(".")[2], qualified)
    assert precision_of(record, False) == expected


def test_a_cycle_is_shown_to_close() -> None:
    nodes = [function("a", ""), function("b", "")]
    scene = build_scene(snapshot(nodes, [("a", "b"), ("b", "a"), ("a", "a"), ("a", "gone")]))
    assert scene["edges"] == [[0, 1, 0], [1, 0, 1], [0, 0, 1]]


def test_without_a_graph_the_reason_is_given() -> None:
    empty = Snapshot("eager", "convert", (module(""),), (), None, notes=("It does not run.",))
    scene = build_scene(empty)
    assert not scene["nodes"]
    assert not scene["groups"]
    assert "'convert'" in scene["reason"]
    assert "It does not run." in scene["reason"]
    nothing = Snapshot("eager", "float", (module(""),), (), Graph((), ()))
    assert "without operations" in build_scene(nothing)["reason"]


def test_the_tooltip_of_a_fake_quant_tells_its_qparams() -> None:
    one = site("c", "weight", scale=(0.1, 0.25), zero_point=(0, 0), ch_axis=0, min_val=(-1.0, -2.5))
    scene = build_scene(snapshot([call("c", "c", "")], [], [one]))
    text = "\n".join(scene["sites"][one.path]["tip"])
    for part in ("qint8 -128…127", "axis 0", "0.1 … 0.25 over 2 channels", "-2.5", "once"):
        assert part in text
    unseen = site("c", "output", min_val=(), max_val=(), seen="nothing", calls_per_forward=0)
    entry = build_scene(snapshot([call("c", "c", "")], [], [unseen]))["sites"][unseen.path]
    assert entry["off"]
    assert "has seen no data yet" in entry["tip"]


@pytest.mark.slow
def test_a_large_nested_net_is_built_quickly_and_whole() -> None:
    scene = build_scene(residual_net(5, 50, 19))
    check_tree(scene, 40)
    assert len(scene["nodes"]) == 5 * 50 * 20 + 2
    assert len(marks(scene)) == 5 * 50 * 19 * 2


def test_fewer_than_two_children_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        build_scene(flat_net(3), max_children=1)


def test_what_rounds_a_layers_input_is_marked_at_the_layer() -> None:
    nodes = [call("x", "quant", ""), call("y", "fc", "")]
    sites = [site("quant", "input"), site("fc", "input", blocks="token")]
    found = marks(build_scene(snapshot(nodes, chain_edges(nodes), sites)))
    assert {(path.partition(".")[0], role) for path, role, _ in found} == {
        ("quant", "tail"),
        ("fc", "side"),
    }
