"""The qconfig editor in a real page: two modules selected, four bits, preview, apply, undo, save
and load, by clicks, in JupyterLab and in Voila."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from qatexplorer.flows.qconfig_rules import QConfigRule
from qatexplorer.flows.quant_spec import QuantSpec
from qatexplorer.flows.rules_file import read_rules
from tests.browser.explorer_page import (
    EXPLORE,
    no_message,
    open_tab,
    push,
    tree_row,
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

FOUR = QuantSpec(bits=4, signed=True, scheme="symmetric", per_channel=True)


def panel(page: Page) -> Locator:
    return page.locator(".qx-qconfig")


def ruled(page: Page, path: str) -> Locator:
    return tree_row(page, path).locator(".qx-tree-rule")


def load(page: Page, file: Path) -> None:
    """Choose a file of rules."""
    with page.expect_file_chooser() as chooser:
        panel(page).locator(".widget-upload").click()
    chooser.value.set_files(file)


def choose_two(page: Page) -> None:
    """Select two convolutions in the tree, and four bits for their weights."""
    open_tab(page, "qconfig")
    tree_row(page, "conv1").click()
    tree_row(page, "conv2").click(modifiers=["Control"])
    expect(panel(page)).to_contain_text("2 modules: conv1, conv2")
    panel(page).get_by_label("Weight", exact=True).select_option("another fake quant")
    bits = panel(page).locator(".qx-qconfig-side").first.get_by_label("Bits")
    bits.fill("4")
    bits.press("Tab")


def edit(page: Page, folder: Path) -> Path:
    """The whole way; returns the file that was saved."""
    choose_two(page)
    table = panel(page).locator(".qx-qconfig-sqnr")
    expect(table).to_contain_text("weight of conv1")
    expect(table).to_contain_text("▼ worse by")
    expect(panel(page).locator(".qx-plot .bars path").first).to_be_visible()
    push(page, "Apply")
    expect(ruled(page, "conv1")).to_have_text("✎ w4")
    wait_for_stage(page, "float")
    no_message(page)
    assert "int4" in (ruled(page, "conv2").get_attribute("title") or "")
    expect(panel(page).locator(".qx-qconfig-rules tbody tr")).to_have_count(2)
    with page.expect_download() as saved:
        push(page, "Save as TOML")
    file = folder / saved.value.suggested_filename
    saved.value.save_as(file)
    assert file.name == "qconfig.toml"
    assert set(read_rules(file)) == {
        QConfigRule("conv1", weight=FOUR),
        QConfigRule("conv2", weight=FOUR),
    }
    push(page, "Undo")
    expect(page.locator(".qx-tree-rule")).to_have_count(0)
    push(page, "Redo")
    expect(ruled(page, "conv1")).to_have_text("✎ w4")
    panel(page).get_by_role("button", name="Delete the rule for conv1").click()
    expect(page.locator(".qx-tree-rule")).to_have_count(1)
    load(page, file)
    expect(page.locator(".qx-tree-rule")).to_have_count(2)
    return file


def test_two_modules_are_edited_in_dark_voila(
    page: Page, voila: Callable[..., Server], tmp_path: Path, shots: Shots
) -> None:
    page.set_viewport_size({"width": 1280, "height": 900})
    notebook = write_notebook(tmp_path / "edit.ipynb", [EXPLORE])
    voila_page(page, voila(notebook), theme="dark")
    wait_for_explorer(page)
    file = edit(page, tmp_path)
    shots(page, "qconfig-dark", settle_ms=1500)
    assert axe_findings(page.locator(".qx-explorer")) == []
    assert cut_off(page.locator(".qx-explorer")) == []
    # A conflict is said before it is applied, a bad file in a sentence.
    side = panel(page).locator(".qx-qconfig-side").first
    side.get_by_label("learned step size").check()
    side.get_by_label("reduce_range").check()
    refused = panel(page).locator(".qx-qconfig-refused")
    expect(refused).to_contain_text("takes no reduce_range")
    expect(page.get_by_role("button", name="Apply", exact=True)).to_be_disabled()
    file.write_bytes(b"\x80\x04\x95 a pickle")
    load(page, file)
    expect(refused).to_contain_text("is not UTF-8 text")
    shots(page, "qconfig-refused-dark")
    page.locator(".qx-stage-button[data-stage='insert']").click()
    wait_for_stage(page, "insert")
    expect(ruled(page, "conv1")).to_have_text("✎ w4")


def test_two_modules_are_edited_in_jupyterlab(
    lab: Server, page: Page, shots: Shots, tmp_path: Path, clean_kernels: None
) -> None:
    write_notebook(lab.root / "edit.ipynb", [EXPLORE], hide_source=True)
    open_notebook(page, lab, "edit.ipynb")
    run_all_cells(page)
    wait_for_explorer(page)
    edit(page, tmp_path)
    for theme in ("light", "dark"):
        set_theme(page, "light" if theme == "light" else "dark")
        shots(page, f"qconfig-lab-{theme}", settle_ms=800)
        assert axe_findings(page.locator(".qx-explorer")) == []
