"""An overlay and a comparison in the graph's front end: colours, words, selects, themes."""

# ruff: noqa: F811 - a fixture that is imported has the name of the argument

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page, expect

import qatexplorer as qx
from qatexplorer.views.graph.overlays import overlay_picture
from tests.browser.graph_page import (  # noqa: F401 - fixtures
    address,
    item_selector,
    open_graph,
    set_trait,
    small,
    trait,
)
from tests.browser.layout_page import CONTRAST

pytestmark = pytest.mark.browser

PICKERS = [
    {
        "id": "overlay",
        "label": "Colour by",
        "title": "Colour the graph",
        "options": [["", "nothing"], ["sqnr", "SQNR"], ["macs", "MACs"]],
    }
]


def noise(scene: dict[str, Any]) -> dict[str, Any]:
    sites = list(scene["sites"])
    values = {path: 20.0 + 7 * index for index, path in enumerate(sites[:-1])}
    return overlay_picture(qx.Overlay.of(values, "SQNR", "dB", "good"), scene)


def fill(page: Page, item: str) -> str:
    frame = page.locator(f"{item_selector(item)} > .qxg-frame").first
    return str(frame.evaluate("(e) => getComputedStyle(e).fill"))


@pytest.mark.parametrize("light", ["true", "false"])
def test_colours_can_be_read_and_are_said(
    page: Page, address: str, small: dict[str, Any], light: str
) -> None:
    open_graph(page, address, small, pickers=PICKERS)
    page.evaluate("(light) => { document.body.dataset.jpThemeLight = light; }", light)
    plain = fill(page, "n:conv1")
    picture = noise(small)
    set_trait(page, "overlay", picture)
    assert page.locator(".qxg-painted").count() == len(picture["values"])
    assert fill(page, "n:conv1") != plain
    assert page.evaluate(CONTRAST) >= 4.5
    label = page.locator(item_selector("n:conv1")).get_attribute("aria-label") or ""
    assert label.endswith(f"SQNR: {picture['texts']['n:conv1']}")
    expect(page.locator(".qxg-scale")).to_contain_text("high is good")
    assert page.locator(".qxg-ticks span").count() >= 2
    page.locator(item_selector("n:conv1")).hover(position={"x": 60, "y": 8})
    expect(page.locator(".qxg-tip")).to_contain_text(f"SQNR: {picture['texts']['n:conv1']}")
    # What is not known is hatched, never coloured as if it were 0.
    unknown = next(n["id"] for n in small["nodes"] if n["id"] not in picture["values"])
    hatched = page.locator(item_selector(unknown))
    expect(hatched.locator(".qxg-cover")).to_have_count(1)
    assert (hatched.get_attribute("aria-label") or "").endswith("SQNR: not known")
    # The other theme has other colours, and no colours leave no trace.
    before = fill(page, "n:conv1")
    other = "false" if light == "true" else "true"
    page.evaluate("(light) => { document.body.dataset.jpThemeLight = light; }", other)
    page.wait_for_function(
        "([css, before]) => getComputedStyle(document.querySelector(css)).fill !== before",
        arg=[f"{item_selector('n:conv1')} > .qxg-frame", before],
    )
    assert page.evaluate(CONTRAST) >= 4.5
    set_trait(page, "overlay", {})
    expect(page.locator(".qxg-painted, .qxg-unknown, .qxg-extra")).to_have_count(0)
    expect(page.locator(".qxg-scale")).to_be_hidden()
    assert "SQNR" not in (page.locator(item_selector("n:conv1")).get_attribute("aria-label") or "")


