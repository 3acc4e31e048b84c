"""Driving notebooks: in JupyterLab and in Voila, as a user does."""

from __future__ import annotations

import os
import re
import signal
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import nbformat
import psutil
from playwright.sync_api import BrowserContext, Error, Page

from tests.browser.servers import Server
from tests.support.waiting import PATIENCE_S

Theme = Literal["light", "dark"]
WIDTHS = (1280, 1920)
HEIGHT = 900
PATIENCE_MS = PATIENCE_S * 1000
"""Every wait of the browser tests ends by then: only a test that fails waits that long."""
_THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}

# What the page itself knows of its kernel; the prompt [*] marks a cell sent and not done.
_KERNEL_STATE = """() => {
    const panel = window.jupyterapp?.shell?.currentWidget;
    const kernel = panel?.sessionContext?.session?.kernel;
    const prompts = [...(panel?.node?.querySelectorAll('.jp-InputPrompt') ?? [])];
    return {
        status: kernel?.status ?? 'none',
        connection: kernel?.connectionStatus ?? 'none',
        pending: prompts.filter((prompt) => prompt.textContent.includes('*')).length,
    };
}"""


def write_notebook(path: Path, cells: Sequence[str], *, hide_source: bool = False) -> Path:
    """Write a notebook; a cell that starts with ``%%markdown`` becomes a markdown cell.

    Args:
        hide_source: fold the code cells away, so that a picture shows their outputs.
    """
    book = nbformat.v4.new_notebook()
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    for source in cells:
        marked = source.startswith("%%markdown\n")
        text = source.split("\n", 1)[1] if marked else source
        make = nbformat.v4.new_markdown_cell if marked else nbformat.v4.new_code_cell
        book.cells.append(make(text))
        if hide_source and not marked:
            book.cells[-1].metadata["jupyter"] = {"source_hidden": True}
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(book, path)
    return path


def open_notebook(page: Page, lab: Server, name: str, *, sidebar: bool = False) -> None:
    """Open ``name`` (relative to ``lab.root``) in a workspace of its own; wait for its kernel.

    Args:
        sidebar: keep the file browser open, which takes about 300 px of the width.
    """
    workspace = uuid.uuid4().hex[:8]
    page.goto(f"{lab.url}/lab/workspaces/{workspace}/tree/{quote(name)}")
    page.locator(".jp-NotebookPanel .jp-Cell").first.wait_for()
    wait_idle(page)
    if not sidebar:
        page.evaluate("() => window.jupyterapp.shell.collapseLeft()")


def wait_idle(page: Page, *, settle_s: float = 0.15) -> None:
    """Wait until the kernel of the open notebook is idle and no cell waits, for ``settle_s``.

    Raises:
        AssertionError: with the last state that was seen.
    """
    quiet_since: float | None = None
    state: dict[str, Any] = {}
    begin = time.monotonic()
    while time.monotonic() - begin < PATIENCE_S:
        state = page.evaluate(_KERNEL_STATE)
        if state == {"status": "idle", "connection": "connected", "pending": 0}:
            quiet_since = quiet_since or time.monotonic()
            if time.monotonic() - quiet_since >= settle_s:
                return
        else:
            quiet_since = None
        page.wait_for_timeout(50)
    raise AssertionError(f"the kernel was not idle after {PATIENCE_S:.0f} s: {state}")


def run_all_cells(page: Page) -> None:
    """Run > Run All Cells by clicks; returns when every cell has run."""
    click_menu(page, "Run", "Run All Cells")
    wait_idle(page)


def click_menu(page: Page, menu: str, *items: str) -> None:
    """Click through JupyterLab's menu bar, e.g. ``click_menu(page, "Run", "Run All Cells")``."""
    page.locator("#jp-MainMenu").get_by_role("menuitem", name=menu, exact=True).click()
    for depth, item in enumerate(items):
        label = re.compile(rf"^{re.escape(item)}(…|\\.\\.\\.)?$")
        entry = page.locator(".lm-Menu").nth(depth).locator(".lm-Menu-itemLabel")
        entry.filter(has_text=label).first.click()


def set_theme(page: Page, theme: Theme) -> None:
    """Switch an open JupyterLab to its light or dark theme and wait until it is drawn."""
    page.evaluate(
        "(theme) => window.jupyterapp.commands.execute('apputils:change-theme', {theme})",
        _THEMES[theme],
    )
    light = "true" if theme == "light" else "false"
    page.locator(f"body[data-jp-theme-light='{light}']").wait_for(state="attached")
    wait_until(
        page,
        "(light) => {"
        " const rgb = getComputedStyle(document.body).getPropertyValue('--jp-layout-color0');"
        " const probe = document.createElement('i'); probe.style.color = rgb;"
        " document.body.append(probe);"
        " const c = getComputedStyle(probe).color.match(/[0-9.]+/g).map(Number); probe.remove();"
        " return (c[0] + c[1] + c[2] > 382) === light; }",
        theme == "light",
    )


