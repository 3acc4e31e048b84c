"""One model through the flows by clicks, in Voila and in JupyterLab, dark and light."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from qatexplorer.flows.pt2e import unavailable
from tests.browser.explorer_page import no_message, open_tab, wait_for_explorer
from tests.browser.layout_page import axe_findings, cut_off
from tests.browser.notebook import (
    Shots,
    open_notebook,
    run_all_cells,
    set_theme,
    voila_page,
    write_notebook,
)
from tests.browser.servers import Server

pytestmark = pytest.mark.browser

CELL = """
import qatexplorer as qx
qx.explore(example="digits_cnn")
"""


def panel(page: Page) -> Locator:
    return page.locator(".qx-migration")


def take_through(page: Page, without: str) -> None:
    """Begin with the flows but one, and wait until the places are there."""
    wait_for_explorer(page)
    open_tab(page, "Flows")
    expect(panel(page)).to_contain_text("One float model in several flows")
    panel(page).get_by_label(without, exact=True).uncheck()
    panel(page).get_by_role("button", name="Take it through").click()
    expect(panel(page).locator(".qx-table-row").first).to_be_visible(timeout=30_000)


def look(page: Page, shots: Shots, name: str) -> None:
    """The table, its filters and its rows, which select on the page; the file for the browser."""
    row = panel(page).locator(".qx-table-row").filter(has_text="result of flatten")
    expect(row).to_contain_text("eager: flatten is a function or method")
    shots(page, f"flows-{name}")
    only = panel(page).get_by_role("button", name=re.compile("Alike in all"))
    only.click()
    expect(row).to_have_count(0)
    only.click()
    weight = panel(page).locator(".qx-table-row").filter(has_text="weight of conv2")
    weight.click()
    shots(page, f"flows-row-{name}")
    chosen = page.locator(".qx-tree [role=treeitem][aria-selected=true]")
    expect(chosen).to_have_attribute("data-id", re.compile("module:conv2"))
    panel(page).get_by_role("button", name="What comes out").click()
    expect(panel(page).locator("td", has_text=re.compile(r"\d dB")).first).to_be_visible()
    shots(page, f"flows-worth-{name}")
    with page.expect_download() as saving:
        panel(page).get_by_role("button", name="Save as HTML").click()
    assert saving.value.suggested_filename == "DigitsCNN-migration.html"
    assert "weight of conv2" in Path(saving.value.path()).read_text(encoding="utf-8")
    no_message(page)
    assert cut_off(page.locator(".qx-explorer")) == []
    assert axe_findings(page.locator(".qx-explorer")) == []


def test_by_clicks_in_voila_and_in_jupyterlab(
    voila: Callable[..., Server],
    lab: Server,
    page: Page,
    tmp_path: Path,
    shots: Shots,
    clean_kernels: None,
) -> None:
    page.set_viewport_size({"width": 1280, "height": 900})
    voila_page(page, voila(write_notebook(tmp_path / "flows.ipynb", [CELL])), theme="dark")
    take_through(page, without="fx" if not unavailable() else "pt2e")
    look(page, shots, "voila-dark")

    write_notebook(lab.root / "flows.ipynb", [CELL], hide_source=True)
    page.set_viewport_size({"width": 1920, "height": 1000})
    open_notebook(page, lab, "flows.ipynb")
    run_all_cells(page)
    set_theme(page, "light")
    take_through(page, without="pt2e")
    look(page, shots, "lab-light")
