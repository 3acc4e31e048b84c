"""What watching costs: what ``watch`` says of itself beside what a paired run measures, and others.

``python -m tests.benchmarks.bench_watch``

One QAT model (ResNet-like, 51 fake quants) is trained on the same batches, bare and watched at the
default budget by turns: blocks of a few steps in one process, in an order drawn anew for each pair,
with one thread and with two. Each step is timed by the CPU time of the thread that trains, which a
busy machine disturbs least, and held against the bare steps of its own pair. What watching costs
is a mean over all pairs, without the highest and lowest quarter of each kind of step (bare; watched
and sampled; watched and not sampled), since what comes between hits all kinds alike. Its standard
error is that of the same figure over random choices of the pairs (a bootstrap). Bare steps are held
against bare steps too: what this machine's noise looks like.

``--peers`` adds other ways of watching: histograms of the same fake quants (of weights and
gradients, where that is all they can) at the rate that ``watch`` itself chose, or at ``--every``. A
peer that is not installed is left out with the reason; ``PYTHONPATH`` may add one that lies
elsewhere.

``--goal 0.5`` makes the exit status 1 when what is reported and what is measured differ by more
than so many points, or either is above the budget.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.ao.quantization import FakeQuantizeBase
from torch.nn import functional as F

import qatexplorer as qx
from tests.benchmarks.bench_training import Batches, resnet_like

Step = Callable[[int], AbstractContextManager[Any]]
Peer = Callable[[nn.Module, ExitStack, int], "tuple[Step, Callable[[], None]]"]


def bare(model: nn.Module, stack: ExitStack, every: int) -> tuple[Step, Callable[[], None]]:
    return (lambda step: nullcontext()), (lambda: None)


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


CLOCKS = {"wall": time.perf_counter, "CPU": time.process_time, "thread": time.thread_time}


def seconds(
    model: nn.Module, batches: list[Any], peer: Peer, steps: int, every: int
) -> tuple[float, ...]:
    """Seconds of ``steps`` training steps, by each of :data:`CLOCKS`."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with ExitStack() as stack:
        around, after = peer(model, stack, every)
        started = [clock() for clock in CLOCKS.values()]
        for index in range(steps):
            x, y = batches[index % len(batches)]
            optimizer.zero_grad()
            with around(index):
                output = model(x)
            F.cross_entropy(output, y).backward()
            optimizer.step()
            after()
        return tuple(c() - s for c, s in zip(CLOCKS.values(), started, strict=True))


def compare(peers: dict[str, Peer], rounds: int, steps: int, every: int) -> dict[str, list[Any]]:
    """Ratio by each clock of each peer in each round; a string is why it has none. Under "bare"
    are its seconds per step.

    All train one and the same model: two copies of it differ by up to two percent, each time the
    same way, with where their tensors happen to lie in memory.
    """
    model, batches, _ = resnet_like()
    found: dict[str, list[Any]] = {name: [] for name in peers}
    for index in range(rounds + 1):
        names = list(peers)
        names = names[index % len(names) :] + names[: index % len(names)]
        took: dict[str, tuple[float, ...]] = {}
        for name in names:
            if found[name] and isinstance(found[name][-1], str):
                continue
            try:
                took[name] = seconds(model, batches, peers[name], steps, every)
            except ImportError as error:
                found[name] = [f"not installed: {error}"]
        if index:  # the first round warms up
            bare_s = took.pop("bare")
            found["bare"].append(tuple(s / steps for s in bare_s))
            for name, values in took.items():
                found[name].append(tuple(v / b for v, b in zip(values, bare_s, strict=True)))
    return found


