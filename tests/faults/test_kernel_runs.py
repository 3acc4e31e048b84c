"""Training in a real kernel: clicks are acknowledged while it saturates the CPU, and a kernel that
is killed or shut down loses nothing."""

from __future__ import annotations

import json
import os
import queue
import signal
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

import qatexplorer as qx
from tests.support.training_models import one_thread  # noqa: F401

pytestmark = [pytest.mark.slow, pytest.mark.alone]

ROOT = Path(__file__).resolve().parents[2]

SET_UP = """
import os, json, torch
from torch import nn
from torch.ao.quantization import QuantStub, DeQuantStub
torch.set_num_threads(os.cpu_count())
import qatexplorer as qx

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.body = nn.Sequential(*[nn.Sequential(nn.Conv2d(c, 32, 3, padding=1),
                                                  nn.BatchNorm2d(32), nn.ReLU())
                                    for c in (3, 32, 32)])
        self.head = nn.Linear(32, 10)
    def forward(self, x):
        return self.dequant(self.head(self.body(self.quant(x)).mean((2, 3))))

torch.manual_seed(0)
rows = [(torch.randn(16, 3, 32, 32), torch.randint(0, 10, (16,))) for _ in range(50)]
explorer = qx.explore(Net(), rows[0][0], data=(rows, rows[:2]))
session = explorer.session
"""
START = "run = session.start_training(epochs=10_000, run_dir={path!r}, checkpoint_every=10)"
IDS = """
panel = explorer.training
asked = []
pause = run.pause
def noted(timeout=1.0):
    pause(timeout)
    asked.append(run.progress.step)
run.pause = noted
print(json.dumps({name: getattr(panel, name).comm.comm_id
                  for name in ("pause", "resume", "stop", "words")}))
"""


@pytest.fixture
def kernel() -> Iterator[tuple[KernelManager, BlockingKernelClient]]:
    manager = KernelManager(kernel_name="python3")
    env = {**os.environ, "PYTHONPATH": str(ROOT), "IPYTHONDIR": os.environ.get("IPYTHONDIR", "")}
    env.pop("OMP_NUM_THREADS", None)
    manager.start_kernel(env={k: v for k, v in env.items() if v or k != "IPYTHONDIR"})
    client = manager.blocking_client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    try:
        yield manager, client
    finally:
        client.stop_channels()
        if manager.is_alive():
            manager.shutdown_kernel(now=True)


def execute(client: BlockingKernelClient, code: str) -> str:
    """Run ``code``; what it printed. Fails with its error."""
    wording: list[str] = []

    def hear(message: dict[str, Any]) -> None:
        if message["msg_type"] == "stream":
            wording.append(message["content"]["text"])

    reply = client.execute_interactive(code, timeout=120, output_hook=hear)
    assert reply["content"]["status"] == "ok", reply["content"]
    return "".join(wording)


def click(client: BlockingKernelClient, button: str) -> float:
    """Press a button as the page does; the moment of it."""
    content = {"comm_id": button, "data": {"method": "custom", "content": {"event": "click"}}}
    client.shell_channel.send(client.session.msg("comm_msg", content))
    return time.perf_counter()


def heard(client: BlockingKernelClient, words: str, text: str, since: float) -> float:
    """Seconds from ``since`` until the line of words of the panel begins with ``text``."""
    end = time.perf_counter() + 30
    while time.perf_counter() < end:
        try:
            message = client.get_iopub_msg(timeout=1)
        except queue.Empty:
            continue
        content = message["content"]
        if message["msg_type"] != "comm_msg" or content["comm_id"] != words:
            continue
        if str(content["data"].get("state", {}).get("value", "")).startswith(text):
            return time.perf_counter() - since
    raise AssertionError(f"{text!r} was not heard")


def test_clicks_are_acknowledged_while_the_training_saturates_the_cpu(
    kernel: tuple[KernelManager, BlockingKernelClient],
    tmp_path: Path,
    record_property: Any,
) -> None:
    _manager, client = kernel
    execute(client, SET_UP)
    execute(client, START.format(path=str(tmp_path / "a")))
    ids = json.loads(execute(client, IDS))
    reported, obeyed = [], []
    for _ in range(12):
        time.sleep(0.25)
        at = click(client, ids["pause"])
        reported.append(heard(client, ids["words"], "pausing", at))
        obeyed.append(heard(client, ids["words"], "paused", at))
        heard(client, ids["words"], "running", click(client, ids["resume"]))
    steps = json.loads(
        execute(
            client,
            "print(json.dumps([asked, [m.step for m in run.history.markers "
            "if m.kind == 'paused'], [s.seconds for s in run.history.steps]]))",
        )
    )
    at = click(client, ids["stop"])
    reported.append(heard(client, ids["words"], "stopping", at))
    heard(client, ids["words"], "stopped", at)
    print([round(1000 * t) for t in reported])
    ack_ms = sorted(1000 * t for t in reported)
    record_property("acknowledged_ms", ack_ms)
    print(
        f"acknowledged: median {statistics.median(ack_ms):.0f} ms, worst {ack_ms[-1]:.0f} ms; "
        f"paused after median {1000 * statistics.median(obeyed):.0f} ms; "
        f"step {1000 * statistics.median(steps[2]):.0f} ms"
    )
    # The one in the middle: this machine may do something else for a moment.
    assert statistics.median(ack_ms) < 200
    for asked, paused in zip(steps[0], steps[1], strict=True):
        assert asked <= paused <= asked + 1, "within one step"


def test_a_kernel_that_is_killed_or_restarted_loses_nothing(
    kernel: tuple[KernelManager, BlockingKernelClient], tmp_path: Path
) -> None:
    manager, client = kernel
    path = tmp_path / "a"
    execute(client, SET_UP)
    execute(client, START.format(path=str(path)))
    wait_for_steps(path, 15)
    manager.signal_kernel(signal.SIGKILL)
    end = time.monotonic() + 10
    while manager.is_alive() and time.monotonic() < end:
        time.sleep(0.05)
    opened = qx.open_run(path)
    assert opened.state == "interrupted"
    assert opened.last_checkpoint is not None
    manager.restart_kernel(now=True)
    client.wait_for_ready(timeout=60)
    execute(client, SET_UP)
    execute(client, f"run = session.resume({str(path)!r})")
    wait_for_steps(path, opened.last_checkpoint.position.step + 15)
    # A restart as the menu does it: the kernel is asked to go, and leaves its last step.
    manager.shutdown_kernel(now=False)
    opened = qx.open_run(path)
    assert opened.state == "stopped"
    last = opened.last_checkpoint
    assert last is not None
    assert last.position.step == opened.history.steps[-1].step + 1
    assert [s.step for s in opened.history.steps] == list(range(last.position.step))


def wait_for_steps(path: Path, steps: int) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if (path / "run.json").exists():
            opened = qx.open_run(path)
            if opened.checkpoints and len(opened.history.steps) >= steps:
                return
        time.sleep(0.1)
    raise AssertionError("the training does not come on")
