"""axe-core finds nothing serious or critical in the explorer, in light and dark."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.explorer_page import (
    EXPLORE,
    STEPS,
    click_next,
    open_dashboard,
    open_tab,
    tree_row,
    use_fx,
    wait_for_explorer,
    wait_for_stage,
)
from tests.browser.layout_page import axe_findings
from tests.browser.notebook import open_notebook, run_all_cells, set_theme, write_notebook
from tests.browser.servers import Server

pytestmark = pytest.mark.browser

TABS = (
    "Checks",
    "Train",
    "Inside the training",
    "Who put it there",
    "Float, fake-quant",
    "Compare",
    "qconfig",
    "Settings",
    "Runs",
    "Sensitivity",
    "Cures",
    "Flows",
    "Take home",
)


def test_axe_finds_nothing_in_dark_voila(voila: Callable[..., Server], page: Page) -> None:
    open_dashboard(page, voila, theme="dark")
    found = {"float": axe_findings(page.locator(".qx-explorer"))}
    for stage in STEPS[:4]:
        click_next(page, stage)
    found["insert"] = axe_findings(page.locator(".qx-explorer"))
    tree_row(page, "conv1").click()
    expect(page.locator(".qx-plot .bars path").first).to_be_visible()
    found["insert, conv1"] = axe_findings(page.locator(".qx-explorer"))
    page.locator(".qx-newsbar .qx-note-more").click()
    found["story"] = axe_findings(page.locator(".qx-explorer"))
    page.keyboard.press("Escape")
    for tab in TABS:
        open_tab(page, tab)
        if tab.startswith("Who"):
            page.locator(".qx-table [role=row]").nth(2).wait_for()
        found[tab] = axe_findings(page.locator(".qx-explorer"))
    page.get_by_role("button", name="Keys").click()
    found["keys"] = axe_findings(page.locator(".qx-explorer"))
    page.keyboard.press("Escape")
    use_fx(page)
    page.locator(".qx-stage-button[data-stage='lower']").click()
    wait_for_stage(page, "lower")
    found["fx, lower"] = axe_findings(page.locator(".qx-explorer"))
    assert {where: lines for where, lines in found.items() if lines} == {}


def test_axe_finds_nothing_in_jupyterlab(lab: Server, page: Page, clean_kernels: None) -> None:
    write_notebook(lab.root / "axe.ipynb", [EXPLORE], hide_source=True)
    open_notebook(page, lab, "axe.ipynb")
    run_all_cells(page)
    wait_for_explorer(page)
    found = {"float, light": axe_findings(page.locator(".qx-explorer"))}
    set_theme(page, "dark")
    found["float, dark"] = axe_findings(page.locator(".qx-explorer"))
    for stage in STEPS[:4]:
        click_next(page, stage)
    tree_row(page, "conv1").click()
    for tab in ("Who put it there", "Settings", "Train"):
        open_tab(page, tab)
        found[f"{tab}, dark"] = axe_findings(page.locator(".qx-explorer"))
    set_theme(page, "light")
    for tab in TABS:
        open_tab(page, tab)
        found[f"{tab}, light"] = axe_findings(page.locator(".qx-explorer"))
    page.locator(".qx-newsbar .qx-note-more").click()
    found["story, light"] = axe_findings(page.locator(".qx-explorer"))
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Keys").click()
    found["keys, light"] = axe_findings(page.locator(".qx-explorer"))
    assert {where: lines for where, lines in found.items() if lines} == {}