def voila_page(page: Page, server: Server, *, theme: Theme = "light") -> None:
    """Open Voila's page and wait until its widgets are shown (and its start spinner is gone)."""
    page.goto(f"{server.url}{server.page}?theme={theme}")
    shown = page.locator(".jupyter-widgets, .widget-subarea, .jp-OutputArea-output")
    # The explorer takes the window, and leaves no height to the output that holds it.
    shown.locator("visible=true").first.wait_for()
    # Voila lays its spinner over the page until the widgets have been attached.
    page.locator("#loading").wait_for(state="hidden")


def wait_until(page: Page, function: str, argument: Any = None) -> None:
    """Wait until a JavaScript function returns something true."""
    page.wait_for_function(function, arg=argument, timeout=PATIENCE_MS)


def eventually(page: Page, check: Callable[[], Any]) -> None:
    """Repeat ``check`` until it raises no AssertionError: for what is measured on a page that may
    still be drawing. The last error is raised when the patience ends."""
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            check()
            return
        except AssertionError:
            if time.monotonic() > end:
                raise
        page.wait_for_timeout(50)


def until(page: Page, holds: Callable[[], Any]) -> None:
    """Ask ``holds`` until it gives something true, while the page goes on."""

    def check() -> None:
        assert holds(), "it did not happen in time"

    eventually(page, check)


def drawn_again(page: Page, frames: int = 3) -> None:
    """Wait for some pictures of the page: for what must *not* have changed by then."""
    page.evaluate(
        """async (frames) => {
            for (let i = 0; i < frames; i += 1) await new Promise(requestAnimationFrame);
        }""",
        frames,
    )


def screenshot(page: Page, name: str, folder: Path, *, full_page: bool = False) -> Path:
    """Save a picture as ``<name>-<width of the page>.png`` in ``folder``."""
    size = page.viewport_size
    width = size["width"] if size else 0
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{re.sub(r'[^A-Za-z0-9_.-]+', '_', name)}-{width}.png"
    page.screenshot(path=path, full_page=full_page, animations="disabled")
    return path


@dataclass
class Shots:
    """Takes a page's picture at every width that is asked for; without a folder, none: nobody
    would look at it, and each takes seconds."""

    folder: Path | None
    widths: tuple[int, ...] = WIDTHS
    taken: list[Path] = field(default_factory=list)

    def __call__(self, page: Page, name: str, *, settle_ms: int = 300) -> list[Path]:
        if self.folder is None:
            return []
        before = page.viewport_size
        paths = []
        for width in self.widths:
            page.set_viewport_size({"width": width, "height": HEIGHT})
            page.wait_for_timeout(settle_ms)
            paths.append(screenshot(page, name, self.folder))
        if before:
            page.set_viewport_size(before)
        self.taken += paths
        return paths


def leave(context: BrowserContext) -> None:
    """Close all pages as a user does: Voila then ends their kernels, 0.4 GB each."""
    for page in context.pages:
        if page.url.startswith("http"):
            with suppress(Error):
                page.goto("about:blank")
    context.close()


def kernel_ids(lab: Server) -> list[str]:
    """Ids of the kernels that JupyterLab runs now."""
    return [kernel["id"] for kernel in lab.api("/api/kernels")]


def kernel_of(lab: Server, name: str) -> str:
    """Id of the kernel of the open notebook ``name``.

    Raises:
        LookupError: no session has that notebook.
    """
    for session in lab.api("/api/sessions"):
        if session["path"] == name and session["kernel"]:
            found: str = session["kernel"]["id"]
            return found
    raise LookupError(f"no kernel runs for {name}")


def kernel_pid(lab: Server, kernel_id: str) -> int | None:
    """Process id of the kernel, ``None`` when it has no living process. A restart changes it."""
    process = lab.kernel_processes().get(kernel_id)
    try:
        if process is None or process.status() == psutil.STATUS_ZOMBIE:
            return None
    except psutil.NoSuchProcess:
        return None
    pid: int = process.pid
    return pid


def kernel_alive(lab: Server, kernel_id: str) -> bool:
    """True while the server lists the kernel and its process lives."""
    if kernel_id not in kernel_ids(lab):
        return False
    return kernel_pid(lab, kernel_id) is not None


def shut_down_kernels(lab: Server) -> None:
    """Shut down every kernel through the REST API, as JupyterLab's own button does."""
    for kernel_id in kernel_ids(lab):
        lab.api(f"/api/kernels/{kernel_id}", method="DELETE")


def kill_kernel(lab: Server, kernel_id: str) -> int:
    """Kill the kernel's process as the system's out-of-memory killer would; Jupyter restarts it.

    Returns:
        The process id that was killed.

    Raises:
        LookupError: the server has no such kernel process.
    """
    process = lab.kernel_processes().get(kernel_id)
    if process is None:
        raise LookupError(f"no process runs for kernel {kernel_id}")
    os.kill(process.pid, signal.SIGKILL)
    process.wait(PATIENCE_S)
    pid: int = process.pid
    return pid
