"""Driving the explorer in a page as a user does: by clicks and keys, in JupyterLab or Voila."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from playwright.sync_api import Locator, Page, expect

from tests.browser.notebook import voila_page, wait_until
from tests.browser.servers import REPO_ROOT, Server
from tests.support.waiting import PATIENCE_S

STEPS = ("fuse", "propagate", "swap", "insert", "train", "convert")
EXPLORE = """
import qatexplorer as qx

example = qx.zoo.load("digits_cnn")
explorer = qx.explore(
    example.model, example.example_inputs, data=example.data, suggested=example.training
)
explorer
"""
"""A cell that opens an example in the explorer."""


def stage_in_view(page: Page) -> str:
    """Name of the stage that the bar marks as current."""
    current = page.locator(".qx-stage-button[aria-current='step']")
    return current.get_attribute("data-stage") or ""


def wait_for_explorer(page: Page) -> None:
    """Until the stage bar, the tree and the graph are drawn."""
    page.locator(".qx-stagebar").first.wait_for()
    page.locator(".qx-tree [role=treeitem]").first.wait_for()
    wait_until(page, "() => document.querySelectorAll('svg [data-item]').length > 3")


def wait_for_stage(page: Page, stage: str) -> None:
    """Until ``stage`` is in view and nothing is running."""
    expect(page.locator(f".qx-stage-button[data-stage='{stage}']")).to_have_attribute(
        "aria-current", "step"
    )
    expect(page.locator(".qx-stage-status")).to_have_text("")


def click_next(page: Page, stage: str) -> None:
    """Click Next and wait for ``stage``."""
    page.get_by_role("button", name="Next ▶").click()
    wait_for_stage(page, stage)


def push(page: Page, name: str) -> None:
    """Click one of the panels' buttons."""
    page.get_by_role("button", name=name, exact=True).click()


def open_tab(page: Page, name: str) -> None:
    """Bring a panel of the drawer to the front; the drawer opens if it was closed."""
    tab = page.get_by_role("tab", name=re.compile(name))
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        if tab.get_attribute("aria-selected") != "true":
            tab.click()
        # The page may open the panel by itself at this moment: then the click has closed it.
        page.wait_for_timeout(300)
        if tab.get_attribute("aria-selected") == "true":
            return
    expect(tab).to_have_attribute("aria-selected", "true")


def tree_row(page: Page, path: str) -> Locator:
    """The row of a module or fake quant, by its path."""
    return page.locator(f".qx-tree [role=treeitem][data-id$=':{path}']").first


def run_state(page: Page, state: str) -> None:
    """Until the training panel says that the run is ``state``."""
    words = page.locator(".qx-panel .widget-html-content").filter(
        has_text=re.compile(rf"^\s*{state}: ")
    )
    expect(words.first).to_be_visible()


def no_message(page: Page) -> None:
    """No error is reported in the widget."""
    assert page.locator(".qx-message-error:visible").count() == 0, page.locator(
        ".qx-message-error"
    ).first.inner_text()


def open_dashboard(page: Page, voila: Callable[..., Server], *, theme: str = "light") -> None:
    """Open the dashboard notebook in Voila, in a window of 1280 x 800."""
    page.set_viewport_size({"width": 1280, "height": 800})
    voila_page(
        page,
        voila(REPO_ROOT / "notebooks" / "dashboard.ipynb"),
        theme="dark" if theme == "dark" else "light",
    )
    wait_for_explorer(page)


def use_fx(page: Page) -> None:
    """Choose the FX flow in the settings, and close them."""
    open_tab(page, "Settings")
    page.get_by_label("Flow", exact=True).select_option(label="FX graph mode (prepare_qat_fx)")
    push(page, "Apply and start again")
    expect(page.locator(".qx-stage-button[data-stage='lower']")).to_be_visible()
    wait_for_stage(page, "float")
    page.get_by_role("tab", name="Settings").press("Escape")
    expect(page.locator(".qx-pages")).to_be_hidden()


def closed_drawer(page: Page) -> None:
    """Close the drawer, if a panel is open."""
    while page.locator(".qx-pages").is_visible():
        page.get_by_role("tab", selected=True).press("Escape")
        page.wait_for_timeout(300)


def model_page(page: Page) -> Locator:
    """The inspector's page of the whole model."""
    return page.locator(".qx-inspect:visible").first


def read_the_model_page(page: Page) -> None:
    """The model's page at the float stage; a type of it shows its modules in the tree."""
    found = model_page(page)
    expect(found).to_contain_text("The model at a glance")
    expect(found).to_contain_text("multiply-accumulates")
    found.get_by_role("button", name="Conv2d", exact=True).click()
    search = page.get_by_role("searchbox", name="Search modules")
    expect(search).to_have_value("type:Conv2d")
    expect(page.locator(".qx-tree-status")).to_contain_text("3 of")
    search.fill("")


def follow_the_model_page(page: Page, found: str) -> None:
    """Its buttons at the stage that trains: to the panel, and to what is quantized twice."""
    shown = model_page(page)
    expect(shown).to_contain_text("No fake quant has seen data")
    shown.get_by_role("button", name="Train or calibrate").click()
    expect(page.get_by_role("button", name="Train", exact=True)).to_be_visible()
    shown.get_by_role("button", name="Look for it").click()
    expect(page.get_by_role("grid", name="Fake quants and observers")).to_be_visible()
    expect(shown).to_contain_text(found)
