"""What watching costs, beside others that watch.

``python -m tests.benchmarks.bench_watch``

One QAT model (ResNet-like, 51 fake quants) is trained on the same batches by turns: bare, and with
each way of watching, in one process and in an order that changes from round to round. The figure
is the median over the rounds of the ratio to the bare steps of the same round. The peers make
histograms of the same fake quants (of weights and gradients, where that is all they can) at the
rate that ``watch`` itself chose, or at ``--every``. A peer that is not installed is left out with
the reason; ``PYTHONPATH`` may add one that lies elsewhere.

``--goal 1.02`` makes the exit status 1 when watching at the default budget costs more.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.ao.quantization import FakeQuantizeBase
from torch.nn import functional as F

import qatexplorer as qx
from tests.benchmarks.bench_training import resnet_like

Step = Callable[[int], AbstractContextManager[Any]]
Peer = Callable[[nn.Module, ExitStack, int], "tuple[Step, Callable[[], None]]"]


def bare(model: nn.Module, stack: ExitStack, every: int) -> tuple[Step, Callable[[], None]]:
    return (lambda step: nullcontext()), (lambda: None)


class Watching:
    """``qatexplorer.watch`` at its default budget; one watch for the whole benchmark, as in a long
    run, so that what it has learnt about its cost is kept."""

    def __init__(self) -> None:
        self.watch: Any = None

    def __call__(self, model: nn.Module, stack: ExitStack, every: int) -> Any:
        if self.watch is None:
            self.watch = qx.watch(model).start()
        return (lambda step: nullcontext()), self.watch.step


def hooked(look: Callable[[str, Tensor], Any]) -> Peer:
    """Forward hooks on all fake quants in one step of ``every``."""

    def peer(model: nn.Module, stack: ExitStack, every: int) -> Any:
        sites = {p: m for p, m in model.named_modules() if isinstance(m, FakeQuantizeBase)}

        def hook_of(path: str) -> Callable[..., None]:
            # What a pre-hook returns would take the place of the input.
            return lambda module, args: void(look(path, args[0].detach()))

        def step(index: int) -> AbstractContextManager[Any]:
            if index % every:
                return nullcontext()
            inside = ExitStack()
            for path, module in sites.items():
                inside.callback(module.register_forward_pre_hook(hook_of(path)).remove)
            return inside

        return step, lambda: None

    return peer


def void(value: Any) -> None:
    """Forget ``value``."""


def histc(model: nn.Module, stack: ExitStack, every: int) -> Any:
    kept: dict[str, Tensor] = {}

    def look(path: str, x: Tensor) -> None:
        kept[path] = torch.histc(x, 256)

    return hooked(look)(model, stack, every)


def tensorboard(model: nn.Module, stack: ExitStack, every: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    folder = stack.enter_context(tempfile.TemporaryDirectory())
    writer = SummaryWriter(folder)
    stack.callback(writer.close)
    count = iter(range(10**9))
    return hooked(lambda path, x: writer.add_histogram(path, x, next(count)))(model, stack, every)


def wandb(model: nn.Module, stack: ExitStack, every: int) -> Any:
    """Its own watch: weights and gradients; it has none for activations."""
    os.environ.update(WANDB_MODE="offline", WANDB_SILENT="true", WANDB_CONSOLE="off")
    import wandb as library

    folder = stack.enter_context(tempfile.TemporaryDirectory())
    run = library.init(project="bench", dir=folder, mode="offline")
    stack.callback(run.finish)
    run.watch(model, log="all", log_freq=every)
    stack.callback(run.unwatch, model)
    return (lambda step: nullcontext()), lambda: run.log({"step": 1})


def model_report(model: nn.Module, stack: ExitStack, every: int) -> Any:
    """The observer that torch's ModelReport puts before each module, on all fake quants."""
    from torch.ao.quantization.fx._model_report.model_report_observer import ModelReportObserver

    sites = [p for p, m in model.named_modules() if isinstance(m, FakeQuantizeBase)]
    observers = {path: ModelReportObserver() for path in sites}
    return hooked(lambda path, x: observers[path](x))(model, stack, every)


def seconds(
    model: nn.Module, batches: list[Any], peer: Peer, steps: int, every: int
) -> tuple[float, float]:
    """Wall and CPU seconds of ``steps`` training steps."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with ExitStack() as stack:
        around, after = peer(model, stack, every)
        started, used = time.perf_counter(), time.process_time()
        for index in range(steps):
            x, y = batches[index % len(batches)]
            optimizer.zero_grad()
            with around(index):
                output = model(x)
            F.cross_entropy(output, y).backward()
            optimizer.step()
            after()
        return time.perf_counter() - started, time.process_time() - used


def compare(peers: dict[str, Peer], rounds: int, steps: int, every: int) -> dict[str, list[Any]]:
    """(wall ratio, CPU ratio) of each peer in each round; a string is why it has none."""
    original, batches, _ = resnet_like()
    models = {name: copy.deepcopy(original) for name in peers}
    found: dict[str, list[Any]] = {name: [] for name in peers}
    for index in range(rounds + 1):
        names = list(peers)
        names = names[index % len(names) :] + names[: index % len(names)]
        took: dict[str, tuple[float, float]] = {}
        for name in names:
            if found[name] and isinstance(found[name][-1], str):
                continue
            try:
                took[name] = seconds(models[name], batches, peers[name], steps, every)
            except ImportError as error:
                found[name] = [f"not installed: {error}"]
        if index:  # the first round warms up
            for name, (wall, cpu) in took.items():
                found[name].append((wall / took["bare"][0], cpu / took["bare"][1]))
        else:
            found["bare"].append((took["bare"][0] / steps,) * 2)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=24, help="steps of each in a round")
    parser.add_argument("--every", type=int, default=0, help="rate of the peers; 0 is watch's own")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--goal", type=float, default=0.0)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {options.threads} thread(s), load {os.getloadavg()}")
    ours = Watching()
    found = compare({"bare": bare, "qatexplorer.watch": ours}, options.rounds, options.steps, 1)
    overhead = ours.watch.telemetry.overhead
    ours.watch.close()
    every = options.every or max(1, round(overhead.every))
    print(f"bare step {1e3 * found['bare'][0][0]:.1f} ms")
    told = _tell("qatexplorer.watch", found["qatexplorer.watch"])
    print(f"  it says itself: {overhead.words()}")
    peers: dict[str, Peer] = {
        "bare": bare,
        "torch.histc hooks": histc,
        "TensorBoard add_histogram": tensorboard,
        "wandb.watch offline": wandb,
        "ModelReport observers": model_report,
    }
    print(f"the others, 1 step in {every}:")
    rounds = max(3, options.rounds // 3)
    steps = max(options.steps, every)
    for name, ratios in compare(peers, rounds, steps, every).items():
        if name != "bare":
            _tell(name, ratios)
    return int(bool(options.goal) and told > options.goal)


def _tell(name: str, ratios: list[Any]) -> float:
    if isinstance(ratios[-1], str):
        print(f"{name:26s} left out: {ratios[-1]}")
        return 0.0
    wall, cpu = (statistics.median(r[i] for r in ratios) for i in (0, 1))
    spread = sorted(r[0] for r in ratios)
    print(f"{name:26s} {wall:6.3f} of the bare step (CPU {cpu:5.3f}; rounds {spread[0]:.3f} to "
          f"{spread[-1]:.3f})")  # fmt: skip
    return wall


if __name__ == "__main__":
    sys.exit(main())
