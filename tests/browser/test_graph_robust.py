"""The graph's front end on odd input and odd pages: names, cycles, fonts, no workers, export."""

# ruff: noqa: F811 - a fixture that is imported has the name of the argument

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from qatexplorer.views.graph.scene import build_scene
from tests.browser.graph_page import (  # noqa: F401 - fixtures
    address,
    drawn,
    item_selector,
    large,
    marks_drawn,
    open_graph,
    open_group,
    set_trait,
    shown,
    small,
    trait,
    wait_status,
)
from tests.browser.notebook import eventually
from tests.support.graph_models import call, flat_net, function, site, snapshot

pytestmark = pytest.mark.browser


def test_names_never_become_markup(page: Page, address: str) -> None:
    evil = "<img src=x onerror=alert(1)>"
    nodes = [call("a", evil, ""), call("b", "x" * 300, "")]
    scene = build_scene(snapshot(nodes, [("a", "b")], [site(evil, "output")]))
    open_graph(page, address, scene)
    assert page.locator("#one img").count() == 0
    shown(page, "n:a").hover()
    expect(page.locator(".qxg-tip")).to_contain_text("<img src=x")
    assert "…" in str(shown(page, "n:b").locator(".qxg-label").text_content())
    shown(page, "n:b").hover()
    expect(page.locator(".qxg-tip b")).to_have_text("x" * 300)
    page.locator(".qxg-search").fill("img")
    expect(page.locator(".qxg-matches [role=option]")).to_have_count(1)
    assert page.locator("#one img").count() == 0


def test_tooltip_tells_qparams(page: Page, address: str, small: dict[str, Any]) -> None:
    open_graph(page, address, small)
    page.locator("[data-site='block.left.weight_fake_quant']").hover()
    expect(page.locator(".qxg-tip")).to_contain_text("scale 0.0625")
    page.mouse.move(3, 3)
    expect(page.locator(".qxg-tip")).to_be_hidden()


def test_cycles_and_tiny_graphs(page: Page, address: str) -> None:
    nodes = [function("a", ""), function("b", ""), function("c", "")]
    pairs = [("a", "b"), ("b", "c"), ("c", "a"), ("b", "b")]
    open_graph(page, address, build_scene(snapshot(nodes, pairs)))
    assert page.locator(".qxg-edge.qxg-back").count() == 2
    assert page.locator(".qxg-edge").count() == 4
    set_trait(page, "scene", build_scene(snapshot(nodes[:1], [])))
    expect(page.locator("[data-item]")).to_have_count(2)
    set_trait(page, "scene", {"reason": "It <b>cannot</b> run."})
    expect(page.locator("[data-item]")).to_have_count(0)
    expect(page.locator(".qxg-status")).to_have_text("It <b>cannot</b> run.")


def test_shown_twice_and_removed(page: Page, address: str, small: dict[str, Any]) -> None:
    open_graph(page, address, small)
    listeners = page.evaluate("model.listeners()")
    page.evaluate(
        "() => { const d = document.createElement('div'); d.id = 'two'; document.body.append(d);"
        "window.undo2 = show('two'); }"
    )
    expect(page.locator("#two [data-item]")).to_have_count(9)
    page.locator("#two [data-item='n:left']").click()
    expect(page.locator("#one [data-item='n:left']")).to_have_class(
        r"qxg-item qxg-node qxg-is-fq qxg-selected qxg-cursor"
    )
    page.locator("#one [data-item='g:block'] [data-toggle]").click()
    expect(page.locator("#two [data-item='g:block']")).to_have_attribute("aria-expanded", "false")
    ids = page.eval_on_selector_all("[id]", "all => all.map(e => e.id)")
    assert len(ids) == len(set(ids))
    page.evaluate("undo2()")
    assert page.evaluate("model.listeners()") == listeners
    page.evaluate("undo()")
    assert page.evaluate("model.listeners()") == 0
    assert page.locator(".qxg").count() == 0


def test_the_theme_of_the_page_is_followed(page: Page, address: str, small: dict[str, Any]) -> None:
    open_graph(page, address, small)
    assert trait(page, "dark") is False
    page.evaluate("document.body.dataset.jpThemeLight = 'false'")
    page.wait_for_function("model.get('dark') === true")
    expect(page.locator(".qxg.qxg-dark")).to_have_count(1)


def test_export_is_a_picture_of_its_own(page: Page, address: str, small: dict[str, Any]) -> None:
    open_graph(page, address, small)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download as SVG").click()
    assert download.value.suggested_filename == "graph.svg"
    picture = Path(download.value.path()).read_text()
    tree = ET.fromstring(picture)
    texts = {e.text for e in tree.iter("{http://www.w3.org/2000/svg}text")}
    assert {"conv1", "quant", "W", "I", "A"} <= texts
    assert "var(" not in picture
    assert 'class="qxg-wide"' not in picture


def test_without_workers_the_page_lays_out_itself(
    new_context: Callable[..., BrowserContext], address: str, large: dict[str, Any]
) -> None:
    context = new_context()
    context.add_init_script("window.Worker = class { constructor() { throw new Error('no'); } };")
    page = context.new_page()
    open_graph(page, address, large)
    open_group(page, "g:stage1")
    assert len(drawn(page)) == 6 + 20


def test_a_flat_graph_of_5000_stays_small_on_screen(page: Page, address: str) -> None:
    open_graph(page, address, build_scene(flat_net(5000)))
    assert marks_drawn(page) <= 45
    set_trait(page, "selected", "module:4321")
    expect(shown(page, "n:layer4321")).to_be_visible()
    assert marks_drawn(page) <= 300


def test_shown_before_it_is_in_the_page(page: Page, address: str, small: dict[str, Any]) -> None:
    """Jupyter renders a widget first and attaches it later, in fonts not known before."""
    page.goto(address)
    page.wait_for_function("window.ready === true")
    page.add_style_tag(content="#one { font-family: monospace } .qxg { font-family: inherit }")
    page.evaluate(
        "(scene) => { const one = document.getElementById('one'); one.remove();"
        "model.set('scene', scene); window.front.render({ model, el: one });"
        "setTimeout(() => document.body.append(one), 300); }",
        small,
    )
    expect(shown(page, "n:left")).to_be_visible()
    # It has been measured once more, now in its own font.
    eventually(page, lambda: no_text_is_wider(page))


def no_text_is_wider(page: Page) -> None:
    wide = page.evaluate(
        """() => [...document.querySelectorAll(".qxg-node")].filter((g) => {
        const frame = g.querySelector(".qxg-frame").getBBox();
        const texts = [...g.querySelectorAll(":scope > text")];
        return texts.some((t) => t.getBBox().width > frame.width - 16);
        }).map((g) => g.dataset.item)"""
    )
    assert wide == []
