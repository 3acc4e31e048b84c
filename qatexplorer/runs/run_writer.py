"""Writes a run to its folder while it goes on: curves, samples, checkpoints, where it stands."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from torch import Tensor

from qatexplorer.errors import CheckpointError, QatExplorerError
from qatexplorer.runs.checkpoint import CheckpointStore, Position
from qatexplorer.runs.config import TrainingConfig
from qatexplorer.runs.folder import CHECKPOINTS, Request, RunFolder, error_as_data
from qatexplorer.runs.journal import Journal
from qatexplorer.runs.records import History, Progress
from qatexplorer.runs.sample_files import SampleWriter, about_samples

log = logging.getLogger(__name__)

REQUEST_EVERY_S = 0.5


@dataclass(frozen=True)
class Saved:
    """A checkpoint read back: where it stood, its tree and its tensors, and the curves so far."""

    position: Position
    tree: dict[str, Any]
    tensors: dict[str, Tensor]
    history: History


class RunWriter:
    """What a run writes. A disk that refuses does not stop the training: ``trouble`` says so.

    ``on_trouble`` is called once for each new trouble.
    """

    def __init__(
        self,
        folder: RunFolder,
        config: TrainingConfig,
        on_trouble: Callable[[CheckpointError], Any],
    ) -> None:
        self.folder, self._every = folder, config.checkpoint_every
        self._store = CheckpointStore(folder.path / CHECKPOINTS, config.keep_checkpoints)
        self._store.tidy()
        self._mode, self._on_trouble = config.metric_mode, on_trouble
        self._journal = Journal(folder.path, self._cannot_append)
        self.trouble: CheckpointError | None = None
        self._last: tuple[Position, Path] | None = None
        self._checked = time.monotonic()
        self._history: History | None = None
        self._samples: SampleWriter | None = None

    def attach(self, history: History, saved: Saved | None) -> None:
        """Append what ``history`` gets from now on; what came after ``saved`` is void.

        Raises RunFolderError.
        """
        if saved is not None:
            self._journal.went_back(saved.position.step, saved.position.epoch)
        history.sink = self._journal.record
        self._history = history
        telemetry = history.telemetry
        if telemetry is not None:
            self.folder.note(**about_samples(telemetry))
            self._samples = SampleWriter(self.folder.path, telemetry, self._cannot_append)
            if saved is not None:
                self._samples.went_back(saved.position.step)
            telemetry.sink = self._samples

    def due(self, step: int) -> bool:
        """Whether ``step`` steps are a moment for a checkpoint."""
        return bool(self._every) and step % self._every == 0

    def save(
        self,
        position: Position,
        reason: str,
        state: Callable[[dict[str, Tensor]], dict[str, Any]],
        where: str,
    ) -> bool:
        """Write a checkpoint of ``state(tensors)``; False if it could not be written."""
        if self._last is not None and self._last[0] == position:
            self._flush()
            return True
        # First the curves: a kill in between must not leave a checkpoint of a step they lack.
        self._flush(durable=True)
        try:
            tensors: dict[str, Tensor] = {}
            path = self._store.save(position, reason, state(tensors), tensors)
        except Exception as error:
            self._in_trouble(error, where)
            return False
        self._last, self.trouble = (position, path), None
        return True

    def note_metric(self, value: float) -> None:
        """The evaluation after the last checkpoint gave ``value``."""
        if self._last is None or not self._last[0].trained:
            return
        try:
            self._store.note_metric(self._last[1], value, self._mode)
        except CheckpointError as error:
            self._in_trouble(error, "")

    def _flush(self, durable: bool = False) -> None:
        self._journal.flush(durable=durable)
        if self._samples is not None:
            self._samples.flush(newest=True, durable=durable)

    def report(self, progress: Progress, error: QatExplorerError | None, *, now: bool) -> None:
        """Write where the run stands."""
        status = {**asdict(progress), "error": error_as_data(error)}
        try:
            self.folder.report(status, now=now)
        except OSError as problem:
            self._cannot_append(problem)
        if now:
            self._journal.flush()

    def request(self) -> Request | None:
        """What another process requests; looks at the disk twice a second at most."""
        now = time.monotonic()
        if now - self._checked < REQUEST_EVERY_S:
            return None
        self._checked = now
        return self.folder.request()

    def close(self) -> None:
        if self._history is not None:
            self._history.sink = None
            if self._history.telemetry is not None:
                self._history.telemetry.sink = None
        self._journal.close()
        if self._samples is not None:
            self._samples.close()
        self.folder.close()

    def _cannot_append(self, error: OSError) -> None:
        self._in_trouble(error, "")

    def _in_trouble(self, error: Exception, where: str) -> None:
        known = isinstance(error, CheckpointError)
        trouble = CheckpointError(
            error.message
            if isinstance(error, CheckpointError)
            else "The run folder cannot be written"
            + (": the disk is full." if getattr(error, "errno", None) == 28 else "."),
            why=(error.why if isinstance(error, CheckpointError) else f"{error}")
            + (f" It began at {where}." if where else ""),
            fix=error.fix
            if isinstance(error, CheckpointError)
            else f"Make room in {self.folder.path}; training goes on and what waits is written "
            "then. Earlier checkpoints are kept.",
        )
        trouble.__cause__ = error
        first = self.trouble is None
        if first or known:
            self.trouble = trouble
        if first:
            log.warning("%s", trouble)
            self._on_trouble(trouble)


def config_as_data(config: TrainingConfig) -> dict[str, Any]:
    """A config as JSON; functions are named, ``{"given": name}``."""
    found: dict[str, Any] = {}
    for field in fields(config):
        value = getattr(config, field.name)
        if callable(value):
            value = {"given": getattr(value, "__qualname__", type(value).__name__)}
        found[field.name] = value
    return found
