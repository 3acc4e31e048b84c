"""The line of news in a real page: what is wrong stands there before any click and at every stage,
its buttons put it right, and what opens lies over the page."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.explorer_page import no_message, wait_for_explorer, wait_for_stage
from tests.browser.layout_page import axe_findings, box_of, cut_off
from tests.browser.notebook import Shots, eventually, voila_page, write_notebook
from tests.browser.servers import Server

pytestmark = pytest.mark.browser

NO_STUB = """
import torch
import qatexplorer as qx


class NoStub(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn = torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4)
        self.relu, self.fc = torch.nn.ReLU(), torch.nn.Linear(4, 3)

    def forward(self, x):
        return self.fc(self.relu(self.bn(self.conv(x))).mean((2, 3)))


qx.explore(NoStub(), torch.randn(4, 1, 8, 8))
"""
UNTRACEABLE = """
import torch
import qatexplorer as qx


class Looped(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Linear(32, 32)

    def forward(self, x):
        for _ in range(x.shape[1]):
            x = self.inner(x)
        return x


qx.explore(Looped(), torch.randn(2, 2, 32), flow="fx")
"""
_WRONG = "No QuantStub: the int8 model will not run."


def open_page(page: Page, voila: Callable[..., Server], folder: Path) -> None:
    page.set_viewport_size({"width": 1280, "height": 800})
    voila_page(page, voila(write_notebook(folder / "no_stub.ipynb", [NO_STUB])))
    wait_for_explorer(page)
    expect(page.locator(".qx-newsbar > .qx-finding")).to_contain_text(_WRONG)


@pytest.fixture
def opened(
    voila: Callable[..., Server],
    shared: Callable[[Callable[[Page], None]], Page],
    tmp_path: Path,
) -> Page:
    """The model without stubs at its first stage."""
    return shared(lambda page: open_page(page, voila, tmp_path))


def goto(page: Page, stage: str) -> None:
    page.locator(f".qx-stage-button[data-stage='{stage}']").click()
    wait_for_stage(page, stage)


def line_is_whole(page: Page) -> None:
    assert cut_off(page.locator(".qx-explorer")) == []
    bar = box_of(page, ".qx-newsbar")
    for part in (".qx-news-line", ".qx-newsbar > .qx-finding", ".qx-newsbar > .qx-note-more"):
        box = box_of(page, part)
        assert bar.x - 1 <= box.x, part
        assert box.right <= bar.right + 1, part


def has_a_button(page: Page) -> None:
    assert page.locator(".qx-newsbar > .qx-finding > .qx-fix:visible").count() >= 1


def test_nothing_of_the_line_is_cut_off(opened: Page) -> None:
    for width in (900, 1100, 1920, 1280):
        opened.set_viewport_size({"width": width, "height": 800})
        eventually(opened, lambda: line_is_whole(opened))
        has_a_button(opened)


def test_a_model_that_fx_cannot_trace_goes_on_with_pt2e(
    page: Page, voila: Callable[..., Server], tmp_path: Path, shots: Shots
) -> None:
    pytest.importorskip("torchao")
    page.set_viewport_size({"width": 1280, "height": 800})
    voila_page(page, voila(write_notebook(tmp_path / "untraceable.ipynb", [UNTRACEABLE])))
    wait_for_explorer(page)
    expect(page.locator(".qx-newsbar > .qx-finding")).to_contain_text("cannot be prepared")
    page.get_by_role("button", name="Next ▶").click()
    expect(page.locator(".qx-message-error")).to_contain_text(
        re.compile("torch.fx cannot trace Looped", re.IGNORECASE)
    )
    page.keyboard.press("Escape")
    for width in (1100, 1920, 1280):  # the error stands beside what is wrong
        page.set_viewport_size({"width": width, "height": 800})
        eventually(page, lambda: line_is_whole(page))
    shots(page, "news-untraceable")
    page.locator(".qx-newsbar .qx-note-more").click()
    page.locator(".qx-newsbar .qx-popover").get_by_role("button", name="Use PT2E").click()
    goto(page, "annotate")
    no_message(page)


def test_the_whole_story_opens_over_the_page_and_closes(opened: Page, shots: Shots) -> None:
    page = opened
    before = box_of(page, ".qx-tree")
    popover = page.locator(".qx-newsbar .qx-popover")
    expect(popover).to_be_hidden()
    page.locator(".qx-newsbar .qx-note-more").click()
    expect(popover).to_be_visible()
    box = box_of(page, ".qx-newsbar .qx-popover")
    assert box.width > 600
    assert box.height > 100
    assert box.bottom <= 800
    assert box_of(page, ".qx-tree") == before, "nothing is pushed"
    top = page.evaluate(
        "([x, y]) => !!document.elementFromPoint(x, y)?.closest('.qx-popover')",
        [box.x + box.width / 2, box.bottom - 8],
    )
    assert top, "it lies over the panes"
    expect(popover.locator(".qx-findings")).to_contain_text(_WRONG)
    expect(popover.locator(".qx-story")).to_contain_text("The session's own copy of your model")
    assert popover.get_by_role("button", name=re.compile("^(Wrap|Use)")).count() == 3
    shots(page, "news-more")
    page.keyboard.press("Escape")
    expect(popover).to_be_hidden()
    page.locator(".qx-newsbar > .qx-finding .qx-finding-word").click()
    popover.get_by_role("button", name="show the place").click()
    expect(page.locator(".qx-inspect").first).to_contain_text("conv")


def test_what_is_wrong_is_said_at_every_stage_until_a_button_puts_it_right(
    opened: Page, shots: Shots
) -> None:
    page = opened
    line, wrong = page.locator(".qx-news-line"), page.locator(".qx-newsbar > .qx-finding")
    expect(line).to_have_attribute("aria-live", "polite")
    expect(page.locator(".qx-newsbar [role=alert]")).to_contain_text(_WRONG)
    assert wrong.locator(".qx-finding-word").inner_text().startswith("✖error: ")
    news = {
        "float": "1 Conv2d and 1 Linear with weights",
        "fuse": "1 conv-bn-relu group became one module",
        "insert": "2 weights and 2 outputs will be rounded",
        "train": "no fake quant has seen data yet",
    }
    for stage, words in news.items():
        goto(page, stage)
        expect(line).to_contain_text(words)
        expect(wrong).to_contain_text(_WRONG)
        assert box_of(page, ".qx-top").height <= 110
    train = page.get_by_role("tab", name="Train", exact=True)  # it opens there by itself
    expect(train).to_have_attribute("aria-selected", "true")
    train.press("Escape")
    shots(page, "news")
    assert axe_findings(page.locator(".qx-explorer")) == []
    wrong.get_by_role("button", name="Wrap each layer").click()
    wait_for_stage(page, "float")
    expect(wrong).to_be_hidden()
    goto(page, "insert")
    expect(line).to_contain_text("2 inputs and 2 outputs will be rounded")
    goto(page, "convert")
    no_message(page)
    expect(line).to_contain_text("all 2 layers compute in int8")
    expect(wrong).to_contain_text("No observer has seen data")
