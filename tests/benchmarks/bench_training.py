"""A watched QAT epoch against the loop one writes by hand.

``python -m tests.benchmarks.bench_training``

Both loops train the same prepared model on the same batches, by turns (A B A B …), in one process,
each from the same weights; the figure is the median of the ratios of neighbours, once of seconds on
the clock and once of CPU seconds (steadier where other programs run). The watched run
has telemetry at its default (every 10th step, all fake quants) and a subscriber that reads the
history as a page would. It also measures how late a second thread is served while training runs in
the background, and how long Pause takes.

``--goal 1.10`` makes the exit status 1 when a ratio is above it.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import threading
import time
import warnings
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.ao.nn.quantized import FloatFunctional
from torch.ao.quantization import (
    DeQuantStub,
    FakeQuantizeBase,
    QuantStub,
    fuse_modules_qat,
    get_default_qat_qconfig,
    prepare_qat,
)
from torch.nn import functional as F

from qatexplorer import zoo
from qatexplorer.runs.records import TrainingConfig
from qatexplorer.training.run import TrainingRun

Batches = list[tuple[Tensor, Tensor]]


class Residual(nn.Module):
    """conv-bn-relu, conv-bn, skip, relu."""

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False)
        self.bn1, self.relu1 = nn.BatchNorm2d(cout), nn.ReLU()
        self.conv2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(cout)
        self.down = nn.Conv2d(cin, cout, 1, stride) if stride > 1 else nn.Identity()
        self.add = FloatFunctional()

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        out: Tensor = self.add.add_relu(y, self.down(x))
        return out


class ResNetLike(nn.Module):
    """Eight residual blocks on (N, 3, H, W): the layout of resnet18 at a third of its width."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.conv1 = nn.Conv2d(3, 20, 3, 1, 1, bias=False)
        self.bn1, self.relu1 = nn.BatchNorm2d(20), nn.ReLU()
        widths = [20, 20, 20, 40, 40, 80, 80, 160, 160]
        self.blocks = nn.Sequential(
            *(Residual(a, b, 1 if a == b else 2) for a, b in pairwise(widths))
        )
        self.fc = nn.Linear(160, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.relu1(self.bn1(self.conv1(self.quant(x)))))
        out: Tensor = self.dequant(self.fc(x.mean((2, 3))))
        return out


def digits() -> tuple[nn.Module, Batches, Batches]:
    example = zoo.load("digits_cnn")
    runs = [[f"conv{i}", f"bn{i}", f"relu{i}"] for i in (1, 2, 3)]
    model = _prepare(example.model, runs)
    return model, list(example.data.train), list(example.data.eval)


def resnet_like() -> tuple[nn.Module, Batches, Batches]:
    torch.manual_seed(0)
    model = ResNetLike()
    runs = [["conv1", "bn1", "relu1"]]
    for index in range(len(model.blocks)):
        name = f"blocks.{index}"
        runs += [[f"{name}.{part}1" for part in ("conv", "bn", "relu")]]
        runs += [[f"{name}.conv2", f"{name}.bn2"]]
    rows = [(torch.randn(16, 3, 24, 24), torch.randint(0, 10, (16,))) for _ in range(10)]
    return _prepare(model, runs), rows, rows[:1]


def _prepare(model: nn.Module, runs: list[list[str]]) -> nn.Module:
    model.train()
    model.qconfig = get_default_qat_qconfig("onednn")
    return prepare_qat(fuse_modules_qat(model, runs))


def bare(model: nn.Module, train: Batches, evaluation: Batches, epochs: int) -> None:
    """What a user writes without us, evaluation included."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(epochs):
        model.train()
        for x, y in train:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            loss.item()
        model.eval()
        with torch.no_grad():
            for x, y in evaluation:
                (model(x).argmax(1) == y).float().mean().item()


def watched(model: nn.Module, train: Batches, evaluation: Batches, epochs: int) -> TrainingRun:
    run = TrainingRun(model, (train, evaluation), TrainingConfig(epochs=epochs))
    run.signal.subscribe(lambda progress: (run.history.steps, run.history.sites))
    run.start().wait()
    assert run.state == "finished", run.error
    return run


def ratio(make: Callable[[], Any], epochs: int, rounds: int) -> tuple[float, float, float, int]:
    """(median ratio watched / bare, the same of CPU time, seconds of a bare epoch, fake quants)."""
    original, train, evaluation = make()
    walls, cpus, epoch_s = [], [], []
    for index in range(rounds + 1):
        wall: dict[Any, float] = {}
        cpu: dict[Any, float] = {}
        for loop in (bare, watched) if index % 2 else (watched, bare):
            model = copy.deepcopy(original)
            started, used = time.perf_counter(), time.process_time()
            loop(model, train, evaluation, epochs)
            wall[loop] = time.perf_counter() - started
            cpu[loop] = time.process_time() - used
        if index:  # the first round warms up
            walls.append(wall[watched] / wall[bare])
            cpus.append(cpu[watched] / cpu[bare])
            epoch_s.append(wall[bare] / epochs)
    sites = sum(isinstance(m, FakeQuantizeBase) for m in original.modules())
    return statistics.median(walls), statistics.median(cpus), statistics.median(epoch_s), sites


def responsiveness(make: Callable[[], Any]) -> tuple[float, float, float]:
    """(median lateness, 95th percentile, seconds until Pause holds) of a thread that wakes up
    every 5 ms while training runs in the background."""
    model, train, evaluation = make()
    run = TrainingRun(model, (train, evaluation), TrainingConfig(epochs=10_000)).start()
    late, until = [], time.perf_counter() + 2
    while time.perf_counter() < until:
        started = time.perf_counter()
        time.sleep(0.005)
        late.append(time.perf_counter() - started - 0.005)
    started = time.perf_counter()
    run.pause(10)
    paused = time.perf_counter() - started
    run.stop(10)
    late.sort()
    return statistics.median(late), late[int(0.95 * len(late))], paused


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--goal", type=float, default=0.0)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(options.threads)
    print(
        f"torch {torch.__version__}, {options.threads} thread(s), {threading.active_count()} alive"
    )
    worst = 0.0
    for name, make, epochs in (("digits_cnn", digits, 4), ("resnet-like", resnet_like, 1)):
        found, cpu, seconds, sites = ratio(make, epochs, options.rounds)
        late, late95, paused = responsiveness(make)
        worst = max(worst, found)
        print(
            f"{name:12s} {sites:3d} fake quants  bare epoch {seconds:6.3f} s  "
            f"watched/bare {found:5.3f} (CPU {cpu:5.3f})  second thread late {late * 1e3:.1f} ms "
            f"(p95 {late95 * 1e3:.1f})  pause {paused * 1e3:.0f} ms"
        )
    return int(bool(options.goal) and worst > options.goal)


if __name__ == "__main__":
    sys.exit(main())
