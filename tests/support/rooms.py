"""The rooms of the package, in the one order in which they may import."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "qatexplorer"

# From the bottom up. A room imports from rooms before it only, also for types.
ROOMS = (
    "_version",
    "errors",
    "_tested",
    "signals",
    "shown",
    "tables",
    "garbage",
    "reports",
    "data",
    "quantizers",
    "explain",
    "forward",
    "flows",
    "snapshot",
    "evaluate",
    "runs",
    "telemetry",
    "training",
    "ledger",
    "checks",
    "accuracy",
    "cures",
    "advice",
    "takehome",
    "session",
    "migration",
    "zoo",
    "views",
    "widgets",
    "studies",
    "app",
    "__init__",  # the front door: what it offers is loaded when it is asked for
)
