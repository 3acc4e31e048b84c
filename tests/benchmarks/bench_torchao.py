"""Stage "prepare" of the torchao flow against the unwatched ``quantize_``.

    python -m tests.benchmarks.bench_torchao [--models tiny_llm mlp] [--repeats 5] [--goal]

Both sides start from copies of the same model and have the same base configuration. "alone" is
``quantize_(model, QATConfig(base_config, step="prepare"))``; "watched" is the flow's stage, with
its notes. Rounds are interleaved; figures are medians of CPU time. ``--goal`` makes the exit status
1 where a ratio is above 1.3.
"""

from __future__ import annotations

import argparse
import copy
import gc
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from qatexplorer.flows.base import FlowOptions
from qatexplorer.flows.qconfig import resolve_qconfig
from qatexplorer.flows.torchao import TorchaoFlow, parts_of
from qatexplorer.zoo.tiny_llm import TinyLLM, base_config
from tests.benchmarks.bench_watch import cpu_name
from tests.support.models import declare_torchvision_operators

LIMIT = 1.3


def load(name: str) -> tuple[nn.Module, Any]:
    """A model in train mode, and its base configuration."""
    if name == "tiny_llm":
        declare_torchvision_operators()
        return TinyLLM().train(), base_config()
    layers = [nn.Linear(256, 256) for _ in range(24)]
    return nn.Sequential(*layers).train(), "int8-int4"


def timed(work: Callable[[], Any]) -> float:
    gc.collect()
    start = time.process_time()
    work()
    return time.process_time() - start


def within_limit(name: str, repeats: int) -> bool:
    """Print the figures of one model; whether watching is within the limit."""
    model, base = load(name)
    options = FlowOptions(resolve_qconfig(None, None), (torch.zeros(1),), base_config=base)

    def alone(one: nn.Module) -> None:
        for part in parts_of(options, one):
            part.apply(one, "prepare")

    def watched(one: nn.Module) -> None:
        TorchaoFlow().apply("prepare", one, options)

    found: dict[str, list[float]] = {"alone": [], "watched": []}
    for number in range(repeats + 1):
        for side, work in (("alone", alone), ("watched", watched)):
            made = copy.deepcopy(model)
            seconds = timed(lambda work=work, made=made: work(made))  # type: ignore[misc]
            if number:  # the first imports torchao, and tries the configuration on a small layer
                found[side].append(seconds)
    medians = {side: statistics.median(several) for side, several in found.items()}
    ratio = medians["watched"] / medians["alone"]
    words = ", ".join(f"{side} {1000 * seconds:.1f} ms" for side, seconds in medians.items())
    print(f"{name} prepare: {words}, watched / alone {ratio:.2f}", flush=True)
    return ratio <= LIMIT


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--models", nargs="+", default=["tiny_llm", "mlp"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--goal", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, {cpu_name()}")
    within = [within_limit(name, options.repeats) for name in options.models]
    return int(options.goal and not all(within))


if __name__ == "__main__":
    sys.exit(main())
