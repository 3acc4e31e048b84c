"""A training is found again: after a reload of JupyterLab's page, and by a new Voila page."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

import qatexplorer as qx
from tests.browser.explorer_page import open_tab, push, run_state, wait_for_explorer
from tests.browser.guard import Guard
from tests.browser.notebook import (
    Shots,
    eventually,
    open_notebook,
    run_all_cells,
    voila_page,
    wait_idle,
    write_notebook,
)
from tests.browser.servers import Server
from tests.support.waiting import until

pytestmark = pytest.mark.browser

CELL = """
import qatexplorer as qx

example = qx.zoo.load("digits_cnn")
explorer = qx.explore(
    example.model, example.example_inputs, data=example.data, suggested=example.training
)
explorer.runs.folder.value = {folder!r}
if not explorer.runs.list.options:
    settings = explorer.training.schedules.settings() | {{"checkpoint_every": 20}}
    run_dir = explorer.runs.run_dir()
    explorer.session.start_training(epochs=100_000, run_dir=run_dir, **settings)
explorer
"""


def only_run(folder: Path) -> Path:
    return qx.list_runs(folder)[0].path


def steps(folder: Path) -> int:
    return int(json.loads((only_run(folder) / "status.json").read_text())["step"])


def wait_for_saved_workspace(page: Page, lab: Server, notebook: str) -> None:
    """JupyterLab saves its workspace a while after a change; on a busy machine, a long while."""
    workspace = page.url.partition("/lab/workspaces/")[2].partition("/")[0].partition("?")[0]

    def check() -> None:
        saved = lab.api(f"/lab/api/workspaces/{workspace}")["data"]
        shown = json.dumps(saved.get("layout-restorer:data", {}).get("main", {}))
        assert f"notebook:{notebook}" in shown, saved
        assert f"notebook:{notebook}" in saved, saved

    eventually(page, check)


def test_reloaded_page_finds_its_training(
    page: Page, lab: Server, guard: Guard, shots: Shots, tmp_path: Path, clean_kernels: None
) -> None:
    guard.allow(
        "failed",
        r"^\w+ http://[^/]+/.*ERR_ABORTED$",
        "JupyterLab asks and saves by itself; the reload cuts off what is under way",
    )
    write_notebook(lab.root / "runs.ipynb", [CELL.format(folder=str(tmp_path))], hide_source=True)
    open_notebook(page, lab, "runs.ipynb")
    run_all_cells(page)
    wait_for_explorer(page)
    run_state(page, "running")
    before = steps(tmp_path)
    # Reloaded before JupyterLab has saved its workspace, it starts another kernel by itself.
    wait_for_saved_workspace(page, lab, "runs.ipynb")
    page.reload()
    page.locator(".jp-NotebookPanel .jp-Cell").first.wait_for()
    # Cells that are run before the page has found its kernel get a new one.
    wait_idle(page)
    run_all_cells(page)
    wait_for_explorer(page)
    # A new explorer over a new session; the training belongs to the old one and goes on.
    open_tab(page, "Runs")
    push(page, "Show its session")
    open_tab(page, "Train")
    run_state(page, "running")
    shots(page, "runs-reloaded")
    push(page, "Stop")
    run_state(page, "stopped")
    assert steps(tmp_path) > before
    opened = qx.open_run(only_run(tmp_path))
    assert opened.state == "stopped"
    assert [s.step for s in opened.history.steps][-1] + 1 == steps(tmp_path)


def test_new_voila_page_goes_on_from_the_last_checkpoint(
    page: Page, voila: Callable[..., Server], shots: Shots, tmp_path: Path
) -> None:
    folder = tmp_path / "kept"
    server = voila(write_notebook(tmp_path / "runs.ipynb", [CELL.format(folder=str(folder))]))
    voila_page(page, server)
    run_state(page, "running")
    path = only_run(folder)
    until(lambda: qx.open_run(path).checkpoints)
    # The worst that can happen to a kernel; a page that is closed in good order leaves more.
    os.kill(int(qx.open_run(path).status["pid"]), signal.SIGKILL)
    page.goto("about:blank")
    # The system takes a moment to end it.
    until(lambda: qx.open_run(path).state == "interrupted")
    opened = qx.open_run(path)
    assert opened.last_checkpoint is not None
    at = opened.last_checkpoint.position.step
    voila_page(page, server)
    wait_for_explorer(page)
    open_tab(page, "Runs")
    expect(page.get_by_text("its kernel has ended in the middle of it")).to_be_visible()
    shots(page, "runs-voila-interrupted")
    push(page, "Resume")
    open_tab(page, "Train")
    run_state(page, "running")
    push(page, "Stop")
    run_state(page, "stopped")
    again = qx.open_run(path)
    assert again.state == "stopped"
    assert any(m.kind == "resumed from checkpoint" and m.step == at for m in again.history.markers)
    assert [s.step for s in again.history.steps][:at] == list(range(at))
