"""What is shown of the PT2E flow: annotations, whose an operation is, what is left over."""

from __future__ import annotations

import re
from typing import Any

import pytest

from qatexplorer.flows.annotations import Spec
from qatexplorer.flows.pt2e import Pt2eFlow
from qatexplorer.snapshot.exported import fused_norms, left_over
from qatexplorer.views.annotations.groups import groups_of
from qatexplorer.views.annotations.overlay import NO_PATTERN, group_overlay, pattern_overlay
from qatexplorer.views.annotations.page import below_html, summary_html
from qatexplorer.views.annotations.tables import COLUMNS, annotation_rows
from qatexplorer.views.annotations.words import spec_words
from qatexplorer.views.common.names import TensorNames, shape_text
from qatexplorer.views.common.news import news_of
from qatexplorer.views.graph.overlays import overlay_picture
from qatexplorer.views.graph.scene import build_scene
from qatexplorer.views.inspector.page import inspect_html
from tests.support.annotated import Plain, normed, plain, quantizer_of, session_of
from tests.support.html_checker import Checker

NOT_HERE = ("FX graph", "qconfig", "QuantStub", "prepare_qat_fx", "swapped", "None", "-1")


def page(session: Any, stage: str, selection: str) -> Checker:
    return Checker(inspect_html(session.snapshots, stage, selection))


def row_of(session: Any, name: str) -> dict[str, Any]:
    return next(row for row in annotation_rows(session.snapshots) if row["cells"][0] == name)


def test_patterns_and_specs_of_each_operation() -> None:
    rows = annotation_rows(plain().snapshots)
    assert all(len(row["cells"]) == len(row["sort"]) == len(COLUMNS) for row in rows)
    conv = row_of(plain(), "conv")
    assert conv["cells"][2] == "conv2d_unary"
    assert conv["sel"] == "module:conv"
    assert "taken" in conv["flags"]
    assert "the model's input x: uint8 0..255" in conv["cells"][3]
    assert "parameter conv.weight: int8 −128..127, per channel" in conv["cells"][3]
    assert "per channel along axis 0" in conv["tips"]["3"]
    tanh = row_of(plain(), "tanh")
    assert tanh["cells"][2] == "none"
    assert tanh["flags"] == ["none"]
    assert tanh["sel"].startswith("node:")


def test_what_no_pattern_took_is_counted_and_none_at_all_is_loud() -> None:
    words = Checker(summary_html(plain().snapshots, "X86Inductor")).text
    rows = annotation_rows(plain().snapshots)
    none = sum("none" in row["flags"] for row in rows)
    assert re.search(rf"took {len(rows) - none} of {len(rows)} operations; {none} stay", words)
    session = session_of(Plain(), stage="annotate", quantizer=quantizer_of(lambda model: None))
    html = summary_html(session.snapshots, "Own")
    assert 'role="alert"' in html
    assert "NO PATTERN OF THE QUANTIZER TOOK ANY" in html
    assert "Own.annotate() wrote nothing" in html
    assert "NO PATTERN" in news_of(Pt2eFlow.stages, session.snapshots)["annotate"]
    assert not session.snapshot.annotations


def test_sharing_groups_have_a_number_and_who_made_them() -> None:
    snapshot = plain().snapshots["annotate"]
    groups = groups_of(snapshot)
    assert [group.number for group in groups] == [1]
    assert any("max_pool2d" in place for place, _ in groups[0].made_by)
    assert row_of(plain(), "pool")["cells"][5] == "group 1"
    text = Checker(below_html(plain().snapshots, plain().snapshots["insert"])).text
    assert re.search(r"Group 1\s*:\s*output of relu.*output of pool", text)
    assert "shares that of" in text


@pytest.mark.parametrize("make", [pattern_overlay, group_overlay])
def test_colours_are_there_at_every_stage(make: Any) -> None:
    session = plain()
    overlay = make(session.snapshots).checked(session.snapshots.values())
    at = {
        stage: overlay_picture(overlay, build_scene(session.snapshots[stage]))["texts"]
        for stage in ("annotate", "insert", "lower")
    }
    word = "group 1" if make is group_overlay else "conv2d"
    pool = "n:" + next(n.id for n in session.snapshots["insert"].graph.nodes if n.path == "pool")
    conv = "n:" + next(n.id for n in session.snapshots["insert"].graph.nodes if n.path == "last")
    chosen = pool if make is group_overlay else conv
    assert at["annotate"][chosen] == at["insert"][chosen] == word
    assert word in at["lower"].values()
    if make is pattern_overlay:
        assert NO_PATTERN in overlay.categories


def test_a_spec_in_words() -> None:
    derived = Spec("derived", "torch.int32", qscheme="torch.per_tensor_symmetric", of=("a", "b"))
    assert "scale and zero point computed of a and b" in spec_words(derived)
    fixed = Spec("fixed", "torch.uint8", 0, 255)
    assert spec_words(fixed) == "uint8 0..255, scale and zero point fixed by the operation"
    assert "shares the fake quant of a → b" in spec_words(Spec("shared", of=("a → b",)))


@pytest.mark.parametrize("stage", [stage.name for stage in Pt2eFlow.stages[1:]])
def test_every_page_of_every_stage_is_in_the_words_of_this_flow(stage: str) -> None:
    session = plain()
    snapshot = session.snapshots[stage]
    selections = [f"module:{m.path}" for m in snapshot.modules]
    selections += [f"site:{s.path}" for s in snapshot.sites]
    selections += [f"node:{n.id}" for n in snapshot.graph.nodes]
    selections += [f"edge:{e.source}:{e.target}" for e in snapshot.graph.edges]
    for selection in selections:
        text = page(session, stage, selection).text
        assert not [word for word in NOT_HERE if word in text], (selection, text)
        assert not re.search("There is no|same object as", text), selection


