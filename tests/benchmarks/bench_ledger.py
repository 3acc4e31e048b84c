"""What a ledger costs, in units of one forward of the prepared model.

    python -m tests.benchmarks.bench_ledger [--model convnext_large] [--flow eager] [--size 64]

One forward is the median CPU time of ``--repeats`` forwards of the prepared model in train mode
without gradients; the ledger is made once, as the ledger's tab makes it. CPU time on one thread is
what a clock shows on an idle machine. Run it with ``--model convnext_large --size 64`` and with
``--model vit_large_patch16_224 --flow fx --size 224``.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from typing import Any

import torch

import qatexplorer as qx
from qatexplorer.ledger.records import Ledger
from tests.support.models import load_timm


def cpu_seconds(work: Any) -> tuple[float, Any]:
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="convnext_large")
    parser.add_argument("--flow", default="eager")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    model, x = load_timm(options.model, options.size, batch=options.batch)
    session = qx.Session(model, x, flow=options.flow, qconfig="onednn")
    session.goto("insert")
    prepared = session.model
    with torch.no_grad():
        prepared(x)
        one = statistics.median(cpu_seconds(lambda: prepared(x))[0] for _ in range(options.repeats))
    seconds, ledger = cpu_seconds(session.ledger)
    assert isinstance(ledger, Ledger)
    measured = sum(found.numbers is not None for found in ledger.redundancies)
    print(f"{options.model}, {options.flow}, {options.size} px, batch {options.batch}")
    print(
        f"  {len(ledger.sites)} fake quants, {measured} redundancies, {len(ledger.floats)} floats"
    )
    print(f"  one forward {one:8.3f} s")
    print(f"  the ledger  {seconds:8.3f} s = {seconds / one:.1f} forwards")


if __name__ == "__main__":
    main()
