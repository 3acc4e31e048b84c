"""What a graph folds away: Identities and repeated blocks, against counts made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from qatexplorer.session import Session
from qatexplorer.snapshot.records import FakeQuantSite, GraphNode, HookRecord, Snapshot
from qatexplorer.views.graph.fold import fold_name
from qatexplorer.views.graph.scene import build_scene
from tests.support.graph_models import call, function, module, residual_net, site, snapshot
from tests.support.models import NARROW, declare_torchvision_operators, load_timm


def folds(scene: dict[str, Any]) -> list[str]:
    return [group["label"] for group in scene["groups"] if group.get("repeat")]


def passes(scene: dict[str, Any]) -> list[str]:
    return [node["path"] for node in scene["nodes"] if node.get("passes")]


# -- made by hand ----------------------------------------------------------------------------------

Block = Sequence[GraphNode]


def block(at: int, shape: tuple[int, ...] = (1, 8, 8, 8)) -> Block:
    """A convolution, an activation and an addition of what entered."""
    scope = f"body.{at}"
    made = [call(f"c{at}", f"{scope}.conv", scope), call(f"r{at}", f"{scope}.act", scope)]
    return [replace(node, shape=shape) for node in (*made, function(f"a{at}", scope))]


def inner_edges(at: int, entry: str) -> list[tuple[str, str]]:
    return [(entry, f"c{at}"), (f"c{at}", f"r{at}"), (f"r{at}", f"a{at}"), (entry, f"a{at}")]


def net(
    count: int = 4, sites: Sequence[FakeQuantSite] = (), more: Sequence[tuple[str, str]] = ()
) -> Snapshot:
    """An input, ``count`` equal residual blocks in a chain, and a head."""
    nodes: list[GraphNode] = [function("x", ""), function("mask", "")]
    edges: list[tuple[str, str]] = []
    last = "x"
    for at in range(count):
        nodes += block(at)
        edges += inner_edges(at, last)
        last = f"a{at}"
    nodes.append(function("head", ""))
    return snapshot(nodes, [*edges, (last, "head"), *more], sites)


def test_equal_blocks_in_a_chain_fold_to_one_box() -> None:
    sites = [site(f"body.{at}.conv", "weight") for at in range(4)]
    scene = build_scene(net(4, sites))
    fold = next(group for group in scene["groups"] if group.get("repeat"))
    assert fold["id"] == "g:body.0×4"
    assert (fold["label"], fold["sub"], fold["repeat"]) == ("×4 body.0–3", "Block", 4)
    assert fold["children"] == [f"g:body.{at}" for at in range(4)]
    assert (fold["ops"], fold["sites"]) == (12, {"weight": 4, "input": 0, "output": 0})
    assert (fold["synthetic"], fold["sel"]) == (True, "")
    assert fold["tip"][0] == "4 equal blocks in a row: body.0 … body.3"
    parents = {group["id"]: group["parent"] for group in scene["groups"]}
    assert parents["g:body.2"] == fold["id"]
    assert parents[fold["id"]] == "g:body"


def altered(count: int, **changes: Any) -> Snapshot:
    """:func:`net`, in whose block 2 the convolution's record is changed."""
    full = net(count)
    conv = replace(full.by_path["body.2.conv"], **changes)
    modules = tuple(conv if one.path == conv.path else one for one in full.modules)
    return replace(full, modules=modules)


@pytest.mark.parametrize(
    "changes",
    [
        {"type_name": "Linear", "qualified_type": "torch.nn.Linear"},
        {"extra_repr": "stride=(2, 2)"},
        {"stays_float": True},
        {"state": "float"},
        {"param_count": 7},
        {"hooks": (HookRecord("forward", "mine", False),)},
    ],
    ids=str,
)
def test_what_differs_does_not_fold(changes: dict[str, Any]) -> None:
    assert folds(build_scene(altered(5, **changes))) == ["×2 body.0–1", "×2 body.3–4"]


def test_blocks_of_other_shapes_do_not_fold() -> None:
    full = net(4)
    assert full.graph is not None
    wider = {node.id: node for node in block(1, (1, 16, 8, 8))}
    nodes = [wider.get(node.id, node) for node in full.graph.nodes]
    pairs = [(edge.source, edge.target) for edge in full.graph.edges]
    assert folds(build_scene(snapshot(nodes, pairs))) == ["×2 body.2–3"]


def test_a_block_without_its_fake_quant_is_shown_by_itself() -> None:
    sites = [site(f"body.{at}.conv", "weight") for at in (0, 1, 3, 4)]
    assert folds(build_scene(net(5, sites))) == ["×2 body.0–1", "×2 body.3–4"]
    off = [site(f"body.{at}.conv", "weight", fake_quant_enabled=at != 2) for at in range(5)]
    assert folds(build_scene(net(5, off))) == ["×2 body.0–1", "×2 body.3–4"]
    # What a fake quant has measured is no difference.
    scales = [site(f"body.{at}.conv", "weight", scale=(0.1 * (at + 1),)) for at in range(5)]
    assert folds(build_scene(net(5, scales))) == ["×5 body.0–4"]


