"""The sessions of this process that have trained, by run folder.

A training belongs to its kernel, not to the page that shows it: whoever comes back to the kernel
(a reloaded page, a cell that is run again) finds the session here. A page that gets a kernel of
its own, as each visit of a Voila page does, cannot: it opens the run folder instead, which tells
whether the old kernel still trains and lets it be paused and stopped (:func:`open_run`).
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any, Protocol
from weakref import WeakSet

from qatexplorer.training.run import TrainingRun


class Trains(Protocol):
    """What has a run: a session."""

    @property
    def run(self) -> TrainingRun | None: ...

    @property
    def running(self) -> bool: ...


_sessions: WeakSet[Trains] = WeakSet()
_lock = threading.Lock()


def remember(session: Trains) -> None:
    """``session`` has a run; it is forgotten when nobody holds it and its run is over."""
    with _lock:
        _sessions.add(session)


def session_of(run_dir: str | os.PathLike[str]) -> Any:
    """The session of this process whose newest run is kept in ``run_dir``, None if none is."""
    wanted = Path(run_dir).expanduser().absolute()
    with _lock:
        known = list(_sessions)
    held = [s for s in known if s.run is not None and s.run.run_dir == wanted]
    # An older session may have run what a newer one has resumed.
    return next((s for s in held if s.running), held[0] if held else None)


def training() -> tuple[Any, ...]:
    """The sessions of this process that train now or stand in a pause."""
    with _lock:
        known = list(_sessions)
    return tuple(s for s in known if s.running)
