"""The stages of the PT2E flow against the unwatched calls, and ``watch`` on an exported model.

    python -m tests.benchmarks.bench_pt2e [--models resnet18 …] [--repeats 3] [--parts prepare …]

Both sides start from copies of the same model. "prepare" is ``prepare_qat_pt2e`` to stage
"insert" with the graph, annotations and placements of each stage on the way. "convert" is
``convert_pt2e`` against the stages "convert" and "fold" one after the other; "lower" is
``convert_pt2e`` and ``lower_pt2e_quantized_to_x86`` against stage "lower", which lowers for batches
of any size where torchao does for that of the example inputs. The flow traces torchao's patterns
once in a process; "patterns kept" is torchao's calls with that too, so that what watching alone
costs can be seen. Rounds are interleaved; figures are medians of CPU time.

"watch" trains a prepared exported network bare and watched by turns, as ``bench_watch`` does.
``--goal`` makes the exit status 1 where a ratio of stages is above 1.3 or watching above 1.02.
"""

from __future__ import annotations

import argparse
import copy
import gc
import importlib
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from qatexplorer.data import as_args
from qatexplorer.flows.base import StageResult
from qatexplorer.flows.pt2e import Pt2eFlow
from qatexplorer.flows.pt2e_patterns import patterns_kept
from tests.against_torch.pt2e_reference import default_quantizer, exported_alone
from tests.benchmarks.bench_watch import cpu_name, pairs_of_blocks, with_error
from tests.support.models import load_timm
from tests.support.models_pt2e import inputs_of, load_language
from tests.support.pt2e import options_of

LIMIT, WATCH_LIMIT = 1.3, 1.02


def load(name: str) -> tuple[nn.Module, Any]:
    """A timm architecture at 32 px, or one of transformers'."""
    if name.startswith("transformers_"):
        model, x = load_language(name.removeprefix("transformers_"))
    else:
        settings = {"zero_init_last": False} if "resnet" in name else {}
        model, x = load_timm(name, 32, batch=4, **settings)
    return model.train(), inputs_of(x)


def timed(work: Callable[[], Any]) -> float:
    gc.collect()
    start = time.process_time()
    work()
    return time.process_time() - start


class Sides:
    """One model on both sides: what is timed takes copies that were made before."""

    def __init__(self, name: str) -> None:
        self.api = importlib.import_module("torchao.quantization.pt2e.quantize_pt2e")
        self.lowering = importlib.import_module("torchao.quantization.pt2e.lowering")
        self.pt2e = importlib.import_module("torchao.quantization.pt2e")
        model, self.inputs = load(name)
        args, kwargs = as_args(self.inputs)
        self.positional = (*args, *kwargs.values())
        self.exported = exported_alone(model, self.inputs)
        self.prepared = self.prepare_alone(copy.deepcopy(self.exported))
        self.prepared(*args, **kwargs)
        flow, options = Pt2eFlow(), options_of(self.inputs)
        self.ours = flow.apply("export", model, options).model
        self.ours_prepared = flow.apply("insert", copy.deepcopy(self.ours), options).model
        self.ours_prepared(*args, **kwargs)

    def prepare_alone(self, exported: Any) -> Any:
        return self.api.prepare_qat_pt2e(exported, default_quantizer())

    def prepare_watched(self, exported: Any) -> StageResult:
        stages: dict[str, StageResult] = {}
        return Pt2eFlow().apply("insert", exported, options_of(self.inputs), stages.__setitem__)

    def convert_alone(self, prepared: Any) -> Any:
        self.pt2e.move_exported_model_to_eval(prepared)
        return self.api.convert_pt2e(prepared)

    def lower_alone(self, prepared: Any) -> Any:
        reference = self.convert_alone(prepared)
        with torch.no_grad():
            return self.lowering.lower_pt2e_quantized_to_x86(reference, self.positional)

    def apply(self, stages: tuple[str, ...]) -> Callable[[], None]:
        """The work of going to each of ``stages`` from a prepared model of its own."""
        copies = [copy.deepcopy(self.ours_prepared) for _ in stages]

        def work() -> None:
            for stage, one in zip(stages, copies, strict=True):
                Pt2eFlow().apply(stage, one, options_of(self.inputs))

        return work

    def round_of(self, part: str) -> dict[str, float]:
        """Seconds by side, once each."""
        found = {}
        for side, kept in (("alone", nullcontext), ("patterns kept", patterns_kept)):
            found[side] = timed(self._alone(part, kept))
        if part == "prepare":
            exported = copy.deepcopy(self.ours)
            found["watched"] = timed(lambda: self.prepare_watched(exported))
        else:
            found["watched"] = timed(
                self.apply(("convert", "fold") if part == "convert" else ("lower",))
            )
        return found

    def _alone(
        self, part: str, kept: Callable[[], AbstractContextManager[None]]
    ) -> Callable[[], None]:
        one = copy.deepcopy(self.exported if part == "prepare" else self.prepared)
        call = getattr(self, f"{part}_alone")

        def work() -> None:
            with kept():
                call(one)

        return work


def stages(name: str, parts: list[str], repeats: int) -> bool:
    """Whether each part is within the limit."""
    sides, within = Sides(name), True
    for part in parts:
        sides.round_of(part)  # traces the patterns, imports inductor
        rounds = [sides.round_of(part) for _ in range(repeats)]
        medians = {side: statistics.median(r[side] for r in rounds) for side in rounds[0]}
        words = ", ".join(f"{side} {seconds:.3f} s" for side, seconds in medians.items())
        ratio = medians["watched"] / medians["alone"]
        same = medians["watched"] / medians["patterns kept"]
        print(f"{name} {part}: {words}")
        print(f"  watched / alone {ratio:.2f}, watched / patterns kept {same:.2f}", flush=True)
        within &= ratio <= LIMIT
    return within


def watch(pairs: int, steps: int) -> bool:
    """Whether watching the training of an exported network is within the limit."""
    model, (x,) = load("resnet18")
    flow, options = Pt2eFlow(), options_of((x,))
    prepared = flow.apply("insert", flow.apply("export", model, options).model, options).model
    batches = [(torch.randn(16, 3, 32, 32), torch.randint(0, 10, (16,))) for _ in range(10)]
    found, watched = pairs_of_blocks(pairs, steps, (prepared, batches))
    overhead = watched.telemetry.overhead
    watched.close()
    noise, noise_error = with_error(found, ["other"])
    measured, error = with_error(found, ["watched", "sampled"])
    print(f"watch on an exported resnet18, {pairs} pairs of blocks of {steps} steps")
    print(f"  bare again (noise)  {noise:+5.2f} % (standard error {noise_error:.2f})")
    print(f"  measured            {measured:+5.2f} % (standard error {error:.2f})")
    print(f"  reported            {100 * overhead.share:+5.2f} %", flush=True)
    return 1 + measured / 100 <= WATCH_LIMIT


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--models", nargs="+", default=["resnet18", "transformers_bert"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=25)
    parser.add_argument("--steps", type=int, default=6, help="steps of each block of watch")
    parts = ("prepare", "convert", "lower", "watch")
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--goal", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, {cpu_name()}")
    taken = [part for part in options.parts if part != "watch"]
    within = [stages(name, taken, options.repeats) for name in options.models if taken]
    if "watch" in options.parts:
        within.append(watch(options.pairs, options.steps))
    return int(options.goal and not all(within))


if __name__ == "__main__":
    sys.exit(main())
