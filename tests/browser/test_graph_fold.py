"""The graph by real clicks and wheels: folds, Identities, zoom, map, and that nothing jumps."""

# ruff: noqa: F811 - a fixture that is imported has the name of the argument

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from qatexplorer.session import Session
from qatexplorer.views.graph.scene import build_scene, redundant_edges
from tests.browser.graph_page import (  # noqa: F401 - fixtures
    address,
    drawn,
    item_selector,
    large,
    marks_drawn,
    open_graph,
    set_trait,
    shown,
    trait,
    wait_status,
)
from tests.browser.notebook import drawn_again, eventually, until
from tests.support.graph_models import call, module, residual_net, site, snapshot
from tests.support.models import load_timm

pytestmark = pytest.mark.browser

FOLD = "g:stage1.0×12"


@pytest.fixture(scope="module")
def repeated() -> dict[str, Any]:
    """2 stages of 12 equal blocks of 9 layers and an add; stages differ from each other."""
    return build_scene(residual_net(2, 12, 9, alike=True))


@pytest.fixture(scope="module")
def fused() -> dict[str, Any]:
    """conv1, two Identities, conv2; and a group of nothing but an Identity."""
    names = ["conv1", "bn1", "act1", "conv2", "drop.path", "fc"]
    nodes = [call(name.replace(".", "_"), name, name.rpartition(".")[0]) for name in names]
    known = [
        module(name, "Identity", "torch.nn.modules.linear.Identity")
        for name in ("bn1", "act1", "drop.path")
    ]
    pairs = [(a.id, b.id) for a, b in itertools.pairwise(nodes)]
    return build_scene(snapshot(nodes, pairs, [site("conv1", "weight")], known))


def place(page: Page, selector: str) -> tuple[float, float, float, float]:
    """Left, top, width and height of what is drawn, in the window's px."""
    box = page.locator(selector).first.bounding_box()
    assert box, selector
    return box["x"], box["y"], box["width"], box["height"]


def grip(item: str) -> str:
    """The sign that opens and closes a group."""
    return f"{item_selector(item)} > [data-toggle]"


def frame(item: str) -> str:
    return f"{item_selector(item)} > .qxg-frame"


def scale(page: Page) -> float:
    return float(
        page.evaluate(
            "() => document.querySelector('.qxg-world').transform.baseVal.consolidate().matrix.a"
        )
    )


def expanded(page: Page, item: str, value: bool = True) -> None:
    expect(shown(page, item)).to_have_attribute("aria-expanded", str(value).lower())


def wheel_over(page: Page, dy: float, ctrl: bool = False) -> None:
    x, y, w, h = place(page, ".qxg-stage")
    page.mouse.move(x + w / 2, y + h / 2)
    if ctrl:
        page.keyboard.down("Control")
    page.mouse.wheel(0, dy)
    if ctrl:
        page.keyboard.up("Control")


# -- folds


def test_a_click_opens_a_fold_of_equal_blocks(
    page: Page, address: str, repeated: dict[str, Any]
) -> None:
    open_graph(page, address, repeated)
    page.locator(grip("g:stage1")).click()
    expanded(page, "g:stage1")
    assert set(drawn(page)) == {"g:", "n:x", "g:stage0", "g:stage1", FOLD, "n:output"}
    fold = shown(page, FOLD)
    assert fold.locator(".qxg-label").text_content() == "×12 stage1.0–11"
    assert fold.locator(".qxg-count").all_text_contents() == ["108", "108"]
    assert fold.locator(".qxg-behind").count() == 2
    # Anywhere on the box: it is no module that could be selected instead.
    x, y, w, h = place(page, frame(FOLD))
    page.mouse.dblclick(x + w / 2, y + h / 2)
    expanded(page, FOLD)
    blocks = [f"g:stage1.{at}" for at in range(12)]
    until(page, lambda: set(blocks) <= set(drawn(page)))
    assert all(shown(page, b).get_attribute("aria-expanded") == "false" for b in blocks)
    assert trait(page, "selected") == ""
    page.locator(grip(FOLD)).click()
    expanded(page, FOLD, False)


