"""The graph's front end in headless Chromium: opening, selecting, keys, budget, cancel, themes."""

# ruff: noqa: F811 - a fixture that is imported has the name of the argument

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page, expect

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
from tests.support.graph_models import call, function, residual_net, site, snapshot

pytestmark = pytest.mark.browser


def world(page: Page) -> str | None:
    return page.locator(".qxg-world").get_attribute("transform")


def focus(page: Page) -> None:
    page.locator(".qxg-svg").focus()


def cursor(page: Page) -> str:
    return str(page.locator(".qxg-item.qxg-cursor").get_attribute("data-item"))


def overlaps(page: Page) -> list[str]:
    """Pairs of boxes that cover one another though neither holds the other."""
    return page.evaluate(
        """() => {
        const boxes = [...document.querySelectorAll("[data-item]")].map((e) => {
          const r = (e.querySelector(":scope > .qxg-frame")).getBoundingClientRect();
          return [e.dataset.item, r, e.classList.contains("qxg-open")];
        });
        const bad = [];
        const covers = (a, b) => a.left <= b.left && a.right >= b.right && a.top <= b.top
          && a.bottom >= b.bottom;
        for (const [i, a, ao] of boxes) for (const [j, b, bo] of boxes) {
          if (i >= j) continue;
          const cut = a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1
            && b.top < a.bottom - 1;
          if (cut && !(ao && covers(a, b)) && !(bo && covers(b, a))) bad.push(i + " × " + j);
        }
        return bad; }"""
    )


def test_a_small_model_is_drawn_whole(page: Page, address: str, small: dict[str, Any]) -> None:
    open_graph(page, address, small)
    ids = {n["id"] for n in small["nodes"]} | {"g:", "g:block"}
    assert set(drawn(page)) == ids
    # One mark per fake quant and call: act is called twice.
    sites = page.eval_on_selector_all(
        ".qxg-world [data-site]", "all => all.map(e => e.dataset.site)"
    )
    assert sorted(sites) == sorted([*small["sites"], "act.activation_post_process"])
    assert page.locator(".qxg-mark.qxg-changed[data-site]").count() == 1
    assert overlaps(page) == []
    assert page.locator(".qxg-legend").is_visible()
    assert "laid out" in trait(page, "status")
    metrics = trait(page, "metrics")
    assert metrics["marks"] == marks_drawn(page)
    assert metrics["layout_ms"] > 0


@pytest.mark.parametrize("direction", ["down", "right"])
def test_layers_follow_the_tensors(
    page: Page, address: str, small: dict[str, Any], direction: str
) -> None:
    open_graph(page, address, small)
    if direction == "right":
        page.get_by_label("Lay out from left to right").click()
        page.wait_for_function("model.get('metrics').what === 'direction'")
    axis = "y" if direction == "down" else "x"

    def at(item: str) -> float:
        return float(shown(page, item).locator(".qxg-frame").bounding_box()[axis])

    order = [at(f"n:{n}") for n in ("quant", "conv1", "left", "add", "act", "act_1")]
    assert order == sorted(order)
    assert len(set(order)) == len(order)
    assert abs(at("n:left") - at("n:right")) < 2
    assert overlaps(page) == []


def test_click_selects_and_python_hears_it(page: Page, address: str, small: dict[str, Any]) -> None:
    open_graph(page, address, small)
    shown(page, "n:left").click()
    assert trait(page, "selected") == "module:block.left"
    expect(shown(page, "n:left")).to_have_class(
        r"qxg-item qxg-node qxg-is-fq qxg-selected qxg-cursor"
    )
    page.locator("[data-site='conv1.weight_fake_quant']").click()
    assert trait(page, "selected") == "site:conv1.weight_fake_quant"
    assert page.locator(".qxg-item.qxg-selected").count() == 0
    shown(page, "n:add").click()
    assert trait(page, "selected") == "node:add"
    page.get_by_label("Fit all (0)").click()
    page.locator(".qxg-edge[data-edge='6'] .qxg-wide").click(force=True)
    assert trait(page, "selected") == "edge:act:act_1"
    assert page.locator(".qxg-edge.qxg-selected").count() == 1
    page.locator(".qxg-svg").click(position={"x": 5, "y": 5})
    assert trait(page, "selected") == ""


