"""A report in a browser: it opens at once, asks for nothing, is read in the dark and by keys."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from playwright.sync_api import Browser, Page

import qatexplorer as qx
from tests.support.models import load_timm
from tests.support.training_models import SmallNet, batches, data

pytestmark = pytest.mark.browser

OPENS_IN_S = 2.0
LARGEST = 10_000_000


def small(folder: Path) -> Path:
    session = qx.Session(SmallNet().train(), batches(1)[0][0], qconfig="onednn", data=data(2))
    session.train(1, progress=False)
    session.goto(session.flow.int8_stage)
    session.compare(1)
    return session.report(folder / "report.html")


def resnet50(folder: Path) -> Path:
    model, inputs = load_timm("resnet50", size=64, batch=2, zero_init_last=False)
    batches = [(inputs, torch.tensor([0, 1]))]
    session = qx.Session(model, inputs, flow="fx", qconfig="onednn", data=(batches, batches))
    session.train(1, progress=False, run_dir=folder / "run", telemetry_every=1)
    session.goto(session.flow.int8_stage)
    session.compare(1)
    file = session.report(folder / "report.html")
    assert file.stat().st_size < LARGEST
    return file


def opened(page: Page, file: Path) -> tuple[float, list[str], list[str]]:
    """Seconds that the page is busy until it is drawn, what it asked for, and what the console
    said. They are the processor's: whatever else the machine does is not counted."""
    asked: list[str] = []
    said: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    measure = page.context.new_cdp_session(page)
    measure.send("Performance.enable", {"timeDomain": "threadTicks"})
    page.goto(file.as_uri(), wait_until="load")
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
    metrics = measure.send("Performance.getMetrics")["metrics"]
    busy = {one["name"]: one["value"] for one in metrics}
    return float(busy["TaskDuration"]), asked, said


@pytest.mark.parametrize(
    "make", [small, pytest.param(resnet50, marks=pytest.mark.slow)], ids=lambda make: make.__name__
)
def test_it_opens_at_once_and_asks_for_nothing(
    make: object, browser: Browser, tmp_path: Path
) -> None:
    file = make(tmp_path)  # type: ignore[operator]
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    took, asked, said = opened(page, file)
    assert 0 < took < OPENS_IN_S
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert said == []
    wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    page.close()
    assert wide <= 0, "nothing runs out of the page"


def test_keys_and_the_dark(browser: Browser, tmp_path: Path) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="dark")
    opened(page, small(tmp_path))
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the report"
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#report"
    summary = page.locator("#ledger summary").nth(1)
    summary.focus()
    before = summary.evaluate("(node) => node.parentElement.open")
    page.keyboard.press("Enter")
    assert summary.evaluate("(node) => node.parentElement.open") != before
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    paper = page.locator("svg.follows > rect").first.evaluate("(n) => getComputedStyle(n).fill")
    assert dark == paper == "rgb(17, 20, 24)"
    page.close()
