"""The module tree and the inspector in a real browser: keys, search, selection, speed."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from qatexplorer.snapshot.diff import diff
from qatexplorer.snapshot.records import ModuleRecord, Snapshot
from qatexplorer.views.inspector.page import inspect_html
from qatexplorer.views.tree import build_tree
from qatexplorer.widgets.common.panel import HtmlPanel
from qatexplorer.widgets.tree.tree import TreeWidget
from tests.browser.notebook import drawn_again
from tests.browser.tree_page import get_trait, mount, set_trait
from tests.support.view_snapshots import walk

pytestmark = pytest.mark.browser


def rows(stage: str, before: str | None = None) -> list[dict[str, Any]]:
    snapshots, _ = walk()
    change = diff(snapshots[before], snapshots[stage]) if before else None
    return build_tree(snapshots[stage], change)


def show(page: Page, data: list[dict[str, Any]], **traits: Any) -> None:
    defaults = {"selected": "", "query": "", "only": "all", "height": 500}
    mount(page, TreeWidget, rows=data, **{**defaults, **traits})


def names(page: Page) -> list[str]:
    """Paths of the rows in view order."""
    return page.evaluate(
        """() => [...document.querySelectorAll('[role=treeitem]')]
            .map(e => [new DOMMatrix(getComputedStyle(e).transform).m42, e.dataset.id])
            .sort((a, b) => a[0] - b[0]).map(p => p[1])"""
    )


def focused(page: Page) -> str | None:
    return page.evaluate("() => document.activeElement.dataset.id ?? null")


def item(page: Page, selection: str) -> Any:
    return page.locator(f'[role=treeitem][data-id="{selection}"]')


def test_tree_pattern_and_types_before_and_after(page: Page) -> None:
    show(page, rows("swap", "propagate"), height=700)
    tree = page.get_by_role("tree")
    expect(tree).to_have_attribute("aria-label", "Modules of the model")
    row = item(page, "module:fc")
    expect(row).to_have_attribute("aria-level", "2")
    expect(row).to_have_attribute("aria-expanded", "true")
    expect(row).to_contain_text("Linear → qat.Linear")
    expect(row.locator("strong")).to_have_text("qat.Linear")
    label = row.get_attribute("aria-label") or ""
    assert "was Linear, now qat.Linear" in label
    assert "changed: type, fake quant" in label
    assert page.locator('[role=treeitem][tabindex="0"]').count() == 1


def test_keys_walk_open_close_and_select(page: Page) -> None:
    show(page, rows("insert", "swap"))
    item(page, "module:").click()
    assert get_trait(page, "selected") == "module:"
    steps = [
        ("ArrowDown", "module:quant"),
        ("ArrowRight", "site:quant.activation_post_process"),
        ("ArrowLeft", "module:quant"),
        ("ArrowLeft", "module:quant"),  # closes it
        ("ArrowDown", "module:stem"),
        ("End", "module:spare"),
        ("Home", "module:"),
        ("ArrowUp", "module:"),
    ]
    for key, expected in steps:
        page.keyboard.press(key)
        if expected == "module:spare":
            assert (focused(page) or "").split(".")[0] in ("module:spare", "site:spare")
        else:
            assert focused(page) == expected, key
    expect(item(page, "module:quant")).to_have_attribute("aria-expanded", "false")
    page.keyboard.press("*")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("*")  # opens all siblings
    expect(item(page, "module:quant")).to_have_attribute("aria-expanded", "true")
    page.keyboard.press("Enter")
    assert get_trait(page, "selected") == "module:quant"
    expect(item(page, "module:quant")).to_have_attribute("aria-selected", "true")
    outline = page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


def test_typing_searches_and_keeps_the_ancestors_of_hits(page: Page) -> None:
    show(page, rows("insert"))
    item(page, "module:").click()
    page.keyboard.type("batchnorm")
    assert get_trait(page, "query") == "batchnorm"
    expect(page.get_by_role("status")).to_have_text("2 of 34")
    assert names(page) == [
        "module:",
        "module:blocks",
        "module:blocks.0",
        "module:blocks.0.conv",
        "module:blocks.0.conv.bn",
        "module:blocks.1",
        "module:blocks.1.conv",
        "module:blocks.1.conv.bn",
    ]
    page.keyboard.press("ArrowDown")
    assert focused(page) == "module:blocks.0.conv.bn"
    page.get_by_role("searchbox").fill("no such module")
    expect(page.locator(".qx-tree-empty")).to_contain_text("Nothing matches")
    page.get_by_role("searchbox").press("Escape")
    assert get_trait(page, "query") == ""


def test_filters_are_toggles(page: Page) -> None:
    show(page, rows("insert", "swap"))
    button = page.get_by_role("button", name="Only what stays float")
    button.click()
    assert get_trait(page, "only") == "float"
    expect(button).to_have_attribute("aria-pressed", "true")
    assert names(page) == ["module:", "module:norm"]
    page.get_by_role("button", name="Only what changed").click()
    expect(button).to_have_attribute("aria-pressed", "false")
    found = names(page)
    assert "module:fc" in found
    assert "module:norm" not in found
    page.get_by_role("button", name="Only what changed").click()
    assert get_trait(page, "only") == "all"


def test_selection_from_outside_opens_ancestors_and_scrolls(page: Page) -> None:
    show(page, rows("insert"), height=200)
    page.get_by_role("button", name="Collapse all").click()
    assert len(names(page)) == 9  # the root and its children
    target = "site:blocks.1.add.activation_post_process"
    set_trait(page, "selected", target)
    expect(item(page, target)).to_be_in_viewport()
    expect(item(page, target)).to_have_attribute("aria-selected", "true")
    set_trait(page, "selected", "edge:stem:blocks_0_conv")
    assert page.locator('[aria-selected="true"]').count() == 0
    set_trait(page, "only", "float")
    set_trait(page, "selected", target)  # stays visible though the filter hides it
    expect(item(page, target)).to_be_in_viewport()


def test_new_rows_keep_what_is_open_and_selected(page: Page) -> None:
    show(page, rows("swap"), selected="module:fc")
    page.get_by_role("button", name="Collapse all").click()
    item(page, "module:blocks").locator(".qx-tree-chevron").click()
    before = [name for name in names(page) if name.startswith("module:")]
    set_trait(page, "rows", rows("insert", "swap"))
    assert names(page) == before
    expect(item(page, "module:fc")).to_have_attribute("aria-selected", "true")
    expect(item(page, "module:fc")).to_contain_text("Δ")


def large(blocks: int = 100, convs: int = 99) -> list[dict[str, Any]]:
    modules = [ModuleRecord("", "Net", "m.Net", "", None, tuple(f"b{i}" for i in range(blocks)))]
    for i in range(blocks):
        inner = tuple(f"b{i}.conv{j}" for j in range(convs))
        modules.append(ModuleRecord(f"b{i}", "Block", "m.Block", f"b{i}", "", inner, identity=i))
        modules += [
            ModuleRecord(path, "Conv2d", "torch.nn.Conv2d", path, f"b{i}", identity=10_000 * i + j)
            for j, path in enumerate(inner, 200)
        ]
    return build_tree(Snapshot("eager", "float", tuple(modules), (), None))


def searching(page: Page) -> float:
    """Milliseconds that a search takes, the median of five."""
    times: list[float] = page.evaluate(
        """() => ["conv42", "b7", "", "conv9", ""].map(query => {
            const start = performance.now();
            window.model.set("query", query);
            document.querySelector('[role=tree]').getBoundingClientRect();
            return performance.now() - start;
        })"""
    )
    return sorted(times)[2]


def selecting(page: Page, selection: str) -> float:
    """Milliseconds that a selection from outside takes, after none."""
    took: float = page.evaluate(
        """(selection) => { window.model.set("selected", ""); const t = performance.now();
                   window.model.set("selected", selection); return performance.now() - t; }""",
        selection,
    )
    return took


def test_ten_thousand_rows_stay_fast_and_few_are_drawn(page: Page) -> None:
    data = large()
    assert len(data) == 10_001
    show(page, data)
    page.get_by_role("button", name="Expand all").click()
    assert page.get_by_role("treeitem").count() < 60
    page.evaluate("() => document.querySelector('[role=tree]').scrollTo(0, 200000)")
    drawn_again(page)
    assert 20 < page.get_by_role("treeitem").count() < 60
    # One of some: the machine may have stood still.
    assert any(searching(page) < 150 for _ in range(8))
    assert any(selecting(page, "module:b77.conv50") < 150 for _ in range(8))
    expect(item(page, "module:b77.conv50")).to_be_in_viewport()


def test_a_row_that_scrolls_away_keeps_the_focus(page: Page) -> None:
    show(page, large(convs=1))
    item(page, "module:").click()
    page.keyboard.press("ArrowDown")
    page.evaluate("() => document.querySelector('[role=tree]').scrollTo(0, 1500)")
    drawn_again(page)
    assert focused(page) == "module:b0"
    page.keyboard.press("ArrowDown")
    expect(item(page, "module:b1")).to_be_in_viewport()


def test_names_of_users_are_text(page: Page) -> None:
    data = rows("float")
    data[1] = {**data[1], "name": "<img src=x onerror=alert(1)>", "type": "<b>x</b>"}
    show(page, data)
    assert page.locator(".qx-tree img, .qx-tree b").count() == 0


def test_no_rows_and_clean_up(page: Page) -> None:
    show(page, [])
    expect(page.locator(".qx-tree-empty")).to_have_text("There is no model to show.")
    set_trait(page, "rows", rows("float"))
    assert len(names(page)) > 10
    page.evaluate("() => window.cleanup()")
    assert page.evaluate("() => window.model.listenerCount()") == 0
    assert page.locator(".qx-tree").count() == 0


@pytest.mark.parametrize("dark", [False, True])
def test_texts_have_contrast(page: Page, dark: bool) -> None:
    show(page, rows("convert", "train"), dark=dark, selected="module:fc")
    worst = page.evaluate(CONTRAST)
    assert worst[0] >= 4.5, worst


CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (text) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = text; canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return a ? [r, g, b, a / 255] : [0, 0, 0, 0];
  };
  const over = (top, under) => [0, 1, 2].map(i => top[i] * top[3] + under[i] * (1 - top[3]));
  const background = (e) => {
    if (!e) return [255, 255, 255];
    const own = rgba(getComputedStyle(e).backgroundColor);
    return own[3] === 1 ? own.slice(0, 3) : over(own, background(e.parentElement));
  };
  const light = (c) => {
    const f = c.map(v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * f[0] + 0.7152 * f[1] + 0.0722 * f[2];
  };
  let worst = [99, ""];
  for (const e of document.querySelectorAll(".qx *")) {
    const text = [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim());
    if (!text || e.closest(".qx-is-gone, .qx-is-context") || !e.offsetParent) continue;
    const under = background(e);
    const [a, b] = [light(over(rgba(getComputedStyle(e).color), under)), light(under)];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < worst[0]) worst = [ratio, e.className + ": " + e.textContent];
  }
  return worst;
}"""