def test_a_module_called_twice_is_selected_at_both_calls(
    page: Page, address: str, small: dict[str, Any]
) -> None:
    open_graph(page, address, small, selected="module:act")
    expect(page.locator(".qxg-item.qxg-selected")).to_have_count(2)


def test_python_selects_something_hidden(page: Page, address: str, large: dict[str, Any]) -> None:
    open_graph(page, address, large)
    assert drawn(page) == ["g:", "n:x", "g:stage0", "g:stage1", "g:stage2", "n:output"]
    set_trait(page, "selected", "module:stage1.7.conv3")
    expect(shown(page, "n:s1_7_conv3")).to_have_class(
        r"qxg-item qxg-node qxg-is-fq qxg-selected qxg-cursor"
    )
    assert trait(page, "opened")[-1] == "g:stage1.7"
    stage = page.locator(".qxg-stage").bounding_box()
    box = shown(page, "n:s1_7_conv3").locator(".qxg-frame").bounding_box()
    assert stage
    assert box
    assert stage["y"] <= box["y"]
    assert box["y"] + box["height"] <= stage["y"] + stage["height"]
    before = world(page)
    opened = trait(page, "opened")
    set_trait(page, "selected", "site:stage1.7.conv3.weight_fake_quant")
    expect(page.locator(".qxg-mark.qxg-selected")).to_have_count(1)
    assert (world(page), trait(page, "opened")) == (before, opened), "in view: nothing moves"
    set_trait(page, "selected", "module:nowhere")
    wait_status(page, "runs nothing in this graph")


def test_opening_keeps_the_group_where_it_is_and_the_budget(
    page: Page, address: str, large: dict[str, Any]
) -> None:
    open_graph(page, address, large)
    for group in (
        "g:stage0",
        "g:stage0.0",
        "g:stage0.1",
        "g:stage0.2",
        "g:stage0.3",
        "g:stage0.4",
        "g:stage0.5",
        "g:stage0.6",
    ):
        before = shown(page, group).locator(".qxg-frame").bounding_box()
        page.evaluate(
            "(g) => document.querySelector(`[data-item='${g}'] [data-toggle]`)"
            ".dispatchEvent(new PointerEvent('pointerdown', {bubbles: true}))",
            group,
        )
        page.evaluate("window.dispatchEvent(new PointerEvent('pointerup'))")
        expect(shown(page, group)).to_have_attribute("aria-expanded", "true")
        assert before is not None
        assert marks_drawn(page) <= 300
        assert trait(page, "metrics")["marks"] == marks_drawn(page)
        assert overlaps(page) == []
    assert "g:stage0.0" not in trait(page, "opened"), "the least recently used one was closed"
    assert "g:stage0" in trait(page, "opened"), "what is around the opened one stays"
    assert "to stay under 300 marks" in trait(page, "status")


def test_deep_nesting_steps_inside_instead_of_drawing_too_much(page: Page, address: str) -> None:
    nodes, sites, scope = [], [], ""
    for depth in range(5):
        for k in range(38):
            path = f"{scope}.m{k}".lstrip(".")
            nodes.append(call(f"d{depth}_{k}", path, scope))
            sites += [site(path, "weight"), site(path, "output")]
        scope = f"{scope}.inner".lstrip(".")
    scene = build_scene(snapshot(nodes, [], sites))
    open_graph(page, address, scene)
    set_trait(page, "selected", "module:inner.inner.inner.inner.m3")
    expect(shown(page, "n:d4_3")).to_be_visible()
    assert marks_drawn(page) <= 300
    assert "showing inside" in trait(page, "status")
    crumbs = page.locator(".qxg-crumbs button")
    assert crumbs.count() >= 3
    crumbs.first.click()
    expect(shown(page, "g:")).to_be_visible()
    assert marks_drawn(page) <= 300


