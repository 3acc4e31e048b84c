"""Live numbers of the fake quants of a model in training, at a price that is measured and held."""

from __future__ import annotations

from qatexplorer.telemetry.folder import open_run
from qatexplorer.telemetry.integrations.tensorboard import to_tensorboard
from qatexplorer.telemetry.records import (
    METRICS,
    ChannelLook,
    GradientHistogram,
    Overhead,
    SiteInfo,
    SiteLook,
    StateChange,
    dkw_bound,
)
from qatexplorer.telemetry.store import Telemetry
from qatexplorer.telemetry.watching import Watch, watch

__all__ = [
    "METRICS",
    "ChannelLook",
    "GradientHistogram",
    "Overhead",
    "SiteInfo",
    "SiteLook",
    "StateChange",
    "Telemetry",
    "Watch",
    "dkw_bound",
    "open_run",
    "to_tensorboard",
    "watch",
]