def test_only_a_chain_folds() -> None:
    # What block 1 makes is used behind the next block too.
    assert folds(build_scene(net(4, more=[("a1", "head")]))) == ["×2 body.0–1", "×2 body.2–3"]
    beside = [call(f"c{at}", f"body.{at}.conv", f"body.{at}") for at in range(3)]
    pairs = [("x", node.id) for node in beside]
    assert folds(build_scene(snapshot([function("x", ""), *beside], pairs))) == []


def test_a_tensor_that_enters_each_block_alike_does_not_prevent_folding() -> None:
    every = [("mask", f"r{at}") for at in range(4)]
    assert folds(build_scene(net(4, more=every))) == ["×4 body.0–3"]
    assert folds(build_scene(net(4, more=every[:3]))) == ["×3 body.0–2"]
    other = [*every[:2], ("mask", "c2"), ("mask", "c3")]
    assert folds(build_scene(net(4, more=other))) == ["×2 body.0–1", "×2 body.2–3"]


def test_marks_in_some_of_the_blocks_are_said() -> None:
    redundant = frozenset({"edge:c1:r1", "edge:c3:r3"})
    scene = build_scene(net(4), frozenset({"body.0.conv"}), redundant=redundant)
    fold = next(group for group in scene["groups"] if group.get("repeat"))
    assert fold["sub"] == "Block · changed in 1 of 4 · quantized twice in 2 of 4"
    assert fold["tip"][-2:] == ["changed: body.0", "quantized twice: body.1, body.3"]
    assert fold["inside"]
    assert fold["twice"] == 2
    twice = {group["id"]: group.get("twice", 0) for group in scene["groups"]}
    assert (twice["g:"], twice["g:body"], twice["g:body.1"], twice["g:body.0"]) == (2, 2, 1, 0)


def test_all_of_a_long_run_is_one_fold() -> None:
    scene = build_scene(residual_net(1, 60, 2, alike=True))
    assert folds(scene) == ["×60 stage0.0–59"]
    fold = next(group for group in scene["groups"] if group.get("repeat"))
    assert fold["repeat"] == 60
    assert len(fold["children"]) <= 40
    assert folds(build_scene(residual_net(2, 5, 3))) == []


@pytest.mark.parametrize(
    ("first", "last", "name"),
    [
        ("layer3.1", "layer3.5", "layer3.1–5"),
        ("blocks.8", "blocks.11", "blocks.8–11"),
        ("10", "12", "10–12"),
        ("block1", "block4", "block1–4"),
        ("stem.left", "stem.right", "stem.left … right"),
        ("a.0", "b.0", "a.0 … b.0"),
    ],
)
def test_the_name_of_a_fold(first: str, last: str, name: str) -> None:
    assert fold_name(first, last) == name


def identity_net(**changes: Any) -> Snapshot:
    """conv → bn → relu → fc; the two in the middle are Identities."""
    nodes = [call(name, name, "") for name in ("conv", "bn", "relu", "fc")]
    known = [
        module(name, "Identity", "torch.nn.modules.linear.Identity") for name in ("bn", "relu")
    ]
    known = [replace(one, **changes) for one in known]
    pairs = [("conv", "bn"), ("bn", "relu"), ("relu", "fc")]
    return snapshot(nodes, pairs, (), known)


def test_an_identity_passes_unless_it_could_do_something() -> None:
    full = identity_net()
    assert full.graph is not None
    scene = build_scene(full)
    assert passes(scene) == ["bn", "relu"]
    assert (scene["groups"][0]["ops"], scene["groups"][0]["passes"]) == (2, 2)
    assert "2 Identity modules that pass a tensor on" in scene["groups"][0]["tip"]
    quantized = replace(full, sites=(site("relu", "output"),))
    assert passes(build_scene(quantized)) == ["bn"]
    hooked = identity_net(hooks=(HookRecord("forward", "mine", False),))
    assert passes(build_scene(hooked)) == []
    mine = identity_net(qualified_type="models.Identity")
    assert passes(build_scene(mine)) == []
    # Where nothing feeds it, or nobody uses what it gives, no edge could stand for it.
    for pairs in ([("bn", "relu"), ("relu", "fc")], [("conv", "bn"), ("bn", "relu")]):
        loose = snapshot(full.graph.nodes, pairs, (), full.modules)
        assert len(passes(build_scene(loose))) == 1


