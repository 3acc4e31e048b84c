"""All numbers of an int8 layer in a real page: another output is chosen by keys, the script that is
copied repeats the kernel's code."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.explorer_page import no_message, tree_row, wait_for_explorer
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
import qatexplorer as qx

example = qx.zoo.load("digits_cnn")
session = qx.Session(
    example.model, example.example_inputs, data=example.data, flow="{flow}", engine="qnnpack",
    qconfig="qnnpack",
)
session.goto(session.flow.train_stage)
session.calibrate(2)
session.goto(session.flow.int8_stage)
explorer = qx.explore(session)
explorer
"""
COPIED = """() => {
    const found = document.querySelectorAll(".qx-int8-layer [data-copy]");
    return [...found].map((button) => button.dataset.copy);
}"""


def shown(page: Page) -> Locator:
    return page.locator(".qx-int8-layer").first


def typed(page: Page, asks: str, value: int) -> None:
    """Type a number into a field, by keys."""
    field = shown(page).locator(f"[data-ask='{asks}']")
    field.focus()
    page.keyboard.press("Control+a")
    page.keyboard.type(str(value))
    page.keyboard.press("Enter")
    again = shown(page).locator(f"[data-ask='{asks}'][value='{value}']")
    expect(again).to_have_count(1)
    expect(again).to_be_focused()


def code_of(script: str) -> tuple[int, int]:
    """What the copied script computes, and what it says that the kernel gave."""
    names: dict[str, Any] = {}
    exec(compile(script, "<copied>", "exec"), names)
    said = re.search(r"the kernel gave (-?\d+)", script)
    assert said is not None
    return int(names["code"]), int(said.group(1))


def numbers_of_a_layer(page: Page, shots: Shots, name: str) -> None:
    wait_for_explorer(page)
    explorer = page.locator(".qx-explorer").first
    for path in ("conv1", "conv2"):
        tree_row(page, path).click()
        expect(shown(page)).to_contain_text("One output by hand")
        expect(page.locator(".qx-inspector h3").first).to_contain_text(path)
    shots(page, f"{name}-page")
    steps = shown(page).locator(".qx-int8-steps")
    before = steps.inner_text()
    typed(page, "int8:output:0", 3)
    typed(page, "int8:output:1", 0)
    typed(page, "int8:output:2", 1)
    typed(page, "int8:sample", 2)
    # More than there are is taken to the last one, before it is asked for.
    field = shown(page).locator("[data-ask='int8:sample']")
    field.fill("99999")
    field.press("Enter")
    expect(shown(page).locator("[data-ask='int8:sample'][value='7']")).to_have_count(1)
    typed(page, "int8:sample", 2)
    assert steps.inner_text() != before
    text, script = page.evaluate(COPIED)
    assert "sample 2, channel 3, at 0, 1" in text
    code, kernel = code_of(script)
    assert code == kernel
    last = steps.locator("li").last.locator("b").inner_text()
    assert int(last) == code
    copy = shown(page).get_by_role("button", name="Copy as NumPy code")
    copy.click()
    expect(shown(page).get_by_role("button", name="Copied")).to_be_visible()
    for title in ("NumPy code", "Products", "Codes as maps", "Channels"):
        fold = shown(page).locator("details", has=page.locator("summary", has_text=title)).first
        fold.locator("summary").click()
        expect(fold.locator(".qx-int8-scroll").first).to_be_visible()
        fold.scroll_into_view_if_needed()
        shots(page, f"{name}-{title.lower().replace(' ', '-')}")
    expect(shown(page).locator(".qx-int8-map td").first).to_have_text(re.compile(r"-?\d+"))
    assert not axe_findings(explorer)
    assert not cut_off(explorer)
    # The owner of the input's scale is selected in every view.
    owner = shown(page).locator("dt:has-text('input') + dd [data-select]").first
    wanted = owner.inner_text()
    owner.click()
    expect(page.locator(".qx-inspector h3").first).to_contain_text(wanted)
    no_message(page)


def test_numbers_of_an_fx_layer_in_dark_voila(
    voila: Callable[..., Server], page: Page, shots: Shots, tmp_path: Path
) -> None:
    book = write_notebook(tmp_path / "int8.ipynb", [CELL.format(flow="fx")], hide_source=True)
    voila_page(page, voila(book), theme="dark")
    numbers_of_a_layer(page, shots, "int8-voila-dark")


def test_numbers_of_an_eager_layer_in_jupyterlab(
    lab: Server, page: Page, shots: Shots, clean_kernels: None
) -> None:
    write_notebook(lab.root / "int8-layer.ipynb", [CELL.format(flow="eager")])
    open_notebook(page, lab, "int8-layer.ipynb")
    set_theme(page, "light")
    run_all_cells(page)
    numbers_of_a_layer(page, shots, "int8-lab")
