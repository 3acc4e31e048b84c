"""The inspector's page: what it says is what torch did, and it is well-formed and escaped."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from qatexplorer.snapshot.records import Snapshot
from qatexplorer.views.common.html import Html, tag, text
from qatexplorer.views.common.names import number, qconfig_badge, share
from qatexplorer.views.inspector.page import inspect_html
from tests.support.html_checker import Checker
from tests.support.view_snapshots import walk


def page(stage: str, selection: str, snapshots: dict[str, Snapshot] | None = None) -> Checker:
    return Checker(inspect_html(snapshots or walk()[0], stage, selection))


@pytest.mark.parametrize(
    "stage", ["float", "fuse", "propagate", "swap", "insert", "train", "convert"]
)
def test_every_selection_of_every_stage_has_a_page_whose_links_lead_on(stage: str) -> None:
    snapshots, _ = walk()
    snapshot = snapshots[stage]
    assert snapshot.graph is not None
    selections = [
        f"module:{m.path}" for m in snapshot.modules if m.path not in snapshot.site_by_path
    ]
    selections += [f"site:{s.path}" for s in snapshot.sites]
    selections += [f"node:{n.id}" for n in snapshot.graph.nodes]
    selections += [f"edge:{e.source}:{e.target}" for e in snapshot.graph.edges]
    links: set[str] = set()
    for selection in selections:
        found = page(stage, selection)
        assert "There is no" not in found.text, selection
        assert found.text.count("None") == 0, (selection, found.text)
        links |= set(found.selections)
    assert links <= set(selections)


def test_two_observers_is_answered_by_counting() -> None:
    found = page("train", "module:stem")
    # Two fake quants for two tensors, four modules by name, two of which run: the wording is held
    # by tests/wording, the numbers are this net's.
    assert re.search(
        r"two fake quants .one for the weight, one for the output.; four modules.* two of them",
        found.text,
    )
    assert found.text.count("1 ×") == found.text.count("(fused kernel)") == 2
    assert {"site:stem.weight_fake_quant", "site:stem.activation_post_process"} <= set(
        found.selections
    )
    one = page("swap", "module:stem").text
    assert re.search(r"one fake quant .one for the weight.*two modules", one)
    assert "(fused kernel)" not in page("float", "module:stem").text


def test_module_tells_its_types_and_who_made_them() -> None:
    found = page("convert", "module:blocks.0.conv").text
    for name in ("Conv2d", "ConvBnReLU2d", "qat.ConvBnReLU2d", "quantized.ConvReLU2d"):
        assert name in found
    assert "quantized.ConvReLU2d since stage “convert”, put there by convert" in found
    swap = page("swap", "module:fc").text
    assert "qat.Linear since stage “swap”, put there by convert(model, mapping=" in swap


def test_site_tells_grid_stage_and_mechanism() -> None:
    site = walk()[0]["train"].site_by_path["fc.activation_post_process"]
    found = page("train", "site:fc.activation_post_process").text
    assert "in stage “insert” by prepare" in found
    assert "0 .. 255 (256 levels)" in found
    assert "per_tensor_affine" in found
    assert number(site.scale[0], 6) in found
    assert "A forward hook on fc" in found
    weight = page("train", "site:fc.weight_fake_quant").text
    assert "in stage “swap” by convert" in weight
    assert "axis 0, 10 channels" in weight
    assert "median" in weight
    assert "−128 .. 127" in weight
    assert "has seen no data" in page("insert", "site:fc.weight_fake_quant").text
    assert "QuantStub" in page("train", "site:quant.activation_post_process").text
    unused = page("train", "site:spare.weight_fake_quant").text
    assert "did not run" in unused


def test_what_is_gone_is_shown_as_it_was_last() -> None:
    found = page("convert", "site:fc.weight_fake_quant").text
    assert found.index("“convert”") < found.index("“train”") < found.index("fc.weight_fake_quant")
    early = page("float", "site:fc.weight_fake_quant").text
    assert early.index("“float”") < early.index("“swap”") < early.index("fc.weight_fake_quant")


def test_edge_names_its_fake_quant_and_all_consumers() -> None:
    found = page("insert", "edge:stem:blocks_0_conv")
    assert "4 × 8 × 14 × 14" in found.text
    assert "module:blocks.0.add" in found.selections
    assert "site:stem.activation_post_process" in found.selections
    before = page("swap", "edge:stem:blocks_0_conv").selections
    assert not [selection for selection in before if selection.startswith("site:")]


def test_a_hook_that_is_registered_twice_is_reported() -> None:
    snapshots = dict(walk()[0])
    train = snapshots["train"]
    stem = train.module("stem")
    twice = replace(stem, hooks=stem.hooks * 2)
    modules = tuple(twice if m is stem else m for m in train.modules)
    snapshots["train"] = replace(train, modules=modules)
    found = page("train", "site:stem.activation_post_process", snapshots).text
    assert "registered 2 times" in found
    assert "registered" not in page("train", "site:stem.activation_post_process").text


def test_reduce_range_is_reported() -> None:
    snapshots = dict(walk()[0])
    train = snapshots["train"]
    sites = tuple(replace(s, quant_max=127) if s.kind == "output" else s for s in train.sites)
    snapshots["train"] = replace(train, sites=sites)
    assert "128 of the 256" in page("train", "site:fc.activation_post_process", snapshots).text


def test_nothing_and_unknown_selections() -> None:
    assert not page("float", "").selections
    for selection in ("module:nope", "node:nope", "edge:a:b", "rubbish", "edge:", "site:"):
        assert page("float", selection).text  # no exception
    assert "nope" in page("float", "module:nope").text
    assert page("no such stage", "module:fc").text


def test_what_users_write_is_escaped() -> None:
    snapshots = dict(walk()[0])
    evil = '<img src=x onerror="alert(1)">'
    float_ = snapshots["float"]
    modules = tuple(
        replace(m, path=evil, type_name=evil, qualified_type=evil, extra_repr=evil, origin=evil)
        if m.path == "fc"
        else m
        for m in float_.modules
    )
    html = inspect_html({"float": replace(float_, modules=modules)}, "float", f"module:{evil}")
    assert "img" not in Checker(html).tags
    assert "&lt;img" in html
    assert "img" not in Checker(inspect_html(snapshots, "float", f"module:{evil}")).tags


def test_html_escapes_text_but_not_html() -> None:
    assert tag("b", "<", tag("i", "&"), title='"') == '<b title="&quot;">&lt;<i>&amp;</i></b>'
    assert text(Html("<b>")) == "<b>"
    assert tag("details", open=True, hidden=False, data_select="x") == (
        '<details open data-select="x"></details>'
    )


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.0, "0"), (-128, "−128"), (0.0123456, "0.01235"), (1234567.0, "1.235e+06")],
)
def test_numbers(value: float, words: str) -> None:
    assert number(value) == words
    assert number(float("nan")) == "NaN"
    assert share(0.00001) == "< 0.01 %"
    assert share(0.5) == "50 %"
    assert share(1.0) == "100 %"


def test_qconfig_badge_reads_bits_and_scheme() -> None:
    badge = qconfig_badge(walk()[0]["propagate"].module("fc").qconfig)
    assert re.fullmatch("int8 pc", badge)
    assert qconfig_badge(None) == ""
