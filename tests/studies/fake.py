"""A study whose arms need no net."""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path

from qatexplorer.studies import Arm, Reading, Row, Study
from qatexplorer.studies.base import Values
from qatexplorer.studies.bench import Bench

NOTES = "QATEXPLORER_FAKE_STUDY"
"""Environment variable with a folder: each job that runs leaves a file there."""


def value(name: str, seed: int, bench: Bench) -> Values:
    """A value that depends on arm, seed and effort; is interrupted once where a file says so."""
    notes = os.environ.get(NOTES)
    if notes:
        folder = Path(notes)
        (folder / f"{name}-{seed}-{os.getpid()}-{time.time_ns()}").touch()
        stop = folder / f"stop-{name}-{seed}"
        if stop.exists():
            stop.unlink()
            raise KeyboardInterrupt
    return {name: 10.0 * len(name) + seed + bench.epochs(4)}


def jobs_run(folder: Path) -> list[str]:
    """``name-seed`` of the jobs that ran, each as often as it did."""
    return sorted(p.name.rsplit("-", 2)[0] for p in folder.iterdir() if "stop" not in p.name)


FAKE = Study(
    "F1",
    "Long names",
    "A longer name has a higher value.",
    "nobody",
    "no nets",
    tuple(Arm(name, partial(value, name)) for name in ("a", "long")),
    (Row("a", "short", "10"), Row("long", "long", "40")),
    (
        Reading("long names are higher", "long", "a", published="30"),
        Reading("short ones are", "a", "long"),
        Reading("by little", "long", "a", "at most", 5.0, "five"),
    ),
    "names are not nets.",
)
