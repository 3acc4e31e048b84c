"""Script, export and report by clicks, in JupyterLab and in Voila; the browser gets its copies."""

from __future__ import annotations

import re
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

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]

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
    expect(part.locator(".qx-taken")).to_contain_text("Written", timeout=25_000)
    return part


def copy_of(part: Locator, page: Page) -> str:
    """What the browser saves for a click."""
    with page.expect_download() as saving:
        part.get_by_role("button", name="Save in the browser").click()
    return Path(saving.value.path()).read_text(encoding="utf-8")


def take_home(page: Page, folder: Path, shots: Shots, name: str) -> None:
    wait_for_explorer(page)
    open_tab(page, "Take home")
    script = write(page, "Script")
    kept = folder / "Sequential-walk.py"
    assert copy_of(script, page) == kept.read_text(encoding="utf-8")
    expect(write(page, "Export folder")).to_contain_text(re.compile(r"ONNX Runtime .* samples"))
    assert (folder / "Sequential-int8" / "model.onnx").exists()
    report = write(page, "Report")
    assert copy_of(report, page).startswith("<!doctype html>")
    # Once more: nothing is replaced.
    script.get_by_role("button", name="Script", exact=True).click()
    expect(script).to_contain_text("is there already", timeout=15_000)
    shots(page, f"take-home-{name}")
    no_message(page)
    assert cut_off(page.locator(".qx-explorer")) == []
    assert axe_findings(page.locator(".qx-explorer")) == []


def test_in_voila(voila: Callable[..., Server], page: Page, tmp_path: Path, shots: Shots) -> None:
    page.set_viewport_size({"width": 1280, "height": 900})
    voila_page(page, voila(write_notebook(tmp_path / "home.ipynb", [CELL])), theme="dark")
    take_home(page, tmp_path, shots, "voila-dark")


def test_in_jupyterlab(lab: Server, page: Page, shots: Shots, clean_kernels: None) -> None:
    (lab.root / "home").mkdir()
    write_notebook(lab.root / "home" / "home.ipynb", [CELL], hide_source=True)
    open_notebook(page, lab, "home/home.ipynb")
    run_all_cells(page)
    set_theme(page, "light")
    take_home(page, lab.root / "home", shots, "lab-light")
