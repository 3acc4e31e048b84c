"""The graph widget for real: a kernel behind it, in JupyterLab and in Voila."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.notebook import (
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


def check_two_way(page: Page, dark: str) -> None:
    expect(page.locator("[data-item='n:conv1'].qxg-selected")).to_be_visible()
    page.locator(".qxg-world [data-site='conv1.activation_post_process']").click()
    text = f"heard site:conv1.activation_post_process dark={dark}"
    expect(page.get_by_text(text)).to_be_visible()
    page.get_by_role("button", name="pick from Python").click()
    expect(
        page.locator(".qxg-mark.qxg-selected[data-site='conv2.weight_fake_quant']")
    ).to_be_visible()


def test_in_jupyterlab_dark(page: Page, lab: Server, clean_kernels: None) -> None:
    write_notebook(lab.root / "graph.ipynb", [CELL])
    open_notebook(page, lab, "graph.ipynb")
    set_theme(page, "dark")
    run_all_cells(page)
    check_two_way(page, "True")
    # The keys are the graph's: in JupyterLab "m" would make the cell Markdown, "a" add one.
    page.locator(".qxg-svg").focus()
    for key in ("a", "m", "ArrowDown", "m"):
        page.keyboard.press(key)
    expect(page.locator(".jp-CodeCell")).to_have_count(1)
    expect(page.locator(".jp-MarkdownCell")).to_have_count(0)
    page.get_by_label("Zoom in (+)").focus()
    page.keyboard.press("a")
    expect(page.locator(".jp-CodeCell")).to_have_count(1)
    set_theme(page, "light")
    expect(page.locator(".qxg-dark")).to_have_count(0)


def test_in_voila(page: Page, voila: Callable[..., Server], tmp_path: Path) -> None:
    server = voila(write_notebook(tmp_path / "graph.ipynb", [CELL]))
    voila_page(page, server)
    check_two_way(page, "False")