def test_a_selection_in_a_fold_opens_it_or_marks_it(
    page: Page, address: str, repeated: dict[str, Any]
) -> None:
    open_graph(page, address, repeated)
    set_trait(page, "selected", "module:stage1.7.conv3")
    expect(page.locator(".qxg-item.qxg-selected")).to_have_attribute("data-item", "n:s1_7_conv3")
    assert {"g:stage1", FOLD, "g:stage1.7"} <= set(trait(page, "opened"))
    page.locator(".qxg-svg").press("Home")
    page.locator(grip("g:stage1")).click()
    expanded(page, "g:stage1", False)
    expect(page.locator(".qxg-holds")).to_have_attribute("data-item", "g:stage1")
    page.locator(".qxg-search").fill("stage0.5.conv2")
    page.keyboard.press("Enter")
    expect(shown(page, "n:s0_5_conv2")).to_be_visible()
    assert "g:stage0.0×12" in trait(page, "opened")


def test_a_new_stage_that_folds_keeps_the_users_block_in_sight(page: Page, address: str) -> None:
    open_graph(page, address, build_scene(residual_net(2, 12, 9)))
    set_trait(page, "opened", ["g:stage1", "g:stage1.3"])
    expanded(page, "g:stage1.3")
    set_trait(page, "scene", build_scene(residual_net(2, 12, 9, alike=True)))
    expanded(page, "g:stage1.3")
    assert "g:stage1.0×12" in trait(page, "opened")


# -- Identities


def test_an_edge_stands_for_identities(page: Page, address: str, fused: dict[str, Any]) -> None:
    open_graph(page, address, fused)
    assert set(drawn(page)) == {"g:", "n:conv1", "n:conv2", "n:fc"}
    assert page.locator(".qxg-edge").count() == 2
    assert page.locator(".qxg-world .qxg-pass").count() == 2
    assert trait(page, "metrics")["marks"] == marks_drawn(page)
    dot = page.locator(".qxg-world .qxg-pass").first
    dot.locator(".qxg-dot").hover()
    expect(page.locator(".qxg-tip b")).to_have_text("bn1, act1")
    dot.locator(".qxg-dot").click()
    assert trait(page, "selected") == "module:bn1"
    expect(dot.locator(".qxg-pass-name")).to_have_text("bn1 (Identity)")
    expect(dot.locator(".qxg-pass-name")).to_be_visible()
    dot.locator(".qxg-dot").click()
    assert trait(page, "selected") == "module:act1"
    x, y, w, _ = place(page, frame("n:conv2"))
    page.mouse.move(x + w / 2, y - 3)
    expect(page.locator(".qxg-tip")).to_contain_text("conv1 → conv2")
    expect(page.locator(".qxg-tip")).to_contain_text("through bn1, act1 (Identity)")


@pytest.mark.parametrize("path", ["act1", "drop.path", "drop"])
def test_the_tree_leads_to_the_place_of_an_identity(
    page: Page, address: str, fused: dict[str, Any], path: str
) -> None:
    open_graph(page, address, fused)
    set_trait(page, "selected", f"module:{path}")
    selected = page.locator(".qxg-pass.qxg-selected")
    expect(selected).to_have_count(1)
    # The group that holds nothing but an Identity is not drawn either.
    name = {"act1": "act1", "drop.path": "path", "drop": "path"}[path]
    expect(selected.locator("text")).to_have_text(f"{name} (Identity)")


def test_identities_are_shown_on_demand(page: Page, address: str, fused: dict[str, Any]) -> None:
    open_graph(page, address, fused, selected="module:act1")
    page.get_by_role("button", name="Show the 3 Identity modules").click()
    expect(shown(page, "n:act1")).to_have_class(r"qxg-item qxg-node qxg-selected qxg-cursor")
    assert trait(page, "identities") is True
    assert page.locator(".qxg-world .qxg-pass").count() == 0
    assert {"n:bn1", "n:act1", "g:drop"} <= set(drawn(page))
    page.get_by_role("button", name="Hide the 3 Identity modules").click()
    expect(shown(page, "n:act1")).to_have_count(0)
    expect(page.locator(".qxg-pass.qxg-selected")).to_have_count(1)
    set_trait(page, "identities", True)
    expect(shown(page, "n:act1")).to_be_visible()


# -- wheel and zoom


def make_long(page: Page) -> None:
    page.evaluate("document.body.style.height = '3000px'")


