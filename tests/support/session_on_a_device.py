"""What a session does with a model on another device, as JSON on standard output.

``python -m tests.support.session_on_a_device eager``
"""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

import qatexplorer as qx
from qatexplorer.data import device_of
from qatexplorer.telemetry.probe import Probe
from tests.support.fake_device import SYNCHRONISATIONS, install
from tests.support.training_models import Batches, SmallNet, batches


def session(flow: str, device: torch.device, train: Batches | None = None) -> qx.Session:
    torch.manual_seed(0)
    rows = batches(3)
    data = {"train": train or rows, "eval": rows}
    return qx.Session(SmallNet().train().to(device), (rows[0][0],), flow=flow, data=data)


def walk(flow: str, device: torch.device) -> dict[str, Any]:
    """From float to int8, every look on the way, and a resumed run."""
    here = session(flow, device)
    here.train(2, seed=1)
    found: dict[str, Any] = {"trained on": str(device_of(here._models.work))}
    found["histograms"] = len(here.histograms())
    found["ledger"] = len(here.ledger(timing=1).rows)
    found["sites"] = len(here.snapshot.sites)
    here.goto(here.flow.int8_stage)
    found["int8 on"] = sorted({str(t.device) for t in here.int8.buffers()} | {"cpu"})
    found["float stays on"] = str(device_of(here._models.base))
    result = here.evaluate()
    found["rows"] = [name for name, row in result.items() if row.metric and row.latency]
    found["preflight"] = here.preflight().ok
    with tempfile.TemporaryDirectory() as folder:
        session(flow, device).train(1, seed=1, run_dir=Path(folder) / "run")
        again = session(flow, device)
        rest = again.resume(Path(folder) / "run", background=False, epochs=2)
        found["losses"] = [step.loss for step in here.run.history.steps]  # type: ignore[union-attr]
        found["resumed"] = [step.loss for step in rest.history.steps]
    return found


def watch(device: torch.device) -> dict[str, Any]:
    """Synchronisations of a training loop, bare and watched."""
    found: dict[str, Any] = {}
    # The device has no random numbers of its own; the CPU's do.
    generator = torch.Generator()
    Probe.generator = lambda self, device: generator  # type: ignore[method-assign]
    for name in ("bare", "watched"):
        here = session("eager", device)
        here.goto("train")
        model = here.model
        rows = [(x.to(device), y.to(device)) for x, y in batches(4)]
        watched = qx.watch(model, every=1, gradients=True).start() if name == "watched" else None
        before = len(SYNCHRONISATIONS)
        for x, y in rows:
            F.cross_entropy(model(x), y).backward()
            if watched is not None:
                watched.step()
        found[name] = SYNCHRONISATIONS[before:]
        if watched is not None:
            watched.close()
            found["unseen"] = dict(watched.telemetry.unseen)
            found["looks"] = watched.telemetry.overhead.sampled_steps
    return found


def train(device: torch.device) -> dict[str, Any]:
    """Synchronisations of each further step of a session's training, and the losses of its run."""
    counts: dict[int, list[str]] = {}
    kept = 0
    for steps in (4, 8):
        here = session("eager", device, batches(steps))
        here.goto("train")
        before = len(SYNCHRONISATIONS)
        run = here.train(1, telemetry_every=0, progress=False)
        counts[steps] = SYNCHRONISATIONS[before:]
        kept = len([s.loss for s in run.history.steps if isinstance(s.loss, float)])
    return {
        "of four steps": len(counts[8]) - len(counts[4]),
        "losses": kept,
        "what": counts[8][-12:],
    }


def main() -> None:
    warnings.simplefilter("ignore")
    device = install()
    makers = {"watch": watch, "train": train}
    maker = makers.get(sys.argv[1])
    found = maker(device) if maker else walk(sys.argv[1], device)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
