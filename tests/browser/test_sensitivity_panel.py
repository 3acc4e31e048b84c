"""The panel "Sensitivity" in a real page, by clicks and keys, in JupyterLab and in Voila: ranked,
searched, applied, prepared again, taken back."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.explorer_page import (
    no_message,
    open_tab,
    push,
    wait_for_explorer,
    wait_for_stage,
)
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

example = qx.zoo.load("digits_depthwise")
qx.explore(
    example.model, example.example_inputs, data=example.data,
    qconfig=example.suggested["qconfig"],
)
"""


def panel(page: Page) -> Locator:
    return page.locator(".qx-sens")


def rows(page: Page, label: str) -> Locator:
    return page.get_by_role("grid", name=label).locator("[role=row][data-id]")


def measured(page: Page, method: str) -> None:
    """Choose a method, measure, and wait for its ranking."""
    box = page.get_by_label("Method", exact=True)
    box.select_option(label=box.locator("option", has_text=method).inner_text())
    panel(page).get_by_role("button", name=re.compile("^(Measure|Go on)")).click()
    expect(panel(page).get_by_role("button", name="Measure again")).to_be_enabled()
    expect(rows(page, "Fake quants by what they cost").first).to_be_visible()


def from_ranking_to_mixed_precision(page: Page, shots: Shots, name: str) -> None:
    page.locator(".qx-stage-button[data-stage='train']").click()
    wait_for_stage(page, "train")
    open_tab(page, "Train")
    push(page, "Calibrate only")
    wait_for_stage(page, "train")
    open_tab(page, "Sensitivity")
    expect(panel(page)).to_contain_text("less than 24")
    measured(page, "Shadow")
    expect(panel(page)).to_contain_text("not known: exact was not run")
    measured(page, "Exact")
    measured(page, "Shadow")
    expect(panel(page)).to_contain_text(re.compile(r"Spearman with exact\s*−?\d"))
    shots(page, f"sensitivity-{name}")
    assert axe_findings(page.locator(".qx-explorer")) == []

    # A row selects its fake quant in the tree, by keys; a module of the tree marks its row.
    first = rows(page, "Fake quants by what they cost").first
    path = first.get_attribute("data-id") or ""
    first.focus()
    page.keyboard.press("Enter")
    row = page.locator(f".qx-tree [role=treeitem][data-id='site:{path}']")
    expect(row).to_have_attribute("aria-selected", "true")
    page.locator(".qx-tree input").first.fill("stem")
    page.locator(".qx-tree [role=treeitem][data-id='module:stem']").click()
    marked = page.get_by_role("grid", name="Fake quants by what they cost").locator(
        "[role=row][aria-selected='true']"
    )
    expect(marked).to_have_attribute("data-id", re.compile(r"^stem\."))

    # Search, look at the points, apply.
    push(page, "Find the smallest set")
    points = rows(page, "Points of the curve")
    expect(points.first).to_be_visible()
    expect(panel(page)).to_contain_text("Smallest set found")
    panel(page).get_by_role("button", name="Leave these in float").scroll_into_view_if_needed()
    shots(page, f"sensitivity-points-{name}")
    assert axe_findings(page.locator(".qx-explorer")) == []
    assert cut_off(page.locator(".qx-explorer")) == []
    chosen = points.and_(page.locator("[aria-selected='true']"))
    which = chosen.locator("[role=gridcell]").last.inner_text()
    field = panel(page).get_by_label("Wished metric")
    field.fill("0.1")
    field.press("Enter")
    expect(points.first).to_have_attribute("aria-selected", "true")
    leave = panel(page).get_by_role("button", name="Leave these in float")
    expect(leave).to_be_disabled()  # everything is quantized at this point
    points.nth(1).click()
    one = points.nth(1).locator("[role=gridcell]").last.inner_text()
    assert "," not in one
    assert which
    leave.click()
    wait_for_stage(page, "float")
    expect(panel(page)).to_contain_text(f"In force: left in float: {one}")
    no_message(page)
    page.locator(".qx-stage-button[data-stage='insert']").click()
    wait_for_stage(page, "insert")
    inside = page.locator(f".qx-tree [role=treeitem][data-id^='site:{one}.']")
    page.locator(".qx-tree input").first.fill(one.rpartition(".")[2])
    expect(page.locator(f".qx-tree [role=treeitem][data-id='module:{one}']")).to_be_visible()
    expect(inside).to_have_count(0)
    shots(page, f"sensitivity-applied-{name}")
    panel(page).get_by_role("button", name="Take it back").click()
    wait_for_stage(page, "float")
    expect(panel(page)).not_to_contain_text("In force")
    page.locator(".qx-stage-button[data-stage='insert']").click()
    wait_for_stage(page, "insert")
    expect(inside.first).to_be_visible()


def test_sensitivity_in_dark_voila(
    page: Page, voila: Callable[..., Server], tmp_path: Path, shots: Shots
) -> None:
    page.set_viewport_size({"width": 1280, "height": 900})
    notebook = write_notebook(tmp_path / "sensitivity.ipynb", [CELL])
    voila_page(page, voila(notebook), theme="dark")
    wait_for_explorer(page)
    from_ranking_to_mixed_precision(page, shots, "voila-dark")


def test_sensitivity_in_jupyterlab(
    lab: Server, page: Page, shots: Shots, clean_kernels: None
) -> None:
    write_notebook(lab.root / "sensitivity.ipynb", [CELL], hide_source=True)
    open_notebook(page, lab, "sensitivity.ipynb")
    run_all_cells(page)
    wait_for_explorer(page)
    set_theme(page, "light")
    from_ranking_to_mixed_precision(page, shots, "lab")
