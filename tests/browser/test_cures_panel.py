"""The panel "Cures" in a real page, by clicks and keys, in JupyterLab and in Voila: what speaks for
one before training, tried, measured, and taken back."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.explorer_page import no_message, open_tab, wait_for_explorer, wait_for_stage
from tests.browser.layout_page import axe_findings, cut_off
from tests.browser.notebook import (
    Shots,
    eventually,
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
    return page.locator(".qx-cures")


def nothing_is_cut(page: Page) -> None:
    assert cut_off(page.locator(".qx-explorer")) == []  # the panel's tab among them


def equalized_and_taken_back(page: Page, shots: Shots, name: str) -> None:
    open_tab(page, "Train")
    before = page.locator(".qx-page-shown .qx-cures-before")
    expect(before).to_contain_text("22 of the 32 channels of block3.depthwise")
    open_tab(page, "Cures")
    expect(panel(page)).to_contain_text("Equalizes 3 pairs of layers")
    expect(panel(page)).to_contain_text("Not now: There are no fake quants")
    expect(panel(page).get_by_role("button", name="Try: Correct biases")).to_be_disabled()
    shots(page, f"cures-cards-{name}")
    attempt = panel(page).get_by_role("button", name="Try: Equalize layers")
    attempt.focus()
    page.keyboard.press("Enter")
    outcome = panel(page).locator(".qx-cures-outcome")
    expect(outcome).to_contain_text("Measured on the same 540 samples")
    wait_for_stage(page, "float")
    numbers = panel(page).locator(".qx-cures-table").first.locator("tbody tr").last
    cells = [float(cell) for cell in numbers.locator("td").all_inner_texts()]
    assert cells[0] < 0.65 < 0.97 < cells[1]
    outcome.get_by_text("By layer: widest channel over narrowest").click()
    expect(outcome).to_contain_text("block3.depthwise (output channels)")
    shots(page, f"cures-{name}")
    page.set_viewport_size({"width": 900, "height": 700})
    eventually(page, lambda: nothing_is_cut(page))
    page.set_viewport_size({"width": 1280, "height": 800})
    assert axe_findings(page.locator(".qx-explorer")) == []
    open_tab(page, "Train")
    expect(before).to_contain_text("Training is not the first thing to try here")
    expect(before).to_contain_text(re.compile(r"from 0\.[56]\d* to accuracy 0\.9\d*"))
    shots(page, f"cures-train-{name}")
    open_tab(page, "Cures")
    panel(page).get_by_role("button", name="Undo").click()
    expect(panel(page)).to_contain_text("Equalize layers, taken back:")
    expect(panel(page)).to_contain_text("No cure is on.")
    expect(attempt).to_be_enabled()
    no_message(page)


def test_cures_in_voila(
    page: Page, voila: Callable[..., Server], tmp_path: Path, shots: Shots
) -> None:
    page.set_viewport_size({"width": 1280, "height": 800})
    voila_page(page, voila(write_notebook(tmp_path / "cures.ipynb", [CELL])), theme="dark")
    wait_for_explorer(page)
    equalized_and_taken_back(page, shots, "voila")


def test_cures_in_jupyterlab(lab: Server, page: Page, shots: Shots, clean_kernels: None) -> None:
    write_notebook(lab.root / "cures.ipynb", [CELL], hide_source=True)
    open_notebook(page, lab, "cures.ipynb")
    run_all_cells(page)
    wait_for_explorer(page)
    set_theme(page, "light")
    equalized_and_taken_back(page, shots, "lab")
