"""One viewport: boxes, bars, drawer and sheet of keys, in Voila and JupyterLab, by clicks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.explorer_page import (
    EXPLORE,
    STEPS,
    click_next,
    closed_drawer,
    follow_the_model_page,
    open_dashboard,
    open_tab,
    push,
    read_the_model_page,
    use_fx,
    wait_for_explorer,
    wait_for_stage,
)
from tests.browser.guard import Guard
from tests.browser.layout_page import box_of, cut_off
from tests.browser.notebook import (
    Shots,
    click_menu,
    eventually,
    kernel_of,
    kill_kernel,
    open_notebook,
    run_all_cells,
    until,
    voila_page,
    write_notebook,
)
from tests.browser.servers import REPO_ROOT, Server
from tests.browser.tree_page import assert_whole_and_aligned

pytestmark = pytest.mark.browser

_TOP = 110
_LEAST = 560


def check_boxes(page: Page, width: int, height: int) -> None:
    """All is inside the window, nothing is cut, and the top takes no more than it may."""
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
    if (width, height) == (1280, 800):
        assert box_of(page, ".qx-tree").height >= _LEAST, where
        assert box_of(page, ".qxg").height >= _LEAST, where
    assert cut_off(page.locator(".qx-explorer")) == [], where


def in_windows(page: Page, sizes: Sequence[tuple[int, int]]) -> None:
    """In windows of these sizes all is in its place, and no name of the tree is cut."""
    page.get_by_role("button", name="Expand all").click()
    for width, height in sizes:
        page.set_viewport_size({"width": width, "height": height})
        eventually(page, functools.partial(check_boxes, page, width, height))
        if height in (700, 800):
            where = f"{width}x{height}"
            eventually(page, functools.partial(assert_whole_and_aligned, page, where))
    page.set_viewport_size({"width": 1280, "height": 800})


def test_eager_and_fx_fit_into_one_viewport(
    voila: Callable[..., Server], page: Page, shots: Shots
) -> None:
    open_dashboard(page, voila)
    read_the_model_page(page)
    sizes = ((1280, 800), (900, 700), (1440, 900), (1100, 800), (1920, 1080))
    for stage in ("float", *STEPS):
        if stage != "float":
            click_next(page, stage)
        if stage == "train":  # the panel that trains opens there by itself
            expect(page.get_by_role("tab", name="Train", exact=True)).to_have_attribute(
                "aria-selected", "true"
            )
            assert box_of(page, ".qx-pages").bottom <= 800
            page.get_by_role("tab", name="Train", exact=True).click()
            expect(page.locator(".qx-pages")).to_be_hidden()
        in_windows(page, sizes if stage in ("float", "insert") else sizes[:2])
        if stage == "train":
            follow_the_model_page(page, "No value is fake-quantized twice")
            closed_drawer(page)
    shots(page, "layout-eager")
    use_fx(page)
    for stage in ("trace", "insert", "lower"):
        page.locator(f".qx-stage-button[data-stage='{stage}']").click()
        wait_for_stage(page, stage)
        closed_drawer(page)
        in_windows(page, sizes[:3])
    shots(page, "layout-fx")


@pytest.fixture
def at_start(
    voila: Callable[..., Server], shared: Callable[[Callable[[Page], None]], Page]
) -> Page:
    """The dashboard at its first stage with a closed drawer, as it is after it was opened."""
    page = shared(lambda page: open_dashboard(page, voila))
    closed_drawer(page)
    return page


def wide(page: Page, part: str, width: float) -> None:
    """Until ``part`` is that wide."""

    def check() -> None:
        assert box_of(page, part).width == pytest.approx(width, abs=1)

    eventually(page, check)


def test_the_sheet_of_keys(at_start: Page) -> None:
    page = at_start
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


def test_the_drawer_opens_closes_and_takes_no_more_than_it_may(at_start: Page) -> None:
    page = at_start
    tabs = page.get_by_role("tab")
    last = tabs.last
    expect(page.get_by_role("tabpanel")).to_have_count(0)
    graph = box_of(page, ".qxg")
    open_tab(page, "Train")
    expect(page.get_by_role("tabpanel", name="Train")).to_be_visible()
    assert box_of(page, ".qxg").height < graph.height
    tabs.nth(0).press("ArrowRight")
    expect(tabs.nth(1)).to_be_focused()
    expect(page.get_by_role("tabpanel", name="Inside the training")).to_be_visible()
    tabs.nth(1).press("End")
    expect(last).to_be_focused()
    expect(page.get_by_role("tabpanel", name=last.inner_text())).to_be_visible()
    last.click()
    expect(page.get_by_role("tabpanel")).to_have_count(0)
    assert box_of(page, ".qxg").height == graph.height
    open_tab(page, "Settings")
    page.get_by_role("button", name="Find runs again").focus()
    page.keyboard.press("Escape")
    expect(page.get_by_role("tabpanel")).to_have_count(0)
    expect(page.get_by_role("tab", name="Settings")).to_be_focused()
    page.get_by_role("button", name="▴ Open").click()
    expect(page.get_by_role("tabpanel", name="Settings")).to_be_visible()
    edge = box_of(page, ".qx-splitter-drawer")
    page.mouse.move(edge.x + 300, edge.y + 4)
    page.mouse.down()
    page.mouse.move(edge.x + 300, 20, steps=5)
    page.mouse.up()

    def is_as_high_as_it_may() -> None:
        drawer = box_of(page, ".qx-drawer")
        assert drawer.height == pytest.approx(600, abs=1)
        assert drawer.bottom <= 800

    eventually(page, is_as_high_as_it_may)
    inside = page.locator(".qx-page-shown")
    assert inside.evaluate("(e) => e.scrollHeight > e.clientHeight || e.clientHeight > 200")
    page.locator(".qx-splitter-drawer").dblclick()  # the tests that come have its own height
    page.get_by_role("button", name="▾ Close").click()
    expect(page.get_by_role("tabpanel")).to_have_count(0)


def test_texts_open_over_the_page_and_an_error_is_seen(at_start: Page, shots: Shots) -> None:
    page = at_start
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
    for stage in STEPS[:5]:
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
    page.get_by_role("button", name="Close", exact=True).locator("visible=true").click()
    expect(error.locator(".qx-popover")).to_be_hidden()


def test_bars_move_by_mouse_and_keys_and_are_remembered(
    at_start: Page, voila: Callable[..., Server]
) -> None:
    page = at_start
    bar = page.locator(".qx-splitter-tree")
    before = box_of(page, ".qx-tree").width
    at = box_of(page, ".qx-splitter-tree")
    page.mouse.move(at.x + 4, at.y + 200)
    page.mouse.down()
    page.mouse.move(at.x + 84, at.y + 200, steps=4)
    page.mouse.up()
    wide(page, ".qx-tree", before + 80)
    expect(bar).to_have_attribute("aria-valuenow", str(round(before + 80)))
    bar.press("ArrowRight")
    wide(page, ".qx-tree", before + 96)
    bar.press("Enter")
    expect(page.locator(".qx-tree")).to_be_hidden()
    expect(bar).to_have_attribute("aria-valuetext", "closed")
    assert box_of(page, ".qxg").x < 30
    bar.press("Enter")
    wide(page, ".qx-tree", before + 96)
    bar.press("Enter")
    expect(page.locator(".qx-tree")).to_be_hidden()
    bar.click()
    wide(page, ".qx-tree", before + 96)
    bar.press("End")

    def is_as_wide_as_it_may() -> None:
        assert box_of(page, ".qx-tree").width == pytest.approx(0.4 * 1280, abs=6)

    eventually(page, is_as_wide_as_it_may)
    bar.dblclick()
    wide(page, ".qx-tree", before)
    bar.press("Home")
    wide(page, ".qx-tree", 200)
    page.locator(".qx-splitter-inspector").press("ArrowLeft")
    open_tab(page, "Settings")
    page.locator(".qx-splitter-drawer").press("Shift+ArrowUp")
    parts = (".qx-tree", ".qx-part-inspector", ".qx-drawer")
    wanted = [box_of(page, part) for part in parts]
    voila_page(page, voila(REPO_ROOT / "notebooks" / "dashboard.ipynb"))
    wait_for_explorer(page)
    expect(page.get_by_role("tab", name="Settings")).to_have_attribute("aria-selected", "true")

    def are_as_before() -> None:
        for part, one in zip(parts, wanted, strict=True):
            found = box_of(page, part)
            assert found.width == pytest.approx(one.width, abs=1), part
            assert found.height == pytest.approx(one.height, abs=1), part

    eventually(page, are_as_before)


def test_a_cell_has_a_height_and_a_tab_of_its_own_is_filled(
    lab: Server, page: Page, shots: Shots, clean_kernels: None, guard: Guard
) -> None:
    page.set_viewport_size({"width": 1280, "height": 800})
    write_notebook(lab.root / "layout.ipynb", [EXPLORE], hide_source=True)
    open_notebook(page, lab, "layout.ipynb")
    run_all_cells(page)
    wait_for_explorer(page)
    cell = page.locator(".jp-NotebookPanel .qx-explorer")

    def has_a_height() -> None:
        height = box_of(page, ".jp-NotebookPanel .qx-explorer").height
        panel = box_of(page, ".jp-NotebookPanel .jp-WindowedPanel-outer")
        assert _LEAST <= height <= max(_LEAST, panel.height)
        assert box_of(cell, ".qx-top").height <= _TOP

    eventually(page, has_a_height)
    height = box_of(page, ".jp-NotebookPanel .qx-explorer").height
    cell.locator(".qx-splitter-height").press("Shift+ArrowDown")
    until(page, lambda: box_of(page, ".jp-NotebookPanel .qx-explorer").height == height + 64)
    page.locator(".jp-OutputArea-output").first.click(button="right", position={"x": 500, "y": 20})
    page.locator(".lm-Menu-itemLabel", has_text="Create New View for Cell Output").click()
    own = page.locator(".jp-LinkedOutputView .qx-explorer")
    own.locator(".qx-tree [role=treeitem]").first.wait_for()
    eventually(page, lambda: fills_its_tab(page, own))
    own.locator(".qx-tree").click()
    click_menu(page, "View", "Appearance", "Simple Interface")

    def fits() -> None:
        fills_its_tab(page, own)
        assert cut_off(own) == []
        assert box_of(own, ".qx-tree").height >= _LEAST
        assert box_of(own, ".qxg").height >= _LEAST

    expect(page.locator("#jp-main-dock-panel[data-mode=single-document]")).to_have_count(1)
    eventually(page, fits)
    shots(page, "layout-lab-own-tab")
    guard.allow("console", "", "the kernel is killed on purpose")
    kill_kernel(lab, kernel_of(lab, "layout.ipynb"))
    expect(own.locator(".qx-gone")).to_be_visible()
    shots(page, "layout-lab-gone")


def fills_its_tab(page: Page, own: Locator) -> None:
    tab, explorer = box_of(page, ".jp-LinkedOutputView"), own.bounding_box()
    assert explorer is not None
    assert explorer["height"] == pytest.approx(tab.height, abs=6)
    assert explorer["width"] == pytest.approx(tab.width, abs=20)
    assert explorer["y"] >= tab.y
