"""How long a user waits for the first picture of ``qatexplorer dashboard``, warm and cold.

Run it from the repository root on a quiet machine::

    python -m tests.benchmarks.bench_first_picture [--rounds 5] [--model module:factory]

Two servers run side by side: one with a kernel that waits (``--warm-kernels 1``, the default), one
without. Pages are opened in turn, each when the server's kernel that waits is ready. Printed are
median and worst of: the page is asked for → stage bar, tree and graph are drawn; and the memory of
the kernel that waits. Target: warm, a median of at most 3 s.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from tests.browser.explorer_page import wait_for_explorer
from tests.browser.servers import CHROMIUM_ARGS, Server, find_chromium, free_port, start_command


def serve(warm: int, model: str) -> Server:
    port = free_port()
    arguments = ["-m", "qatexplorer.app.cli", "dashboard", "--no-browser", "--port", str(port)]
    arguments += ["--warm-kernels", str(warm)]
    if model:
        arguments += ["--model", model]
    home = Path(tempfile.mkdtemp())
    return start_command("dashboard", arguments, home, port=port, probe="/voila/static/voila.js")


def wait_until_quiet(server: Server, kernels: int, patience_s: float = 120.0) -> float:
    """Until that many kernels are there and use no processor; memory of the largest in MB."""
    end, quiet, memory = time.monotonic() + patience_s, 0, 0.0
    before: dict[str, float] = {}
    while quiet < 4 and time.monotonic() < end:
        time.sleep(0.5)
        now = {
            key: sum(process.cpu_times()[:2]) for key, process in server.kernel_processes().items()
        }
        still = len(now) >= kernels and all(now[k] - before.get(k, -1.0) < 0.1 for k in now)
        quiet = quiet + 1 if still else 0
        before = now
    for process in server.kernel_processes().values():
        memory = max(memory, process.memory_info().rss / 2**20)
    return memory


def first_picture(browser: Browser, server: Server) -> float:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    try:
        page = context.new_page()
        started = time.perf_counter()
        page.goto(server.url, timeout=120_000, wait_until="commit")
        wait_for_explorer(page)
        taken = time.perf_counter() - started
        page.wait_for_timeout(500)
        page.close(run_before_unload=True)  # as a user does: it tells the server
        return taken
    finally:
        time.sleep(0.5)
        context.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", default="", help="package.module:factory; default: the example")
    options = parser.parse_args()
    chromium = find_chromium()
    if chromium is None:
        print("no Chromium found", file=sys.stderr)
        return 1
    servers = {"warm": serve(1, options.model), "cold": serve(0, options.model)}
    taken: dict[str, list[float]] = {name: [] for name in servers}
    memory = 0.0
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=list(CHROMIUM_ARGS))
            for index in range(options.rounds + 1):
                for name, server in servers.items():
                    ready = wait_until_quiet(server, 1 if name == "warm" else 0)
                    memory = max(memory, ready if name == "warm" else 0.0)
                    taken[name].append(first_picture(browser, server))
                    print(f"{name} {taken[name][-1]:.1f} s", flush=True)
                    if index == 0:
                        taken[name].clear()  # the browser reads Voila's own files the first time
            browser.close()
    finally:
        log = servers["warm"].log_path.read_text(errors="replace")
        for server in servers.values():
            server.stop()
    used = log.count("Using a warm kernel")
    for name, values in taken.items():
        print(
            f"first picture, {name} kernel: median {statistics.median(values):.1f} s, worst "
            f"{max(values):.1f} s ({len(values)} pages)"
        )
    print(f"{used} of {options.rounds + 1} warm pages took a kernel that waited; {memory:.0f} MB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
