"""The PT2E flow in a real page: chosen in the settings, annotations before anything is inserted,
fake quants, and what lowering left, by clicks, in JupyterLab and in Voila."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.explorer_page import (
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

CELL = """
import torch
from torch import nn
import qatexplorer as qx

class Net(nn.Module):  # without batch norms converting is quick
    def __init__(self):
        super().__init__()
        self.conv, self.relu = nn.Conv2d(3, 8, 3, padding=1), nn.ReLU()
        self.pool, self.last = nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, padding=1)
        self.drop, self.fc = nn.Dropout(0.2), nn.Linear(8, 4)

    def forward(self, x):
        y = self.last(self.pool(self.relu(self.conv(x))))
        return self.fc(self.drop(torch.tanh(y.mean((2, 3)))))

explorer = qx.explore(Net(), torch.randn(4, 3, 8, 8))
explorer
"""


def panel(page: Page) -> Locator:
    return page.locator(".qx-annotations")


def choose_flow(page: Page) -> None:
    open_tab(page, "Settings")
    page.get_by_label("Flow", exact=True).select_option(label="PT2E (prepare_qat_pt2e of torchao)")
    expect(page.get_by_label("Quantizer", exact=True)).to_be_visible()
    push(page, "Apply and start again")
    expect(page.locator(".qx-stage-button[data-stage='annotate']")).to_be_visible()
    wait_for_stage(page, "float")
    no_message(page)


def go_to(page: Page, stage: str) -> None:
    page.locator(f".qx-stage-button[data-stage='{stage}']").click()
    wait_for_stage(page, stage)
    no_message(page)


def see_annotations(page: Page) -> None:
    """Before anything is inserted: patterns in the graph and the table, one of them selected."""
    go_to(page, "annotate")
    open_tab(page, "Annotations")
    expect(panel(page)).to_contain_text("patterns of the quantizer took")
    expect(page.locator(".qxg-categories").first).to_contain_text("conv2d_unary")
    expect(page.locator(".qx-tree .qx-tree-mark")).to_have_count(0)
    panel(page).get_by_role("row").filter(has_text="conv2d_unary").first.click()
    expect(page.locator(".qx-inspect:visible h3").first).to_have_text("conv")
    expect(tree_row(page, "conv")).to_have_attribute("aria-selected", "true")
    panel(page).get_by_role("button", name="Sharing groups").click()
    expect(page.locator(".qxg-categories").first).to_contain_text("group 1")


def see_fake_quants(page: Page) -> None:
    go_to(page, "insert")
    expect(page.locator(".qx-inspect:visible .qx-why").first).to_contain_text("a node of the graph")
    expect(page.locator(".qx-tree [data-id^='site:']").first).to_be_visible()
    expect(page.locator("svg [data-site]").first).to_be_attached()


def go_through(page: Page) -> None:
    choose_flow(page)
    see_annotations(page)
    see_fake_quants(page)


def test_in_dark_voila_up_to_int8(
    page: Page, voila: Callable[..., Server], tmp_path: Path, shots: Shots
) -> None:
    voila_page(page, voila(write_notebook(tmp_path / "pt2e.ipynb", [CELL])), theme="dark")
    wait_for_explorer(page)
    go_through(page)
    go_to(page, "lower")
    open_tab(page, "Annotations")
    expect(panel(page)).to_contain_text("float islands")
    tree_row(page, "conv").click()
    expect(page.locator(".qx-inspect:visible .qx-why").first).to_contain_text("oneDNN")
    shots(page, "pt2e-lower-dark")
    assert axe_findings(page.locator(".qx-explorer")) == []
    assert cut_off(page.locator(".qx-explorer")) == []


def test_in_jupyterlab(lab: Server, page: Page, shots: Shots, clean_kernels: None) -> None:
    write_notebook(lab.root / "pt2e.ipynb", [CELL], hide_source=True)
    open_notebook(page, lab, "pt2e.ipynb")
    set_theme(page, "light")
    run_all_cells(page)
    wait_for_explorer(page)
    choose_flow(page)
    see_annotations(page)
    shots(page, "pt2e-annotate-light")
    see_fake_quants(page)
    go_to(page, "train")
