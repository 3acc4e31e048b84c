"""Tree, inspector with its figures, graph and ledger for real, each by itself with a kernel behind
it, in JupyterLab and in Voila, by clicks and keys."""

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

TREE = """
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
GRAPH = """
import ipywidgets
from IPython.display import display
from qatexplorer import zoo
from qatexplorer.session import Session
from qatexplorer.snapshot.diff import diff
from qatexplorer.views.graph.scene import build_scene
from qatexplorer.widgets.graph.graph import GraphWidget

example = zoo.load("digits_cnn")
session = Session(example.model, example.example_inputs, data=example.data)
session.goto("insert")
scene = build_scene(session.snapshot, diff(session.snapshots["swap"], session.snapshot).paths)
graph = GraphWidget(scene, selected="module:conv1", height=460)
heard = ipywidgets.HTML("")
button = ipywidgets.Button(description="pick from Python")
graph.observe(lambda c: setattr(heard, "value", f"heard {c.new} dark={graph.dark}"), "selected")
button.on_click(lambda _: setattr(graph, "selected", "site:conv2.weight_fake_quant"))
display(graph, ipywidgets.HBox([button, heard]))
"""
LEDGER = """
import ipywidgets
import torch
from torch import nn
from IPython.display import display
import qatexplorer as qx
from qatexplorer.views.graph.scene import build_scene, redundant_edges
from qatexplorer.widgets.graph.graph import GraphWidget
from qatexplorer.widgets.ledger.ledger import LedgerView

class Flat(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.pool = nn.Conv2d(1, 8, 3, padding=1), nn.AdaptiveAvgPool2d(2)
        self.odd, self.fc = nn.Softplus(), nn.Linear(32, 10)

    def forward(self, x):
        return self.odd(self.fc(self.pool(self.conv(x)).flatten(1)))

torch.manual_seed(0)
data = qx.zoo.load("digits_cnn").data
session = qx.Session(Flat(), next(iter(data.train))[0], data=data, flow="fx")
session.goto("insert")
session.calibrate(4)
view = LedgerView(session)
edges = redundant_edges(session.ledger())
edged = GraphWidget(build_scene(session.snapshot, redundant=edges), height=330)
edged.observe(lambda change: view.page.select(change.new), "selected")
display(ipywidgets.VBox([edged, view]))
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
    if (performance.now() - start > 120000) return -1;
  }
}
"""


def click(page: Page, path: str, kind: str = "site") -> float:
    """Milliseconds from the click until page and figure are drawn."""
    took: float = page.evaluate(_CLICK, [f"{kind}:{path}", path])
    assert took >= 0, f"{path} was never drawn"
    return took


def check_tree(page: Page) -> list[float]:
    tree = page.get_by_role("tree")
    expect(tree).to_be_visible()
    tree.scroll_into_view_if_needed()  # what is out of sight need not be drawn
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


def check_graph(page: Page, dark: str) -> None:
    expect(page.locator("[data-item='n:conv1'].qxg-selected")).to_be_visible()
    page.locator(".qxg-world [data-site='conv1.activation_post_process']").click()
    text = f"heard site:conv1.activation_post_process dark={dark}"
    expect(page.get_by_text(text)).to_be_visible()
    page.get_by_role("button", name="pick from Python").click()
    expect(
        page.locator(".qxg-mark.qxg-selected[data-site='conv2.weight_fake_quant']")
    ).to_be_visible()


def check_ledger(page: Page, shots: Shots) -> None:
    grid = page.get_by_role("grid", name="Fake quants and observers")
    expect(grid.locator("[data-id='conv.weight_fake_quant']")).to_be_visible()
    expect(page.locator(".qxg-edge .qxg-twice-mark")).to_be_visible()
    shots(page, "ledger-sites")
    page.get_by_role("button", name="Redundant", exact=True).click()
    rows = grid.locator("[role=row][data-id]")
    expect(rows).to_have_count(2)
    rows.first.click()
    path = rows.first.get_attribute("data-id")
    expect(grid.locator(f"[data-id='{path}']")).to_have_attribute("aria-selected", "true")
    page.get_by_role("button", name="What stays float", exact=True).click()
    floats = page.get_by_role("grid", name="What stays float", exact=True)
    expect(floats.get_by_role("gridcell", name="type_not_in_mapping").first).to_be_visible()
    shots(page, "ledger-floats")
    page.get_by_role("button", name="Redundancy", exact=True).click()
    expect(page.get_by_text("two on the same values").first).to_be_visible()
    page.get_by_role("button", name="Measure their time", exact=True).click()
    expect(page.get_by_text("of a step of").first).to_be_visible()
    shots(page, "ledger-redundancy")
    page.get_by_role("button", name="Answers", exact=True).click()
    expect(page.get_by_role("heading", name="Who inserts the input's fake quant?")).to_be_visible()
    shots(page, "ledger-answers")


def test_tree_and_graph_in_dark_jupyterlab(
    page: Page, lab: Server, clean_kernels: None, shots: Shots
) -> None:
    cells = [GRAPH, TREE.replace("DARK", "True")]
    write_notebook(lab.root / "widgets-own.ipynb", cells, hide_source=True)
    open_notebook(page, lab, "widgets-own.ipynb")
    set_theme(page, "dark")
    run_all_cells(page)
    times = check_tree(page)
    print(f"click to drawn: median {statistics.median(times):.0f} ms, max {max(times):.0f} ms")
    click(page, "conv1.weight_fake_quant")
    shots(page, "tree-inspector-lab-dark")
    # The keys are the tree's: in JupyterLab "a" would add a cell, "m" make it Markdown.
    page.locator('[role=treeitem][tabindex="0"]').focus()
    for key in ("a", "m", "b"):
        page.keyboard.press(key)
    expect(page.get_by_role("searchbox", name="Search modules")).to_have_value("amb")
    no_new_cell(page)
    check_graph(page, "True")
    # And those of the graph, and of its buttons.
    page.locator(".qxg-svg").focus()
    for key in ("a", "m", "ArrowDown", "m"):
        page.keyboard.press(key)
    no_new_cell(page)
    page.get_by_label("Zoom in (+)").focus()
    page.keyboard.press("a")
    no_new_cell(page)
    set_theme(page, "light")
    expect(page.locator(".qxg-dark")).to_have_count(0)


def no_new_cell(page: Page) -> None:
    expect(page.locator(".jp-CodeCell")).to_have_count(2)
    expect(page.locator(".jp-MarkdownCell")).to_have_count(0)


def test_tree_graph_and_ledger_in_voila(
    page: Page, voila: Callable[..., Server], tmp_path: Path, shots: Shots
) -> None:
    cells = [LEDGER, GRAPH, TREE.replace("DARK", "False")]  # the tree needs its own session
    voila_page(page, voila(write_notebook(tmp_path / "widgets.ipynb", cells)))
    check_tree(page)
    click(page, "quant.activation_post_process")
    expect(page.locator(".js-plotly-plot:visible")).to_have_count(1)
    shots(page, "tree-inspector-voila")
    check_graph(page, "False")
    check_ledger(page, shots)
