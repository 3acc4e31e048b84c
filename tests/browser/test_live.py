"""Inside a training, by clicks and keys in Voila: cards, ridges, scale and range, the inspector."""

from __future__ import annotations

import re
from collections.abc import Callable

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
from tests.browser.notebook import Shots, eventually, until, voila_page
from tests.browser.servers import REPO_ROOT, Server

pytestmark = pytest.mark.browser

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


def assert_not_crowded(page: Page, root: str) -> None:
    """No text of the figures below ``root`` is cut or covered, once they are drawn."""

    def check() -> None:
        assert page.evaluate(CROWDED, root) == []

    eventually(page, check)


def drawn(page: Page, root: str) -> int:
    """How often the figures below ``root`` were drawn."""
    return int(
        page.evaluate(
            "(root) => [...document.querySelectorAll(root + ' [data-drawn]')]"
            ".reduce((sum, plot) => sum + Number(plot.dataset.drawn), 0)",
            root,
        )
    )


def draws_again(page: Page) -> None:
    """Until the training has been drawn some more."""
    before = drawn(page, FIGURES)
    until(page, lambda: drawn(page, FIGURES) > before + 3)


def train(page: Page, server: Server) -> None:
    """Start a training of the dashboard's example that goes on, and look inside."""
    voila_page(page, server)
    wait_for_explorer(page)
    for stage in ("fuse", "propagate", "swap", "insert", "train"):
        click_next(page, stage)
    open_tab(page, "Train")
    page.get_by_label("Epochs").first.fill("3000")
    page.get_by_label("Epochs").first.press("Tab")
    page.get_by_text("Schedules: freezing").click()
    page.get_by_label("Freeze observers from epoch").fill("2")
    page.get_by_label("Sample every … steps").fill("5")
    push(page, "Train")
    run_state(page, "running")
    open_tab(page, "Inside the training")
    expect(page.locator(".qx-card")).to_have_count(9)


@pytest.fixture
def trained(voila: Callable[..., Server], shared: Callable[[Callable[[Page], None]], Page]) -> Page:
    """A training seen from inside: it runs until a test stops it."""
    return shared(lambda page: train(page, voila(REPO_ROOT / "notebooks" / "dashboard.ipynb")))


def test_inside_a_training_by_clicks_and_keys(trained: Page, shots: Shots) -> None:
    page = trained
    cards = page.locator(".qx-card")
    expect(page.locator(".qx-live-cost")).to_contain_text("1 step in 5")
    # It follows the training without a click.
    draws_again(page)
    assert cards.first.get_attribute("aria-label")

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
    draws_again(page)
    assert page.evaluate("() => document.activeElement.dataset.id") == focused
    page.keyboard.press("Enter")
    expect(page.locator(".qx-inspector h3").first).to_contain_text(focused.partition(":")[2])

    # Until the observers are frozen, and the mark of it is in the figure.
    expect(page.locator(f"{FIGURES} .annotation-text", has_text="observer frozen")).to_be_visible()
    stop(page)
    expect(page.locator(f"{FIGURES} .qx-plot-box").first).to_have_attribute(
        "aria-label", re.compile(r"Histograms of the \w+ at \d+ steps from 0 to \d+, on codes")
    )
    page.get_by_label("Worst first by", exact=True).select_option(label="SQNR")
    expect(page.locator(".qx-card b").first).to_contain_text("dB")
    assert_not_crowded(page, FIGURES)
    shots(page, "inside-values")
    page.get_by_label("Histograms show").select_option(label="change since the first")
    expect(title).to_contain_text("less those of the first")
    page.locator(f"{FIGURES} summary", has_text="Numbers").first.click()
    expect(page.locator(f"{FIGURES} .qx-plot-numbers td").first).to_be_visible()
    assert_not_crowded(page, FIGURES)
    shots(page, "inside-change")
    no_message(page)


def stop(page: Page) -> None:
    """Stop the training, if no test has before."""
    open_tab(page, "Train")
    button = page.get_by_role("button", name="Stop", exact=True)
    if button.is_enabled():
        button.click()
    run_state(page, "stopped")
    open_tab(page, "Inside the training")


def figures_fit(page: Page) -> None:
    """Every figure of the inspector is as wide as its box, and nothing in it is cut."""
    widths = page.evaluate(
        """(root) => [...document.querySelectorAll(root + " .qx-plot-box")]
        .filter((box) => box.offsetHeight)
        .map((box) => [box.clientWidth, box.querySelector("svg.main-svg").clientWidth])""",
        INSPECTOR,
    )
    assert widths
    assert all(abs(box - picture) <= 1 for box, picture in widths), widths
    assert page.evaluate(CROWDED, INSPECTOR) == []


def test_figures_follow_their_pane_and_nothing_in_them_is_cut(trained: Page, shots: Shots) -> None:
    page = trained
    stop(page)
    tree_row(page, "conv2.weight_fake_quant").click()
    plots = page.locator(f"{INSPECTOR} .qx-plot:visible")
    expect(plots).to_have_count(3)
    for width in (330, 520, 360):
        # What a splitter does: the pane changes, the window does not.
        page.evaluate(
            "([root, width]) => { document.querySelector(root).style.width = `${width}px`; }",
            [INSPECTOR, width],
        )
        eventually(page, lambda: figures_fit(page))
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
