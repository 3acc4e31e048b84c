"""The first call of an operation is slow; a training need not pay for it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.ao.quantization import FakeQuantize

_warm = False


def warm_up(make: Callable[..., Any]) -> None:
    """Run every operation of a look once: the first call of each costs torch milliseconds, which
    would be the price of many looks of a small net. Once per process, and before training."""
    global _warm
    if _warm:
        return
    _warm = True
    with warnings.catch_warnings(), torch.inference_mode(False), torch.enable_grad():
        warnings.simplefilter("ignore")
        net = nn.ModuleDict({"weight": FakeQuantize(reduce_range=False), "out": FakeQuantize()})
        trial = make(net, every=1, gradients=True)
        with trial:
            for size in (3000, 3000):
                x = torch.linspace(-1, 1, size).requires_grad_()
                for fake_quant in net.values():
                    fake_quant(x.view(30, 100)).sum().backward()
                trial.step()
        trial.telemetry.histogram("out")
