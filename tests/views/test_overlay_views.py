"""Which number each box has, and what two graphs have of each other."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from torch import nn

import qatexplorer as qx
from qatexplorer.migration.pairs import paired
from qatexplorer.views.graph.compare import Comparison, Side, compared_picture, not_there
from qatexplorer.views.graph.overlays import overlay_picture
from qatexplorer.views.graph.scene import build_scene
from tests.support.graph_models import call, chain_edges, function, residual_net, site, snapshot
from tests.support.models import ConvBnRelu, image


def picture(overlay: qx.Overlay, shot: qx.Snapshot | None = None) -> dict[str, Any]:
    scene = build_scene(shot or residual_net(2, 2, 2))
    made = overlay_picture(overlay, scene)
    return json.loads(json.dumps(made, allow_nan=False))  # type: ignore[no-any-return]


def test_a_node_has_the_number_of_its_module_or_of_itself() -> None:
    made = picture(qx.Overlay.of({"stage0.0.conv0": 2.5, "s0_0_add": 1.0}, "mine", "ms"))
    assert made["values"]["n:s0_0_conv0"] == 2.5
    assert made["texts"]["n:s0_0_conv0"] == "2.5 ms"
    assert made["values"]["n:s0_0_add"] == 1.0
    assert "n:s0_0_conv1" not in made["values"]  # not known is not 0
    assert (made["low"], made["high"]) == (1.0, 2.5)


@pytest.mark.parametrize(
    ("high_is", "expected", "words"),
    [("bad", 0.3, "highest inside"), ("good", 0.1, "lowest inside"), ("", 0.3, "highest inside")],
)
def test_fake_quants_give_their_node_and_groups_the_worst(
    high_is: Any, expected: float, words: str
) -> None:
    conv = "stage0.0.conv0"
    overlay = qx.Overlay.of(
        {f"{conv}.weight_fake_quant": 0.1, f"{conv}.activation_post_process": 0.3},
        "clip", "share", high_is,
    )  # fmt: skip
    made = picture(overlay)
    for item in ("n:s0_0_conv0", "g:stage0.0", "g:stage0", "g:"):
        assert made["values"][item] == expected
        assert made["texts"][item].endswith(f"({words})")
    assert made["sites"] == {
        f"{conv}.weight_fake_quant": "10 %", f"{conv}.activation_post_process": "30 %"
    }  # fmt: skip
    assert (made["low"], made["high"]) == (0.0, 0.3)
    assert "g:stage1" not in made["values"]


def test_sums_are_summed_and_said_as_a_share_of_the_model() -> None:
    overlay = qx.Overlay.of(
        {"": 100.0, "stage0.0.conv0": 10.0, "stage0.0.conv1": 30.0}, "MACs", "MACs", groups="sum"
    )
    made = picture(overlay)
    assert made["values"]["g:stage0.0"] == 40.0
    assert made["texts"]["g:stage0.0"] == "40 MACs, 40 % of the model (sum of what is inside)"
    assert made["texts"]["g:"] == "100 MACs, 100 % of the model"


def test_numbers_of_what_a_node_hides_are_taken_together() -> None:
    made = picture(qx.Overlay.of({"stage0.0.conv0.inner": 3.0, "stage0.0.conv0.b.c": 4.0}))
    assert made["values"]["n:s0_0_conv0"] == 4.0


def test_infinity_stands_at_the_end_of_the_scale_and_is_said() -> None:
    overlay = qx.Overlay.of({"stage0.0.conv0": 20.0, "stage0.0.conv1": math.inf}, unit="dB")
    made = picture(overlay)
    assert made["values"]["n:s0_0_conv1"] == 20.0
    assert made["texts"]["n:s0_0_conv1"] == "∞ dB"


def test_nothing_known_is_an_empty_picture_with_its_reason() -> None:
    session = qx.Session(ConvBnRelu().train(), image())
    made = picture(session.overlay("sqnr"), session.snapshot)
    assert (made["values"], made["texts"], made["sites"]) == ({}, {}, {})
    assert "no fake quants" in made["note"]


def test_categories_of_groups_are_those_inside_or_mixed() -> None:
    session = qx.Session(ConvBnRelu().train(), image())
    session.goto(session.flow.prepared_stage)
    made = picture(session.overlay("precision"), session.snapshot)
    assert made["categories"] == ["float", "int8", "mixed"]
    assert made["texts"]["n:conv1"] == "int8"
    own = qx.Overlay.of({"stage0.0.conv0": "cpu", "stage0.0.conv1": "gpu"})
    assert "g:stage0.0" not in picture(own)["values"]


# -- side by side ---------------------------------------------------------------------------------


def side(shot: qx.Snapshot, title: str) -> Side:
    return Side(shot, build_scene(shot), title)


def two_stages(role: str = "inserted", flow: str = "eager") -> tuple[Comparison, Any]:
    session = qx.Session(ConvBnRelu().train(), image(), flow=flow)
    found = session.flow.stage_with(role)  # type: ignore[arg-type]
    assert found is not None
    session.goto(found.name)
    first = session.snapshots[session.stages[0]]
    return Comparison(side(first, "Float"), side(session.snapshot, found.title)), session


def test_what_only_one_stage_has_is_found_and_said() -> None:
    comparison, session = two_stages()
    items, sites = comparison.only(right=True)
    assert set(sites) == {s.path for s in session.snapshot.sites}
    assert items == []
    # Identities stand where batch norm and ReLU stood: no box any more.
    assert {"n:bn1", "n:relu1"} <= set(comparison.only(right=False)[0])
    assert not {"n:conv1", "n:fc"} & set(comparison.only(right=False)[0])
    made = compared_picture(comparison, right=True)
    assert made["sign"] == "+"
    assert made["lacks"] == "only here, not at Float"
    left = compared_picture(comparison, right=False)
    assert left["sign"] == "−"
    assert left["lacks"].startswith("only here, gone or an Identity at")


def test_what_fx_fuses_away_is_marked_on_the_left() -> None:
    comparison, _ = two_stages("fused", "fx")
    items, _sites = comparison.only(right=False)
    paths = {n["id"]: n["path"] for n in comparison.left.scene["nodes"]}
    gone = {paths[item] for item in items}
    assert "bn1" in gone
    assert "conv1" not in gone
    assert comparison.only(right=True)[0] == []


def test_functions_are_told_apart_by_name_place_and_turn() -> None:
    nodes = [call("a", "b.a", "b"), function("add", "b"), call("c", "b.c", "b")]
    nodes += [function("add_1", "b"), function("mul", "", "torch.mul")]
    before = snapshot(nodes, chain_edges(nodes), stage="float")
    kept = [nodes[0], nodes[1], nodes[2], nodes[4]]
    after = snapshot(kept, chain_edges(kept), stage="fuse")
    comparison = Comparison(side(before, "one"), side(after, "two"))
    assert comparison.only(right=False) == (["n:add_1"], [])
    assert comparison.counterpart("node:add", right=False) == "node:add"
    assert comparison.counterpart("node:add_1", right=False) == ""
    assert comparison.counterpart("edge:a:add", right=False) == "edge:a:add"
    assert comparison.counterpart("edge:c:add_1", right=False) == ""


def test_a_selection_finds_its_counterpart_under_a_wrapper_and_back() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()).train()
    session = qx.Session(model, image(), stubs="model")
    session.goto(session.flow.prepared_stage)
    first = session.snapshots[session.stages[0]]
    comparison = Comparison(side(first, "Float"), side(session.snapshot, "Insert"))
    assert comparison.counterpart("module:0", right=False) == "module:module.0"
    assert comparison.counterpart("module:module.0", right=True) == "module:0"
    assert comparison.counterpart("site:module.0.weight_fake_quant", right=True) == ""
    assert (
        not_there("site:module.0.weight_fake_quant", comparison.left)
        == "module.0.weight_fake_quant is not at Float"
    )
    swapped = next(s for s in session.stages if session.snapshots[s].sites)
    stages = Comparison(side(session.snapshots[swapped], "a"), side(session.snapshot, "b"))
    same = "site:module.0.weight_fake_quant"
    assert stages.counterpart(same, right=False) == same


def test_fake_quants_of_two_flows_are_paired_by_the_tensor_they_round() -> None:
    torch.manual_seed(0)
    session = qx.Session(ConvBnRelu().train(), image())
    session.goto(session.flow.prepared_stage)
    other = session.in_other_flow()
    sites = paired(session, other)
    comparison = Comparison(side(session.snapshot, "eager"), side(other.snapshot, "FX"), sites)
    pairs = dict(sites)
    assert len(pairs) > 3
    for left, right in pairs.items():
        assert comparison.counterpart(f"site:{left}", right=False) == f"site:{right}"
    back = comparison.counterpart(f"site:{right}", right=True)
    assert pairs[back.removeprefix("site:")] == right
    only = set(comparison.only(right=False)[1])
    assert only.isdisjoint(pairs)
    assert {s.path for s in session.snapshot.sites} - only >= set(pairs)
    assert comparison.counterpart("module:conv2", right=False) == "module:conv2"


def test_a_module_that_is_called_twice_is_no_other_module() -> None:
    nodes = [call("r1", "relu", ""), call("r2", "relu", "")]
    shot = snapshot(nodes, chain_edges(nodes), [site("relu", "output")])
    comparison = Comparison(side(shot, "a"), side(shot, "b"))
    assert comparison.only(right=False) == ([], [])
