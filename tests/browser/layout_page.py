"""Boxes of the explorer's parts, and what axe-core finds in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page

from tests.browser.notebook import eventually

AXE = Path(__file__).resolve().parents[1] / "js" / "node_modules" / "axe-core" / "axe.min.js"

CONTRAST = """
() => {
  const light = (text) => {
    const [r, g, b] = text.match(/[0-9.]+/g).slice(0, 3).map((v) => v / 255)
      .map((p) => (p <= 0.04045 ? p / 12.92 : ((p + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
  };
  let worst = 99;
  for (const item of document.querySelectorAll(".qxg-painted")) {
    const under = item.querySelector(":scope > " +
      (item.classList.contains("qxg-open") ? ".qxg-title" : ".qxg-frame"));
    for (const text of item.querySelectorAll(":scope > .qxg-label, :scope > .qxg-sub")) {
      const [a, b] = [getComputedStyle(under).fill, getComputedStyle(text).fill].map(light);
      worst = Math.min(worst, Math.max(a, b) / Math.min(a, b));
    }
  }
  return worst;
}
"""
"""The worst contrast of a text on a part of the graph that an overlay colours."""

_CUT = """(root) => {
  // What scrolls may hold more than it shows.
  const INSIDE = '.qx-panel, .qxg-stage, .qx-tree-viewport, .qx-part-inspector, dialog';
  const box = root.getBoundingClientRect();
  const seen = [...root.querySelectorAll('button, select, input, [role=separator], h1')]
    .filter((e) => e.checkVisibility());
  const out = [];
  for (const e of seen) {
    const r = e.getBoundingClientRect();
    const name = e.getAttribute('aria-label') || e.textContent || e.className;
    if (!r.width || e.closest(INSIDE)) continue;
    if (r.left < box.left - 1 || r.right > box.right + 1 || r.bottom > box.bottom + 1) {
      out.push(`${name}: ${[r.left, r.top, r.right, r.bottom].map(Math.round)}`);
    }
  }
  for (const e of root.querySelectorAll('.qx-stage-title')) {
    if (e.scrollWidth > e.clientWidth + 1 || e.scrollHeight > e.clientHeight + 1) {
      out.push(`${e.textContent} is cut`);
    }
  }
  return out;
}"""
_AXE = """async (root) => {
  const found = await axe.run(root, { resultTypes: ['violations'] });
  return found.violations
    .filter(({ impact }) => impact === 'serious' || impact === 'critical')
    .flatMap(({ id, impact, nodes }) => nodes.map((node) =>
      `${id} (${impact}): ${node.html.slice(0, 160)}: `
      + [...node.any, ...node.all].map((check) => check.message).join('; ').slice(0, 200)));
}"""


@dataclass(frozen=True)
class Box:
    """Where an element lies in the window, in CSS px."""

    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        return self.x + self.width

    @property
    def bottom(self) -> float:
        return self.y + self.height


def box_of(at: Page | Locator, selector: str) -> Box:
    """The box of the first element that matches ``selector``."""
    found = at.locator(selector).first.bounding_box()
    assert found is not None, f"{selector} is not shown"
    return Box(**found)


def cut_off(explorer: Locator) -> list[str]:
    """Controls that lie outside of the explorer, and titles of stages that are cut."""
    found: list[str] = explorer.evaluate(_CUT)
    return found


def axe_findings(explorer: Locator, times: int = 5) -> list[str]:
    """What axe-core finds in the explorer that is serious or critical, one line each.

    A page that still changes its colours is looked at again, ``times`` times at most.
    """
    if not AXE.is_file():
        pytest.skip("needs `npm --prefix tests/js ci`, which .ci/run does")
    page = explorer.page
    if not page.evaluate("() => 'axe' in globalThis"):
        page.evaluate(AXE.read_text(encoding="utf-8"))
    found: list[str] = []
    for _ in range(times):
        found = explorer.evaluate(_AXE)
        if not found:
            break
        page.wait_for_timeout(500)
    return found


def assert_contrast(page: Page) -> None:
    """Texts on what an overlay colours can be read, once the colours are those of the theme."""

    def check() -> None:
        assert page.evaluate(CONTRAST) >= 4.5

    eventually(page, check)