def test_identities_do_not_count_where_a_group_is_split() -> None:
    nodes, pairs, known = [call("start", "start", "")], [], []
    for at in range(30):
        nodes += [call(f"c{at}", f"conv{at}", ""), call(f"i{at}", f"id{at}", "")]
        pairs += [(nodes[-3].id, nodes[-2].id), (nodes[-2].id, nodes[-1].id)]
        known.append(module(f"id{at}", "Identity", "torch.nn.modules.linear.Identity"))
    full = snapshot(nodes, pairs, (), known)
    assert [group["id"] for group in build_scene(full)["groups"]] == ["g:"]
    split = build_scene(full, max_children=20)["groups"]
    # A start, 30 convolutions and the last Identity, which nobody uses; the others stay with what
    # is before them.
    assert [group["ops"] for group in split] == [32, 6, 6, 5, 5, 5, 5]
    assert split[1]["children"][-1].startswith("n:i")


def test_a_bare_module_is_named_by_the_float_stage() -> None:
    full = net(3)
    bare = {"type_name": "Module", "qualified_type": "torch.nn.modules.module.Module"}
    traced = replace(
        full,
        modules=tuple(
            replace(one, **bare) if one.type_name == "Block" and "conv" not in one.path else one
            for one in full.modules
        ),
    )
    subs = {group["id"]: group["sub"] for group in build_scene(traced)["groups"]}
    assert subs["g:body.0×3"] == ""
    subs = {group["id"]: group["sub"] for group in build_scene(traced, before=full)["groups"]}
    assert subs["g:body.0×3"] == "Block"


# -- real models -----------------------------------------------------------------------------------

RESNET50 = ["×2 layer1.1–2", "×3 layer2.1–3", "×5 layer3.1–5", "×2 layer4.1–2"]
MOBILENET = ["×2 blocks.2.1–2", "×3 blocks.3.1–3", "×2 blocks.4.1–2", "×2 blocks.5.1–2"]
CONVNEXT = ["×2 blocks.0–1", "×2 blocks.0–1", "×6 blocks.0–5", "×2 blocks.0–1"]
SMALL_VIT = {"img_size": 32, "embed_dim": 12, "num_heads": 3}
TIMM = [
    pytest.param("resnet50", NARROW, RESNET50, id="resnet50"),
    pytest.param("mobilenetv2_100", {}, MOBILENET, id="mobilenetv2", marks=pytest.mark.long),
    pytest.param("convnext_atto", {}, CONVNEXT, id="convnext_atto", marks=pytest.mark.long),
    pytest.param("vit_tiny_patch16_224", SMALL_VIT, ["×12 blocks.0–11"], id="vit_tiny"),
]


@pytest.mark.slow
@pytest.mark.parametrize("flow", ["eager", "fx"])
@pytest.mark.parametrize(("name", "settings", "expected"), TIMM)
def test_timm_models_fold_where_their_authors_repeat(
    name: str, settings: dict[str, Any], expected: list[str], flow: str
) -> None:
    model, x = load_timm(name, batch=2, **settings)
    session = Session(model, (x,), flow=flow)
    for stage in (session.stages[0], "insert"):
        session.goto(stage)
        scene = build_scene(session.snapshot, before=session.snapshots[session.stages[0]])
        assert folds(scene) == expected, stage


@pytest.mark.slow
def test_the_identities_that_fusion_leaves_in_resnet50() -> None:
    model, x = load_timm("resnet50", batch=2, **NARROW)
    session = Session(model, (x,), flow="eager")
    session.goto("insert")
    scene = build_scene(session.snapshot)
    # 53 batch norms became Identities, and 17 activations that followed one of them at once (that
    # of the stem and the first of each of 16 blocks); each block has two Identities of its own.
    assert len(passes(scene)) == 53 + 17 + 2 * 16
    fold = next(group for group in scene["groups"] if group["label"] == "×5 layer3.1–5")
    # Of each block: three convolutions, two activations, the addition.
    assert fold["ops"] == 5 * 6
    assert fold["passes"] == 5 * (3 + 1 + 2)
    assert fold["sub"] == "Bottleneck"


@pytest.mark.slow
def test_a_float_block_of_resnet50_does_not_hide_in_a_fold() -> None:
    model, x = load_timm("resnet50", batch=2, **NARROW)
    session = Session(model, (x,), flow="fx", qconfig={"": "x86", "layer3.3": None})
    session.goto("insert")
    scene = build_scene(session.snapshot)
    assert "×2 layer3.1–2" in folds(scene)
    assert "×2 layer3.4–5" in folds(scene)
    assert not any("3–" in label or "–3" in label for label in folds(scene) if "layer3" in label)


@pytest.mark.slow
def test_the_layers_of_a_transformer_fold() -> None:
    declare_torchvision_operators()
    transformers = pytest.importorskip("transformers", exc_type=ImportError)
    import torch

    settings = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.BertConfig(num_hidden_layers=3, vocab_size=50, **settings)
    model = transformers.BertModel(config).train()
    session = Session(model, (torch.randint(0, 49, (2, 6)),), flow="eager")
    for stage in (session.stages[0], "insert"):
        session.goto(stage)
        assert folds(build_scene(session.snapshot)) == ["×3 layer.0–2"]
