"""Live numbers of the fake quants of a model in training, at a price that is measured and held."""

from __future__ import annotations

from qatexplorer.runs.samples import (
    METRICS,
    Channels,
    FakeQuantInfo,
    GradientHistogram,
    Overhead,
    Sample,
    StateChange,
    dkw_bound,
)
from qatexplorer.runs.store import Telemetry
from qatexplorer.telemetry.integrations.tensorboard import to_tensorboard
from qatexplorer.telemetry.watch import Watch, watch

__all__ = [
    "METRICS",
    "Channels",
    "FakeQuantInfo",
    "GradientHistogram",
    "Overhead",
    "Sample",
    "StateChange",
    "Telemetry",
    "Watch",
    "dkw_bound",
    "to_tensorboard",
    "watch",
]
