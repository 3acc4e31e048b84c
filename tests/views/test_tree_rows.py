"""Rows of the module tree say what torch did to every module."""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

import qatexplorer as qx
from qatexplorer.snapshot.diff import diff
from qatexplorer.snapshot.records import ModuleRecord, Snapshot
from qatexplorer.views.tree import build_tree
from tests.support.models import NARROW, load_timm
from tests.support.view_snapshots import walk

PAIRS = list(
    zip(
        ("float", "fuse", "propagate", "swap", "insert", "train"),
        ("fuse", "propagate", "swap", "insert", "train", "convert"),
        strict=True,
    )
)


def rows(stage: str, before: str | None = None) -> dict[str, dict[str, Any]]:
    snapshots, _ = walk()
    change = diff(snapshots[before], snapshots[stage]) if before else None
    old = snapshots[before] if before else None
    return {row["id"]: row for row in build_tree(snapshots[stage], change, old)}


@pytest.mark.parametrize(("before", "stage"), PAIRS)
def test_every_module_and_fake_quant_is_one_row_below_its_parent(before: str, stage: str) -> None:
    snapshots, _ = walk()
    snapshot = snapshots[stage]
    built = build_tree(snapshot, diff(snapshots[before], snapshot), snapshots[before])
    json.dumps(built)
    assert len({row["id"] for row in built}) == len(built)
    assert {row["parent"] for row in built[1:]} <= {row["id"] for row in built}
    depths = {row["id"]: row["depth"] for row in built}
    assert all(depths[r["id"]] == depths[r["parent"]] + 1 for r in built if r["parent"])
    built = [row for row in built if row["kind"] != "fold"]
    present = {row["path"] for row in built if "gone" not in row["what"]}
    assert present == {m.path for m in snapshot.modules}
    assert {r["path"] for r in built if r["kind"] == "site" and "gone" not in r["what"]} == {
        s.path for s in snapshot.sites
    }
    gone = {row["path"] for row in built if "gone" in row["what"]}
    assert gone <= {m.path for m in snapshots[before].modules}
    assert not gone & present


def test_without_a_stage_before_nothing_is_marked() -> None:
    assert not any(row["changed"] for row in rows("insert").values())


def test_fuse_and_swap_show_the_types_before_and_after() -> None:
    fused = rows("fuse", "float")["module:blocks.0.conv"]
    assert (fused["before"], fused["type"], fused["what"]) == ("Conv2d", "ConvBnReLU2d", ["type"])
    assert rows("fuse", "float")["module:blocks.0.bn"]["type"] == "Identity"
    swapped = rows("swap", "propagate")["module:fc"]
    assert (swapped["before"], swapped["type"]) == ("Linear", "qat.Linear")
    assert swapped["what"] == ["type", "fake quant"]
    assert swapped["marks"] == [1, 0, 0]
    converted = rows("convert", "train")["module:blocks.1.conv"]
    assert (converted["before"], converted["type"]) == (
        "qat.ConvBnReLU2d",
        "quantized.ConvReLU2d",
    )
    assert converted["int8"]


def test_float_functional_is_float_until_convert() -> None:
    before = rows("insert")["module:blocks.0.add"]
    assert (before["type"], before["int8"], before["float"]) == ("FloatFunctional", False, False)
    assert rows("convert")["module:blocks.0.add"]["int8"]


def test_propagate_gives_badges_but_not_where_the_qconfig_is_none() -> None:
    table = rows("propagate", "fuse")
    assert table["module:fc"]["qconfig"] == "int8 pc"
    assert "per_channel_symmetric" in table["module:fc"]["qconfig_title"]
    assert table["module:fc"]["what"] == ["qconfig"]
    assert table["module:norm"]["qconfig"] == ""
    assert not table["module:norm"]["changed"]


def test_marks_are_summed_up_to_the_root() -> None:
    snapshots, _ = walk()
    root = rows("insert")["module:"]
    kinds = [s.kind for s in snapshots["insert"].sites]
    assert root["below"] == [kinds.count(k) for k in ("weight", "input", "output")]
    assert root["marks"] == [0, 0, 0]
    changed = rows("insert", "swap")
    assert changed["module:"]["changed_below"] == sum(
        r["changed"] for r in changed.values() if r["id"] != "module:"
    )


def test_what_stays_float() -> None:
    def floats(stage: str) -> set[str]:
        return {row["path"] for row in rows(stage).values() if row["float"]}

    assert floats("swap") == set()
    assert floats("insert") == {"norm"}  # not pool, not Identity, not the batch norm inside a conv
    assert floats("convert") == {"norm"}


def test_what_did_not_run() -> None:
    assert {r["path"] for r in rows("float").values() if r["not_run"]} == {"spare"}
    insert = rows("insert")
    assert insert["site:spare.weight_fake_quant"]["not_run"]
    assert not insert["site:fc.weight_fake_quant"]["not_run"]


def test_training_moves_the_ranges_and_convert_takes_the_fake_quants_away() -> None:
    assert rows("train", "insert")["site:fc.weight_fake_quant"]["what"] == ["qparams"]
    gone = rows("convert", "train")["site:fc.weight_fake_quant"]
    assert gone["what"] == ["gone"]
    assert gone["parent"] == "module:fc"


