"""How long the page's event loop stands still while a large model is stepped.

    python -m tests.benchmarks.bench_loop [--nodes 5000]

In a real kernel, as a notebook has it: a coroutine ticks every millisecond on the loop, the
explorer is asked for each stage in turn, and the longest time between two ticks is what a click
would have had to wait. Sending the page's state (JSON, buffers, sockets) happens on that loop too.
Time is the CPU time of the process, which other processes do not lengthen: with one thread that
computes it is what a clock shows on an idle machine.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from jupyter_client.manager import start_new_kernel

ROOT = Path(__file__).resolve().parents[2]

MODEL = """
import asyncio, time, torch
from torch import nn
import qatexplorer as qx
torch.set_num_threads(1)

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.relu, self.b = nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)
        self.add = nn.quantized.FloatFunctional()

    def forward(self, x):
        return self.add.add(x, self.b(self.relu(self.a(x))))

class Net(nn.Module):
    def __init__(self, blocks):
        super().__init__()
        self.quant = torch.ao.quantization.QuantStub()
        self.dequant = torch.ao.quantization.DeQuantStub()
        groups = (nn.Sequential(*(Block() for _ in range(25))) for _ in range(blocks // 25))
        self.groups = nn.Sequential(*groups)

    def forward(self, x):
        return self.dequant(self.groups(self.quant(x)))

explorer = qx.explore(Net({blocks}).train(), (torch.randn(2, 4),), fusion=[])
explorer
"""

STEP = """
import gc
collections, began_gc = [], 0.0

def on_gc(phase, info):
    global began_gc
    now = time.thread_time()
    if phase == "start":
        began_gc = now
    else:
        collections.append((now - began_gc, info["generation"]))

gc.callbacks.append(on_gc)

def clocks():
    return time.perf_counter(), time.process_time(), time.thread_time()

async def longest():
    worst, done = (0.0, 0.0, 0.0), False
    async def tick():
        nonlocal worst
        last = clocks()
        while not done:
            await asyncio.sleep(0.001)
            now = clocks()
            gap = tuple(b - a for a, b in zip(last, now))
            worst, last = max(worst, gap, key=lambda g: g[1]), now
    ticking = asyncio.create_task(tick())
    await asyncio.sleep(0.3)
    worst, began = (0.0, 0.0, 0.0), time.process_time()
    collections.clear()
    explorer._on_action("next", "")
    while explorer.jobs.current is not None:
        await asyncio.sleep(0.01)
    took = time.process_time() - began
    await asyncio.sleep(1.0)  # the page's state goes out, the histograms are made
    done = True
    await ticking
    wall, cpu, own = (1000 * part for part in worst)
    slow = max(collections, default=(0.0, 0))
    stage = explorer.session.stage
    print(
        f"{stage:10s} {cpu:5.0f} ms of CPU, {own:4.0f} on the loop, {wall:5.0f} on the clock; "
        f"slowest gc {1000 * slow[0]:4.0f} ms; the stage {took:5.2f} s",
        flush=True,
    )
    return cpu

async def all_stages():
    explorer.select("module:groups.0.0.a")
    worst = [await longest() for _ in explorer.session.stages[1:]]
    graph = explorer.session.snapshots[explorer.session.stages[0]].graph
    print(f"{len(graph.nodes):,} operations, longest pause {max(worst):.0f} ms of CPU")

await all_stages()
"""


def run(nodes: int) -> None:
    blocks = max(1, nodes // 4 // 25) * 25
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    manager, client = start_new_kernel(kernel_name="python3", env=env)
    try:
        for code in (MODEL.replace("{blocks}", str(blocks)), STEP):
            reply = client.execute_interactive(code, timeout=600, output_hook=_show)
            if reply["content"]["status"] != "ok":
                print("\n".join(reply["content"].get("traceback", [])))
                return
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def _show(message: dict[str, dict[str, str]]) -> None:
    sys.stdout.write(message["content"].get("text", ""))
    sys.stdout.flush()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--nodes", type=int, default=5000)
    run(parser.parse_args().nodes)