def test_the_wheel_scrolls_the_page_until_the_graph_has_the_focus(
    page: Page, address: str, large: dict[str, Any]
) -> None:
    open_graph(page, address, large)
    make_long(page)
    before = scale(page)
    wheel_over(page, 120)
    page.wait_for_function("window.scrollY > 0")
    assert scale(page) == before
    expect(page.locator(".qxg-hint")).to_be_visible()
    expect(page.locator(".qxg-hint")).to_be_hidden()
    page.evaluate("window.scrollTo(0, 0)")
    wheel_over(page, -120, ctrl=True)
    page.wait_for_function("(k) => document.querySelector('.qxg-world').transform.baseVal"
                           ".consolidate().matrix.a > k", arg=before)  # fmt: skip
    assert page.evaluate("window.scrollY") == 0
    zoomed = scale(page)
    page.locator(".qxg-svg").click(position={"x": 4, "y": 300})
    wheel_over(page, -120)
    page.wait_for_function("(k) => document.querySelector('.qxg-world').transform.baseVal"
                           ".consolidate().matrix.a > k", arg=zoomed)  # fmt: skip
    assert page.evaluate("window.scrollY") == 0
    expect(page.locator(".qxg-hint")).to_be_hidden()


def test_zoom_keeps_what_is_under_the_pointer_and_has_bounds(
    page: Page, address: str, large: dict[str, Any]
) -> None:
    open_graph(page, address, large)
    x, y, w, h = place(page, frame("g:stage1"))
    page.mouse.move(x + w / 2, y + h / 2)
    page.keyboard.down("Control")
    page.mouse.wheel(0, -100)
    until(page, lambda: place(page, frame("g:stage1"))[2] > w)
    x1, y1, w1, h1 = place(page, frame("g:stage1"))
    assert abs((x1 + w1 / 2) - (x + w / 2)) <= 2
    assert abs((y1 + h1 / 2) - (y + h / 2)) <= 2
    for _ in range(40):
        page.mouse.wheel(0, -400)
    until(page, lambda: scale(page) == pytest.approx(4))
    for _ in range(60):
        page.mouse.wheel(0, 400)
    page.keyboard.up("Control")
    # A small picture: out to where names are 7 px high, no speck.
    until(page, lambda: scale(page) == pytest.approx(0.56))
    page.locator(".qxg-svg").focus()
    page.keyboard.press("+")
    assert scale(page) == pytest.approx(0.7)


def test_a_long_picture_zooms_out_until_it_is_seen_whole(
    page: Page, address: str, repeated: dict[str, Any]
) -> None:
    open_graph(page, address, repeated)
    set_trait(page, "opened", ["g:stage0", "g:stage0.0×12", "g:stage0.1", "g:stage0.2"])
    expanded(page, "g:stage0.2")
    page.locator(".qxg-svg").focus()
    for _ in range(30):
        page.keyboard.press("-")
    _, _, _, height = place(page, frame("g:"))
    stage = place(page, ".qxg-stage")
    assert scale(page) < 0.56
    assert height == pytest.approx(stage[3] - 40, abs=3)
    page.get_by_label("Fit all (0)").click()
    _, top, _, height = place(page, frame("g:"))
    assert stage[1] <= top
    assert top + height <= stage[1] + stage[3]


def test_the_picture_cannot_be_dragged_out_of_sight(
    page: Page, address: str, large: dict[str, Any]
) -> None:
    open_graph(page, address, large)
    x, y, w, h = place(page, ".qxg-stage")
    for _ in range(4):
        page.mouse.move(x + 10, y + 60)
        page.mouse.down()
        page.mouse.move(x + w - 10, y + h - 10, steps=4)
        page.mouse.up()
    left, top, _, _ = place(page, frame("g:"))
    assert left < x + w - 40
    assert top < y + h - 40


# -- what is clicked stays


def test_what_is_clicked_stays_under_the_pointer(
    page: Page, address: str, large: dict[str, Any]
) -> None:
    open_graph(page, address, large)
    for item in ("g:stage0", "g:stage0.2", "g:stage0.1", "g:stage0.0"):
        before = place(page, grip(item))
        corner = place(page, frame(item))
        page.mouse.click(before[0] + before[2] / 2, before[1] + before[3] / 2)
        expanded(page, item)
        drawn_again(page)
        assert place(page, grip(item))[:2] == pytest.approx(before[:2], abs=2), item
        assert place(page, frame(item))[:2] == pytest.approx(corner[:2], abs=2), item
    # The same click closes it again.
    before = place(page, grip("g:stage0.0"))
    page.mouse.click(before[0] + before[2] / 2, before[1] + before[3] / 2)
    expanded(page, "g:stage0.0", False)
    assert place(page, grip("g:stage0.0"))[:2] == pytest.approx(before[:2], abs=2)


