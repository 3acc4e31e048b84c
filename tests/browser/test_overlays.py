"""Colours of the graph and two graphs side by side, by clicks and keys, in Voila and JupyterLab."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.explorer_page import click_next, no_message, wait_for_explorer, wait_for_stage
from tests.browser.layout_page import assert_contrast
from tests.browser.notebook import (
    Shots,
    open_notebook,
    run_all_cells,
    set_theme,
    voila_page,
    wait_until,
    write_notebook,
)
from tests.browser.servers import REPO_ROOT, Server

pytestmark = pytest.mark.browser

DIGITS = """
import qatexplorer as qx

example = qx.zoo.load("digits_cnn")
explorer = qx.explore(example.model, example.example_inputs, data=example.data)
explorer
"""
RESNET = """
import sys
import qatexplorer as qx
sys.path.append({root!r})  # last: an installed qatexplorer stays the one that is tested
from tests.support.models import load_timm

model, x = load_timm("resnet50", size=32, batch=4)
session = qx.Session(model, x, flow="{flow}", stubs="{stubs}")
session.goto(session.flow.prepared_stage)
explorer = qx.explore(session)
explorer
"""


def picker(page: Page, label: str) -> Locator:
    return page.get_by_label(label).first


def painted(page: Page, title: str) -> None:
    """Until the graph is coloured by ``title``."""
    expect(page.locator(".qxg-scale strong").first).to_contain_text(title)
    expect(page.locator(".qxg-painted").first).to_be_attached()


def go_to(page: Page, stage: str) -> None:
    page.locator(f".qx-stage-button[data-stage='{stage}']").click()
    wait_for_stage(page, stage)


def pick(graph: Locator, shown: str) -> None:
    """Click a box of a graph; what lies outside of its window comes in by "Fit all"."""
    graph.get_by_role("button", name="Fit all").click()
    graph.locator(shown).first.click()


def colour_and_compare(page: Page, shots: Shots, name: str) -> None:
    wait_for_explorer(page)
    # From the keyboard: the select is reached and changed by keys alone.
    picker(page, "Colour by").focus()
    page.keyboard.type("MACs")
    page.keyboard.press("Enter")
    painted(page, "MACs")
    conv = page.locator("svg [data-sel='module:conv1']").first
    expect(conv).to_have_attribute("aria-label", re.compile(r"MACs: [\d,]+ MACs, .* of the model"))
    assert_contrast(page)
    conv.hover()
    expect(page.locator(".qxg-tip").first).to_contain_text("of the model")
    shots(page, f"{name}-macs")

    picker(page, "Colour by").select_option("sqnr")
    expect(page.locator(".qxg-scale")).to_contain_text("no fake quants at this stage")
    expect(page.locator(".qxg-scale-none")).to_have_count(0)
    for stage in ("fuse", "propagate", "swap", "insert"):
        click_next(page, stage)
    painted(page, "SQNR (dB)")
    expect(page.locator(".qxg-scale")).to_contain_text("high is good")
    expect(conv).to_have_attribute("aria-label", re.compile(r"SQNR: [\d.]+ dB \(lowest inside\)"))
    expect(page.locator("[data-site='conv1.weight_fake_quant']").first).to_have_attribute(
        "aria-label", re.compile(r"SQNR: [\d.]+ dB")
    )
    # What has no number is hatched and said to be not known.
    expect(page.locator(".qxg-unknown .qxg-cover").first).to_be_attached()
    label = page.locator(".qxg-node.qxg-unknown").first.get_attribute("aria-label") or ""
    assert label.endswith("SQNR: not known")
    assert_contrast(page)
    shots(page, f"{name}-sqnr")
    for value, title in (("clipped", "Clipped"), ("time", "Time"), ("precision", "Float or int8")):
        picker(page, "Colour by").select_option(value)
        painted(page, title)
        assert_contrast(page)
        shots(page, f"{name}-{value}")

    # Two stages, one selection.
    picker(page, "Compare with").select_option("stage:float")
    expect(page.locator(".qxg-svg")).to_have_count(2)
    expect(page.locator(".qxg-caption").nth(0)).to_be_visible()
    sides = page.locator(".qx-compare .qxg")
    boxes = [box.bounding_box() for box in sides.all()]
    assert all(box and box["width"] > 150 for box in boxes)
    captions = page.locator(".qxg-caption strong").all_inner_texts()
    assert len(set(captions)) == 2
    # The earlier stage is on the left; what the later one has more is marked there.
    mine = page.locator(".qxg:has(.qxg-pickers label)")
    theirs = page.locator(".qxg:not(:has(.qxg-pickers label))")
    assert (theirs.bounding_box() or {})["x"] < (mine.bounding_box() or {})["x"]
    expect(mine.locator("[data-site].qxg-only .qxg-sign").first).to_contain_text("+")
    gone = theirs.locator("[data-sel='module:bn1'].qxg-only")
    expect(gone.locator(".qxg-sign")).to_contain_text("−")
    expect(gone).to_have_attribute("aria-label", re.compile("gone or an Identity"))
    wait_until(page, "() => document.querySelectorAll('.qxg-world')[1].childElementCount > 3")
    pick(mine, "[data-sel='module:conv2']")
    expect(theirs.locator("[data-sel='module:conv2'].qxg-selected")).to_have_count(1)
    pick(theirs, "[data-sel='module:conv3']")
    expect(mine.locator("[data-sel='module:conv3'].qxg-selected")).to_have_count(1)
    expect(page.locator(".qx-inspector h3").first).to_contain_text("conv3")
    pick(mine, "[data-site='conv1.weight_fake_quant']")
    expect(theirs.locator(".qxg-said")).to_contain_text("conv1.weight_fake_quant is not at")
    shots(page, f"{name}-compare")
    picker(page, "Compare with").select_option("flow")
    expect(page.locator(".qxg-caption strong").nth(1)).to_contain_text("FX")
    shots(page, f"{name}-flows")
    picker(page, "Compare with").select_option("")
    expect(page.locator(".qxg-svg")).to_have_count(1)
    picker(page, "Colour by").select_option("")
    expect(page.locator(".qxg-painted")).to_have_count(0)
    no_message(page)


def test_colours_and_two_stages_in_dark_voila(
    voila: Callable[..., Server], page: Page, shots: Shots, tmp_path: Path
) -> None:
    book = write_notebook(tmp_path / "digits.ipynb", [DIGITS], hide_source=True)
    voila_page(page, voila(book), theme="dark")
    colour_and_compare(page, shots, "overlay-voila-dark")


def test_colours_in_jupyterlab(lab: Server, page: Page, shots: Shots, clean_kernels: None) -> None:
    write_notebook(lab.root / "overlays.ipynb", [DIGITS])
    open_notebook(page, lab, "overlays.ipynb")
    set_theme(page, "light")
    run_all_cells(page)
    colour_and_compare(page, shots, "overlay-lab")


@pytest.mark.parametrize(("flow", "stubs"), [("eager", "model"), ("fx", "none")])
def test_colours_of_a_resnet50(
    voila: Callable[..., Server], page: Page, shots: Shots, tmp_path: Path, flow: str, stubs: str
) -> None:
    cell = RESNET.format(root=str(REPO_ROOT), flow=flow, stubs=stubs)
    book = write_notebook(tmp_path / f"resnet-{flow}.ipynb", [cell], hide_source=True)
    voila_page(page, voila(book))
    wait_for_explorer(page)
    for value, title in (("macs", "MACs"), ("sqnr", "SQNR"), ("clipped", "Clipped")):
        picker(page, "Colour by").select_option(value)
        painted(page, title)
        assert_contrast(page)
        shots(page, f"overlay-resnet-{flow}-{value}")
    picker(page, "Compare with").select_option("stage:float")
    expect(page.locator(".qxg-svg")).to_have_count(2)
    shots(page, f"overlay-resnet-{flow}-compare")
