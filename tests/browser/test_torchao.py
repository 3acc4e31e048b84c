"""The torchao flow in a real page: chosen in the settings, layers swapped, the scales of a weight's
groups as an image, and a language model trained with it, by clicks, in JupyterLab and in Voila."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.explorer_page import (
    no_message,
    open_tab,
    push,
    run_state,
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
from tests.browser.servers import REPO_ROOT, Server

pytestmark = pytest.mark.browser
HAS_TRANSFORMERS = importlib.util.find_spec("transformers") is not None

EXAMPLE = "Small language model (torchao, 2 bits)"
HELP = f"""
# Beside a CPU build of torch torchvision may not load, which transformers asks for.
import sys
sys.path.append({str(REPO_ROOT)!r})
from tests.support.models import declare_torchvision_operators
declare_torchvision_operators()
"""
CELL = """
import qatexplorer as qx

explorer = qx.explore(example="digits_mlp")
explorer
"""


def choose_flow(page: Page) -> None:
    """The flow in the settings, and the stage with fake quants."""
    open_tab(page, "Settings")
    flow = page.get_by_label("Flow", exact=True)
    flow.select_option(
        label=next(t for t in flow.locator("option").all_inner_texts() if "quantize_" in t)
    )
    expect(page.get_by_role("combobox", name="Base config")).to_be_visible()
    expect(page.get_by_label("QConfig", exact=True)).to_be_hidden()
    push(page, "Apply and start again")
    expect(page.locator(".qx-stage-button[data-stage='prepare']")).to_be_visible()
    wait_for_stage(page, "float")
    go_to(page, "prepare")


def go_to(page: Page, stage: str) -> None:
    page.locator(f".qx-stage-button[data-stage='{stage}']").click()
    wait_for_stage(page, stage)
    no_message(page)


def see_scales(page: Page, fake_quant: str) -> None:
    """The scales of the groups of a weight as an image."""
    tree_row(page, fake_quant).click()
    image = page.locator(".qx-explorer .js-plotly-plot .heatmaplayer image")
    expect(image).to_have_count(1)
    image.scroll_into_view_if_needed()
    expect(page.locator(".qx-explorer").get_by_text("group used")).to_have_count(1)
    no_message(page)


def win_back(page: Page) -> None:
    """The language model: chosen, prepared, trained, converted, and what that has won back."""
    page.get_by_label("Example", exact=True).select_option(label=EXAMPLE)
    expect(page.locator(".qx-header h1")).to_have_text("TinyLLM")
    wait_for_stage(page, "float")
    go_to(page, "prepare")  # so that it is seen to start again
    choose_flow(page)
    see_scales(page, "lm.model.embed_tokens.weight_fake_quantizer")
    open_tab(page, "Train")
    expect(page.get_by_role("button", name="Calibrate only")).to_be_hidden()
    page.get_by_label("Epochs", exact=True).fill("1")
    page.get_by_label("Epochs", exact=True).press("Tab")
    push(page, "Train")
    run_state(page, "finished")
    go_to(page, "convert")
    open_tab(page, "Float, fake-quant, converted")
    push(page, "Evaluate and measure")
    results = page.locator("table.qx-results").first
    expect(results).to_contain_text("perplexity")
    expect(results).to_contain_text("Training won back")
    expect(results).to_contain_text("converted (int2 and int4 weights, int8 inputs)")
    no_message(page)


def walk(page: Page) -> None:
    choose_flow(page)
    see_scales(page, "embed.weight_fake_quantizer")
    page.get_by_role("button", name="Try it").click()
    expect(page.locator(".qx-switch")).to_contain_text("Yes: without the 16 fake quants")


def test_in_dark_voila(
    page: Page, voila: Callable[..., Server], tmp_path: Path, shots: Shots
) -> None:
    notebook = write_notebook(tmp_path / "torchao.ipynb", [HELP, CELL])
    voila_page(page, voila(notebook), theme="dark")
    wait_for_explorer(page)
    walk(page)
    shots(page, "torchao-scales-dark")
    assert cut_off(page.locator(".qx-explorer")) == []
    if HAS_TRANSFORMERS:
        win_back(page)
        shots(page, "torchao-won-back-dark")
        assert cut_off(page.locator(".qx-explorer")) == []


def test_in_jupyterlab(lab: Server, page: Page, shots: Shots, clean_kernels: None) -> None:
    write_notebook(lab.root / "torchao.ipynb", [HELP, CELL], hide_source=True)
    open_notebook(page, lab, "torchao.ipynb")
    set_theme(page, "light")
    run_all_cells(page)
    wait_for_explorer(page)
    if HAS_TRANSFORMERS:
        win_back(page)
    else:
        walk(page)
    shots(page, "torchao-light")
