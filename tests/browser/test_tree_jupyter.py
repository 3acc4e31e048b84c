"""Tree, inspector and its figures for real: a kernel behind them, in JupyterLab and in Voila."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

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
import ipywidgets
from IPython.display import display
from qatexplorer import zoo
from qatexplorer.data import call_model
from qatexplorer.forward.histograms import capture_histograms
from qatexplorer.session import Session
from qatexplorer.views.inspector.figures import channel_figure, histogram_figure
from qatexplorer.views.inspector.page import inspect_html
from qatexplorer.views.tree import build_tree
from qatexplorer.widgets.inspector.inspector import InspectorWidget
from qatexplorer.widgets.tree.tree import TreeWidget

example = zoo.load("digits_cnn")
session = Session(example.model, example.example_inputs, data=example.data)
session.goto("insert")
model = session.model
call_model(model, example.example_inputs)
sites = session.snapshot.site_by_path
hists = capture_histograms(model, example.example_inputs, list(sites))
tree = TreeWidget(rows=build_tree(session.snapshot, session.diff), height=420)
inspector = InspectorWidget()

def show(change):
    selection = change.new
    tree.selected = inspector.selected = selection
    path = selection.partition(":")[2]
    site = sites.get(path)
    figures = {}
    if site is not None:
        figures["histogram"] = histogram_figure(hists[path], site, DARK)
        if site.per_channel:
            figures["channels"] = channel_figure(site, DARK)
    inspector.show(inspect_html(session.snapshots, session.stage, selection), figures)

tree.observe(show, "selected")
inspector.observe(show, "selected")
box = ipywidgets.GridBox([tree, inspector], layout={"grid_template_columns": "460px 1fr"})
display(box)
"""


# Resolves when the page's heading is that of the row and, for a fake quant, the figure's too.
_CLICK = """
async ([selection, heading]) => {
  const row = document.querySelector(`[role=treeitem][data-id="${selection}"]`);
  const plot = () => document.querySelector(".qx-plot");
  const drawn = () => Number(plot()?.dataset.drawn ?? 0);
  const before = drawn();
  const start = performance.now();
  row.click();
  for (;;) {
    await new Promise(requestAnimationFrame);
    const page = document.querySelector(".qx-inspect h3");
    const title = plot()?.querySelector(".qx-plot-caption b");
    const isNew = title?.textContent === heading && drawn() > before;
    const done = selection.startsWith("module:") || isNew;
    if (page?.textContent === heading && done) return performance.now() - start;
    if (performance.now() - start > 20000) return -1;
  }
}
"""


def click(page: Page, path: str, kind: str = "site") -> float:
    """Milliseconds from the click until page and figure are drawn."""
    took: float = page.evaluate(_CLICK, [f"{kind}:{path}", path])
    assert took >= 0, f"{path} was never drawn"
    return took


def check(page: Page) -> list[float]:
    expect(page.get_by_role("tree")).to_be_visible()
    first, other = "conv1.activation_post_process", "conv2.activation_post_process"
    click(page, first)
    times = [click(page, path) for path in (other, first) * 5]
    times += [click(page, path, "module") for path in ("conv1", "conv2") * 3]
    click(page, "conv1.weight_fake_quant")
    expect(page.locator(".js-plotly-plot:visible")).to_have_count(2)  # histogram and channels
    page.locator(".qx-inspect").get_by_role("button", name="conv1", exact=True).click()
    expect(page.locator('[role=treeitem][data-id="module:conv1"]')).to_have_attribute(
        "aria-selected", "true"
    )
    expect(page.locator(".js-plotly-plot:visible")).to_have_count(0)
    return times


def test_in_jupyterlab_dark(page: Page, lab: Server, clean_kernels: None, shots: Shots) -> None:
    write_notebook(lab.root / "tree.ipynb", [CELL.replace("DARK", "True")])
    open_notebook(page, lab, "tree.ipynb")
    set_theme(page, "dark")
    run_all_cells(page)
    times = check(page)
    print(f"click to drawn: median {statistics.median(times):.0f} ms, max {max(times):.0f} ms")
    click(page, "conv1.weight_fake_quant")
    shots(page, "tree-inspector-lab-dark")
    # The keys are the tree's: in JupyterLab "a" would add a cell, "m" make it Markdown.
    page.locator('[role=treeitem][tabindex="0"]').focus()
    for key in ("a", "m", "b"):
        page.keyboard.press(key)
    expect(page.locator(".jp-CodeCell")).to_have_count(1)
    expect(page.locator(".jp-MarkdownCell")).to_have_count(0)
    expect(page.get_by_role("searchbox", name="Search modules")).to_have_value("amb")


def test_in_voila(page: Page, voila: Callable[..., Server], tmp_path: Path, shots: Shots) -> None:
    server = voila(write_notebook(tmp_path / "tree.ipynb", [CELL.replace("DARK", "False")]))
    voila_page(page, server)
    check(page)
    click(page, "quant.activation_post_process")
    expect(page.locator(".js-plotly-plot:visible")).to_have_count(1)
    shots(page, "tree-inspector-voila")