def test_the_select_is_used_by_keys_and_stop_ends_what_is_measured(
    page: Page, address: str, small: dict[str, Any]
) -> None:
    open_graph(page, address, small, pickers=PICKERS, picked={})
    page.get_by_label("Colour by").focus()
    page.keyboard.type("MACs")
    page.keyboard.press("Enter")
    assert trait(page, "picked") == {"overlay": "macs"}
    set_trait(page, "overlay", {"title": "Time", "busy": "measuring: 40%"})
    expect(page.locator(".qxg-scale")).to_contain_text("measuring: 40%")
    expect(page.locator(".qxg-painted")).to_have_count(0)
    page.get_by_role("button", name="Stop").click()
    assert trait(page, "picked") == {"overlay": ""}
    expect(page.get_by_label("Colour by")).to_have_value("")
    set_trait(page, "overlay", {"title": "Time", "error": "The model is being trained."})
    expect(page.locator(".qxg-scale")).to_contain_text("The model is being trained.")


def test_words_have_a_colour_and_a_pattern(page: Page, address: str, small: dict[str, Any]) -> None:
    open_graph(page, address, small)
    overlay = qx.Overlay.of({"conv1": "cpu", "block.left": "gpu"}, "Device")
    set_trait(page, "overlay", overlay_picture(overlay, small))
    assert page.locator(".qxg-category").all_inner_texts() == ["cpu", "gpu"]
    expect(page.locator(f"{item_selector('n:conv1')} > .qxg-cover")).to_have_count(1)
    assert fill(page, "n:conv1") != fill(page, "n:left")
    assert page.evaluate(CONTRAST) >= 4.5


def test_what_the_other_graph_lacks_has_a_sign_and_words(
    page: Page, address: str, small: dict[str, Any]
) -> None:
    open_graph(page, address, small)
    site = next(iter(small["sites"]))
    lacks = "only here, not at Your model"
    compared = {
        "caption": "Insert observers", "only": ["n:conv1"], "sites": [site], "sign": "+",
        "lacks": lacks, "said": "fc is not at Your model",
    }  # fmt: skip
    set_trait(page, "compared", compared)
    expect(page.locator(".qxg-caption")).to_contain_text(f"Insert observers+ 2 {lacks}")
    expect(page.locator(".qxg-said")).to_have_text("fc is not at Your model")
    conv = page.locator(item_selector("n:conv1"))
    expect(conv.locator(":scope > .qxg-sign text")).to_have_text("+")
    assert (conv.get_attribute("aria-label") or "").endswith(lacks)
    assert (page.locator(f"[data-site='{site}']").first.get_attribute("aria-label") or "").endswith(
        lacks
    )
    set_trait(page, "compared", {})
    expect(page.locator(".qxg-only, .qxg-sign")).to_have_count(0)
    expect(page.locator(".qxg-caption")).to_be_hidden()


def test_a_narrower_graph_keeps_its_middle_and_its_selects(
    page: Page, address: str, small: dict[str, Any]
) -> None:
    long = [{**PICKERS[0], "label": "A label that takes room"}]
    open_graph(page, address, small, pickers=long, picked={})
    page.locator(".qxg-svg").focus()
    page.keyboard.press("+")  # from here on the graph is where the user put it
    aside = """() => {
      const middle = (e) => { const r = e.getBoundingClientRect(); return r.left + r.width / 2; };
      return middle(document.querySelector("[data-item='n:conv1'] > .qxg-frame"))
        - middle(document.querySelector(".qxg-stage"));
    }"""
    before = page.evaluate(aside)
    page.set_viewport_size({"width": 300, "height": 700})
    page.wait_for_function(f"(before) => Math.abs(({aside})() - before) <= 2", arg=before)
    right = "(e) => e.getBoundingClientRect().right"
    select = page.get_by_label("A label that takes room").evaluate(right)
    assert select <= page.locator(".qxg").evaluate(right)
    # Nothing scrolls the inside of a graph away, not even what asks for a box in it.
    page.locator(item_selector("n:conv1")).evaluate("(e) => e.scrollIntoView({inline: 'start'})")
    assert page.locator(".qxg").evaluate("(e) => e.scrollLeft") == 0
