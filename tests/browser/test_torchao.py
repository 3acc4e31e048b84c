"""The torchao flow in a real page: chosen in the settings, layers swapped, and the scales of a
weight's groups as an image, by clicks, in JupyterLab and in Voila."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.explorer_page import (
    no_message,
    open_tab,
    push,
    tree_row,
    wait_for_explorer,
    wait_for_stage,
)
from tests.browser.layout_page import cut_off
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

model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 4))
explorer = qx.explore(model, torch.randn(8, 64))
explorer
"""


def see_scales(page: Page) -> None:
    open_tab(page, "Settings")
    flow = page.get_by_label("Flow", exact=True)
    flow.select_option(
        label=next(t for t in flow.locator("option").all_inner_texts() if "quantize_" in t)
    )
    base = page.get_by_label("Base config", exact=True)
    expect(base).to_be_visible()
    expect(page.get_by_label("QConfig", exact=True)).to_be_hidden()
    push(page, "Apply and start again")
    stage = page.locator(".qx-stage-button[data-stage='prepare']")
    expect(stage).to_be_visible()
    wait_for_stage(page, "float")
    stage.click()
    wait_for_stage(page, "prepare")
    no_message(page)
    tree_row(page, "0.weight_fake_quantizer").click()
    image = page.locator(".qx-explorer .js-plotly-plot .heatmaplayer image")
    expect(image).to_have_count(1)
    image.scroll_into_view_if_needed()
    expect(page.locator(".qx-explorer").get_by_text("group used")).to_have_count(1)
    no_message(page)


def test_in_dark_voila(
    page: Page, voila: Callable[..., Server], tmp_path: Path, shots: Shots
) -> None:
    voila_page(page, voila(write_notebook(tmp_path / "torchao.ipynb", [CELL])), theme="dark")
    wait_for_explorer(page)
    see_scales(page)
    shots(page, "torchao-scales-dark")
    assert cut_off(page.locator(".qx-explorer")) == []


def test_in_jupyterlab(lab: Server, page: Page, shots: Shots, clean_kernels: None) -> None:
    write_notebook(lab.root / "torchao.ipynb", [CELL], hide_source=True)
    open_notebook(page, lab, "torchao.ipynb")
    set_theme(page, "light")
    run_all_cells(page)
    wait_for_explorer(page)
    see_scales(page)
    shots(page, "torchao-scales-light")
