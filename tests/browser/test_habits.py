"""What people do with notebooks: two cells with one explorer, save, close, open again, ``%qat``."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.guard import Guard
from tests.browser.notebook import (
    Shots,
    click_menu,
    open_notebook,
    run_all_cells,
    shut_down_kernels,
    until,
    wait_until,
    write_notebook,
)
from tests.browser.servers import Server, free_port, start_command
from tests.support.waiting import PATIENCE_S

pytestmark = pytest.mark.browser

EXPLORE = "import qatexplorer as qx\n\nexplorer = qx.explore()\nexplorer"
MODEL_CELL = """%load_ext qatexplorer
import torch
from torch import nn

network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
netted = 3
batch = torch.zeros(2, 4)
"""
MOST_BYTES = 2_000_000


@pytest.fixture
def open_cells(
    page: Page, lab: Server, clean_kernels: None, request: pytest.FixtureRequest
) -> Callable[..., Path]:
    """Open a notebook of these cells in JupyterLab and run them all."""

    def make(*cells: str, run: bool = True) -> Path:
        name = f"habits-{re.sub(r'[^a-z]+', '-', request.node.name)}.ipynb"
        path = write_notebook(lab.root / name, cells)
        open_notebook(page, lab, name)
        if run:
            run_all_cells(page)
            page.locator(".qx-tree [role=treeitem]").first.wait_for()
        return path

    return make


def explorers(page: Page, number: int) -> list[Locator]:
    found = page.locator(".jp-NotebookPanel .qx-explorer")
    expect(found).to_have_count(number)
    views = [found.nth(i) for i in range(number)]
    for view in views:
        view.locator(".qx-tree [role=treeitem]").first.wait_for()
    return views


def stage(view: Locator, name: str) -> Locator:
    return view.locator(f".qx-stage-button[data-stage='{name}']")


def in_view(view: Locator, name: str) -> None:
    expect(stage(view, name)).to_have_attribute("aria-current", "step")
    expect(view.locator(".qx-stage-status")).to_have_text("")


def scroll_to(view: Locator) -> None:
    view.evaluate("node => node.scrollIntoView({block: 'start'})")


def save(page: Page, path: Path) -> int:
    """File > Save Notebook; the size of the file in bytes."""
    before = path.stat().st_mtime_ns
    click_menu(page, "File", "Save Notebook")
    until(page, lambda: path.stat().st_mtime_ns != before)
    until(page, lambda: whole(path))
    return path.stat().st_size


def whole(path: Path) -> bool:
    """Whether the file has been written to its end."""
    try:
        json.loads(path.read_text())
    except ValueError:
        return False
    return True


def test_one_explorer_in_two_cells_is_one(
    page: Page, open_cells: Callable[..., Path], shots: Shots
) -> None:
    open_cells(EXPLORE, "explorer")
    first, second = explorers(page, 2)
    scroll_to(second)
    stage(second, "insert").click()
    in_view(second, "insert")
    in_view(first, "insert")

    scroll_to(first)
    row = "[role=treeitem][data-id='module:conv2']"
    first.locator(f".qx-tree {row}").click()
    for view in (first, second):
        expect(view.locator(f".qx-tree {row}")).to_have_attribute("aria-selected", "true")
        expect(view.locator(".qx-inspector h3").first).to_contain_text("conv2")
        expect(view.locator(".qx-plot .main-svg").first).to_be_attached()
        assert view.locator("svg [data-item]").count() > 3

    scroll_to(second)
    second.get_by_role("tab", name="Settings").click()
    for view in (first, second):
        chosen = view.get_by_role("tab", name="Settings")
        expect(chosen).to_have_attribute("aria-selected", "true")
    stage(second, "train").click()
    in_view(first, "train")
    for view in (first, second):  # the stage that trains opens its panel
        chosen = view.get_by_role("tab", name="Train", exact=True)
        expect(chosen).to_have_attribute("aria-selected", "true")
    second.get_by_role("button", name="Train", exact=True).click()
    for view in (first, second):
        words = view.locator(".qx-panel .widget-html-content").filter(
            has_text=re.compile(r"^\s*finished: ")
        )
        expect(words.first).to_be_attached()
    # The tree of either view answers to the other's clicks still.
    scroll_to(second)
    second.locator(".qx-tree [role=treeitem][data-id='module:conv1']").click()
    expect(first.locator(".qx-inspector h3").first).to_contain_text("conv1")
    shots(page, "two-cells")


def shows_the_training(page: Page, still: Locator) -> None:
    for words in ("conv2", "qat.ConvBnReLU2d", "Train"):
        expect(still).to_contain_text(words)
    until(page, lambda: still.locator("img").count() >= 3)  # graph, histogram, curves


def test_a_saved_notebook_is_small_and_shows_pictures_without_its_kernel(
    page: Page, lab: Server, guard: Guard, open_cells: Callable[..., Path], shots: Shots
) -> None:
    path = open_cells(EXPLORE)
    (view,) = explorers(page, 1)
    for name in ("fuse", "propagate", "swap", "insert", "train"):
        stage(view, name).click()
        in_view(view, name)
    view.get_by_role("button", name="Train", exact=True).click()
    words = view.locator(".qx-panel .widget-html-content")
    finished = words.filter(has_text=re.compile(r"^\s*finished: "))
    expect(finished.first).to_be_attached()
    stage(view, "convert").click()
    in_view(view, "convert")
    stage(view, "train").click()
    in_view(view, "train")
    view.locator(".qx-tree [role=treeitem][data-id='module:conv2']").click()
    view.locator(".qx-plot .main-svg").first.wait_for(state="attached")
    still = page.locator(".qx-still")
    expect(still).to_have_count(1)
    expect(still).to_be_hidden()  # the page lives
    # The picture follows, at most every two seconds.
    shows_the_training(page, still)
    without_state = save(page, path)
    # JupyterLab keeps widgets in the file when it is told to, and draws them from there; this copy
    # is the notebook as it is saved by default.
    copy = path.with_name("habits-copy.ipynb")
    copy.write_text(path.read_text())
    click_menu(page, "Settings", "Save Widget State Automatically")
    stage(view, "insert").click()
    in_view(view, "insert")
    stage(view, "train").click()
    in_view(view, "train")
    with_state = save(page, path)
    click_menu(page, "Settings", "Save Widget State Automatically")
    text = path.read_text()
    print(f"notebook: {without_state:,} bytes; with widget state {with_state:,} bytes")
    assert "plotly.js v" not in text
    assert without_state < MOST_BYTES / 4
    assert without_state < with_state < MOST_BYTES

    shut_down_kernels(lab)
    guard.allow("console", "model not found|Cannot read properties|404|Could not", "no kernel")
    guard.allow("widget", ".", "the widget of a kernel that is gone")
    guard.allow("status", "api/kernels", "the kernel is gone")
    open_notebook(page, lab, copy.name)
    shut_down_kernels(lab)
    expect(page.locator(".qx-explorer")).to_have_count(0)
    expect(still).to_be_visible()
    shows_the_training(page, still)
    pictures = still.locator("img")
    for index in range(pictures.count()):
        box = pictures.nth(index).evaluate("node => [node.naturalWidth, node.offsetHeight]")
        assert min(box) > 100
    assert page.get_by_text("Loading widget").locator("visible=true").count() == 0
    shots(page, "without-a-kernel")


def complete(page: Page, editor: Locator, wanted: str) -> None:
    """Tab, and the entry of the list where there is one; a slow kernel is asked again."""
    entry = page.locator(".jp-Completer-item").filter(
        has=page.locator(f".jp-Completer-match:text-is('{wanted.split()[-1]}')")
    )
    end = time.monotonic() + PATIENCE_S
    while editor.inner_text().strip() != wanted and time.monotonic() < end:
        page.keyboard.press("Tab")
        # A kernel that is slow to answer is asked again, but not all the time.
        for _ in range(30):
            if editor.inner_text().strip() == wanted:
                break
            if entry.count():
                entry.first.click()
                break
            page.wait_for_timeout(100)
    expect(editor).to_have_text(wanted)


def test_qat_is_typed_and_completed_and_a_wrong_line_is_a_sentence(
    page: Page, guard: Guard, open_cells: Callable[..., Path]
) -> None:
    guard.allow("cell", "UsageError", "the sentence that is looked at here")
    open_cells(MODEL_CELL, "%qat nothing_here", "", run=False)
    run_all_cells(page)
    shown = page.locator(".jp-OutputArea-output").last
    expect(shown).to_contain_text("there is no 'nothing_here' in this notebook")
    expect(shown).not_to_contain_text("Traceback")
    editor = page.locator(".jp-CodeCell .cm-content").nth(2)
    editor.click()
    for typed, wanted in (
        ("%qat net", "%qat network"),
        (" --inp", "%qat network --inputs"),
        (" bat", "%qat network --inputs batch"),
    ):
        page.keyboard.type(typed)
        complete(page, editor, wanted)
    page.keyboard.press("Shift+Enter")
    (view,) = explorers(page, 1)
    expect(view.locator(".qx-header h1")).to_have_text("Sequential")


def test_a_warm_kernel_takes_the_page(page: Page, tmp_path: Path) -> None:
    port = free_port()
    command = ["-m", "qatexplorer.app.cli", "dashboard", "--no-browser", "--port", str(port)]
    server = start_command(
        "dashboard", command, tmp_path, port=port, probe="/voila/static/voila.js"
    )
    try:
        until(page, server.kernel_processes)
        (waiting,) = server.kernel_processes()
        page.goto(f"{server.url}/?some=query")
        page.locator(".qx-tree [role=treeitem]").first.wait_for()
        assert f"Using a warm kernel: {waiting}" in server.log_tail(200)
        # Another waits for the next page, which has a kernel of its own.
        until(page, lambda: len(server.kernel_processes()) == 2)
        other = page.context.new_page()
        other.goto(server.url)
        other.locator(".qx-tree [role=treeitem]").first.wait_for()
        other.locator(".qx-stage-button[data-stage='fuse']").click()
        in_view(other.locator(".qx-explorer"), "fuse")
        in_view(page.locator(".qx-explorer"), "float")
        assert server.log_tail(300).count("Using a warm kernel") == 2
        wait_until(page, "() => document.querySelectorAll('svg [data-item]').length > 3")
    finally:
        server.stop()