def show(name: str, ratios: list[Any]) -> float:
    """Print the overhead of ``name`` in percent by each clock; that of the training thread."""
    if isinstance(ratios[-1], str):
        print(f"  {name:26s} left out: {ratios[-1]}")
        return 0.0
    words = []
    for index, clock in enumerate(CLOCKS):
        values = sorted(100 * (r[index] - 1) for r in ratios)
        low, high = values[len(values) // 4], values[-1 - len(values) // 4]
        words.append(f"{clock} {statistics.median(values):+5.2f} % ({low:+.1f} to {high:+.1f})")
    print(f"  {name:26s} {'  '.join(words)}")
    return statistics.median(100 * (r[2] - 1) for r in ratios)


Pair = dict[str, list[float]]
"""Seconds of the steps of one pair of blocks by kind; ``"other"`` are bare ones, set apart."""


def pairs_of_blocks(
    count: int, steps: int, made: tuple[nn.Module, Batches] | None = None
) -> tuple[list[Pair], Any]:
    """``count`` pairs, each of two blocks bare and two watched, of ``steps`` steps; the watch.

    ``made`` is a prepared model and its batches; :func:`resnet_like` by default."""
    model, batches = made if made is not None else resnet_like()[:2]
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    watch = qx.watch(model)
    draw = random.Random(0)
    index = 0

    def block(kind: str, into: Pair) -> None:
        nonlocal index
        if kind == "watched":
            watch.start()
        for _ in range(steps):
            before = watch.telemetry.overhead.sampled_steps
            started = time.thread_time()
            x, y = batches[index % len(batches)]
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            if kind == "watched":
                watch.step()
            took = time.thread_time() - started
            sampled = watch.telemetry.overhead.sampled_steps > before
            into.setdefault("sampled" if sampled else kind, []).append(took)
            index += 1
        if kind == "watched":
            watch.pause()

    found: list[Pair] = []
    for number in range(count + 3):
        pair: Pair = {}
        kinds = ["bare", "watched", "other"]
        draw.shuffle(kinds)
        for kind in kinds:
            block(kind, pair)
        if number >= 3:  # the first warm up
            found.append(pair)
    return found, watch


def cost(pairs: list[Pair], kinds: Sequence[str]) -> float:
    """How much longer steps of ``kinds`` take than the (other) bare ones, in percent."""
    bare_kinds = [kind for kind in ("bare", "other") if kind not in kinds]
    relative: dict[str, list[float]] = {kind: [] for kind in (*kinds, *bare_kinds)}
    for pair in pairs:
        reference = statistics.median(pair["bare"] + pair["other"])
        for kind in relative:
            relative[kind] += [seconds / reference for seconds in pair.get(kind, ())]
    count = sum(len(relative[kind]) for kind in kinds)
    mean = sum(len(relative[kind]) * trimmed(relative[kind]) for kind in kinds) / count
    base = trimmed([value for kind in bare_kinds for value in relative[kind]])
    return 100 * (mean / base - 1)


def trimmed(values: list[float]) -> float:
    """Mean without the highest and the lowest quarter; 0 of none."""
    cut = len(values) // 4
    kept = sorted(values)[cut : len(values) - cut]
    return statistics.fmean(kept) if kept else 0.0


def with_error(pairs: list[Pair], kinds: Sequence[str]) -> tuple[float, float]:
    """:func:`cost` and its standard error."""
    draw = random.Random(1)
    again = [cost(draw.choices(pairs, k=len(pairs)), kinds) for _ in range(200)]
    return cost(pairs, kinds), statistics.stdev(again)


def measure(threads: int, options: argparse.Namespace) -> bool:
    """Whether what is reported and what is measured agree, and are within the budget."""
    torch.set_num_threads(threads)
    pairs, watch = pairs_of_blocks(options.pairs, options.steps)
    overhead, controller = watch.telemetry.overhead, watch._controller
    hidden = controller.hidden_s * overhead.sampled_steps / overhead.train_s
    watch.close()
    bare_ms = 1e3 * statistics.median(t for pair in pairs for t in pair["bare"])
    print(f"{threads} thread(s), {len(pairs)} pairs of blocks of {options.steps} steps,")
    noise, noise_error = with_error(pairs, ["other"])
    measured, error = with_error(pairs, ["watched", "sampled"])
    reported = 100 * overhead.share
    print(f"  a bare step {bare_ms:.1f} ms of CPU time of the thread that trains")
    print(f"  bare again (noise)  {noise:+5.2f} % (standard error {noise_error:.2f})")
    print(f"  measured            {measured:+5.2f} % (standard error {error:.2f})")
    print(f"  reported            {reported:+5.2f} % ({100 * hidden:.2f} of it by difference)")
    print(f"  {overhead.words()}")
    if options.peers:
        show_peers(overhead, options)
    budget = 100 * overhead.budget
    near = abs(reported - measured) <= options.goal
    return not options.goal or (near and max(reported, measured) <= budget)


def show_peers(overhead: Any, options: argparse.Namespace) -> None:
    """Print what other ways of watching cost."""
    every = options.every or max(1, round(overhead.every))
    others: dict[str, Peer] = {
        "bare": bare,
        "torch.histc hooks": histc,
        "TensorBoard add_histogram": tensorboard,
        "wandb.watch offline": wandb,
        "ModelReport observers": model_report,
    }
    print(f"  the others, 1 step in {every}:")
    for name, ratios in compare(others, options.rounds, max(options.steps, every), every).items():
        if name != "bare":
            show(name, ratios)


def cpu_name() -> str:
    """Of the machine, as far as it says."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    known = dict(line.split(":", 1) for line in lines if ":" in line)
    fields = {key.strip(): value.strip() for key, value in known.items()}
    model = fields.get("model name", platform.machine())
    return f"{model} (family {fields.get('cpu family', '?')}, model {fields.get('model', '?')})"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--steps", type=int, default=8, help="steps of each block")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of the peers")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--every", type=int, default=0, help="rate of the peers; 0 is watch's own")
    parser.add_argument("--goal", type=float, default=0.0)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"torch {torch.__version__}, {cpu_name()}, {os.cpu_count()} CPUs, load {load}")
    agree = [measure(threads, options) for threads in options.threads]
    return int(not all(agree))


if __name__ == "__main__":
    sys.exit(main())
