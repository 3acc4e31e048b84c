"""Latency on the page: measured by a click, stopped, selected by a row, in Voila and JupyterLab."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.explorer_page import (
    EXPLORE,
    no_message,
    open_tab,
    push,
    wait_for_explorer,
)
from tests.browser.layout_page import assert_contrast
from tests.browser.notebook import (
    Shots,
    open_notebook,
    run_all_cells,
    set_theme,
    voila_page,
    write_notebook,
)
from tests.browser.servers import REPO_ROOT, Server

pytestmark = pytest.mark.browser


def measure_latency(page: Page, shots: Shots, name: str) -> None:
    wait_for_explorer(page)
    open_tab(page, "Float, fake-quant, int8")
    # Stopped at once: the rows are there, and say nothing that was not measured.
    push(page, "Measure latency")
    push(page, "Stop measuring")
    expect(page.get_by_text("Stopped before all was measured.")).to_be_visible()
    push(page, "Measure latency")
    words = page.locator(".qx-panel .qx-muted").filter(
        has_text=re.compile(r"measuring: .*\d+%, about .* left")
    )
    expect(words.first).to_be_visible()
    table = page.locator("table.qx-results:has-text('samples/s')")
    expect(table.locator("tbody tr")).to_have_count(6)
    expect(page.get_by_role("button", name="Stop measuring")).to_be_hidden()
    expect(table.locator("caption")).to_contain_text(re.compile(r"\d thread.*Median and spread"))
    expect(table.locator("tr.qx-is-int8 td").nth(1)).to_contain_text(re.compile(r"[\d.]+ ms"))
    # In words, with the numbers of the table.
    said = page.locator(".qx-latency-words li").first.inner_text()
    assert re.match("int8 .*float .*at a batch of 1: ", said), said
    for row in (table.locator("tbody tr").nth(0), table.locator("tr.qx-is-int8").nth(0)):
        assert row.locator("td").nth(1).inner_text().strip() in said, said
    expect(page.locator(".qx-figure-slot .js-plotly-plot .errorbar").first).to_be_attached()
    assert_contrast(page)
    shots(page, f"{name}-table")

    grid = page.get_by_role("grid", name="Time of each module")
    grid.scroll_into_view_if_needed()
    grid.get_by_role("button", name="ms in int8").click()
    expect(grid.locator("[aria-sort='ascending'], [aria-sort='descending']")).to_have_count(1)
    row = grid.get_by_role("row").filter(has_text=re.compile("^conv2"))
    row.first.click()
    expect(page.locator(".qx-inspector h3").first).to_contain_text("conv2")
    expect(row.first).to_have_attribute("aria-selected", "true")
    # The other way round, and in the operators.
    push(page, "Operators")
    operators = page.get_by_role("grid", name="Time of each operator")
    expect(operators.locator("[aria-selected='true']").first).to_contain_text("conv2")
    page.locator(".qx-tree [role=treeitem][data-id$=':conv1']").first.click()
    expect(operators.locator("[aria-selected='true']").first).to_contain_text("conv1")
    page.locator(".qx-table-chips [data-flag='int8']:visible").first.click()
    expect(operators.get_by_role("row").nth(1)).to_contain_text("int8")
    operators.scroll_into_view_if_needed()
    shots(page, f"{name}-operators")
    no_message(page)
    assert "USDT" not in page.locator("body").inner_text()


def test_latency_in_voila(voila: Callable[..., Server], page: Page, shots: Shots) -> None:
    voila_page(page, voila(REPO_ROOT / "notebooks" / "dashboard.ipynb"))
    measure_latency(page, shots, "latency-voila")


def test_latency_in_jupyterlab(lab: Server, page: Page, shots: Shots, clean_kernels: None) -> None:
    book = write_notebook(lab.root / "latency.ipynb", [EXPLORE])
    open_notebook(page, lab, book.name)
    set_theme(page, "dark")
    run_all_cells(page)
    measure_latency(page, shots, "latency-lab-dark")