def test_the_same_object_under_two_names() -> None:
    snapshots, _ = walk()
    modules = [
        replace(m, identity=2) if m.path in ("stem", "fc") else replace(m, identity=10 + i)
        for i, m in enumerate(snapshots["float"].modules)
    ]
    table = {r["path"]: r for r in build_tree(replace(snapshots["float"], modules=tuple(modules)))}
    assert table["fc"]["shared"] == "stem"
    assert table["stem"]["shared"] is None


def test_a_wrapper_around_the_model_does_not_make_all_of_it_new() -> None:
    snapshots, _ = walk()
    old = snapshots["float"]

    def moved(m: ModuleRecord) -> ModuleRecord:
        def move(path: str) -> str:
            return f"module.{path}" if path else "module"

        parent = "" if m.path == "" else move(m.parent or "")
        return replace(
            m,
            path=move(m.path),
            origin=m.path,
            parent=parent,
            children=tuple(move(c) for c in m.children),
        )

    wrapper = ModuleRecord("", "QuantWrapper", "torch.QuantWrapper", "", None, ("module",))
    new = replace(old, stage="fuse", modules=(wrapper, *(moved(m) for m in old.modules)))
    table = {r["path"]: r for r in build_tree(new, diff(old, new))}
    assert table["module.stem"]["what"] == []
    assert table["module.blocks.0.conv"]["depth"] == 4


def test_a_deep_and_a_large_model() -> None:
    deep = [
        ModuleRecord(".".join("a" * i), "M", "x.M", "", None if i == 0 else ".".join("a" * (i - 1)),
                     (".".join("a" * (i + 1)),) if i < 2999 else ())
        for i in range(3000)
    ]  # fmt: skip
    assert build_tree(Snapshot("eager", "float", tuple(deep), (), None))[-1]["depth"] == 2999


# -- fake quants under what they quantize ----------------------------------------------------------


@functools.cache
def session_at(model: str, flow: str, stage: str) -> qx.Session:
    if model.startswith("digits"):
        example = qx.zoo.load(model)
        session = qx.Session(example.model, example.example_inputs, flow=flow)
    else:
        net, x = load_timm(model, **NARROW)
        session = qx.Session(net, x, flow=flow, stubs="none" if flow == "fx" else "layers")
    session.warns = False
    session.goto(stage)
    return session


def tree(session: qx.Session) -> dict[str, dict[str, Any]]:
    change = session.diff
    before = session.snapshots[change.before] if change is not None else None
    return {row["id"]: row for row in build_tree(session.snapshot, change, before)}


def test_in_fx_a_fake_quant_stands_under_the_module_whose_output_it_rounds() -> None:
    session = session_at("resnet18", "fx", "insert")
    rows_by_id = tree(session)
    assert not [
        row["id"]
        for row in rows_by_id.values()
        if row["parent"] == "module:" and row["kind"] == "site" and row["name"] != "input x"
    ]
    site = next(row for row in rows_by_id.values() if row["name"] == "output of layer1.0.conv1")
    assert site["parent"] == "module:layer1.0.conv1"
    assert site["id"] == "site:activation_post_process_3"
    assert site["torch_name"] == "activation_post_process_3"
    assert site["site"] == "output"


def test_every_fake_quant_of_fx_is_named_after_the_node_that_torch_gives_it() -> None:
    """Read off torch's own graph: each fake quant's input, and the module that node is in."""
    session = session_at("resnet18", "fx", "insert")
    rows_by_id, graph = tree(session), session.model.graph
    quants = {row["path"] for row in rows_by_id.values() if row["kind"] == "site"}
    checked = 0
    for node in graph.nodes:
        if node.op != "call_module" or str(node.target) not in quants:
            continue
        (source,) = node.all_input_nodes
        row = rows_by_id[f"site:{node.target}"]
        if source.op == "call_module":
            assert row["name"] == f"output of {source.target}"
            assert row["parent"] == f"module:{source.target}" or row["parent"].startswith("fold:")
        elif source.op == "placeholder":
            assert (row["name"], row["parent"]) == (f"input {source.name}", "module:")
        else:
            name = getattr(source.target, "__name__", source.target)
            assert row["name"] == f"output of {name}"
        checked += 1
    assert checked == sum("." not in path for path in quants) > 50


class Adds(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = Inner()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.block(x), x.flatten(1)], 1)


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x) + x


def test_the_result_of_an_operation_stands_under_the_module_whose_forward_makes_it() -> None:
    session = qx.Session(Adds().train(), torch.randn(3, 6), flow="fx")
    session.goto("insert")
    by_name: dict[str, list[dict[str, Any]]] = {}
    for row in tree(session).values():
        by_name.setdefault(row["name"], []).append(row)
    (add,) = by_name["output of add"]
    assert add["parent"] == "module:block"
    assert add["source"].startswith("test_tree_rows.py:")
    (cat,) = by_name["output of cat"]
    assert cat["parent"] == "module:"
    # cat and what goes into it share one fake quant, and each of its rows says so.
    assert {"output of cat", "output of add"} <= set(cat["shares"])
    assert {"output of cat", "output of add"} <= set(add["shares"])