def test_inspector_links_select_and_what_is_folded_out_stays(page: Page) -> None:
    snapshots, _ = walk()
    mount(page, HtmlPanel, html=inspect_html(snapshots, "train", "module:stem"), selected="")
    page.get_by_text("Parameters and buffers").click()
    page.get_by_role("button", name="weight_fake_quant").first.click()
    assert get_trait(page, "selected") == "site:stem.weight_fake_quant"
    set_trait(page, "html", inspect_html(snapshots, "train", "module:fc"))
    assert page.evaluate("() => document.activeElement.tagName") == "H3"
    expect(page.locator("details", has_text="Parameters and buffers")).to_have_attribute("open", "")
    page.get_by_text("Parameters and buffers").click()
    set_trait(page, "html", inspect_html(snapshots, "train", "module:stem"))
    assert page.locator("details[open]").count() == 0


@pytest.mark.parametrize("dark", [False, True])
def test_inspector_texts_have_contrast(page: Page, dark: bool) -> None:
    snapshots, _ = walk()
    html = inspect_html(snapshots, "train", "module:blocks.0.conv")
    html += inspect_html(snapshots, "convert", "site:stem.weight_fake_quant")
    mount(page, HtmlPanel, dark=dark, html=html, selected="")
    worst = page.evaluate(CONTRAST)
    assert worst[0] >= 4.5, worst


