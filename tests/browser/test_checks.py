"""Checks in a real page: counted in the header from the first stage on, listed in a tab, selected
in tree and graph, put right by a button, stopped and made again, by clicks and by keys."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.explorer_page import no_message, open_tab, wait_for_explorer, wait_for_stage
from tests.browser.layout_page import axe_findings, box_of, cut_off
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

# Rules of the notebook's own: one finds each Dropout and may be slow, one finds a line, one cannot
# be asked.
CELL = '''
import time
import torch
import qatexplorer as qx
from qatexplorer.checks.records import Fix
from qatexplorer.checks.rules import RULES, Found, rule
from qatexplorer.checks.subject import NoEvidence

SECONDS = {seconds}
for id in [id for id, one in RULES.items() if one.ask is not None]:
    del RULES[id]  # what is found here stays the same when there are more rules


def slow(subject):
    """Waiting for a long forward"""
    for _ in range(int(SECONDS * 20)):
        subject.stop_if_asked()
        time.sleep(0.05)
    return True


@rule("QX997", "dropout-kept", "warning", "int8")
def dropout(subject):
    """A Dropout is kept in the int8 model

    Symptom:
        torch says nothing
    Cause:
        It is there.

        It stays there.
    Fix:
        Take it out of the model.
    Sources:
        https://github.com/pytorch/pytorch/issues/1
    """
    if SECONDS:
        subject.get(slow)
    diff = "-self.drop = nn.Dropout(0.1)\\n+self.drop = nn.Identity()"
    for path, _ in subject.layers(torch.nn.Dropout):
        fix = Fix("Quantize no Linear", "configure", (("qconfig", {{torch.nn.Linear: None}}),),
                  "session.configure(qconfig={{nn.Linear: None}})", diff)
        yield Found(path, f"{{path}} is a Dropout: <b>nothing</b> happens there in int8.",
                    fix=f"model.{{path}} = nn.Identity()", fixes=(fix,))


@rule("QX998", "adds", "info", "int8")
def adds(subject):
    """A tensor is added

    Symptom:
        none
    Cause:
        A line adds two tensors.
    Fix:
        Nothing is to be done.
    Sources:
        https://github.com/pytorch/pytorch/issues/2
    """
    for snapshot in subject.snapshots.values():
        for node in snapshot.graph.nodes if snapshot.graph else ():
            if node.label == "add":
                yield Found("", "Two tensors are added.", source=node.source)
        return


@rule("QX999", "unasked", "error", "int8")
def unasked(subject):
    """It cannot be asked

    Symptom:
        none
    Cause:
        none
    Fix:
        none
    Sources:
        https://github.com/pytorch/pytorch/issues/3
    """
    raise NoEvidence("there is nothing to look at.")
    yield


class NoStub(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn = torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4)
        self.relu, self.drop = torch.nn.ReLU(), torch.nn.Dropout(0.1)
        self.head = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.2))

    def forward(self, x):
        y = self.drop(self.relu(self.bn(self.conv(x)))).mean((2, 3))
        return self.head(y) + y


qx.explore(NoStub(), torch.randn(4, 1, 8, 8))
'''


def counts(page: Page) -> Locator:
    return page.locator(".qx-counts")


def rows(page: Page) -> Locator:
    return page.locator(".qx-checks .qx-table-row")


def checked(page: Page) -> None:
    """Until the check has been made."""
    expect(page.locator(".qx-checks-state")).to_contain_text("rules checked")


def open_page(
    page: Page, voila: Callable[..., Server], folder: Path, theme: str = "light", seconds: float = 0
) -> None:
    page.set_viewport_size({"width": 1280, "height": 800})
    cell = CELL.format(seconds=seconds)
    notebook = write_notebook(folder / "checks.ipynb", [cell])
    voila_page(page, voila(notebook), theme="dark" if theme == "dark" else "light")
    wait_for_explorer(page)


def look_at_the_findings(page: Page, shots: Shots, theme: str) -> None:
    """Header, tab, card, selection, marks, filter, fix and undo; the page has its first picture."""
    expect(counts(page)).to_have_attribute(
        "aria-label", re.compile("^Checks: 1 error, 2 warnings, 1 info$")
    )
    assert "".join(counts(page).inner_text().split()) == "✖1error▲2warnings●1info"
    for stage in ("fuse", "insert"):
        page.locator(f".qx-stage-button[data-stage='{stage}']").click()
        wait_for_stage(page, stage)
        expect(counts(page)).to_have_attribute("aria-label", re.compile("1 error, 2 warnings"))
    expect(page.locator(".qx-newsbar > .qx-finding")).to_contain_text("3 more in Checks")
    counts(page).click()
    expect(page.get_by_role("tab", name="Checks", exact=True)).to_have_attribute(
        "aria-selected", "true"
    )
    checked(page)
    expect(rows(page)).to_have_count(4)
    assert rows(page).first.inner_text().startswith("✖ error")
    card = page.locator(".qx-check-card")
    expect(card).to_contain_text("QX907")
    shots(page, f"checks-{theme}")
    assert axe_findings(page.locator(".qx-explorer")) == []

    # A finding with markup in its sentence, chosen by keys: its place is selected everywhere.
    rows(page).first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(card).to_contain_text("drop is a Dropout: <b>nothing</b> happens there")
    row = page.locator(".qx-tree [role=treeitem][data-id='module:drop']")
    expect(row).to_have_attribute("aria-selected", "true")
    expect(row).to_have_attribute("aria-label", re.compile("1 warning"))
    expect(row.locator(".qx-tree-finding")).to_have_text("▲")
    box = page.locator("svg .qxg-selected[data-sel='module:drop']")
    expect(box).to_have_attribute("aria-label", re.compile("1 warning"))
    expect(box.locator(".qxg-finding text")).to_have_text("▲")
    page.locator(".qx-check-card summary").click()
    expect(card).to_contain_text("torch says nothing")
    link = card.locator("a").first
    expect(link).to_have_attribute("href", "https://github.com/pytorch/pytorch/issues/1")
    expect(link).to_have_attribute("rel", re.compile("noopener"))
    card.locator(".qx-copy").first.click()
    expect(card.locator(".qx-copy").first).to_have_text("Copied")
    shots(page, f"checks-card-{theme}")
    assert axe_findings(page.locator(".qx-explorer")) == []

    # Where the place is no module it is the operation of the source line.
    page.locator(".qx-checks .qx-table-chips button", has_text="info").click()
    expect(rows(page)).to_have_count(1)
    rows(page).first.click()
    expect(page.locator("svg .qxg-selected .qxg-label").first).to_have_text("add")
    page.locator(".qx-checks .qx-table-chips button", has_text="info").click()
    expect(rows(page)).to_have_count(4)


def test_findings_are_counted_listed_selected_and_put_right_in_dark_voila(
    page: Page, voila: Callable[..., Server], tmp_path: Path, shots: Shots
) -> None:
    open_page(page, voila, tmp_path, "dark")
    look_at_the_findings(page, shots, "dark")
    below = page.locator(".qx-checks-below")
    below.locator("summary", has_text="could not be asked").click()
    expect(below).to_contain_text("QX999 unasked")
    expect(below).to_contain_text("there is nothing to look at.")

    # The change is shown before it is made; then the finding is gone and stands below.
    rows(page).filter(has_text="QX907").click()
    fix = page.locator(".qx-check-fix", has=page.get_by_role("button", name="Wrap each layer"))
    fix.get_by_role("button", name="Wrap each layer").press("Enter")
    wait_for_stage(page, "float")
    no_message(page)
    expect(counts(page)).to_have_attribute("aria-label", re.compile("^Checks: 2 warn"))
    checked(page)
    expect(rows(page).filter(has_text="QX907")).to_have_count(0)
    expect(below).to_contain_text("Wrap each layer")
    expect(below).to_contain_text("session.configure(stubs='layers')")
    shots(page, "checks-put-right-dark")
    rows(page).filter(has_text="head.1").click()
    diff = page.locator(".qx-check-card .qx-diff")
    expect(diff.locator(".qx-diff-minus")).to_contain_text("-self.drop = nn.Dropout(0.1)")
    expect(diff.locator(".qx-diff-plus")).to_contain_text("+self.drop = nn.Identity()")
    assert cut_off(page.locator(".qx-explorer")) == []
    assert box_of(page, ".qx-top").height <= 110
    assert axe_findings(page.locator(".qx-explorer")) == []


def test_a_long_check_says_how_far_it_is_gives_way_and_can_be_stopped(
    page: Page, voila: Callable[..., Server], tmp_path: Path, shots: Shots
) -> None:
    open_page(page, voila, tmp_path, seconds=600)
    expect(counts(page)).to_contain_text(re.compile(r"checking \d+ %"))
    expect(counts(page)).to_contain_text("1")  # what is known without rules stands there already
    # A click is not kept waiting: the check gives way, and begins anew.
    page.locator(".qx-stage-button[data-stage='fuse']").click()
    wait_for_stage(page, "fuse")
    expect(counts(page)).to_contain_text(re.compile(r"checking \d+ %"))
    open_tab(page, "Checks")
    state = page.locator(".qx-checks-state")
    expect(state).to_contain_text("waiting for a long forward")
    shots(page, "checks-running")
    assert axe_findings(page.locator(".qx-explorer")) == []
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(state).to_contain_text("Stopped: not all rules were asked.")
    expect(counts(page)).to_contain_text("not checked")
    # It stays stopped, whatever else is done: the kernel has answered to a click meanwhile.
    page.locator(".qx-tree [role=treeitem][data-id='module:conv']").click()
    expect(page.locator(".qx-inspector h3").first).to_contain_text("conv")
    expect(counts(page)).to_contain_text("not checked")
    shots(page, "checks-stopped")
    page.get_by_role("button", name="Check now").click()
    expect(counts(page)).to_contain_text(re.compile(r"checking \d+ %"))


def test_checks_in_jupyterlab(lab: Server, page: Page, shots: Shots, clean_kernels: None) -> None:
    write_notebook(lab.root / "checks.ipynb", [CELL.format(seconds=0)], hide_source=True)
    open_notebook(page, lab, "checks.ipynb")
    run_all_cells(page)
    wait_for_explorer(page)
    set_theme(page, "light")
    look_at_the_findings(page, shots, "lab-light")
    set_theme(page, "dark")
    shots(page, "checks-lab-dark")
    assert axe_findings(page.locator(".qx-explorer")) == []
