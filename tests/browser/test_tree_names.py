"""The module tree's columns: names are whole at every stage, cells stand below each other."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

import qatexplorer as qx
from qatexplorer.views.tree import build_tree, state_label
from qatexplorer.widgets.tree.tree import TreeWidget
from tests.browser.explorer_page import (
    click_next,
    open_tab,
    push,
    tree_row,
    wait_for_explorer,
    wait_for_stage,
)
from tests.browser.notebook import Shots, voila_page
from tests.browser.servers import REPO_ROOT, Server
from tests.browser.tree_page import mount, set_trait
from tests.support.models import load_timm

pytestmark = pytest.mark.browser

# Names that are cut, or that run under what stands beside them; and each column's left edges.
_MEASURE = """() => {
  const rows = [...document.querySelectorAll('.qx-tree-row')].filter((r) => r.offsetParent);
  const modules = rows.filter((row) => !row.classList.contains('qx-is-site'));
  const cut = [];
  for (const row of rows) {
    const name = row.querySelector('.qx-tree-name');
    const cell = row.querySelector('.qx-tree-first').getBoundingClientRect();
    const box = name.getBoundingClientRect();
    if (name.scrollWidth > name.clientWidth || box.right > cell.right + 0.5) {
      cut.push(`${name.textContent}: ${box.right} > ${cell.right}`);
    }
  }
  const lefts = (part) => [...new Set(modules.flatMap((row) =>
    [...row.querySelectorAll(`:scope > .qx-tree-${part}`)]
      .map((cell) => Math.round(cell.getBoundingClientRect().left))))];
  const titles = rows.map((row) => row.querySelector('.qx-tree-name').title);
  const view = document.querySelector('.qx-tree-viewport');
  return {
    rows: rows.length, cut, titles,
    columns: Object.fromEntries(['first', 'type', 'quants', 'state'].map((p) => [p, lefts(p)])),
    sideways: view.scrollWidth - view.clientWidth,
  };
}"""


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


def assert_whole_and_aligned(page: Page, where: str) -> dict[str, Any]:
    found: dict[str, Any] = page.evaluate(_MEASURE)
    assert found["rows"] > 8, where
    assert found["cut"] == [], where
    assert all(len(lefts) == 1 for lefts in found["columns"].values()), (where, found["columns"])
    assert all(found["titles"]), where
    return found


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
            page.wait_for_timeout(60)
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
        page.wait_for_timeout(60)
        found = assert_whole_and_aligned(page, str(width))
        assert (found["sideways"] > 0) == sideways, width
    head = "() => document.querySelector('.qx-tree-head').getBoundingClientRect().left"
    before = page.evaluate(head)
    page.evaluate("() => { document.querySelector('.qx-tree-viewport').scrollLeft = 40; }")
    page.wait_for_timeout(60)
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


@pytest.mark.parametrize("flow", ["eager", "fx"])
def test_names_and_glance_by_clicks_in_voila(
    voila: Callable[..., Server], page: Page, shots: Shots, flow: str
) -> None:
    voila_page(page, voila(REPO_ROOT / "notebooks" / "dashboard.ipynb"))
    wait_for_explorer(page)
    stages = ["fuse", "propagate", "swap", "insert", "train", "convert"]
    if flow == "fx":
        open_tab(page, "Settings")
        page.get_by_label("Flow", exact=True).select_option(label="FX graph mode (prepare_qat_fx)")
        push(page, "Apply and start again")
        expect(page.locator(".qx-stage-button[data-stage='lower']")).to_be_visible()
        wait_for_stage(page, "float")
        stages = ["trace", *stages, "lower"]
    inspector = page.locator(".qx-inspect:visible").first
    expect(inspector).to_contain_text("The model at a glance")
    expect(inspector).to_contain_text("multiply-accumulates")
    # A type shows its modules in the tree.
    inspector.get_by_role("button", name="Conv2d", exact=True).click()
    expect(page.get_by_role("searchbox", name="Search modules")).to_have_value("type:Conv2d")
    expect(page.locator(".qx-tree-status")).to_contain_text("3 of")
    page.get_by_role("searchbox", name="Search modules").fill("")
    for stage in stages:
        if stage == "insert":
            inspector.get_by_role("button", name="Step to Insert observers").click()
            wait_for_stage(page, stage)
        else:
            click_next(page, stage)
        for width in (1280, 900):
            page.set_viewport_size({"width": width, "height": 800})
            page.wait_for_timeout(250)
            page.get_by_role("button", name="Expand all").click()
            assert_whole_and_aligned(page, f"{flow} {stage} {width}")
        page.set_viewport_size({"width": 1280, "height": 800})
        if stage == "train":
            expect(inspector).to_contain_text("No fake quant has seen data")
            inspector.get_by_role("button", name="Train or calibrate").click()
            expect(page.get_by_role("button", name="Train", exact=True)).to_be_visible()
            inspector.get_by_role("button", name="Look for it").click()
            sites = page.get_by_role("grid", name="Fake quants and observers")
            expect(sites).to_be_visible()
            found = "No value is fake-quantized twice" if flow == "eager" else "output of flatten"
            expect(inspector).to_contain_text(found)
    # What is selected is read from its top, wherever the page before was scrolled to.
    scroll = "(pane) => { pane.scrollTo(0, pane.scrollHeight); return pane.scrollTop; }"
    assert page.locator(".qx-part-inspector").evaluate(scroll) > 0
    tree_row(page, "conv1").click()
    heading = page.locator(".qx-inspector h3").first
    expect(heading).to_contain_text("conv1")
    expect(heading).to_be_in_viewport()
    shots(page, f"voila-names-{flow}")
