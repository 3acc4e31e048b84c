"""Take the README's pictures from the real dashboard.

Run it from the repository root::

    python -m tests.browser.take_pictures

It serves the dashboard on the depthwise example, walks it by clicks and writes PNG files into
``tests/browser/pictures``.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

from qatexplorer.flows.pt2e import Pt2eFlow
from tests.browser.explorer_page import (
    STEPS,
    click_next,
    open_tab,
    push,
    run_state,
    tree_row,
    wait_for_explorer,
    wait_for_stage,
)
from tests.browser.notebook import voila_page
from tests.browser.servers import CHROMIUM_ARGS, PATIENCE_S, REPO_ROOT, find_chromium, start_voila

FOLDER = Path(__file__).parent / "pictures"


def take(page: Page, name: str) -> None:
    page.wait_for_timeout(1500)
    path = FOLDER / f"{name}.png"
    page.screenshot(path=path, animations="disabled")
    print(path.relative_to(REPO_ROOT))


def walk(page: Page) -> None:
    for stage in STEPS[:5]:
        click_next(page, stage)
        if stage == "insert":
            tree_row(page, "stem.activation_post_process").click()
            expect(page.locator(".qx-plot .bars path").first).to_be_visible()
            take(page, "insert")
    push(page, "Train")
    run_state(page, "finished")
    page.get_by_role("button", name="Train", exact=True).scroll_into_view_if_needed()
    take(page, "train")
    click_next(page, "convert")
    open_tab(page, "Float, fake-quant, int8")
    push(page, "Evaluate and measure")
    expect(page.locator("table.qx-results tbody tr")).to_have_count(4)
    take(page, "int8")


def walk_pt2e(page: Page) -> None:
    """What the quantizer will round, before anything is inserted."""
    open_tab(page, "Settings")
    page.get_by_label("Flow", exact=True).select_option(label=Pt2eFlow.title)
    push(page, "Apply and start again")
    page.locator(".qx-stage-button[data-stage='annotate']").click()
    wait_for_stage(page, "annotate")
    open_tab(page, "Annotations")
    page.locator(".qx-annotations").get_by_role("row").nth(1).click()
    take(page, "annotations")


def main() -> int:
    chromium = find_chromium()
    if chromium is None:
        print("no Chromium found", file=sys.stderr)
        return 1
    os.environ["QATEXPLORER_EXAMPLE"] = "digits_depthwise"
    FOLDER.mkdir(exist_ok=True)
    expect.set_options(timeout=1000 * PATIENCE_S)
    notebook = REPO_ROOT / "notebooks" / "dashboard.ipynb"
    server = start_voila(notebook, Path(tempfile.mkdtemp()))
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=list(CHROMIUM_ARGS))
            page = browser.new_context(viewport={"width": 1440, "height": 1240}).new_page()
            for go in (walk, walk_pt2e):
                voila_page(page, server)
                wait_for_explorer(page)
                go(page)
            browser.close()
    finally:
        server.stop()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