def test_a_double_click_low_in_the_window_does_not_move_the_box(
    page: Page, address: str, large: dict[str, Any]
) -> None:
    open_graph(page, address, large, height=430)
    page.locator(".qxg-svg").press("End")
    x, y, w, h = place(page, frame("g:stage2"))
    page.mouse.dblclick(x + w / 2, y + h / 2)
    expanded(page, "g:stage2")
    drawn_again(page)
    assert place(page, frame("g:stage2"))[:2] == pytest.approx((x, y), abs=2)


# -- the map


def test_the_map_shows_where_one_is_and_leads_elsewhere(
    page: Page, address: str, repeated: dict[str, Any]
) -> None:
    open_graph(page, address, repeated)
    expect(page.locator(".qxg-map")).to_be_hidden()
    set_trait(page, "opened", ["g:stage0", "g:stage0.0×12", "g:stage0.1"])
    expanded(page, "g:stage0.1")
    expect(page.locator(".qxg-map")).to_be_visible()
    assert page.locator(".qxg-map").get_attribute("aria-hidden") == "true"
    page.locator(".qxg-svg").press("Home")
    top = place(page, ".qxg-map-frame")
    chart = place(page, ".qxg-map svg")
    assert top[1] == pytest.approx(chart[1], abs=2)
    # The frame is as high, of the map, as the window is of the picture.
    share = place(page, ".qxg-stage")[3] / place(page, frame("g:"))[3]
    assert top[3] / chart[3] == pytest.approx(share, rel=0.15)
    middle = chart[0] + chart[2] / 2
    page.mouse.move(middle, chart[1] + 10)
    page.mouse.down()
    page.mouse.move(middle, chart[1] + chart[3] - 5, steps=5)
    page.mouse.up()
    low = place(page, ".qxg-map-frame")
    assert low[1] + low[3] == pytest.approx(chart[1] + chart[3], abs=3)
    _, y, _, h = place(page, frame("n:output"))
    stage = place(page, ".qxg-stage")
    assert stage[1] < y
    assert y + h < stage[1] + stage[3]
    # The keys do the same.
    page.locator(".qxg-svg").press("Home")
    assert place(page, ".qxg-map-frame") == pytest.approx(top, abs=2)
    page.locator(".qxg-svg").press("PageDown")
    assert place(page, ".qxg-map-frame")[1] > top[1] + 5
    page.locator(".qxg-svg").press("Shift+ArrowDown")
    page.locator(".qxg-svg").press("End")
    assert place(page, ".qxg-map-frame")[1] == pytest.approx(low[1], abs=4)


def test_the_map_is_remembered_to_be_off(
    new_context: Callable[..., BrowserContext], address: str, repeated: dict[str, Any]
) -> None:
    context = new_context()
    opened = ["g:stage0", "g:stage0.0×12", "g:stage0.1"]
    page = context.new_page()
    open_graph(page, address, repeated, opened=opened)
    button = page.get_by_role("button", name="Map of the whole graph")
    expect(page.locator(".qxg-map")).to_be_visible()
    expect(button).to_have_attribute("aria-pressed", "true")
    button.click()
    expect(page.locator(".qxg-map")).to_be_hidden()
    again = context.new_page()
    open_graph(again, address, repeated, opened=opened)
    expect(again.locator("[data-item]").first).to_be_visible()
    expect(again.locator(".qxg-map")).to_be_hidden()
    again.get_by_role("button", name="Map of the whole graph").click()
    expect(again.locator(".qxg-map")).to_be_visible()


# -- height


