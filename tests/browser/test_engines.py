"""The page on a CPU without VNNI: the probe in Settings, and the warning where one saturates."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.explorer_page import click_next, no_message, open_tab, push, wait_for_explorer
from tests.browser.notebook import Shots, voila_page
from tests.browser.servers import REPO_ROOT, Server, start_voila
from tests.support.engines import WITHOUT_VNNI, can_do_without_vnni

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not can_do_without_vnni(), reason="no x86 CPU"),
]


@pytest.fixture
def server(chromium: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name, value in WITHOUT_VNNI.items():
        monkeypatch.setenv(name, value)
    server = start_voila(REPO_ROOT / "notebooks" / "dashboard.ipynb", tmp_path)
    yield server
    server.stop()


def test_an_engine_that_saturates_is_reported_at_the_start_and_at_int8(
    server: Server, page: Page, shots: Shots
) -> None:
    voila_page(page, server)
    wait_for_explorer(page)
    concern = page.locator(".qx-newsbar > .qx-finding", has_text="saturates")
    expect(concern).to_have_count(0)
    open_tab(page, "Settings")
    in_use = page.locator(".qx-engines tr[aria-current]")
    expect(in_use).to_contain_text("qnnpack (in use)")
    expect(in_use).to_contain_text("✓ exact")
    onednn = page.locator(".qx-engines tr", has_text="onednn")
    expect(onednn).to_contain_text("✗ saturates on this CPU")
    page.get_by_text("How is the engine chosen?").click()
    expect(page.get_by_text("Here: engine qnnpack, qconfig onednn.")).to_be_visible()
    onednn.scroll_into_view_if_needed()
    shots(page, "engines-settings")
    page.get_by_label("QConfig", exact=True).select_option(label="onednn")
    push(page, "Apply and start again")
    expect(concern).to_contain_text("engine onednn saturates on this CPU")
    for stage in ("fuse", "propagate", "swap", "insert", "train"):
        click_next(page, stage)
    expect(page.locator(".qx-newsbar .qx-findings")).to_contain_text("engine onednn saturates")
    open_tab(page, "Train")
    push(page, "Calibrate only")
    open_tab(page, "Float, fake-quant, int8")
    push(page, "Evaluate and measure")
    rows = page.locator("table.qx-results tbody tr")
    expect(rows).to_have_count(4)
    expect(rows.last).to_contain_text("engine onednn saturates on this CPU")
    expect(rows.first).not_to_contain_text("saturates")
    rows.last.scroll_into_view_if_needed()
    shots(page, "engines-int8")
    no_message(page)
