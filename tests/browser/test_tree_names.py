"""The module tree's columns: names are whole at every stage, cells stand below each other."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from playwright.sync_api import Page, expect

import qatexplorer as qx
from qatexplorer.views.tree import build_tree, state_label
from qatexplorer.widgets.tree.tree import TreeWidget
from tests.browser.notebook import drawn_again
from tests.browser.tree_page import assert_whole_and_aligned, mount, set_trait
from tests.support.models import load_timm

pytestmark = pytest.mark.browser


@functools.cache
def session_of(model: str, flow: str) -> qx.Session:
    if model == "digits_cnn":
        example = qx.zoo.load(model)
        session = qx.Session(example.model, example.example_inputs, flow=flow)
    else:
        net, x = load_timm(model, zero_init_last=False)
        session = qx.Session(net, x, flow=flow, stubs="none" if flow == "fx" else "layers")
    session.warns = False
    return session


def rows_at(session: qx.Session, stage: str) -> list[dict[str, Any]]:
    session.goto(stage)
    change = session.diff
    before = session.snapshots[change.before] if change is not None else None
    return build_tree(session.snapshot, change, before)


@pytest.mark.parametrize("flow", ["eager", "fx"])
def test_no_name_is_cut_at_any_stage_and_columns_align(page: Page, flow: str) -> None:
    session = session_of("digits_cnn", flow)
    page.set_viewport_size({"width": 1280, "height": 1000})
    for stage in session.stages:
        rows = rows_at(session, stage)
        label = state_label(session.snapshot)
        traits = {"selected": "", "query": "", "only": "all", "height": 960}
        mount(page, TreeWidget, rows=rows, state_label=label, **traits)
        page.get_by_role("button", name="Expand all").click()
        for width in (240, 300, 420):
            page.evaluate("(w) => { document.body.style.width = `${w}px`; }", width)
            drawn_again(page)
            where = f"{flow} {stage} {width}"
            found = assert_whole_and_aligned(page, where)
            if width >= 300:
                assert found["sideways"] <= 0, where
                types = page.locator(".qx-tree-row > .qx-tree-type").first
                assert types.bounding_box()["width"] > 24, where  # type: ignore[index]


def test_a_deep_model_scrolls_sideways_only_where_a_name_is_wider_than_the_pane(page: Page) -> None:
    rows = rows_at(session_of("resnet18", "fx"), "insert")
    mount(page, TreeWidget, rows=rows, selected="", query="", only="all", height=700)
    page.get_by_role("button", name="Expand all").click()
    for width, sideways in ((420, False), (330, False), (200, True)):
        page.evaluate("(w) => { document.body.style.width = `${w}px`; }", width)
        drawn_again(page)
        found = assert_whole_and_aligned(page, str(width))
        assert (found["sideways"] > 0) == sideways, width
    head = "() => document.querySelector('.qx-tree-head').getBoundingClientRect().left"
    before = page.evaluate(head)
    page.evaluate("() => { document.querySelector('.qx-tree-viewport').scrollLeft = 40; }")
    drawn_again(page)
    assert page.evaluate(head) == before - 40  # the head goes with its columns


def test_hovering_a_name_shows_the_whole_path(page: Page) -> None:
    rows = rows_at(session_of("resnet18", "fx"), "insert")
    mount(page, TreeWidget, rows=rows, selected="", query="", only="all", height=700)
    page.get_by_role("button", name="Expand all").click()
    name = page.locator("[data-id='module:layer1.0.conv1'] .qx-tree-name")
    assert (name.get_attribute("title") or "").startswith("layer1.0.conv1")
    site = page.locator("[data-id='site:activation_post_process_3']")
    expect(site.locator(".qx-tree-name")).to_have_text("output of layer1.0.conv1")
    expect(site.locator(".qx-tree-torch")).to_contain_text("activation_post_process_3")
    title = site.locator(".qx-tree-name").get_attribute("title") or ""
    assert title.splitlines()[:2] == ["output of layer1.0.conv1", "activation_post_process_3"]
    for query in ("layer1.0.conv1 output", "activation_post_process_3"):
        set_trait(page, "query", query)
        expect(site).to_be_visible()


def test_a_fold_opens_by_click_and_key_and_selects_nothing(page: Page) -> None:
    rows = rows_at(session_of("resnet18", "eager"), "insert")
    traits = {"selected": "", "query": "", "only": "all", "height": 900}
    mount(page, TreeWidget, rows=rows, **traits)
    set_trait(page, "selected", "module:layer1.0.conv1")
    fold = page.locator("[data-id='fold:layer1.0.identities']")
    expect(fold).to_have_attribute("aria-expanded", "false")
    fold.click()
    expect(fold).to_have_attribute("aria-expanded", "true")
    expect(page.locator("[data-id='module:layer1.0.bn1']")).to_be_visible()
    page.keyboard.press("Enter")
    expect(fold).to_have_attribute("aria-expanded", "false")
    assert page.evaluate("() => window.model.get('selected')") == "module:layer1.0.conv1"
    set_trait(page, "selected", "module:layer1.0.bn1")  # from outside it is opened
    expect(page.locator("[data-id='module:layer1.0.bn1']")).to_be_visible()
