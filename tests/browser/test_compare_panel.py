"""Comparing in a real page: by clicks and keys, in JupyterLab and in Voila, light and dark."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.explorer_page import no_message, open_tab, wait_for_explorer
from tests.browser.layout_page import axe_findings, box_of, cut_off
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
from tests.browser.servers import Server

pytestmark = pytest.mark.browser

# Its scores lie close together, so that int8 answers some samples otherwise than float.
CELL = """
import torch
from torch import nn
from torch.ao.quantization import DeQuantStub, QuantStub
import qatexplorer as qx

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.conv1, self.relu = nn.Conv2d(1, 8, 3), nn.ReLU()
        self.conv2, self.fc = nn.Conv2d(8, 16, 3), nn.Linear(256, 10)

    def forward(self, x):
        y = self.relu(self.conv1(self.quant(x)))
        return self.dequant(self.fc(self.relu(self.conv2(y)).flatten(1)))

torch.manual_seed(0)
model = Net()
x = torch.randn(6, 64, 1, 8, 8)
batches = [(one, model(one).argmax(1)) for one in x]
session = qx.Session(model, x[0], data=[batches, batches])
session.goto(session.flow.prepared_stage)
session.calibrate(2)
qx.explore(session)
"""


def panel(page: Page) -> Locator:
    return page.locator(".qx-comparison")


def rows(page: Page) -> Locator:
    return panel(page).locator(".qx-table-row")


def turn(page: Page, name: str) -> None:
    panel(page).get_by_role("button", name=re.compile(name)).click()


def compare(page: Page) -> None:
    open_tab(page, "Compare")
    expect(panel(page)).to_contain_text("Nothing compared yet.")
    panel(page).get_by_role("button", name="Compare", exact=True).press("Enter")
    expect(rows(page).first).to_be_visible()
    expect(panel(page)).to_contain_text("evaluation samples")
    no_message(page)


def click_point(page: Page, point: Locator, figure: Locator) -> None:
    """The first point of the chart says whose it is, and a click chooses its row. Plotly draws it
    once more for the row that was chosen before, and then forgets the pointer."""
    box = point.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 40, box["y"] + 40)
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=3)
    page.wait_for_timeout(200)  # it shows what is under the pointer after a moment
    said = figure.locator(".hoverlayer").text_content() or ""
    assert "quant.activation_post_process" in said
    page.mouse.down()
    page.mouse.up()
    first = panel(page).locator(".qx-table-row[aria-selected=true] .qx-table-td").first
    expect(first).to_have_text("quant.activation_post_process", timeout=5000)


def look(page: Page, shots: Shots, name: str) -> None:
    """Table, charts, selection and lost samples; something has been compared."""
    figure = panel(page).locator(".js-plotly-plot:visible")
    expect(figure).to_have_count(1)
    expect(panel(page).get_by_text("Error along the depth")).to_be_visible()
    shots(page, f"compare-depth-{name}")
    assert cut_off(page.locator(".qx-explorer")) == []

    # By keys: the row's place is selected in tree and graph, its values are drawn.
    rows(page).first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    chosen = panel(page).locator(".qx-table-row[aria-selected=true]")
    expect(chosen).to_have_count(1)
    path = chosen.locator(".qx-table-td").first.inner_text()
    tree = page.locator(".qx-tree [role=treeitem][aria-selected=true]")
    expect(tree).to_have_attribute("data-id", re.compile(rf":{re.escape(path)}$"))
    turn(page, "This place")
    expect(panel(page).locator(".qx-inspect h3")).to_have_text(path)
    expect(panel(page).locator("figure:visible")).to_contain_text("on the dashed line")
    shots(page, f"compare-place-{name}")

    # A place chosen in the tree is the chosen row; so is a point of the chart.
    page.locator(".qx-tree [role=treeitem][data-id='module:fc']").click()
    expect(chosen.locator(".qx-table-td").first).to_have_text("fc")
    expect(panel(page).locator(".qx-inspect h3")).to_have_text("fc")
    turn(page, "Along the depth")
    expect(figure).to_have_count(1)
    point = panel(page).locator(".js-plotly-plot:visible .scatterlayer .trace .point").first
    expect(point).to_be_visible()
    eventually(page, lambda: click_point(page, point, figure))

    turn(page, "Channels")
    expect(panel(page).locator("figure:visible")).to_contain_text("dark is worse")
    shots(page, f"compare-channels-{name}")
    turn(page, "Lost samples")
    picture = panel(page).locator(".qx-lost img").first
    expect(picture).to_be_visible()
    until(page, lambda: picture.evaluate("(image) => image.complete && image.naturalWidth") == 8)
    expect(panel(page).locator(".qx-lost li").first).to_contain_text("✗")
    panel(page).get_by_role("button", name="Colour the graph").click()
    expect(page.locator("svg .qxg-painted").first).to_be_visible()
    shots(page, f"compare-lost-{name}")
    assert axe_findings(page.locator(".qx-explorer")) == []


def test_comparing_in_voila(
    voila: Callable[..., Server], page: Page, tmp_path: Path, shots: Shots
) -> None:
    page.set_viewport_size({"width": 1280, "height": 900})
    voila_page(page, voila(write_notebook(tmp_path / "compare.ipynb", [CELL])), theme="dark")
    wait_for_explorer(page)
    compare(page)
    expect(panel(page).locator(".js-plotly-plot:visible")).to_have_count(1)

    def is_in_sight() -> None:
        chart = box_of(panel(page), "figure:visible .qx-plot-box")
        assert chart.bottom <= box_of(page, ".qx-pages").bottom

    eventually(page, is_in_sight)
    look(page, shots, "voila-dark")


def test_comparing_in_jupyterlab(
    lab: Server, page: Page, shots: Shots, clean_kernels: None
) -> None:
    write_notebook(lab.root / "compare.ipynb", [CELL], hide_source=True)
    open_notebook(page, lab, "compare.ipynb")
    run_all_cells(page)
    set_theme(page, "light")
    wait_for_explorer(page)
    compare(page)
    look(page, shots, "lab-light")