def test_keyboard(page: Page, address: str, small: dict[str, Any]) -> None:
    open_graph(page, address, small)
    focus(page)
    pair = ["n:left", "n:right"]
    pair.sort(key=lambda item: shown(page, item).bounding_box()["x"])
    page.keyboard.press("ArrowDown")
    for key, expected in [
        ("ArrowDown", ["n:conv1"]),
        ("ArrowDown", pair),
        ("ArrowRight", pair[1:]),
        ("ArrowLeft", pair[:1]),
        ("ArrowRight", pair[1:]),
        ("ArrowDown", ["n:add"]),
        ("ArrowUp", pair),
        ("ArrowUp", ["n:conv1"]),
    ]:
        page.keyboard.press(key)
        assert cursor(page) in expected, key
    active = page.locator(".qxg-svg").get_attribute("aria-activedescendant")
    assert page.evaluate("(id) => document.getElementById(id).dataset.item", active) == "n:conv1"
    page.keyboard.press("Enter")
    assert trait(page, "selected") == "module:conv1"
    page.keyboard.press("m")
    assert trait(page, "selected") == "site:conv1.weight_fake_quant"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Escape")
    expect(shown(page, "g:block")).to_have_attribute("aria-expanded", "false")
    assert cursor(page) == "g:block"
    page.keyboard.press("Enter")
    expect(shown(page, "g:block")).to_have_attribute("aria-expanded", "true")
    before = world(page)
    page.keyboard.press("+")
    assert world(page) != before
    page.keyboard.press("0")
    page.keyboard.press("f")
    expect(page.locator(".qxg-search")).to_be_focused()


def test_search(page: Page, address: str, large: dict[str, Any]) -> None:
    open_graph(page, address, large)
    page.locator(".qxg-search").fill("stage2.11.conv4")
    expect(page.locator(".qxg-matches [role=option]")).to_have_count(1)
    page.keyboard.press("Enter")
    expect(shown(page, "n:s2_11_conv4")).to_be_visible()
    assert trait(page, "selected") == "module:stage2.11.conv4"
    page.locator(".qxg-search").fill("no such thing")
    expect(page.locator(".qxg-matches")).to_contain_text("no match")
    page.locator(".qxg-search").fill("conv1")
    expect(page.locator(".qxg-matches")).to_contain_text("more")


def dense(size: int) -> dict[str, Any]:
    """A group whose layout takes dagre many seconds: every node feeds nearly every later one."""
    nodes = [function("first", "")] + [function(f"n{i}", "hard") for i in range(size)]
    pairs = [("first", "n0")]
    pairs += [(f"n{i}", f"n{j}") for i in range(size) for j in range(i + 1, size)]
    return build_scene(snapshot(nodes, pairs), max_children=size)


@pytest.mark.parametrize("way", ["button", "escape"])
def test_a_layout_can_be_cancelled(page: Page, address: str, way: str) -> None:
    open_graph(page, address, dense(120))
    before = (world(page), drawn(page))
    shown(page, "g:hard").locator("[data-toggle]").click()
    button = page.get_by_role("button", name="Cancel layout")
    expect(button).to_be_visible()
    if way == "button":
        button.click()
    else:
        focus(page)
        page.keyboard.press("Escape")
    wait_status(page, "cancelled")
    assert (world(page), drawn(page)) == before
    expect(button).to_be_hidden()
    assert trait(page, "opened") == []
    page.get_by_label("Lay out from left to right").click()
    wait_status(page, "laid out")


def test_a_new_stage_keeps_the_place(page: Page, address: str, large: dict[str, Any]) -> None:
    open_graph(page, address, large)
    open_group(page, "g:stage1")
    page.mouse.move(400, 300)
    page.mouse.wheel(0, -200)
    selected = "module:stage1.3"
    set_trait(page, "selected", selected)
    before = shown(page, "g:stage1.3").bounding_box()
    bare = build_scene(snapshot_without_sites(), frozenset({"stage1.3"}))
    set_trait(page, "scene", bare)
    expect(shown(page, "g:stage1.3")).to_have_class(
        r"qxg-item qxg-closed qxg-changed qxg-selected qxg-cursor"
    )
    assert trait(page, "opened") == ["g:stage1"]
    after = shown(page, "g:stage1.3").bounding_box()
    assert before
    assert after
    assert abs(before["x"] - after["x"]) < 60
    assert abs(before["y"] - after["y"]) < 250


def snapshot_without_sites() -> Any:
    full = residual_net(3, 20, 19)
    assert full.graph is not None
    pairs = [(e.source, e.target) for e in full.graph.edges]
    return snapshot(full.graph.nodes, pairs, (), full.modules, "float")
