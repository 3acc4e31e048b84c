"""Rows of the module tree say what torch did to every module."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from qatexplorer.snapshot.diff import diff
from qatexplorer.snapshot.records import ModuleRecord, Snapshot
from qatexplorer.views.tree import build_tree
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
