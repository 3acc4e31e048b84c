"""The page when nothing is selected: every figure counted again, every sentence true."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from html import unescape
from typing import Any

import pytest
import torch
from torch import nn

import qatexplorer as qx
from qatexplorer.runs.records import Progress
from qatexplorer.session.glance import Glance, glance_of
from qatexplorer.snapshot.parts import Share
from qatexplorer.views.inspector.glance import glance_html, groups_of, next_steps, parts_words
from qatexplorer.views.inspector.page import inspect_html
from qatexplorer.views.tree import build_tree
from tests.support.models import NARROW, load_timm
from tests.support.page_text import visible_text


def session_of(example: str, flow: str, **settings: Any) -> qx.Session:
    loaded = qx.zoo.load(example)
    session = qx.Session(
        loaded.model, loaded.example_inputs, flow=flow, data=loaded.data, **settings
    )
    session.warns = False
    return session


def asked(html: str) -> list[str]:
    return [unescape(found) for found in re.findall(r'data-ask="([^"]*)"', html)]


def selected(html: str) -> list[str]:
    return [unescape(found) for found in re.findall(r'data-select="([^"]*)"', html)]


@pytest.mark.parametrize("flow", ["eager", "fx"])
@pytest.mark.parametrize("example", ["digits_cnn", "digits_depthwise"])
def test_what_it_says_at_every_stage(example: str, flow: str) -> None:
    session = session_of(example, flow)
    total = sum(p.numel() for p in qx.zoo.load(example).model.parameters())
    for stage in session.stages:
        session.goto(stage)
        if stage == session.flow.train_stage:
            session.calibrate(1)
        glance = glance_of(session, session.macs())
        html = inspect_html(session.snapshots, stage, "", glance)
        words = visible_text(html)
        snapshot = session.snapshot
        if not snapshot.is_from("inserted"):
            assert f"All {total:,} parameters are float" in words
        elif snapshot.role == "int8":
            assert f"{total:,} of {total:,} parameters (100 %) are int8." in words
        else:
            assert f"{total:,} of {total:,} parameters (100 %) are prepared for int8." in words
        # Its links lead somewhere.
        nodes = {node.id for node in snapshot.graph.nodes} if snapshot.graph is not None else set()
        for selection in selected(html):
            kind, _, rest = selection.partition(":")
            known = {"module": snapshot.by_path, "site": snapshot.site_by_path, "node": nodes}
            assert rest in known[kind], (stage, selection)
        tree = build_tree(snapshot)
        counts = {group.name: group.number for group in groups_of(glance)}
        for wanted in asked(html):
            what, _, rest = wanted.partition(":")
            if what == "stage":
                assert rest in session.stages
            elif what == "search":
                kind = rest.removeprefix("type:")
                shown = [r for r in tree if r["kind"] == "module" and r["type"] == kind]
                assert len(shown) == counts[kind] > 1
            elif what == "fix":
                finding, _, index = rest.rpartition(":")
                (found,) = [p for p in glance.findings if p.key == finding]
                assert found.fixes[int(index)]
            else:
                assert wanted in ("panel:training", "panel:ledger", "panel:results")


def test_what_to_do_next_follows_the_session() -> None:
    session = session_of("digits_cnn", "eager")

    def first() -> str:
        return asked(next_steps(glance_of(session))[0][0])[0]

    assert first() == "stage:fuse"
    session.goto("swap")
    assert asked(next_steps(glance_of(session))[0][0]) == ["stage:insert"]
    assert len(next_steps(glance_of(session))) == 1
    session.goto("insert")
    assert first() == "panel:training"
    session.goto("train")
    assert first() == "panel:training"
    session.calibrate(1)
    assert first() == "stage:convert"
    session.goto("insert")
    assert first() == "stage:train"
    session.goto("convert")
    assert first() == "panel:results"


def test_converted_without_data_leads_back() -> None:
    session = session_of("digits_cnn", "eager")
    session.goto("convert")
    assert ["stage:train"] in [asked(step) for step, _ in next_steps(glance_of(session))]
    assert "No observer has seen data" in visible_text(glance_html(glance_of(session)))


def test_a_model_without_stubs_is_told_so_at_every_stage() -> None:
    session = session_of("digits_mlp", "eager")
    session.findings()  # the page tries int8 once, off the loop
    for stage in session.stages[: session.stages.index("train") + 1]:
        session.goto(stage)
        glance = glance_of(session)
        (missing,) = [found for found in glance.findings if found.name == "no-stub"]
        assert asked(next_steps(glance)[0][0]) == [f"fix:{missing.key}:0"]
        html = glance_html(glance)
        assert missing.message in visible_text(html)
        assert f'<li class="qx-remark qx-remark-{missing.severity}"><b>error</b>' in html
        for index, fix in enumerate(missing.fixes):
            assert f"fix:{missing.key}:{index}" in asked(html)
            assert fix.label in visible_text(html)
    missing.fixes[0].apply(session)
    session.findings()
    assert "no-stub" not in glance_html(glance_of(session))


def test_without_data_it_does_not_offer_to_train() -> None:
    session = qx.Session(nn.Sequential(nn.Linear(4, 4)).train(), torch.randn(2, 4), flow="fx")
    session.goto("insert")
    html = glance_html(glance_of(session))
    assert "panel:training" not in asked(html)
    assert "session has none to train with" in visible_text(html)


def test_eval_mode_comes_first_and_alone() -> None:
    session = qx.Session(nn.Sequential(nn.Linear(4, 4)).eval(), torch.randn(2, 4), flow="fx")
    assert [asked(step) for step, _ in next_steps(glance_of(session))] == [["fix:eval-mode||:0"]]
    session.use_train_mode()
    assert asked(next_steps(glance_of(session))[0][0]) == ["stage:trace"]


def glance_with(**changes: Any) -> Glance:
    session = session_of("digits_cnn", "eager")
    session.goto("insert")
    return replace(glance_of(session, session.macs()), **changes)


def test_a_run_that_goes_on_is_said_first() -> None:
    run = Progress("running", 5, 100, 1, 4, 1.0, None, 0.5)
    ((step, words),) = next_steps(glance_with(progress=run))
    assert asked(step) == ["panel:inside"]
    assert words == "A run is running: epoch 2 of 4."


def test_shares_are_words_and_bars() -> None:
    glance = glance_with(params=Share(6, 3, 1), macs=None)
    words = parts_words(glance.params, "parameters", glance.snapshot)
    assert words == (
        "6 of 10 parameters (60 %) are prepared for int8, 3 stay float, of 1 it is not known."
    )
    html = glance_html(glance)
    assert f'role="img" aria-label="Parameters: {words}"' in html
    widths = re.findall(r'class="qx-bar-(\w+)" style="flex-grow:([\d.]+)"', html)
    assert widths == [("int8", "0.600000"), ("float", "0.300000"), ("unknown", "0.100000")]
    assert "Being counted" in html
    failing = glance_html(replace(glance, macs_error="no such <kernel>"))
    assert "Not known: no such &lt;kernel&gt;" in failing


def test_groups_count_each_module_and_fake_quant_once() -> None:
    glance = glance_with()
    groups = {group.name: group for group in groups_of(glance)}
    model = qx.zoo.load("digits_cnn").model
    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    conv = groups["qat.ConvBnReLU2d"]
    weights = sum(p.numel() for m in convs for p in m.parameters())
    assert (conv.number, conv.params, conv.quants) == (len(convs), weights, 2 * len(convs))
    assert groups["QuantStub"].quants == 1


def test_redundancies_are_the_known_ledgers() -> None:
    session = session_of("digits_cnn", "fx")
    session.goto("insert")
    assert "panel:ledger" in asked(glance_html(glance_of(session)))
    assert "Not looked for yet" in glance_html(glance_of(session))
    ledger = session.ledger()
    html = glance_html(glance_of(session))
    assert ledger.faults
    for fault in ledger.faults:
        assert {f"site:{path}" for path in fault.paths} <= set(selected(html))
    assert "output of flatten" in visible_text(html)
    session = session_of("digits_cnn", "eager")
    session.goto("insert")
    assert not session.ledger().faults
    assert "No value is fake-quantized twice." in glance_html(glance_of(session))


def test_what_is_unusual_about_fake_quants_is_told_once_with_all_of_them() -> None:
    session = session_of("digits_cnn", "eager", qconfig="x86")
    session.goto("insert")
    html = glance_html(glance_of(session))
    outputs = [s for s in session.snapshot.sites if s.quant_max == 127 and s.kind != "weight"]
    assert visible_text(html).count("Only 128 of the 256 codes") == 1
    assert {f"site:{s.path}" for s in outputs} <= set(selected(html))


def test_torchs_warnings_are_escaped() -> None:
    glance = glance_with()
    snapshot = replace(glance.snapshot, warnings=("mind <script>",))
    html = glance_html(replace(glance, snapshot=snapshot, notes=("a & b",)))
    assert "mind &lt;script&gt;" in html
    assert "a &amp; b" in html


def test_a_selection_has_its_own_page() -> None:
    glance = glance_with()
    snapshots = {"insert": glance.snapshot}
    assert "at a glance" in inspect_html(snapshots, "insert", "", glance)
    assert "at a glance" not in inspect_html(snapshots, "insert", "module:conv1", glance)


def test_a_container_in_fx_is_not_said_to_be_idle_or_float() -> None:
    model, x = load_timm("resnet18", **NARROW)
    session = qx.Session(model, x, flow="fx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        session.goto("insert")
    words = visible_text(inspect_html(session.snapshots, "insert", "module:layer1"))
    assert "stays float" not in words
    assert "4 of 4 layers inside are prepared for int8" in words
    assert "what is inside runs; its own forward is not called" in words
    assert "qconfig: none at this stage" in words
