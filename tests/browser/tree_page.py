"""A bare page with one anywidget on it and a stand-in for its model, for tests of the front end."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Page

_MOUNT = """
async ([esm, css, traits, dark]) => {
  const style = document.createElement("style");
  style.textContent = css + `
    body { margin: 0; padding: 8px; background: ${dark ? "#111" : "#fff"}; }`;
  document.head.append(style);
  const listeners = {};
  const messages = [];
  const model = {
    traits,
    saved: [],
    messages,
    get: (name) => model.traits[name],
    set(name, value) {
      if (model.traits[name] === value) return;
      model.traits[name] = value;
      for (const f of listeners["change:" + name] || []) f();
    },
    save_changes: () => model.saved.push({ ...model.traits, rows: undefined }),
    on: (name, f) => (listeners[name] ||= []).push(f),
    off: (name, f) => { listeners[name] = (listeners[name] || []).filter((g) => g !== f); },
    send: (content) => messages.push(content),
    listenerCount: () => Object.values(listeners).flat().length,
  };
  window.model = model;
  const url = URL.createObjectURL(new Blob([esm], { type: "text/javascript" }));
  const module = await import(url);
  const el = document.createElement("div");
  document.body.append(el);
  window.cleanup = module.default.render({ model, el });
}
"""

# Names that are cut, or that run under what stands beside them; and each column's left edges.
_MEASURE = """() => {
  const rows = [...document.querySelectorAll('.qx-tree-row')].filter((r) => r.offsetParent);
  const modules = rows.filter((row) => !row.classList.contains('qx-is-site'));
  const cut = [];
  for (const row of rows) {
    const name = row.querySelector('.qx-tree-name');
    const cell = row.querySelector('.qx-tree-first').getBoundingClientRect();
    const box = name.getBoundingClientRect();
    if (name.scrollWidth > name.clientWidth || box.right > cell.right + 0.5) {
      cut.push(`${name.textContent}: ${box.right} > ${cell.right}`);
    }
  }
  const lefts = (part) => [...new Set(modules.flatMap((row) =>
    [...row.querySelectorAll(`:scope > .qx-tree-${part}`)]
      .map((cell) => Math.round(cell.getBoundingClientRect().left))))];
  const titles = rows.map((row) => row.querySelector('.qx-tree-name').title);
  const view = document.querySelector('.qx-tree-viewport');
  return {
    rows: rows.length, cut, titles,
    columns: Object.fromEntries(['first', 'type', 'quants', 'state'].map((p) => [p, lefts(p)])),
    sideways: view.scrollWidth - view.clientWidth,
  };
}"""


def mount(page: Page, widget: Any, *, dark: bool = False, **traits: Any) -> None:
    """Show the front end of ``widget`` (a widget class) with these traits, as ``window.model``."""
    esm, css = (
        text.read_text("utf-8") if hasattr(text, "read_text") else str(text)
        for text in (widget._esm, widget._css)
    )
    page.set_content("<!doctype html><html lang='en'><title>widget</title><body></body></html>")
    page.evaluate(_MOUNT, [esm, css, {"dark": dark, **traits}, dark])


def set_trait(page: Page, name: str, value: Any) -> None:
    """What Python does when it assigns a trait."""
    page.evaluate("([name, value]) => window.model.set(name, value)", [name, value])


def get_trait(page: Page, name: str) -> Any:
    """What Python would see of a trait now."""
    return page.evaluate("(name) => window.model.get(name)", name)


def assert_whole_and_aligned(page: Page, where: str) -> dict[str, Any]:
    """No name of the tree is cut and its columns stand below each other; what was measured."""
    found: dict[str, Any] = page.evaluate(_MEASURE)
    assert found["rows"] > 8, where
    assert found["cut"] == [], where
    assert all(len(lefts) == 1 for lefts in found["columns"].values()), (where, found["columns"])
    assert all(found["titles"]), where
    return found
