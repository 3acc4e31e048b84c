"""Inside a training, by clicks and keys in Voila: cards, ridges, scale and range, the inspector."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.explorer_page import (
    click_next,
    no_message,
    open_tab,
    push,
    run_state,
    tree_row,
    wait_for_explorer,
)
from tests.browser.notebook import Shots, voila_page, wait_until
from tests.browser.servers import REPO_ROOT, Server

pytestmark = [pytest.mark.browser, pytest.mark.timeout(420)]

# Texts of a figure that run out of its box or over one another, boxes of plotly's own included.
CROWDED = """(root) => {
  const found = [];
  for (const plot of document.querySelectorAll(root + " .qx-plot")) {
    if (!plot.offsetHeight) continue;
    const box = plot.querySelector(".qx-plot-box").getBoundingClientRect();
    const texts = [...plot.querySelectorAll("svg.main-svg text")]
      .filter((t) => t.textContent.trim() && t.getClientRects().length)
      .map((t) => ({ text: t.textContent, r: t.getBoundingClientRect() }));
    for (const { text, r } of texts) {
      if (r.left < box.left - 1 || r.right > box.right + 1 || r.top < box.top - 1
          || r.bottom > box.bottom + 1) found.push(`out: ${text}`);
    }
    for (const title of plot.querySelectorAll(".g-xtitle text, .g-ytitle text, .g-y2title text")) {
      const a = title.getBoundingClientRect();
      for (const { text, r } of texts) {
        if (text === title.textContent || !a.width) continue;
        if (a.left + 1 < r.right && r.left + 1 < a.right && a.top + 1 < r.bottom
            && r.top + 1 < a.bottom) found.push(`over: ${title.textContent} / ${text}`);
      }
    }
    for (const button of plot.querySelectorAll(".updatemenu-container")) {
      const caption = plot.querySelector(".qx-plot-caption").getBoundingClientRect();
      if (button.getBoundingClientRect().top < caption.bottom - 1) found.push("under a button");
    }
  }
  return found;
}"""

FIGURES = ".qx-live-figures"
INSPECTOR = ".qx-part-inspector"


def crowded(page: Page, root: str) -> Any:
    page.wait_for_timeout(400)
    return page.evaluate(CROWDED, root)


def drawn(page: Page, root: str) -> int:
    """How often the figures below ``root`` were drawn."""
    return int(
        page.evaluate(
            "(root) => [...document.querySelectorAll(root + ' [data-drawn]')]"
            ".reduce((sum, plot) => sum + Number(plot.dataset.drawn), 0)",
            root,
        )
    )


@pytest.fixture
def trained(voila: Callable[..., Server], page: Page) -> Page:
    """A training of the depthwise example that goes on, seen from inside."""
    voila_page(page, voila(REPO_ROOT / "notebooks" / "dashboard.ipynb"))
    wait_for_explorer(page)
    for stage in ("fuse", "propagate", "swap", "insert", "train"):
        click_next(page, stage)
    open_tab(page, "Train")
    page.get_by_label("Epochs").first.fill("300")
    page.get_by_label("Epochs").first.press("Tab")
    page.get_by_text("Schedules: freezing").click()
    page.get_by_label("Freeze observers from epoch").fill("2")
    page.get_by_label("Sample every … steps").fill("5")
    push(page, "Train")
    run_state(page, "running")
    open_tab(page, "Inside the training")
    expect(page.locator(".qx-card")).to_have_count(9, timeout=60_000)
    return page


def test_inside_a_training_by_clicks_and_keys(trained: Page, shots: Shots) -> None:
    page = trained
    cards = page.locator(".qx-card")
    expect(page.locator(".qx-live-cost")).to_contain_text("1 step in 5", timeout=60_000)
    # It follows the training without a click.
    before, label = drawn(page, FIGURES), cards.first.get_attribute("aria-label")
    wait_until(
        page,
        f"() => [...document.querySelectorAll('{FIGURES} [data-drawn]')]"
        f".reduce((sum, plot) => sum + Number(plot.dataset.drawn), 0) > {before + 3}",
        timeout_s=60,
    )
    assert label

    # A click selects, and what is selected stays selected while the training goes on.
    card = page.locator(".qx-card[data-id='site:conv3.activation_post_process']")
    card.click()
    expect(page.locator(".qx-inspector h3").first).to_contain_text("conv3.activation_post_process")
    expect(card).to_have_attribute("aria-selected", "true")
    title = page.locator(f"{FIGURES} .qx-plot-caption b").first
    expect(title).to_contain_text("conv3.activation_post_process")
    expect(page.locator(".qx-card[aria-selected='true']")).to_have_count(1)
    expect(tree_row(page, "conv3.activation_post_process")).to_have_attribute(
        "aria-selected", "true"
    )

    # By keys: arrows walk, Enter selects, and a redraw does not take the focus away.
    card.focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    focused = page.evaluate("() => document.activeElement.dataset.id")
    before = drawn(page, FIGURES)
    wait_until(
        page,
        f"() => [...document.querySelectorAll('{FIGURES} [data-drawn]')]"
        f".reduce((sum, plot) => sum + Number(plot.dataset.drawn), 0) > {before + 3}",
        timeout_s=60,
    )
    assert page.evaluate("() => document.activeElement.dataset.id") == focused
    page.keyboard.press("Enter")
    expect(page.locator(".qx-inspector h3").first).to_contain_text(focused.partition(":")[2])

    # Until the observers are frozen, and the mark of it is in the figure.
    expect(page.locator(f"{FIGURES} .annotation-text", has_text="observer frozen")).to_be_visible(
        timeout=90_000
    )
    push_stop(page)
    expect(page.locator(f"{FIGURES} .qx-plot-box").first).to_have_attribute(
        "aria-label", re.compile(r"Histograms of the \w+ at \d+ steps from 0 to \d+, on codes")
    )
    page.get_by_label("Worst first by", exact=True).select_option(label="SQNR")
    expect(page.locator(".qx-card b").first).to_contain_text("dB")
    assert crowded(page, FIGURES) == []
    shots(page, "inside-values")
    page.get_by_label("Histograms show").select_option(label="change since the first")
    expect(title).to_contain_text("less those of the first")
    page.locator(f"{FIGURES} summary", has_text="Numbers").first.click()
    expect(page.locator(f"{FIGURES} .qx-plot-numbers td").first).to_be_visible()
    assert crowded(page, FIGURES) == []
    shots(page, "inside-change")
    no_message(page)


def push_stop(page: Page) -> None:
    open_tab(page, "Train")
    push(page, "Stop")
    run_state(page, "stopped")
    open_tab(page, "Inside the training")


def test_figures_follow_their_pane_and_nothing_in_them_is_cut(trained: Page, shots: Shots) -> None:
    page = trained
    push_stop(page)
    tree_row(page, "conv2.weight_fake_quant").click()
    plots = page.locator(f"{INSPECTOR} .qx-plot:visible")
    expect(plots).to_have_count(3, timeout=60_000)
    for width in (330, 520, 360):
        # What a splitter does: the pane changes, the window does not.
        page.evaluate(
            "([root, width]) => { document.querySelector(root).style.width = `${width}px`; }",
            [INSPECTOR, width],
        )
        page.wait_for_timeout(500)
        widths = page.evaluate(
            """(root) => [...document.querySelectorAll(root + " .qx-plot-box")]
            .filter((box) => box.offsetHeight)
            .map((box) => [box.clientWidth, box.querySelector("svg.main-svg").clientWidth])""",
            INSPECTOR,
        )
        assert widths
        assert all(abs(box - picture) <= 1 for box, picture in widths), widths
        assert crowded(page, INSPECTOR) == []
    # Scrolled to, a figure is seen as a whole, down to the title of its axis.
    for index in range(3):
        plots.nth(index).scroll_into_view_if_needed()
        cut = plots.nth(index).evaluate(
            """(plot) => {
              const slot = plot.closest(".qx-figure-slot").getBoundingClientRect();
              const low = plot.querySelector(".qx-plot-box").getBoundingClientRect().bottom;
              return low - slot.bottom;
            }"""
        )
        assert cut <= 1, cut
    shots(page, "inspector-narrow")