@pytest.mark.parametrize(
    ("system", "lab_is_light", "own", "expected"),
    [
        ("light", None, None, "light"),
        ("dark", None, None, "dark"),
        ("dark", "true", None, "light"),
        ("light", "false", None, "dark"),
        ("dark", "false", False, "light"),
        ("light", "true", True, "dark"),
    ],
)
def test_theme_is_the_widgets_own_else_the_pages_else_the_systems(
    page: Page, system: Any, lab_is_light: str | None, own: bool | None, expected: str
) -> None:
    page.emulate_media(color_scheme=system)
    mount(page, HtmlPanel, html="<p>words</p>", selected="")
    if lab_is_light is not None:
        page.evaluate("(is) => { document.body.dataset.jpThemeLight = is; }", lab_is_light)
    set_trait(page, "dark", own)
    colour = {"light": "rgb(31, 35, 40)", "dark": "rgb(230, 237, 243)"}[expected]
    expect(page.locator("p")).to_have_css("color", colour)


def test_several_rows_are_selected_by_clicks_and_by_keys(page: Page) -> None:
    show(page, rows("insert", "swap"), height=700, chosen=[])
    stem, fc = "module:stem", "module:fc"
    item(page, stem).click()
    assert get_trait(page, "chosen") == [stem]
    item(page, fc).click(modifiers=["Control"])
    assert get_trait(page, "chosen") == [stem, fc]
    assert get_trait(page, "selected") == fc
    expect(page.get_by_role("tree")).to_have_attribute("aria-multiselectable", "true")
    for one in (stem, fc):
        expect(item(page, one)).to_have_attribute("aria-selected", "true")
    expect(page.locator(".qx-tree-status")).to_contain_text("2 selected")
    item(page, fc).click(modifiers=["Control"])
    assert get_trait(page, "chosen") == [stem]
    item(page, stem).click()
    item(page, fc).click(modifiers=["Shift"])
    order = names(page)
    between = order[order.index(stem) : order.index(fc) + 1]
    assert any(one.startswith("fold:") for one in between)
    assert get_trait(page, "chosen") == [one for one in between if not one.startswith("fold:")]

    # The same by keys: Shift with the arrows, the space bar for one more.
    item(page, stem).click()
    page.keyboard.press("Shift+ArrowDown")
    page.keyboard.press("Shift+ArrowDown")
    page.keyboard.press("Shift+ArrowUp")
    first = names(page)[names(page).index(stem) + 1]
    assert get_trait(page, "chosen") == [stem, first]
    assert focused(page) == first
    page.keyboard.press("End")
    page.keyboard.press(" ")
    last = names(page)[-1]
    assert get_trait(page, "chosen") == [stem, first, last]
    page.keyboard.press(" ")
    assert get_trait(page, "chosen") == [stem, first]

    # A selection from elsewhere is one thing only.
    set_trait(page, "selected", fc)
    expect(page.locator("[role=treeitem][aria-selected=true]")).to_have_count(1)
    expect(item(page, fc)).to_have_attribute("aria-selected", "true")
