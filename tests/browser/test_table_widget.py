"""The sortable table, alone on a page: sorting, search, keyboard, selection, thousands of rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from playwright.sync_api import Page, expect

from qatexplorer.ledger import ledger_of
from qatexplorer.views.ledger.tables import SITE_COLUMNS, SITE_FILTERS, site_table
from qatexplorer.widgets.common.table import TableWidget
from tests.browser.notebook import Shots
from tests.browser.tree_page import get_trait, mount, set_trait
from tests.support.ledger_models import old_style_fx

pytestmark = pytest.mark.browser

COLUMNS = [
    {"label": "Name", "width": "200px"},
    {"label": "Scale", "width": "120px", "number": True},
]


def row(name: str, scale: float | None, *flags: str) -> dict[str, Any]:
    text = "" if scale is None else str(scale)
    return {
        "id": name,
        "sel": f"site:{name}",
        "kind": "weight",
        "flags": list(flags),
        "cells": [name, text],
        "sort": [name, scale],
        "tips": {},
    }


def table(page: Page, rows: list[dict[str, Any]], **traits: Any) -> None:
    given = {
        "columns": COLUMNS,
        "rows": rows,
        "filters": [{"flag": "ghost", "label": "Ghosts"}],
        "flag": "",
        "query": "",
        "selected": "",
        "label": "Fake quants",
        "nothing": "Nothing to show.",
        "height": 200,
        **traits,
    }
    mount(page, TableWidget, **given)


def names(page: Page) -> list[str]:
    """First cells from top to bottom, as they are drawn."""
    rows = page.locator("[role=row][data-id]").all()
    return [r.get_attribute("data-id") or "" for r in sorted(rows, key=_top)]


def _top(locator: Any) -> float:
    box = locator.bounding_box()
    return float(box["y"]) if box else 0.0


ROWS = [row("b10", 0.5), row("b9", 0.05, "ghost"), row("a", None), row("c", 2.0)]


def test_headers_sort_and_say_so(page: Page) -> None:
    table(page, ROWS)
    heads = page.get_by_role("columnheader")
    expect(heads.nth(0)).to_have_attribute("aria-sort", "none")
    page.get_by_role("button", name="Scale").click()
    expect(heads.nth(1)).to_have_attribute("aria-sort", "ascending")
    assert names(page) == ["b9", "b10", "c", "a"]
    page.get_by_role("button", name="Scale").click()
    expect(heads.nth(1)).to_have_attribute("aria-sort", "descending")
    assert names(page) == ["c", "b10", "b9", "a"], "what has no value is last either way"
    page.get_by_role("button", name="Scale").click()
    assert names(page) == ["b10", "b9", "a", "c"], "the third click gives the first order back"
    page.get_by_role("button", name="Name").press("Enter")
    assert names(page) == ["a", "b9", "b10", "c"], "numbers in names count as numbers"
    expect(page.get_by_role("grid", name="Fake quants")).to_have_attribute("aria-rowcount", "5")


def test_search_and_filters(page: Page) -> None:
    table(page, ROWS)
    page.get_by_role("searchbox").fill("B 0.5")
    assert names(page) == ["b10"]
    assert get_trait(page, "query") == "B 0.5"
    expect(page.get_by_role("status")).to_have_text("1 of 4 rows")
    page.get_by_role("searchbox").press("Escape")
    assert len(names(page)) == 4
    ghosts = page.get_by_role("button", name="Ghosts")
    ghosts.click()
    expect(ghosts).to_have_attribute("aria-pressed", "true")
    assert names(page) == ["b9"]
    ghosts.click()
    assert len(names(page)) == 4
    page.get_by_role("searchbox").fill("nothing like it")
    expect(page.get_by_text("Nothing matches.")).to_be_visible()


def test_keys_and_clicks_select(page: Page) -> None:
    table(page, ROWS)
    page.get_by_role("searchbox").press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert get_trait(page, "selected") == ""
    page.keyboard.press("Enter")
    assert get_trait(page, "selected") == "site:b9"
    expect(page.locator("[data-id=b9]")).to_have_attribute("aria-selected", "true")
    page.keyboard.press("End")
    expect(page.locator("[data-id=c]")).to_be_focused()
    page.locator("[data-id=a]").click()
    assert get_trait(page, "selected") == "site:a"
    assert page.locator("[role=row][tabindex='0']").count() == 1


def test_selection_from_outside_scrolls_to_the_row(page: Page) -> None:
    table(page, [row(f"m{i}", float(i)) for i in range(500)])
    assert page.locator("[data-id=m400]").count() == 0
    set_trait(page, "selected", "site:m400")
    expect(page.locator("[data-id=m400]")).to_be_in_viewport()
    expect(page.locator("[data-id=m400]")).to_have_attribute("aria-selected", "true")
    set_trait(page, "selected", "module:elsewhere")
    assert page.locator("[aria-selected=true]").count() == 0


def sorting(page: Page) -> float:
    """Milliseconds that the browser takes to sort 8000 rows."""
    table(page, [row(f"m{i}", float(-i)) for i in range(8000)])
    assert page.locator("[role=row][data-id]").count() < 40
    milliseconds: float = page.evaluate(
        """() => {
          const started = performance.now();
          document.querySelectorAll(".qx-table-th button")[1].click();
          return performance.now() - started;
        }"""
    )
    assert names(page)[0] == "m7999"
    return milliseconds


def test_thousands_of_rows_are_drawn_a_page_at_a_time(page: Page) -> None:
    # One of some: the machine may have stood still.
    assert any(sorting(page) < 500 for _ in range(8))
    page.locator(".qx-table-viewport").evaluate("v => { v.scrollTop = v.scrollHeight; }")
    expect(page.locator("[data-id=m0]")).to_be_visible()


def test_what_users_wrote_is_text(page: Page) -> None:
    evil = "<img src=x onerror=window.hit=1>"
    table(page, [row(evil, 1.0)])
    expect(page.get_by_role("gridcell", name=evil, exact=True)).to_be_visible()
    assert page.evaluate("window.hit") is None


def test_cleaning_up_leaves_no_listener(page: Page) -> None:
    table(page, ROWS)
    page.evaluate("window.cleanup()")
    assert page.evaluate("window.model.listenerCount()") == 0
    assert page.locator(".qx-table").count() == 0


@pytest.mark.parametrize("dark", [False, True])
def test_a_real_ledger_is_legible(page: Page, shots: Shots, dark: bool) -> None:
    x = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
    rows = site_table(ledger_of(old_style_fx(x), x))
    table(
        page,
        rows,
        columns=list(SITE_COLUMNS),
        filters=list(SITE_FILTERS),
        selected=rows[2]["sel"],
        height=330,
        dark=dark,
    )
    page.get_by_role("button", name="Redundant").click()
    assert page.locator("[role=row][data-id]").count() == sum(
        "redundant" in r["flags"] for r in rows
    )
    page.get_by_role("button", name="Redundant").click()
    shots(page, f"ledger-table-{'dark' if dark else 'light'}")


def test_the_row_in_full_is_reported_below(page: Page) -> None:
    long = "a sentence that is far too long for its cell " * 4
    data = row("b", 0.5)
    data["cells"][0] = long
    data["tips"] = {"1": "because of a formula"}
    table(page, [data, row("c", 1.0)])
    detail = page.get_by_label("The row in full")
    expect(detail).to_be_hidden()
    page.get_by_role("searchbox").press("ArrowDown")
    expect(detail).to_contain_text(long.strip())
    expect(detail).to_contain_text("0.5 · because of a formula")
    page.keyboard.press("ArrowDown")
    expect(detail).not_to_contain_text("formula")
