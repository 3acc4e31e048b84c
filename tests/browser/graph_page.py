"""The graph widget's front end on a bare page served from loopback, with a stand-in for its model.

What Python sees of the real widget (traits, custom messages) is here ``window.model``.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from qatexplorer.views.graph.scene import build_scene
from qatexplorer.widgets.graph.graph import GraphWidget
from tests.support.graph_models import call, function, residual_net, site, snapshot

_HTML = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>graph</title>
<link rel="icon" href="data:,"><link rel="stylesheet" href="graph.css">
<style>body { margin: 0; padding: 12px; font-family: sans-serif; background: #fff }
body[data-jp-theme-light="false"] { background: #0d0f12 }</style></head>
<body data-jp-theme-light="true"><div id="one"></div><script type="module">
const heard = new Map();
const traits = { scene: {}, selected: "", opened: [], height: 520, dark: false, status: "",
  metrics: {}, identities: false };
const model = {
  get: (name) => traits[name],
  set(name, value) {
    if (JSON.stringify(traits[name]) === JSON.stringify(value)) return;
    traits[name] = value;
    model.fire("change:" + name);
  },
  fire: (event, ...rest) => [...(heard.get(event) || [])].forEach((f) => f(...rest)),
  save_changes: () => { model.saves += 1; },
  saves: 0,
  on: (event, f) => { heard.set(event, [...(heard.get(event) || []), f]); },
  off: (event, f) => { heard.set(event, (heard.get(event) || []).filter((g) => g !== f)); },
  listeners: () => [...heard.values()].flat().length,
};
const text = await (await fetch("graph.mjs")).text();
const url = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
window.model = model;
window.front = (await import(url)).default;
window.show = (id) => window.front.render({ model, el: document.getElementById(id) });
window.ready = true;
</script></body></html>"""


@contextmanager
def graph_server() -> Iterator[str]:
    """Serves the page on a free loopback port; gives its address."""
    files = {
        "/": ("text/html", _HTML),
        "/graph.mjs": ("text/javascript", GraphWidget._esm),
        "/graph.css": ("text/css", GraphWidget._css),
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kind, body = files.get(self.path, ("text/plain", ""))
            data = body.encode()
            self.send_response(200 if self.path in files else 404)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def open_graph(page: Page, address: str, scene: dict[str, Any], **traits: Any) -> None:
    """Loads the page, sets the traits and shows the widget; returns when it is drawn."""
    page.goto(address)
    page.wait_for_function("window.ready === true")
    page.evaluate(
        "([scene, traits]) => { Object.entries(traits).forEach(([k, v]) => model.set(k, v));"
        "model.set('scene', scene); window.undo = show('one'); }",
        [scene, traits],
    )
    page.wait_for_function("model.get('status') !== ''")


def set_trait(page: Page, name: str, value: Any) -> None:
    """What Python does when it assigns a trait."""
    page.evaluate("([name, value]) => model.set(name, value)", [name, value])


def trait(page: Page, name: str) -> Any:
    """What Python sees of a trait."""
    return page.evaluate("(name) => model.get(name)", name)


def item_selector(item_id: str) -> str:
    """CSS selector of a drawn item."""
    return f"[data-item={json.dumps(item_id, ensure_ascii=False)}]"


@pytest.fixture(scope="module")
def small() -> dict[str, Any]:
    """Seven operations with a skip, one block, all kinds of fake quants."""
    nodes = [
        call("quant", "quant", ""),
        call("conv1", "conv1", ""),
        call("left", "block.left", "block"),
        call("right", "block.right", "block"),
        function("add", "block"),
        call("act", "act", ""),
        call("act_1", "act", ""),
    ]
    pairs = [("quant", "conv1"), ("conv1", "left"), ("conv1", "right"), ("left", "add")]
    pairs += [("right", "add"), ("add", "act"), ("act", "act_1")]
    sites = [site("quant", "input"), site("conv1", "weight"), site("conv1", "output")]
    sites += [site("block.left", "weight", scale=(0.0625,)), site("act", "output")]
    return build_scene(snapshot(nodes, pairs, sites), frozenset({"conv1.weight_fake_quant"}))


@pytest.fixture(scope="module")
def large() -> dict[str, Any]:
    """1,202 operations: 3 stages of 20 residual blocks of 19 layers and an add."""
    return build_scene(residual_net(3, 20, 19))


def drawn(page: Page) -> list[str]:
    return page.eval_on_selector_all("[data-item]", "all => all.map(e => e.dataset.item)")


def marks_drawn(page: Page) -> int:
    return page.locator(".qxg-world [data-item], .qxg-world [data-site]").count()


def shown(page: Page, item: str) -> Any:
    return page.locator(item_selector(item))


def wait_status(page: Page, text: str) -> None:
    page.wait_for_function("(t) => model.get('status').includes(t)", arg=text)


def open_group(page: Page, group: str) -> None:
    shown(page, group).locator("[data-toggle]").click()
    expect(shown(page, group)).to_have_attribute("aria-expanded", "true")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with graph_server() as url:
        yield url