def test_the_mode_of_an_operation_is_that_of_its_arguments() -> None:
    assert "modetrains" in page(plain(), "insert", "node:dropout").text
    assert "trains (an argument of its operation)" in page(plain(), "insert", "module:drop").text
    assert "evaluates" in page(plain(), "convert", "module:drop").text
    assert "modetrains" in page(normed(), "insert", "module:bn1").text


def test_a_weight_is_that_of_the_users_layer() -> None:
    snapshot = plain().snapshots["insert"]
    weight = next(s for s in snapshot.sites if s.kind == "weight" and s.owner == "conv")
    assert TensorNames(snapshot).of(weight.path).text == "weight of conv"
    assert not weight.nodes
    scene = build_scene(snapshot)
    conv = next(node for node in scene["nodes"] if node["path"] == "conv")
    assert {"site": weight.path, "role": "side"} in conv["marks"]
    edge = next(e for e in snapshot.graph.edges if e.source == conv["id"][2:])
    assert (
        "No fake quant on this tensor"
        in page(plain(), "insert", f"edge:{edge.source}:{edge.target}").text
    )
    assert (
        "the weight of conv goes through it" in page(plain(), "insert", f"site:{weight.path}").text
    )


def test_what_fuse_built_is_named_by_the_users_modules() -> None:
    session = normed()
    pairs = fused_norms(session.snapshots["fuse"].graph)
    assert [(p.conv.path, p.norm.path) for p in pairs] == [("conv1", "bn1"), ("block.0", "block.1")]
    assert not any(pair.between for pair in fused_norms(session.snapshots["annotate"].graph))
    scopes = {node.id: node.scope for node in session.snapshots["fuse"].graph.nodes}
    assert {scopes[id] for id in pairs[0].between} == {""}
    assert {scopes[id] for id in pairs[1].between} == {"block"}  # not torn out of it
    change = session.diff_at("fuse")
    assert len(change.nodes_added) == 3
    assert "3 operations added" in change.summary()
    assert set(change.nodes_added) == {id for pair in pairs for id in pair.between}
    news = news_of(Pt2eFlow.stages, session.snapshots)
    assert "conv1 with bn1, block.0 with block.1" in news["fuse"]
    between = page(session, "fuse", f"node:{pairs[0].between[0]}").text
    assert "Put there by _fuse_conv_bn_qat" in between
    assert "conv1" in between
    assert "unknown" in between  # its shape is none of this model's
    assert "running variance" in page(session, "insert", "module:conv1").text
    below = Checker(below_html(session.snapshots, session.snapshot)).text
    assert "conv1 with bn1" in below
    assert sorted(len(pair.between) for pair in pairs) == [1, 2]
    assert re.search(r"div\s* put between the two scales the result back", below)
    assert re.search(r"div, add\s* put between the two scale the result back", below)


def test_what_lowering_left_over_is_listed() -> None:
    session = plain()
    lowered = session.snapshots["lower"]
    found = left_over(lowered.graph, lowered.int8_nodes)
    takers = {id for one in found for id in one.takers}
    modules = {node.path or node.scope for node in lowered.graph.nodes if node.id in takers}
    assert "pool" in modules  # between two int8 convolutions
    html = below_html(session.snapshots, lowered)
    assert "float islands" in html
    assert all(f'data-select="node:{one.node}"' in html for one in found)
    assert "float islands" not in below_html(session.snapshots, session.snapshots["insert"])
    news = news_of(Pt2eFlow.stages, session.snapshots)["lower"]
    assert f"{len(found)} dequantizes are left over" in news
    assert "int8 for 3 of 4 layers; wide stays float" in news


def test_a_model_of_which_one_operation_shares_is_no_group() -> None:
    snapshots = plain().snapshots
    texts = overlay_picture(group_overlay(snapshots), build_scene(snapshots["insert"]))["texts"]
    assert "g:" not in texts
    assert "group 1" in texts.values()


def test_what_is_said_before_lowering_is_what_lowering_does() -> None:
    before, after = plain().snapshots["insert"], plain().snapshots["lower"]
    # The int8 model does without dropouts, and lowering leaves a copy in their place.
    lowered = {node.path for node in after.graph.nodes if node.path not in ("", "drop")}
    states = {m.path: m.state for m in before.modules if m.path in lowered}
    assert states == {path: after.by_path[path].state for path in states}
    assert {path for path, state in states.items() if state == "int8"} == {"conv", "last", "fc"}
    # The int8 convolution computes it along the way, so that it is no operation of its own.
    assert "relu" not in lowered
    assert before.by_path["relu"].state == "int8"
    assert "more than two dimensions" in page(plain(), "insert", "module:wide").text
    drawn = {n["path"]: n["precision"] for n in build_scene(after)["nodes"] if n["path"]}
    assert drawn["conv"] == "int8"
    assert drawn["wide"] == "float"


def test_a_batch_of_any_size_is_said_so() -> None:
    assert shape_text((-1, 3, 8, 8)) == "any × 3 × 8 × 8"
    nodes = build_scene(plain().snapshots["insert"])["nodes"]
    assert any("any×8×8×8" in node["sub"] for node in nodes)
