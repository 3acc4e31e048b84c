"""Script, export and report by clicks, in JupyterLab and in Voila; the browser gets its copies."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.explorer_page import no_message, open_tab, wait_for_explorer
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

torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).train()
batches = [(torch.randn(4, 1, 8, 8), torch.tensor([0, 1, 2, 0]))] * 2
session = qx.Session(model, batches[0][0], data=[batches, batches], stubs="model")
session.calibrate(1)
qx.explore(session)
"""


def write(page: Page, name: str) -> Locator:
    """Click a button of the panel by its name; the part that shows what came of it."""
    part = page.locator(".qx-taken-part").filter(has=page.get_by_role("button", name=name))
    part.get_by_role("button", name=name, exact=True).click()
    expect(part.locator(".qx-taken")).to_contain_text("Written")
    return part


def copy_of(part: Locator, page: Page) -> str:
    """What the browser saves for a click."""
    with page.expect_download() as saving:
        part.get_by_role("button", name="Save in the browser").click()
    return Path(saving.value.path()).read_text(encoding="utf-8")


def written(part: Locator) -> Path:
    """What the part says that it has written."""
    return Path(part.locator(".qx-taken code").first.inner_text())


def take_home(page: Page, shots: Shots, name: str) -> None:
    wait_for_explorer(page)
    open_tab(page, "Take home")
    script = write(page, "Script")
    assert copy_of(script, page) == written(script).read_text(encoding="utf-8")
    folder = write(page, "Export folder")
    expect(folder).to_contain_text(re.compile(r"ONNX Runtime .* samples"))
    assert (written(folder) / "model.onnx").exists()
    report = write(page, "Report")
    assert copy_of(report, page) == written(report).read_text(encoding="utf-8")
    # Once more: nothing is replaced.
    script.get_by_role("button", name="Script", exact=True).click()
    expect(script).to_contain_text("is there already")
    shots(page, f"take-home-{name}")
    no_message(page)
    assert cut_off(page.locator(".qx-explorer")) == []
    assert axe_findings(page.locator(".qx-explorer")) == []


def test_in_voila(voila: Callable[..., Server], page: Page, tmp_path: Path, shots: Shots) -> None:
    page.set_viewport_size({"width": 1280, "height": 900})
    voila_page(page, voila(write_notebook(tmp_path / "home.ipynb", [CELL])), theme="dark")
    take_home(page, shots, "voila-dark")


def test_in_jupyterlab(lab: Server, page: Page, shots: Shots, clean_kernels: None) -> None:
    folder = Path(tempfile.mkdtemp(prefix="home-", dir=lab.root))  # a second run has its own
    write_notebook(folder / "home.ipynb", [CELL], hide_source=True)
    open_notebook(page, lab, f"{folder.name}/home.ipynb")
    run_all_cells(page)
    set_theme(page, "light")
    take_home(page, shots, "lab-light")
