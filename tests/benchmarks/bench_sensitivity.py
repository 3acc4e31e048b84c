"""The exact sensitivity against the loop that one would write, and what the other methods cost.

    python -m tests.benchmarks.bench_sensitivity [--model resnet18] [--size 64] [--rounds 3]

The loop switches fake quants with torch's own ``enable_fake_quant`` and ``disable_fake_quant`` and
runs whole forwards: two for each fake quant, and the four baselines; metric and loss are the same
functions. Rounds are interleaved and the ratio is that of the medians of CPU time. Every number of
the two is compared. The time of a forward is that of the prepared model with all fake quants on.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.ao.quantization import disable_fake_quant, disable_observer, enable_fake_quant

import qatexplorer as qx
from qatexplorer.data import call_model
from qatexplorer.evaluate.metric import accuracy
from qatexplorer.quantizers.facts import fake_quants, kinds_of
from qatexplorer.training.loop import default_loss
from tests.benchmarks.bench_stages import timed
from tests.benchmarks.bench_watch import cpu_name
from tests.support.models import load_timm

Values = dict[str, tuple[float, float]]
FLOWS: dict[str, dict[str, Any]] = {"eager": {"stubs": "layers"}, "fx": {"flow": "fx"}}


def by_hand(model: nn.Module, batches: Iterable[Any]) -> Values:
    """Means of (metric, loss), by what is on."""
    found = fake_quants(model)
    kinds = kinds_of(model)
    model.eval().apply(disable_observer)

    def measured() -> tuple[float, float]:
        outputs = [(call_model(model, x), y) for x, y in batches]
        size = sum(len(y) for _, y in outputs)
        return (
            sum(float(accuracy(out, y)) * len(y) for out, y in outputs) / size,
            sum(float(default_loss(out, y)) * len(y) for out, y in outputs) / size,
        )

    values: Values = {}
    with torch.no_grad():
        for name, kept in (("all", ("weight", "input", "output")), ("none", ())):
            for path, module in found.items():
                on = kinds.get(path) in kept
                module.apply(enable_fake_quant if on else disable_fake_quant)
            values[name] = measured()
            for path, module in found.items():
                module.apply(enable_fake_quant if name == "none" else disable_fake_quant)
                values[f"{'only' if name == 'none' else 'without'} {path}"] = measured()
                module.apply(disable_fake_quant if name == "none" else enable_fake_quant)
        for name, kept in (("weights", ("weight",)), ("activations", ("input", "output"))):
            for path, module in found.items():
                on = kinds.get(path) in kept
                module.apply(enable_fake_quant if on else disable_fake_quant)
            values[name] = measured()
        model.apply(enable_fake_quant)
    return values


def apart(mine: qx.Sensitivity, theirs: Values) -> tuple[float, float]:
    """Largest difference of a metric, and of a loss."""
    pairs = [((mine.float_metric, mine.float_loss), theirs["none"])]
    pairs += [((mine.quantized_metric, mine.quantized_loss), theirs["all"])]
    for row in mine.rows:
        pairs += [((row.only, row.loss_only), theirs[f"only {row.path}"])]
        pairs += [((row.without, row.loss_without), theirs[f"without {row.path}"])]
    metrics = max(abs((one[0] or 0.0) - two[0]) for one, two in pairs)
    return metrics, max(abs((one[1] or 0.0) - two[1]) for one, two in pairs)


def digits(flow: str) -> qx.Session:
    example = qx.zoo.load("digits_cnn")
    settings = {} if flow == "eager" else {"flow": "fx"}
    return qx.Session(example.model, example.example_inputs, data=example.data, **settings)


def network(name: str, size: int, flow: str) -> qx.Session:
    """Random weights and random images: nothing to learn, and all there is to compute."""
    # torch divides by the weight of a batch norm that it fuses: none may be zero.
    model, _ = load_timm(name, size, zero_init_last=False)
    generator = torch.Generator().manual_seed(0)

    def batch() -> tuple[Tensor, Tensor]:
        x = torch.randn(8, 3, size, size, generator=generator)
        return x, torch.randint(0, 10, (8,), generator=generator)

    data = [batch(), batch()], [batch(), batch()]
    with torch.no_grad():
        for _ in range(20):  # batch norms that know these images
            model.train()(data[0][0][0])
    return qx.Session(model, data[0][0][0], data=data, **FLOWS[flow])


def forward_s(model: nn.Module, batches: list[Any]) -> float:
    model.eval().apply(disable_observer)
    times = []
    with torch.no_grad():
        for _ in range(5):
            began = time.process_time()
            for x, _y in batches:
                call_model(model, x)
            times.append(time.process_time() - began)
    return statistics.median(times)


def measure(title: str, make: Callable[[], qx.Session], rounds: int) -> None:
    session = make()
    session.calibrate()
    assert session.data is not None
    data = session.data.eval
    batches = list(data)
    theirs, ours, found = [], [], {}
    for _ in range(rounds):
        model = session.copy_model()
        theirs.append(timed(lambda model=model: found.update(by_hand(model, data))))
        session._sensitivities.forget()
        ours.append(timed(lambda: session.sensitivity(batches=None)))
    naive, mine = statistics.median(theirs), statistics.median(ours)
    exact = session.last_sensitivity["exact"]
    metric, loss = apart(exact, found)
    print(
        f"  {title:18s} {len(exact):3d} fake quants   by hand {naive:7.2f} s   "
        f"exact {mine:7.2f} s   ratio {naive / mine:.2f}   {exact.forwards:.1f} of "
        f"{2 * len(exact) + 4} forwards   largest difference: metric {metric:.2g}, loss {loss:.2g}"
    )
    one = forward_s(session.copy_model(), batches)
    for method in ("shadow", "gradient"):
        times = []
        for _ in range(rounds):
            session._sensitivities._kept.pop(method, None)
            times.append(timed(lambda method=method: session.sensitivity(method, batches=None)))
        made = session.last_sensitivity[method]
        rank = "none" if made.spearman is None else f"{made.spearman:.2f}"
        losses = "none" if made.spearman_loss is None else f"{made.spearman_loss:.2f}"
        print(
            f"  {'':18s} {method:8s} {made.forwards:.2f} forwards by calls, "
            f"{statistics.median(times) / one:.2f} by time   Spearman with exact: metric {rank}, "
            f"loss {losses}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(given.threads)
    print(f"torch {torch.__version__}, {cpu_name()}, {given.rounds} interleaved rounds")
    for flow in FLOWS:
        measure(f"digits_cnn {flow}", lambda flow=flow: digits(flow), given.rounds)
        measure(
            f"{given.model} {flow}",
            lambda flow=flow: network(given.model, given.size, flow),
            given.rounds,
        )


if __name__ == "__main__":
    main()
