"""All stages of a timm network, stepped with snapshots, against torch's own calls.

    python -m tests.benchmarks.bench_stages [--model resnet50] [--size 64] [--repeats 5]

Both sides start from the same float model and wrap each layer that will be int8, because a ResNet
as it is never runs in int8. torch's calls make the copies that they make by themselves
(``fuse_modules_qat``, ``prepare_qat`` and ``convert`` each deep-copy the model). Rounds are
interleaved; the ratio is that of the medians of CPU time, which on one thread is what a clock
shows on an idle machine. Memory is the peak of the process above what it had with the float model
alone, in a process of its own for each side.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import statistics
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.ao.nn.intrinsic as nni
from torch import nn
from torch.ao.quantization import (
    QuantWrapper,
    convert,
    fuse_modules_qat,
    get_default_qat_qconfig,
    prepare_qat,
)

import qatexplorer as qx
from tests.benchmarks.bench_watch import cpu_name
from tests.support.models import load_timm

BACKEND = "onednn"
LAYERS = (nni.ConvBnReLU2d, nni.ConvBn2d, nni.ConvReLU2d, nn.Linear)  # what a ResNet fuses to
STAGES = ("float", "fuse", "propagate", "swap", "insert", "train", "convert")


def by_torch(model: nn.Module, runs: Any) -> nn.Module:
    """What a user writes: three calls, each on a copy, and a QuantWrapper around each layer."""
    model = fuse_modules_qat(model, [list(run) for run in runs])
    qconfig = get_default_qat_qconfig(BACKEND)
    for path, layer in list(model.named_modules()):
        if type(layer) in LAYERS:
            layer.qconfig = qconfig  # type: ignore[assignment]
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, QuantWrapper(layer))
    prepared = prepare_qat(model)
    int8: nn.Module = convert(prepared.eval())
    return int8


def by_session(model: nn.Module, x: torch.Tensor) -> tuple[qx.Session, dict[str, float]]:
    """Every stage with its snapshot; seconds by stage."""
    seconds = {}
    start = time.process_time()
    # Each layer wrapped: without stubs int8 does not run, and the last stage would be an error.
    session = qx.Session(model, (x,), qconfig=BACKEND, stubs="layers")
    seconds["float"] = time.process_time() - start
    for stage in STAGES[1:]:
        start = time.process_time()
        session.step()
        seconds[stage] = time.process_time() - start
    return session, seconds


def load(name: str, size: int) -> tuple[nn.Module, torch.Tensor]:
    settings = {"zero_init_last": False} if "resnet" in name else {}
    model, x = load_timm(name, size, batch=2, **settings)
    return model, x


def timed(work: Callable[[], Any]) -> float:
    gc.collect()
    start = time.process_time()
    work()
    return time.process_time() - start


def run_times(name: str, size: int, repeats: int) -> None:
    model, x = load(name, size)
    session, _ = by_session(model, x)
    runs = session.fusion
    del session
    by_torch(model, runs)
    theirs, ours = [], []
    stages: list[dict[str, float]] = []
    for _ in range(repeats):
        theirs.append(timed(lambda: by_torch(model, runs)))
        ours.append(timed(lambda: stages.append(by_session(model, x)[1])))
    reference, mine = statistics.median(theirs), statistics.median(ours)
    print(f"{name} at {size} px, {repeats} interleaved rounds, {torch.get_num_threads()} thread(s)")
    print(f"  torch's calls   {reference:7.3f} s   ({min(theirs):.3f} .. {max(theirs):.3f})")
    print(f"  stepped         {mine:7.3f} s   ({min(ours):.3f} .. {max(ours):.3f})")
    print(f"  ratio of medians {mine / reference:.2f}   of minima {min(ours) / min(theirs):.2f}")
    for stage in STAGES:
        print(f"    {stage:10s} {statistics.median(s[stage] for s in stages):7.3f} s")


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096


class Peak:
    """Highest resident memory while open, looked at every 2 ms."""

    def __enter__(self) -> Peak:
        self.peak = self.start = resident_bytes()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stop.wait(0.002):
            self.peak = max(self.peak, resident_bytes())

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def measure_memory(side: str, name: str, size: int) -> None:
    """Runs in a process of its own; prints peak and kept bytes above the float model's."""
    # Everything that is loaded once, on a model that is too small to matter.
    small, y = load("resnet10t", size)
    by_torch(small, by_session(small, y)[0].fusion)
    del small, y
    model, x = load(name, size)
    runs = qx.Session(model, (x,)).fusion
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    with Peak() as peak:
        kept = by_torch(model, runs) if side == "torch" else by_session(model, x)
    gc.collect()
    print(peak.peak - peak.start, resident_bytes() - peak.start)
    del kept


def run_memory(name: str, size: int) -> None:
    model, _ = load(name, size)
    weights = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    print(f"memory above the float model ({weights / 1e6:.0f} MB), in copies of the model")
    for side in ("torch", "session"):
        command = [sys.executable, "-m", "tests.benchmarks.bench_stages", "--memory-of", side]
        command += ["--model", name, "--size", str(size)]
        # Tensors of 64 kB and more are given back to the system when they are freed.
        environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
        out = subprocess.run(
            command, check=True, capture_output=True, text=True, env=environment
        ).stdout
        peak, kept = map(int, out.split()[-2:])
        print(f"  {side:8s} peak {peak / weights:5.2f}   kept {kept / weights:5.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory-of", choices=("torch", "session"))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(options.threads)
    if options.memory_of:
        measure_memory(options.memory_of, options.model, options.size)
        return
    print(f"torch {torch.__version__}, {cpu_name()}")
    run_times(options.model, options.size, options.repeats)
    run_memory(options.model, options.size)


if __name__ == "__main__":
    main()
