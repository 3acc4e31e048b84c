"""What ``watch`` adds to a training step of a prepared resnet50 on a GPU.

``python -m tests.benchmarks.bench_gpu``

Steps at batch 64 with 224 × 224 images, bare and watched by turns from the same weights, in one
process. A round is timed from an idle GPU to an idle GPU, so that work that only queues up is paid
for in the round that queued it. The figure is the median over the rounds of the ratio to the
neighbouring bare round, at the default budget and for a sample at every step. ``--goal 1.02`` makes
the exit status 1 when watching at the default budget costs more. The model is timm's, with random
weights.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.ao.quantization import get_default_qat_qconfig_mapping
from torch.ao.quantization.quantize_fx import prepare_qat_fx
from torch.nn import functional as F

import qatexplorer as qx
from qatexplorer.data import synchronize
from tests.support.models import declare_torchvision_operators


def resnet50() -> nn.Module:
    """Random weights; no gamma of zero, which torch's fused conv-bn divides by."""
    declare_torchvision_operators()
    from timm import create_model

    model: nn.Module = create_model("resnet50", pretrained=False, zero_init_last=False)
    return model


def prepared(batch: Tensor) -> nn.Module:
    model = resnet50().train().to(batch.device)
    return prepare_qat_fx(model, get_default_qat_qconfig_mapping("onednn"), (batch[:2],))


def seconds(model: nn.Module, x: Tensor, y: Tensor, count: int, after: Callable[[], Any]) -> float:
    """For one step, of ``count``."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
    synchronize(x.device)
    started = time.perf_counter()
    for _ in range(count):
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
        after()
    synchronize(x.device)
    return (time.perf_counter() - started) / count


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--goal", type=float, default=0.0)
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("no GPU here: torch.cuda.is_available() is False")
        return 0
    warnings.simplefilter("ignore")
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    print(f"{card}, torch {torch.__version__}, batch {options.batch} of {options.size} px")
    x = torch.rand(options.batch, 3, options.size, options.size, device=device)
    y = torch.randint(1000, (options.batch,), device=device)
    original = prepared(x)
    models = {name: copy.deepcopy(original) for name in ("bare", "budget", "every step")}
    watches: dict[str, qx.telemetry.Watch] = {
        "budget": qx.watch(models["budget"]).start(),
        "every step": qx.watch(models["every step"], every=1).start(),
    }
    took: dict[str, list[float]] = {name: [] for name in models}
    for index in range(options.rounds + 1):
        for name, model in models.items():
            after = watches[name].step if name in watches else lambda: None
            spent = seconds(model, x, y, options.steps, after)
            if index:  # the first round warms up
                took[name].append(spent)
    print(f"bare step {1e3 * statistics.median(took['bare']):.1f} ms")
    reported = 0.0
    for name, watch in watches.items():
        watch.close()
        ratios = [a / b for a, b in zip(took[name], took["bare"], strict=True)]
        ratio = statistics.median(ratios)
        reported = reported or ratio
        print(
            f"watch, {name:10s} {ratio:6.3f} of the bare step (rounds {min(ratios):.3f} to "
            f"{max(ratios):.3f}); it says itself: {watch.telemetry.overhead.words()}"
        )
    if device.type == "cuda":
        print(f"most memory in use {torch.cuda.max_memory_allocated(device) / 1e9:.2f} GB")
    return int(bool(options.goal) and reported > options.goal)


if __name__ == "__main__":
    sys.exit(main())
