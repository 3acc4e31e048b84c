"""A comparison of a timm network's three forms, against three bare forwards of the same inputs.

    python -m tests.benchmarks.bench_compare [--model resnet50] [--size 160] [--batch 8]

Both sides run the float, the fake-quant (observers off) and the int8 model of one session on the
same batches, in eval mode and without gradients. Rounds are interleaved; the ratio is that of the
medians of CPU time. The int8 model is made before, as is the graph that FX traces of the float one.
"""

from __future__ import annotations

import argparse
import statistics
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import qatexplorer as qx
from qatexplorer.quantizers.engine import quantized_engine
from tests.benchmarks.bench_stages import timed
from tests.benchmarks.bench_watch import cpu_name
from tests.support.models import load_timm

FLOWS: dict[str, dict[str, Any]] = {"eager": {"stubs": "layers"}, "fx": {"flow": "fx"}}


def session_of(name: str, flow: str, batches: list[Any]) -> qx.Session:
    """At int8, its observers calibrated on the batches that are compared."""
    model, _ = load_timm(name, zero_init_last=False)
    with torch.no_grad():  # random weights need batch norms that have seen what they norm
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None
        model(batches[0][0])
    session = qx.Session(
        model, batches[0][0], data={"train": batches, "eval": batches}, **FLOWS[flow]
    )
    session.warns = False
    session.calibrate(1)
    session.goto(session.flow.int8_stage)
    return session


def three_forwards(session: qx.Session, batches: list[Any]) -> Callable[[], None]:
    """What runs the three forms on each batch and looks at nothing."""
    prepared = session.copy_model(session.flow.train_stage).eval()
    prepared.apply(torch.ao.quantization.disable_observer)
    models = (session.copy_model("float").eval(), prepared, session.int8)

    def run() -> None:
        with torch.no_grad(), quantized_engine(session.options.qconfig.backend):
            for x, _ in batches:
                for model in models:
                    model(x)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--batches", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    batches = [
        (torch.randn(given.batch, 3, given.size, given.size), torch.zeros(given.batch).long())
        for _ in range(given.batches)
    ]
    print(f"torch {torch.__version__}, {cpu_name()}, {given.threads} thread(s)")
    print(
        f"{given.model} at {given.size} px, {given.batches} batch(es) of {given.batch}, "
        f"{given.repeats} interleaved rounds"
    )
    for flow in FLOWS:
        session = session_of(given.model, flow, batches)
        bare = three_forwards(session, batches)
        bare()
        found = session.compare(given.batches, lost=False)
        theirs, ours = [], []
        for _ in range(given.repeats):
            theirs.append(timed(bare))
            ours.append(timed(lambda: session.compare(given.batches, lost=False)))  # noqa: B023
        reference, mine = statistics.median(theirs), statistics.median(ours)
        print(
            f"  {flow:6s} three forwards {reference:7.3f} s   compare {mine:7.3f} s   "
            f"ratio {mine / reference:.2f}   ({len(found)} rows)"
        )


if __name__ == "__main__":
    main()