@pytest.mark.parametrize("flow", ["eager", "fx"])
def test_a_shared_fake_quant_has_a_row_for_each_tensor(flow: str) -> None:
    session = session_at("digits_cnn", flow, "insert")
    rows_by_id = tree(session)
    for site in session.snapshot.sites:
        for path in (site.path, *site.aliases):
            row = rows_by_id[f"site:{path}"]
            names = len(site.nodes) if len(site.nodes) > 1 else 0
            assert len(row["shares"]) == names
            assert row["name"] in (row["shares"] or [row["name"]])


@pytest.mark.parametrize("model", ["digits_cnn", "resnet18"])
@pytest.mark.parametrize("flow", ["eager", "fx"])
def test_gone_fake_quants_stand_where_they_stood(model: str, flow: str) -> None:
    session = session_at(model, flow, "convert")
    change = session.diff
    assert change is not None
    before = session_at(model, flow, "convert").snapshots[change.before]
    gone = [r for r in tree(session).values() if "gone" in r["what"] and r["kind"] == "site"]
    names = [path for site in before.sites for path in (site.path, *site.aliases)]
    assert sorted(row["path"] for row in gone) == sorted(names)
    earlier = {row["path"]: row for row in build_tree(before)}
    for row in gone:
        assert row["name"] == earlier[row["path"]]["name"]


def test_names_of_weights_and_inputs_in_eager_mode() -> None:
    rows_by_id = tree(session_at("digits_cnn", "eager", "insert"))
    weight = rows_by_id["site:conv1.weight_fake_quant"]
    assert (weight["name"], weight["parent"]) == ("weight of conv1", "module:conv1")
    assert weight["torch_name"] == "weight_fake_quant"
    assert rows_by_id["site:quant.activation_post_process"]["name"] == "input at quant"
    output = rows_by_id["site:conv1.activation_post_process"]
    assert output["name"] == "output of conv1"


@pytest.mark.parametrize("flow", ["eager", "fx"])
def test_a_tooltip_tells_no_scale_before_there_is_one(flow: str) -> None:
    for row in tree(session_at("digits_cnn", flow, "insert")).values():
        if row["kind"] == "site":
            assert "has seen no data yet" in row["title"]
            assert "scale" not in row["title"].splitlines()[-1]


# -- states ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("flow", ["eager", "fx"])
def test_a_container_of_int8_layers_is_int8_and_has_run(flow: str) -> None:
    rows_by_id = tree(session_at("resnet18", flow, "insert"))
    for path in ("", "layer1", "layer1.0", "layer2.0.downsample"):
        row = rows_by_id[f"module:{path}"]
        assert (row["state_text"], row["not_run"], row["float"]) == ("int8", False, False), path
        assert "prepared for int8" in row["state_title"]


def test_a_container_of_both_says_how_many() -> None:
    class Some(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stack = nn.Sequential(
                nn.Linear(6, 6), nn.LayerNorm(6), nn.Linear(6, 6), nn.LayerNorm(6), nn.Linear(6, 6)
            )
            self.floats = nn.Sequential(nn.LayerNorm(6), nn.SiLU())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.floats(self.stack(x))

    model = Some().train()
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.qconfig = None
    session = qx.Session(model, torch.randn(3, 6), stubs="layers")
    session.goto("insert")
    rows_by_id = tree(session)
    assert rows_by_id["module:stack"]["state_text"] == "mixed: 3 of 5 int8"
    assert rows_by_id["module:"]["state_text"] == "mixed: 3 of 6 int8"
    assert rows_by_id["module:floats"]["state_text"] == "float"
    session.goto("convert")
    assert tree(session)["module:stack"]["state_text"] == "mixed: 3 of 5 int8"


# -- what does nothing -----------------------------------------------------------------------------


def test_identities_that_fusion_leaves_are_quiet_and_together() -> None:
    session = session_at("resnet18", "eager", "insert")
    rows_by_id = tree(session)
    bn = rows_by_id["module:layer1.0.bn1"]
    fold = rows_by_id[bn["parent"]]
    assert (bn["quiet"], fold["quiet"], fold["kind"]) == (True, True, "fold")
    assert (fold["name"], fold["parent"]) == ("4 × Identity", "module:layer1.0")
    assert fold["type"] == "bn1, drop_block, aa, bn2"
    # At the stage that made them they are the news, and stand in their places.
    session.goto("fuse")
    row = tree(session)["module:layer1.0.bn1"]
    assert (row["parent"], row["before"]) == ("module:layer1.0", "BatchNorm2d")
    session.goto("insert")


def test_a_module_with_a_rule_of_its_own_says_so() -> None:
    snapshots, _ = walk()
    said = ("4 bits", "Rule for fc: weight 4 bits")
    rows = {row["path"]: row for row in build_tree(snapshots["float"], rules={"fc": said})}
    assert (rows["fc"]["rule"], rows["fc"]["rule_title"]) == said
    assert [path for path, row in rows.items() if row["rule"]] == ["fc"]
