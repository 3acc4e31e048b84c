"""The graph's front end in headless Chromium: opening, selecting, keys, budget, cancel, themes."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from qatexplorer.views.scene import build_scene
from tests.unit.graph_models import call, flat_net, function, residual_net, site, snapshot

from .graph_page import graph_server, item_selector, open_graph, set_trait, trait

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with graph_server() as url:
        yield url


@pytest.fixture(scope="module")
def small() -> dict[str, Any]:
    """Seven operations with a skip, one block, all kinds of fake quants."""
    nodes = [
        call("quant", "quant", ""),
        call("conv1", "conv1", ""),
        call("left", "block.left", "block"),
        call("right", "block.right", "block"),
        function("add", "block"),
        call("act", "act", ""),
        call("act_1", "act", ""),
    ]
    pairs = [("quant", "conv1"), ("conv1", "left"), ("conv1", "right"), ("left", "add")]
    pairs += [("right", "add"), ("add", "act"), ("act", "act_1")]
    sites = [site("quant", "input"), site("conv1", "weight"), site("conv1", "output")]
    sites += [site("block.left", "weight", scale=(0.0625,)), site("act", "output")]
    return build_scene(snapshot(nodes, pairs, sites), frozenset({"conv1.weight_fake_quant"}))


@pytest.fixture(scope="module")
def large() -> dict[str, Any]:
    """1,202 operations: 3 stages of 20 residual blocks of 19 layers and an add."""
    return build_scene(residual_net(3, 20, 19))


def drawn(page: Page) -> list[str]:
    return page.eval_on_selector_all("[data-item]", "all => all.map(e => e.dataset.item)")


def marks_drawn(page: Page) -> int:
    return page.locator(".qxg-world [data-item], .qxg-world [data-site]").count()


def shown(page: Page, item: str) -> Any:
    return page.locator(item_selector(item))


def world(page: Page) -> str | None:
    return page.locator(".qxg-world").get_attribute("transform")


def focus(page: Page) -> None:
    page.locator(".qxg-svg").focus()


def cursor(page: Page) -> str:
    return str(page.locator(".qxg-item.qxg-cursor").get_attribute("data-item"))


def wait_status(page: Page, text: str) -> None:
    page.wait_for_function("(t) => model.get('status').includes(t)", arg=text)


def open_group(page: Page, group: str) -> None:
    shown(page, group).locator("[data-toggle]").click()
    expect(shown(page, group)).to_have_attribute("aria-expanded", "true")


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
    page.evaluate("model.fire('msg:custom', { type: 'export_svg', id: 7 })")
    answer = page.evaluate("model.sent.at(-1)")
    assert (answer["type"], answer["id"]) == ("svg", 7)
    tree = ET.fromstring(answer["svg"])
    texts = {e.text for e in tree.iter("{http://www.w3.org/2000/svg}text")}
    assert {"conv1", "quant", "W", "I", "A"} <= texts
    assert "var(" not in answer["svg"]
    assert 'class="qxg-wide"' not in answer["svg"]


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
    page.wait_for_timeout(500)
    wide = page.evaluate(
        """() => [...document.querySelectorAll(".qxg-node")].filter((g) => {
        const frame = g.querySelector(".qxg-frame").getBBox();
        return [...g.querySelectorAll(":scope > text")].some((t) => t.getBBox().width > frame.width - 16);
        }).map((g) => g.dataset.item)"""
    )
    assert wide == []
