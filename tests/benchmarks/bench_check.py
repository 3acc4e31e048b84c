"""A whole check of a timm network, against the four forwards and the convert that it consists of.

    python -m tests.benchmarks.bench_check [--model resnet50] [--size 64] [--repeats 5]

Both sides are of the same session's settings: torch's side is one forward of the float model, two
of the prepared one (fake quants off, fake quants on) and one of the int8 model, one prepare and one
convert. Rounds are interleaved, each with a session of its own, as a second check knows already
what the first has found; the ratio is that of the medians of CPU time.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import warnings
from functools import partial
from typing import Any

import torch
from torch import nn

import qatexplorer as qx
from qatexplorer.flows.base import copy_sharing_parameters
from qatexplorer.quantizers.engine import quantized_engine
from qatexplorer.quantizers.facts import fake_quants_off, fake_quants_on
from tests.benchmarks.bench_stages import load, timed
from tests.benchmarks.bench_watch import cpu_name

FLOWS: dict[str, dict[str, Any]] = {"eager": {"stubs": "layers"}, "fx": {"flow": "fx"}}


def session_of(model: nn.Module, x: torch.Tensor, flow: str) -> qx.Session:
    session = qx.Session(model, (x,), **FLOWS[flow])
    session.warns = False
    return session


def by_torch(model: nn.Module, x: torch.Tensor, session: qx.Session) -> None:
    """What a check cannot do without: prepare, four forwards, convert."""
    flow, options = session.flow, session.options
    with torch.no_grad(), quantized_engine(options.qconfig.backend):
        copy.deepcopy(model).eval()(x)
        prepared = copy_sharing_parameters(model)
        for stage in flow.calls_to(flow.prepared_stage):
            prepared = flow.apply(stage, prepared, options).model
        prepared.eval()
        fake_quants_off(prepared)
        prepared(x)
        fake_quants_on(prepared)
        prepared(x)
        flow.apply(flow.int8_stage, prepared, options).model(x)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(given.threads)
    print(f"torch {torch.__version__}, {cpu_name()}")
    print(f"{given.model} at {given.size} px, batch 2, {given.repeats} interleaved rounds")
    for flow in FLOWS:
        model, x = load(given.model, given.size)
        known = session_of(model, x, flow)
        by_torch(model, x, known)
        known.check()
        theirs, ours = [], []
        for _ in range(given.repeats):
            theirs.append(timed(partial(by_torch, model, x, known)))
            fresh = session_of(model, x, flow)
            ours.append(timed(fresh.check))
        reference, mine = statistics.median(theirs), statistics.median(ours)
        print(
            f"  {flow:6s} prepare, 4 forwards, convert {reference:7.3f} s   check {mine:7.3f} s   "
            f"ratio {mine / reference:.2f}"
        )


if __name__ == "__main__":
    main()
