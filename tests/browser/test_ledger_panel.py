"""The ledger's panel for real: a kernel behind it, in Voila, by clicks and keys."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.notebook import Shots, voila_page, write_notebook
from tests.browser.servers import Server

pytestmark = pytest.mark.browser

CELL = """
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
graph = GraphWidget(build_scene(session.snapshot, redundant=edges), height=330)
graph.observe(lambda change: view.page.select(change.new), "selected")
display(ipywidgets.VBox([graph, view]))
"""


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_notebook(tmp_path_factory.mktemp("books") / "ledger.ipynb", [CELL])


def test_the_ledger_by_clicks_and_keys(
    page: Page, voila: Callable[..., Server], shots: Shots, book: Path
) -> None:
    voila_page(page, voila(book))
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
    page.get_by_role("button", name="What stays float").click()
    floats = page.get_by_role("grid", name="What stays float")
    expect(floats.get_by_role("gridcell", name="type_not_in_mapping").first).to_be_visible()
    shots(page, "ledger-floats")
    page.get_by_role("button", name="Redundancy").click()
    expect(page.get_by_text("two on the same values").first).to_be_visible()
    page.get_by_role("button", name="Measure their time").click()
    expect(page.get_by_text("of a step of").first).to_be_visible()
    shots(page, "ledger-redundancy")
    page.get_by_role("button", name="Answers").click()
    expect(page.get_by_role("heading", name="Who inserts the input's fake quant?")).to_be_visible()
    shots(page, "ledger-answers")
    page.get_by_role("button", name="Eager and FX").click()
    page.get_by_role("button", name="Compare the flows").click()
    sides = page.get_by_role("grid", name="Eager and FX")
    expect(sides.get_by_role("gridcell", name="the model's input")).to_be_visible()
    shots(page, "ledger-sides")
