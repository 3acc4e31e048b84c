"""One viewport: boxes, bars, drawer and sheet of keys, in Voila and JupyterLab, by clicks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.explorer_page import (
    EXPLORE,
    STEPS,
    click_next,
    open_dashboard,
    open_tab,
    push,
    use_fx,
    wait_for_explorer,
    wait_for_stage,
)
from tests.browser.guard import Guard
from tests.browser.layout_page import box_of, cut_off
from tests.browser.notebook import (
    Shots,
    click_menu,
    kernel_of,
    kill_kernel,
    open_notebook,
    run_all_cells,
    voila_page,
    write_notebook,
)
from tests.browser.servers import REPO_ROOT, Server

pytestmark = [pytest.mark.browser, pytest.mark.timeout(420)]

NO_MODEL = """
import qatexplorer as qx

qx.explore(3)
"""
_TOP = 110
_LEAST = 560


def check_boxes(page: Page, width: int, height: int) -> None:
    """All is inside the window, nothing is cut, and the top takes no more than it may."""
    page.set_viewport_size({"width": width, "height": height})
    page.wait_for_timeout(300)
    where = f"at {width}x{height}"
    scrolls = page.evaluate(
        "() => [document.scrollingElement.scrollHeight, document.scrollingElement.scrollWidth]"
    )
    assert scrolls == [height, width], where
    explorer = box_of(page, ".qx-explorer")
    assert (explorer.x, explorer.y, explorer.width, explorer.height) == (0, 0, width, height)
    assert box_of(page, ".qx-top").height <= _TOP, where
    drawer = box_of(page, ".qx-drawer")
    assert drawer.bottom <= height, where
    for part in (".qx-tree", ".qxg", ".qx-part-inspector"):
        box = box_of(page, part)
        assert box.bottom <= drawer.y + 1, (part, where)
        assert box.x >= 0, (part, where)
        assert box.right <= width, (part, where)
        assert box.width >= 180, (part, where)
    assert cut_off(page.locator(".qx-explorer")) == [], where


def test_eager_and_fx_fit_into_one_viewport(
    voila: Callable[..., Server], page: Page, shots: Shots
) -> None:
    open_dashboard(page, voila)
    sizes = ((1280, 800), (1440, 900), (900, 700), (1100, 800), (1920, 1080))
    for stage in ("float", *STEPS):
        if stage != "float":
            click_next(page, stage)
        page.set_viewport_size({"width": 1280, "height": 800})
        if stage == "train":  # the panel that trains opens there by itself
            expect(page.get_by_role("tab", name="Train", exact=True)).to_have_attribute(
                "aria-selected", "true"
            )
            assert box_of(page, ".qx-pages").bottom <= 800
            page.get_by_role("tab", name="Train", exact=True).click()
        for width, height in sizes if stage in ("float", "insert") else sizes[:2]:
            check_boxes(page, width, height)
            if (width, height) == (1280, 800):
                assert box_of(page, ".qx-tree").height >= _LEAST, stage
                assert box_of(page, ".qxg").height >= _LEAST, stage
    shots(page, "layout-eager")
    use_fx(page)
    for stage in ("trace", "insert", "lower"):
        page.locator(f".qx-stage-button[data-stage='{stage}']").click()
        wait_for_stage(page, stage)
        if stage == "lower":
            page.keyboard.press("Escape")
        for width, height in sizes[:3]:
            check_boxes(page, width, height)
    shots(page, "layout-fx")


def test_bars_move_by_mouse_and_keys_and_are_remembered(
    voila: Callable[..., Server], page: Page
) -> None:
    open_dashboard(page, voila)
    bar = page.locator(".qx-splitter-tree")
    before = box_of(page, ".qx-tree").width
    at = box_of(page, ".qx-splitter-tree")
    page.mouse.move(at.x + 4, at.y + 200)
    page.mouse.down()
    page.mouse.move(at.x + 84, at.y + 200, steps=4)
    page.mouse.up()
    assert box_of(page, ".qx-tree").width == pytest.approx(before + 80, abs=1)
    assert bar.get_attribute("aria-valuenow") == str(round(before + 80))
    bar.press("ArrowRight")
    assert box_of(page, ".qx-tree").width == pytest.approx(before + 96, abs=1)
    bar.press("Enter")
    expect(page.locator(".qx-tree")).to_be_hidden()
    assert bar.get_attribute("aria-valuetext") == "closed"
    assert box_of(page, ".qxg").x < 30
    bar.press("Enter")
    assert box_of(page, ".qx-tree").width == pytest.approx(before + 96, abs=1)
    bar.press("Enter")
    bar.click()
    assert box_of(page, ".qx-tree").width == pytest.approx(before + 96, abs=1)
    bar.press("End")
    widest = box_of(page, ".qx-tree").width
    assert widest == pytest.approx(0.4 * 1280, abs=6)
    bar.dblclick()
    assert box_of(page, ".qx-tree").width == pytest.approx(before, abs=1)
    bar.press("Home")
    page.locator(".qx-splitter-inspector").press("ArrowLeft")
    open_tab(page, "Settings")
    page.locator(".qx-splitter-drawer").press("Shift+ArrowUp")
    wanted = [box_of(page, s) for s in (".qx-tree", ".qx-part-inspector", ".qx-drawer")]
    assert wanted[0].width == 200
    voila_page(page, voila(REPO_ROOT / "notebooks" / "dashboard.ipynb"))
    wait_for_explorer(page)
    expect(page.get_by_role("tab", name="Settings")).to_have_attribute("aria-selected", "true")
    found = [box_of(page, s) for s in (".qx-tree", ".qx-part-inspector", ".qx-drawer")]
    for one, other in zip(found, wanted, strict=True):
        assert one.width == pytest.approx(other.width, abs=1)
        assert one.height == pytest.approx(other.height, abs=1)


def test_the_drawer_opens_closes_and_takes_no_more_than_it_may(
    voila: Callable[..., Server], page: Page
) -> None:
    open_dashboard(page, voila)
    tabs = page.get_by_role("tab")
    count, last = tabs.count(), tabs.last.inner_text()
    assert count > 10
    expect(page.get_by_role("tabpanel")).to_have_count(0)
    graph = box_of(page, ".qxg")
    open_tab(page, "Train")
    expect(page.get_by_role("tabpanel", name="Train")).to_be_visible()
    assert box_of(page, ".qxg").height < graph.height
    tabs.nth(0).press("ArrowRight")
    expect(tabs.nth(1)).to_be_focused()
    expect(page.get_by_role("tabpanel", name="Inside the training")).to_be_visible()
    tabs.nth(1).press("End")
    expect(page.get_by_role("tabpanel", name=last)).to_be_visible()
    tabs.nth(count - 1).click()
    expect(page.get_by_role("tabpanel")).to_have_count(0)
    assert box_of(page, ".qxg").height == graph.height
    open_tab(page, "Settings")
    page.get_by_role("button", name="Find runs again").focus()
    page.keyboard.press("Escape")
    expect(page.get_by_role("tabpanel")).to_have_count(0)
    expect(page.get_by_role("tab", name="Settings")).to_be_focused()
    page.get_by_role("button", name="▴ Open").click()
    edge = box_of(page, ".qx-splitter-drawer")
    page.mouse.move(edge.x + 300, edge.y + 4)
    page.mouse.down()
    page.mouse.move(edge.x + 300, 20, steps=5)
    page.mouse.up()
    drawer = box_of(page, ".qx-drawer")
    assert drawer.height == pytest.approx(600, abs=1)
    assert drawer.bottom <= 800
    inside = page.locator(".qx-page-shown")
    assert inside.evaluate("(e) => e.scrollHeight > e.clientHeight || e.clientHeight > 200")
    page.get_by_role("button", name="▾ Close").click()
    expect(page.get_by_role("tabpanel")).to_have_count(0)


def test_texts_open_over_the_page_and_an_error_is_seen(
    voila: Callable[..., Server], page: Page, shots: Shots
) -> None:
    open_dashboard(page, voila)
    tree = box_of(page, ".qx-tree")
    page.locator(".qx-newsbar .qx-note-more").click()
    text = page.locator(".qx-newsbar .qx-popover")
    expect(text).to_be_visible()
    assert box_of(page, ".qx-tree") == tree
    page.keyboard.press("Escape")
    expect(text).to_be_hidden()
    open_tab(page, "Train")
    page.get_by_text("Schedules").click()
    page.get_by_label("Freeze BN statistics from epoch").fill("soon")
    click_next(page, "fuse")
    for stage in STEPS[1:5]:
        click_next(page, stage)
    push(page, "Train")
    error = page.locator(".qx-message-error")
    expect(error).to_contain_text("soon")
    body = box_of(page, ".qx-message-error .qx-popover")
    assert body.y >= 90
    assert body.right <= 1280
    assert body.bottom <= 800
    shots(page, "layout-error")
    page.get_by_role("button", name="Close", exact=True).locator("visible=true").click()
    expect(error.locator(".qx-popover")).to_be_hidden()
    expect(error.locator(".qx-note-line")).to_be_visible()
    error.get_by_role("button", name="What to do").click()
    expect(error.locator(".qx-popover")).to_be_visible()


def test_the_sheet_of_keys(voila: Callable[..., Server], page: Page) -> None:
    open_dashboard(page, voila)
    sheet = page.get_by_role("dialog", name="Keys")
    page.locator(".qx-tree [role=treeitem][tabindex='0']").first.focus()
    page.keyboard.press("?")
    expect(sheet).to_be_visible()
    assert page.locator(".qx-tree-search").input_value() == ""
    for _ in range(6):
        page.keyboard.press("Tab")
        inside = "() => document.activeElement === document.body"
        inside += " || document.activeElement.closest('.qx-keys') !== null"
        assert page.evaluate(inside)
    page.keyboard.press("Escape")
    expect(sheet).to_be_hidden()
    search = page.locator(".qx-tree-search")
    search.focus()
    page.keyboard.press("?")
    expect(sheet).to_be_hidden()
    expect(search).to_have_value("?")
    search.fill("")
    page.get_by_role("button", name="Keys").click()
    expect(sheet).to_be_visible()
    sheet.get_by_role("button", name="Close").click()
    expect(sheet).to_be_hidden()
    expect(page.get_by_role("button", name="Keys")).to_be_focused()


def test_without_a_model_the_page_says_what_it_needs(
    voila: Callable[..., Server], page: Page, shots: Shots, tmp_path: Path
) -> None:
    book = write_notebook(tmp_path / "none.ipynb", [NO_MODEL])
    voila_page(page, voila(book))
    expect(page.get_by_role("heading", name="No model is open")).to_be_visible(timeout=60_000)
    expect(page.locator(".qx-message-error")).to_contain_text("not a torch.nn.Module")
    shots(page, "layout-no-model")


def test_a_cell_has_a_height_and_a_tab_of_its_own_is_filled(
    lab: Server, page: Page, shots: Shots, clean_kernels: None, guard: Guard
) -> None:
    page.set_viewport_size({"width": 1280, "height": 800})
    write_notebook(lab.root / "layout.ipynb", [EXPLORE], hide_source=True)
    open_notebook(page, lab, "layout.ipynb")
    run_all_cells(page)
    wait_for_explorer(page)
    cell = page.locator(".jp-NotebookPanel .qx-explorer")
    height = box_of(page, ".jp-NotebookPanel .qx-explorer").height
    panel = box_of(page, ".jp-NotebookPanel .jp-WindowedPanel-outer")
    assert _LEAST <= height <= max(_LEAST, panel.height)
    assert box_of(cell, ".qx-top").height <= _TOP
    cell.locator(".qx-splitter-height").press("Shift+ArrowDown")
    assert box_of(page, ".jp-NotebookPanel .qx-explorer").height == height + 64
    page.locator(".jp-OutputArea-output").first.click(button="right", position={"x": 500, "y": 20})
    page.locator(".lm-Menu-itemLabel", has_text="Create New View for Cell Output").click()
    own = page.locator(".jp-LinkedOutputView .qx-explorer")
    own.locator(".qx-tree [role=treeitem]").first.wait_for()
    fills_its_tab(page, own)
    own.locator(".qx-tree").click()
    click_menu(page, "View", "Appearance", "Simple Interface")
    page.wait_for_timeout(1000)
    fills_its_tab(page, own)
    assert cut_off(own) == []
    assert box_of(own, ".qx-tree").height >= _LEAST
    assert box_of(own, ".qxg").height >= _LEAST
    shots(page, "layout-lab-own-tab")
    guard.allow("console", "", "the kernel is killed on purpose")
    kill_kernel(lab, kernel_of(lab, "layout.ipynb"))
    expect(own.locator(".qx-gone")).to_be_visible(timeout=30_000)
    shots(page, "layout-lab-gone")


def fills_its_tab(page: Page, own: Locator) -> None:
    tab, explorer = box_of(page, ".jp-LinkedOutputView"), own.bounding_box()
    assert explorer is not None
    assert explorer["height"] == pytest.approx(tab.height, abs=6)
    assert explorer["width"] == pytest.approx(tab.width, abs=20)
    assert explorer["y"] >= tab.y