def test_it_fills_a_pane_that_has_a_height_and_else_has_its_own(
    page: Page, address: str, large: dict[str, Any]
) -> None:
    open_graph(page, address, large, height=300)
    assert place(page, ".qxg-stage")[3] == pytest.approx(300, abs=1)
    set_trait(page, "height", 420)
    assert place(page, ".qxg-stage")[3] == pytest.approx(420, abs=1)
    page.evaluate("document.getElementById('one').style.height = '640px'")
    assert place(page, ".qxg")[3] == pytest.approx(640, abs=1)
    bars = sum(place(page, name)[3] for name in (".qxg-bar", ".qxg-status"))
    assert place(page, ".qxg-stage")[3] == pytest.approx(640 - bars - 2, abs=1)
    # A view that the user has not moved is framed anew.
    page.evaluate("document.getElementById('one').style.height = '300px'")

    def is_framed() -> None:
        _, top, _, _ = place(page, frame("g:"))
        assert top == pytest.approx(place(page, ".qxg-stage")[1] + 20, abs=2)

    eventually(page, is_framed)


# -- words and signs


def test_a_fake_quant_without_data_has_no_scale(page: Page, address: str) -> None:
    unseen = site("c", "output", min_val=(), max_val=(), seen="nothing", scale=(1.0,))
    nodes = [call("c", "c", "")]
    open_graph(page, address, build_scene(snapshot(nodes, [], [unseen])))
    page.locator(f"[data-site='{unseen.path}']").hover()
    expect(page.locator(".qxg-tip")).to_contain_text("has seen no data yet")
    expect(page.locator(".qxg-tip")).not_to_contain_text("scale")


def covered(page: Page) -> list[str]:
    """Signs on edges that cover one another or a box; a weight sits on the border of its own."""
    return page.evaluate(
        """() => {
        const rects = (css) => [...document.querySelectorAll(`.qxg-world ${css}`)]
          .map((e) => [css, e.getBoundingClientRect()]);
        const signs = [".qxg-edge > .qxg-twice-mark rect", ".qxg-dot", ".qxg-shape"].flatMap(rects);
        const boxes = rects(".qxg-node > .qxg-frame");
        const cut = (a, b) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1
          && b.top < a.bottom - 1;
        const bad = [];
        for (const [i, [n, a]] of signs.entries()) {
          for (const [m, b] of signs.slice(i + 1)) if (cut(a, b)) bad.push(`${n} ${m}`);
          for (const [m, b] of boxes) if (cut(a, b) && n !== ".qxg-shape") bad.push(`${n} ${m}`);
        }
        return bad; }"""
    )


def test_signs_on_edges_cover_neither_each_other_nor_boxes(page: Page, address: str) -> None:
    """Two branches side by side, fake quants on their edges, Identities and "2×" on them too."""
    nodes = [call(name, name, "") for name in ("conv", "left", "idl", "right", "idr", "add")]
    known = [module(n, "Identity", "torch.nn.modules.linear.Identity") for n in ("idl", "idr")]
    pairs = [("conv", "left"), ("conv", "right"), ("left", "idl"), ("right", "idr")]
    pairs += [("idl", "add"), ("idr", "add")]
    sites = [
        site(name, kind) for name in ("conv", "left", "right") for kind in ("weight", "output")
    ]
    redundant = frozenset({"edge:left:idl", "edge:conv:right"})
    open_graph(
        page, address, build_scene(snapshot(nodes, pairs, sites, known), redundant=redundant)
    )
    assert page.locator(".qxg-edge > .qxg-twice-mark").count() == 2
    assert page.locator(".qxg-world .qxg-dot").count() == 2
    assert covered(page) == []


@pytest.mark.slow
@pytest.mark.parametrize("flow", ["eager", "fx"])
def test_nothing_overlaps_in_resnet50(page: Page, address: str, flow: str) -> None:
    model, x = load_timm("resnet50", batch=2)
    session = Session(model, (x,), flow=flow)
    session.goto("insert")
    edges = redundant_edges(session.ledger())
    assert bool(edges) == (flow == "fx")
    scene = build_scene(session.snapshot, redundant=edges)
    open_graph(page, address, scene)
    for opened in (["g:layer1", "g:layer1.0"], ["g:layer3", "g:layer3.1×5", "g:layer3.2"]):
        opened = [*opened, "g:global_pool"]
        set_trait(page, "opened", opened)
        expanded(page, opened[1])
        assert covered(page) == []
    assert page.locator(".qxg-edge > .qxg-twice-mark").count() == len(edges)
