"""The whole walk by clicks, in real JupyterLab and in real Voila, on guarded pages."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.explorer_page import (
    EXPLORE,
    STEPS,
    click_next,
    follow_the_model_page,
    model_page,
    no_message,
    open_dashboard,
    open_tab,
    push,
    read_the_model_page,
    run_state,
    stage_in_view,
    tree_row,
    use_fx,
    wait_for_explorer,
    wait_for_stage,
)
from tests.browser.notebook import (
    Shots,
    eventually,
    open_notebook,
    run_all_cells,
    set_theme,
    until,
    voila_page,
    write_notebook,
)
from tests.browser.servers import REPO_ROOT, Server
from tests.browser.tree_page import assert_whole_and_aligned

pytestmark = pytest.mark.browser

BROKEN_FACTORY = """
import os

from qatexplorer.app.dashboard import dashboard

os.environ["QATEXPLORER_MODEL"] = "no.such.module:factory"
dashboard()
"""
NO_MODEL = """
import qatexplorer as qx

qx.explore(3)
"""
OWN_MODEL = """
import torch
import qatexplorer as qx


class Adds(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.quant = torch.ao.quantization.QuantStub()
        self.fc = torch.nn.Linear(8, 8)
        self.dequant = torch.ao.quantization.DeQuantStub()

    def forward(self, x):
        x = self.quant(x)
        return self.dequant(self.fc(x) + x)


explorer = qx.explore(Adds(), torch.randn(4, 8))
explorer
"""


def selected_in_graph(page: Page) -> str:
    return page.evaluate("() => document.querySelector('svg .qxg-selected')?.dataset.sel ?? ''")


def figures_are_high(page: Page) -> None:
    heights = page.evaluate(
        "() => [...document.querySelectorAll('.qx-plot')].filter((p) => p.offsetHeight > 0)"
        ".map((p) => p.querySelector('svg.main-svg').getBoundingClientRect().height)"
    )
    assert min(heights) > 150, heights


def walk_and_train(page: Page, shots: Shots, name: str) -> None:
    """Step to the end by clicks, select, train, pause, resume, stop, convert, compare."""
    wait_for_explorer(page)
    assert stage_in_view(page) == "float"
    shots(page, f"{name}-float")
    for stage in STEPS[:4]:
        click_next(page, stage)
    expect(page.locator(".qx-newsbar")).to_contain_text("will be rounded")

    # A click in the tree: graph and inspector follow.
    tree_row(page, "conv1").click()
    expect(page.locator(".qx-inspector h3").first).to_contain_text("conv1")
    expect(page.locator("svg [data-sel='module:conv1'].qxg-selected")).to_have_count(1)
    # A click in the graph on the weight's fake quant: tree and inspector follow, with a histogram.
    page.locator("svg [data-site='conv1.weight_fake_quant']").first.click()
    expect(tree_row(page, "conv1.weight_fake_quant")).to_have_attribute("aria-selected", "true")
    expect(page.locator(".qx-inspector h3").first).to_contain_text("weight_fake_quant")
    expect(page.locator(".qx-plot .bars path").first).to_be_visible()
    shots(page, f"{name}-insert")

    click_next(page, "train")
    page.get_by_label("Epochs").first.fill("3000")
    page.get_by_label("Epochs").first.press("Tab")
    push(page, "Train")
    run_state(page, "running")
    expect(page.locator(".qx-plot .scatterlayer path.js-line").first).to_be_visible()
    push(page, "Pause")
    run_state(page, "paused")
    push(page, "Resume")
    run_state(page, "running")
    shots(page, f"{name}-train")
    push(page, "Stop")
    run_state(page, "stopped")
    wait_for_stage(page, "train")

    # The inside of the training: every fake quant watched, what it costs, and a picture over steps.
    open_tab(page, "Inside the training")
    expect(page.locator(".qx-card")).to_have_count(9)
    expect(page.locator(".qx-live-cost")).to_contain_text("of step time")
    expect(page.locator(".qx-live-figures .qx-plot path.js-fill").first).to_be_visible()
    page.locator(".qx-card[data-id='site:conv3.weight_fake_quant']").click()
    expect(page.locator(".qx-inspector h3").first).to_contain_text("conv3.weight_fake_quant")
    shots(page, f"{name}-inside")
    # A page that changes its width keeps the height of its figures.
    before = page.viewport_size
    assert before is not None
    for width in (1920, before["width"]):
        page.set_viewport_size({"width": width, "height": before["height"]})
        eventually(page, lambda: figures_are_high(page))

    click_next(page, "convert")
    open_tab(page, "Float, fake-quant, int8")
    push(page, "Evaluate and measure")
    table = page.locator("table.qx-results")
    expect(table.locator("tbody tr")).to_have_count(4)
    expect(table).to_contain_text("ms")
    shots(page, f"{name}-int8")
    no_message(page)

    # Back shows the old picture at once, straight to a stage, and reset.
    page.get_by_role("button", name="◀ Back").click()
    wait_for_stage(page, "train")
    page.locator(".qx-stage-button[data-stage='swap']").click()
    wait_for_stage(page, "swap")
    expect(page.locator(".qx-story")).to_contain_text("get_default_qat_module_mappings")
    page.get_by_role("button", name="↺ Reset").click()
    wait_for_stage(page, "float")


def use_the_keyboard(page: Page) -> None:
    """Step, select in the tree and in the graph, by keys alone."""
    page.get_by_role("button", name="Next ▶").focus()
    page.keyboard.press("Enter")
    wait_for_stage(page, "fuse")
    page.locator(".qx-tree [role=treeitem][tabindex='0']").first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.locator(".qx-tree [role=treeitem][aria-selected='true']")).to_have_count(1)
    expect(page.locator(".qx-inspector h3").first).to_be_visible()
    page.locator("svg[tabindex='0']").first.focus()
    before = selected_in_graph(page)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    until(page, lambda: selected_in_graph(page) != before)
    page.get_by_role("button", name="↺ Reset").press("Enter")
    wait_for_stage(page, "float")


def test_keys_and_all_stages_in_jupyterlab(
    lab: Server, page: Page, shots: Shots, clean_kernels: None
) -> None:
    write_notebook(lab.root / "walk.ipynb", [EXPLORE], hide_source=True)
    open_notebook(page, lab, "walk.ipynb")
    run_all_cells(page)
    wait_for_explorer(page)
    use_the_keyboard(page)
    walk_and_train(page, shots, "lab")
    set_theme(page, "dark")
    shots(page, "lab-dark")


def test_all_stages_in_voila(voila: Callable[..., Server], page: Page, shots: Shots) -> None:
    server = voila(REPO_ROOT / "notebooks" / "dashboard.ipynb")
    voila_page(page, server)
    wait_for_explorer(page)
    # A model in order says so.
    counts = page.locator(".qx-counts")
    expect(counts).to_be_visible()
    expect(counts).not_to_contain_text(re.compile("check(ing|ed)"))
    assert "error" not in counts.inner_text()
    open_tab(page, "Checks")
    shots(page, "checks-good")
    walk_and_train(page, shots, "voila")


def test_fx_by_clicks(voila: Callable[..., Server], page: Page, shots: Shots) -> None:
    """All stages of FX: no name is cut in a wide or a narrow window, the model's own page and the
    ledger lead on."""
    open_dashboard(page, voila)
    use_fx(page)
    read_the_model_page(page)
    for stage in ("trace", *STEPS, "lower"):
        if stage == "insert":
            model_page(page).get_by_role("button", name="Step to Insert observers").click()
            wait_for_stage(page, stage)
        else:
            click_next(page, stage)
        page.get_by_role("button", name="Expand all").click()
        for width in (900, 1280):
            page.set_viewport_size({"width": width, "height": 800})
            where = f"{stage} {width}"
            eventually(page, lambda where=where: assert_whole_and_aligned(page, where))
        if stage == "train":
            follow_the_model_page(page, "output of flatten")
    # What is selected is read from its top, wherever the page before was scrolled to.
    scroll = "(pane) => { pane.scrollTo(0, pane.scrollHeight); return pane.scrollTop; }"
    assert page.locator(".qx-part-inspector").evaluate(scroll) > 0
    tree_row(page, "conv1").click()
    heading = page.locator(".qx-inspector h3").first
    expect(heading).to_contain_text("conv1")
    expect(heading).to_be_in_viewport()

    page.locator(".qx-stage-button[data-stage='insert']").click()
    wait_for_stage(page, "insert")
    open_tab(page, "Who put it there")
    grid = page.get_by_role("grid", name="Fake quants and observers")
    grid.locator("[role=row][data-id='conv1.weight_fake_quant']").click()
    expect(page.locator(".qx-inspector h3").first).to_contain_text("conv1.weight_fake_quant")
    # flatten() as a method is fake-quantized twice in FX: marked on the graph's edge.
    expect(page.locator(".qxg-twice-mark").first).to_be_attached()
    page.get_by_role("button", name="Answers", exact=True).click()
    expect(page.get_by_text("Has a swapped nnqat.Linear two observers?")).to_be_visible()
    shots(page, "voila-fx-ledger")
    no_message(page)


def test_a_model_that_cannot_run_in_int8_is_reported_and_nothing_is_lost(
    lab: Server, page: Page, shots: Shots, clean_kernels: None
) -> None:
    write_notebook(lab.root / "adds.ipynb", [OWN_MODEL], hide_source=True)
    open_notebook(page, lab, "adds.ipynb")
    run_all_cells(page)
    wait_for_explorer(page)
    for stage in STEPS[:5]:
        click_next(page, stage)
    page.get_by_role("button", name="Next ▶").click()
    message = page.locator(".qx-message-error")
    expect(message).to_contain_text("aten::add")
    expect(message).to_contain_text("FloatFunctional")
    assert message.get_attribute("role") == "alert"
    assert stage_in_view(page) == "train"
    shots(page, "lab-cannot-run")


def test_what_cannot_be_opened_is_reported_in_the_page(
    voila: Callable[..., Server], page: Page, shots: Shots, tmp_path: Path
) -> None:
    """Two cells: a factory that fails, and what is no model."""
    book = write_notebook(tmp_path / "broken.ipynb", [BROKEN_FACTORY, NO_MODEL])
    voila_page(page, voila(book))
    wait_for_explorer(page)
    factory, none = (page.locator(".qx-explorer").nth(at) for at in range(2))
    expect(factory.locator(".qx-message-error")).to_contain_text("no module 'no' to import")
    expect(none.get_by_role("heading", name="No model is open")).to_be_visible()
    expect(none.locator(".qx-message-error")).to_contain_text("not a torch.nn.Module")
    shots(page, "layout-no-model")
