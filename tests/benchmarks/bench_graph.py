"""How fast the graph opens: scenes of 600 and 5,000 operations in real headless Chromium.

Run from the repository root: ``python -m tests.benchmarks.bench_graph``. Prints a table of
medians; nothing is asserted here.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from qatexplorer.snapshot.records import Snapshot
from qatexplorer.views.graph.scene import build_scene
from tests.browser.graph_page import graph_server
from tests.browser.servers import CHROMIUM_ARGS, find_chromium
from tests.support.graph_models import flat_net, residual_net

# Both times end after the frame that shows the picture, so they are what a user waits for.
_FIRST = """async (scene) => {
  const frame = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  const began = performance.now();
  model.set("scene", scene);
  window.undo = window.show("one");
  while (!document.querySelector("[data-item]")) await frame();
  await frame();
  return performance.now() - began;
}"""
_OPEN = """async (id) => {
  const frame = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  const began = performance.now();
  model.set("opened", [...model.get("opened").filter((g) => g !== id), id]);
  while (!document.querySelector(`[data-item='${id}'][aria-expanded=true]`)) await frame();
  await frame();
  return performance.now() - began;
}"""


def shapes() -> dict[str, Snapshot]:
    return {
        "600 nested": residual_net(3, 10, 19),
        "5,000 nested": residual_net(5, 50, 19),
        "5,000 alike": residual_net(5, 50, 19, alike=True),
        "5,000 flat": flat_net(5000),
    }


def first_picture(browser: Browser, address: str, scene: dict[str, Any]) -> tuple[Page, float]:
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(address)
    page.wait_for_function("window.ready === true")
    return page, float(page.evaluate(_FIRST, scene))


def opening_times(page: Page, scene: dict[str, Any], most: int) -> list[float]:
    """Opens up to ``most`` groups, those around each of them before it."""
    groups = list(scene["groups"][1:])
    step = max(1, len(groups) // most)
    parents = {g["id"]: g["parent"] for g in groups}
    times: list[float] = []
    for group in groups[::step]:
        chain = [group["id"]]
        while (parent := parents.get(chain[0])) is not None and parent != "g:":
            chain.insert(0, parent)
        for item in chain:
            if page.locator(f"[data-item={json.dumps(item)}][aria-expanded=true]").count():
                continue
            times.append(float(page.evaluate(_OPEN, item)))
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="first pictures per graph")
    parser.add_argument("--groups", type=int, default=40, help="groups to open per graph")
    options = parser.parse_args()
    print(f"Python {platform.python_version()}, {platform.machine()}, headless Chromium")
    head = ("graph", "nodes", "sites", "scene ms", "kB", "first ms", "open median", "max", "opened")
    print(" | ".join(f"{h:>12}" for h in head))
    with sync_playwright() as play, graph_server() as address:
        browser = play.chromium.launch(executable_path=find_chromium(), args=list(CHROMIUM_ARGS))
        for name, snap in shapes().items():
            built = []
            for _ in range(options.rounds):
                began = time.perf_counter()
                scene = build_scene(snap)
                built.append((time.perf_counter() - began) * 1e3)
            size = len(json.dumps(scene, separators=(",", ":")).encode()) / 1e3
            firsts, opens = [], []
            for turn in range(options.rounds):
                page, first = first_picture(browser, address, scene)
                firsts.append(first)
                if turn == options.rounds - 1:
                    opens = opening_times(page, scene, options.groups)
                page.close()
            row = [
                name, len(scene["nodes"]), len(scene["sites"]), f"{statistics.median(built):.0f}",
                f"{size:.0f}", f"{statistics.median(firsts):.0f}",
                f"{statistics.median(opens):.0f}", f"{max(opens):.0f}", len(opens),
            ]  # fmt: skip
            print(" | ".join(f"{v!s:>12}" for v in row), flush=True)
        browser.close()


if __name__ == "__main__":
    main()
