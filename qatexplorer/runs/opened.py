"""A run folder opened again: curves, samples, checkpoints, and a way to go on."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from torch.nn import Module

from qatexplorer.errors import InputError, RunFolderError
from qatexplorer.reports import write_report
from qatexplorer.runs.checkpoint import (
    CheckpointInfo,
    Position,
    list_checkpoints,
    read_checkpoint,
)
from qatexplorer.runs.config import TrainingConfig
from qatexplorer.runs.files import is_held, read_json
from qatexplorer.runs.folder import (
    ABOUT,
    CHECKPOINTS,
    FORMAT,
    LOCK,
    STATUS,
    Kind,
    Request,
    read_about,
    request,
)
from qatexplorer.runs.journal import read_history
from qatexplorer.runs.model_state import load_model
from qatexplorer.runs.records import History, history_lines
from qatexplorer.runs.run_writer import Saved
from qatexplorer.runs.sample_files import read_telemetry
from qatexplorer.runs.store import Telemetry, telemetry_lines
from qatexplorer.shown import Shown, at_most, columns, first
from qatexplorer.tables import table

MAX_SHOWN = 18
FEW = 4
OpenState = Literal["running", "paused", "interrupted", "stopped", "finished", "failed"]


@dataclass(frozen=True, repr=False)
class OpenedRun(Shown):
    """A run as its folder has it, at the moment of opening. See :func:`open_run`.

    Attributes:
        path: the run folder.
        state: ``"running"`` or ``"paused"`` in a living process; ``"interrupted"`` if that process
            died; else how the run ended.
        about: run.json: versions, settings, what the session was set to.
        history: curves and markers; those of a watch are empty, the loop is the user's.
        checkpoints: whole checkpoints, oldest first.
        status: what the run wrote of itself last: step, epoch, process, error.
    """

    path: Path
    state: OpenState
    about: dict[str, Any]
    history: History
    checkpoints: tuple[CheckpointInfo, ...]
    status: dict[str, Any]

    @property
    def kind(self) -> Kind:
        """``"session"`` for a training run of a session, ``"watch"`` for ``qatexplorer.watch``."""
        kind: Kind = self.about["kind"]
        return kind

    @property
    def telemetry(self) -> Telemetry | None:
        """Samples of the fake quants, histograms and states among them; None if there are none.
        They are read from the folder when they are asked for."""
        return self.history.telemetry

    @property
    def last_checkpoint(self) -> CheckpointInfo | None:
        """The newest checkpoint, None before the first."""
        return self.checkpoints[-1] if self.checkpoints else None

    @property
    def best_checkpoint(self) -> CheckpointInfo | None:
        """The one with the best metric, None before the first evaluation."""
        return next((info for info in self.checkpoints if info.best), None)

    def request(self, what: Request) -> None:
        """Request ``"pause"``, ``"run"`` or ``"stop"`` of the process that trains; it looks about
        twice a second. Raises RunFolderError if there is none, or the loop is the user's."""
        self._require_session("cannot be paused or stopped from here")
        request(self.path, what)

    def load_model(self, model: Module, checkpoint: CheckpointInfo | None = None) -> Module:
        """Put a checkpoint (default the last) into a prepared ``model``, in place; returns it.

        Raises CheckpointError if it does not fit or cannot be read.
        """
        saved = self.read(checkpoint)
        load_model(model, saved.tree["model"], saved.tensors)
        return model

    def read(self, checkpoint: CheckpointInfo | None = None) -> Saved:
        """A checkpoint (default the last) and the curves up to it. Raises CheckpointError, and
        RunFolderError if there is none."""
        self._require_session("has no checkpoints")
        info = checkpoint or self.last_checkpoint
        if info is None:
            going_on = self.state in ("running", "paused")
            raise RunFolderError(
                f"The run in {self.path} has no checkpoint yet.",
                why="It is still going on."
                if going_on
                else "It ended before its first one; the curves are all that there is.",
                fix="Wait for its first checkpoint and try again."
                if going_on
                else "Train again with another run_dir=, and with checkpoint_every= (in steps) if "
                "epochs are long.",
            )
        tree, tensors = read_checkpoint(info.path)
        history = open_history(self.path, self.about)
        history.go_back(info.position.step, info.position.epoch)
        return Saved(info.position, tree, tensors, history)

    def config(self, **changes: Any) -> TrainingConfig:
        """The settings of the run, with some changed.

        Raises RunFolderError for a watch, which has none, and InputError if the run had a function
        of the user's (an optimizer, a scheduler), which is not kept on disk, and ``changes`` does
        not bring it.
        """
        self._require_session("has no settings of ours")
        names = {field.name for field in fields(TrainingConfig)}
        unknown = sorted(changes.keys() - names)
        if unknown:
            raise InputError(
                f"There is no setting {unknown[0]!r}.",
                fix="Settings are the fields of qatexplorer.TrainingConfig.",
            )
        known = {k: v for k, v in self.about.get("config", {}).items() if k in names}
        for name, value in known.items():
            if isinstance(value, dict) and "given" in value and name not in changes:
                raise InputError(
                    f"The run was made with {name}={value['given']}, a function of yours.",
                    why="Functions are not kept on disk: reading one back would run code.",
                    fix=f"Pass it again: {name}=….",
                )
            known[name] = tuple(value) if isinstance(value, list) else value
        return TrainingConfig(**{**known, **changes})

    def report(
        self, path: str | os.PathLike[str] = "report.html", *, overwrite: bool = False
    ) -> Path:
        """Write what is kept of the run to one HTML file that needs no network and no script:
        curves, samples of the fake quants, checkpoints, settings. The model is not needed.

        Returns its absolute path. Raises ReportError if the file is there already (without
        ``overwrite``) or cannot be written; what was there before stays.
        """
        return write_report(self, path, overwrite)

    def _require_session(self, lack: str) -> None:
        if self.kind != "session":
            raise RunFolderError(
                f"The run in {self.path} {lack}.",
                why="qatexplorer.watch wrote it inside a training loop that is not ours.",
                fix="open_run(path).telemetry holds what was seen of the fake quants.",
            )

    def __repr__(self) -> str:
        about, last = self.about, self.last_checkpoint
        words = "run of a session" if self.kind == "session" else "run of watch"
        lines = [
            f"OpenedRun of {about.get('model', 'a model')}: {words}, {self.state}",
            f"kept in {self.path}",
        ]
        if self.kind == "session":
            lines += history_lines(self.history, FEW)
        if last is not None:
            metric = self.best_checkpoint.metric if self.best_checkpoint is not None else None
            best = f", best metric {metric:.4g}" if metric is not None else ""
            count = len(self.checkpoints)
            lines.append(f"{count} checkpoints, the last at step {last.position.step:,}{best}")
        error = self.status.get("error")
        if error:
            lines.append(f"error: {error.get('message', '')}")
        if self.telemetry is not None:
            lines += telemetry_lines(self.telemetry, FEW)
        return at_most(lines)


def open_run(path: str | os.PathLike[str]) -> OpenedRun:
    """Open the run that a session or a watch kept in folder ``path`` (``.kind`` says which).

    Nothing is changed and no code is run. Works while the run goes on in another process, and
    after that process was killed. Raises RunFolderError if there is no run, or one in a format
    that this release does not read.
    """
    folder = Path(path).expanduser().absolute()
    about = read_about(folder)
    status = read_json(folder / STATUS) or {}
    return OpenedRun(
        folder,
        _state(folder, status),
        about,
        open_history(folder, about),
        list_checkpoints(folder / CHECKPOINTS),
        status,
    )


def open_history(folder: Path, about: dict[str, Any]) -> History:
    """The curves and samples of a run folder. Raises RunFolderError."""
    history = read_history(folder, str(about.get("metric", "metric")), about.get("baseline"))
    history.telemetry = read_telemetry(folder, about)
    return history


@dataclass(frozen=True, slots=True)
class RunLine:
    """One run in a list: cheap to read, without curves. ``kind`` is None, and ``state``
    ``"unreadable"``, for a run in a format that :func:`open_run` does not read."""

    path: Path
    kind: Kind | None
    state: OpenState | Literal["unreadable"]
    created: str
    model: str
    step: int
    epoch: int
    epochs: int
    loss: float | None
    checkpoints: int


class RunList(Shown, tuple[RunLine, ...]):
    """What :func:`list_runs` has found, newest first: a tuple that prints as a table."""

    def __repr__(self) -> str:
        if not self:
            return "no runs"
        shown, more = first(self, MAX_SHOWN)
        rows = [("run", "kind", "state", "step", "model")]
        rows += [(r.path.name, r.kind or "–", r.state, f"{r.step:,}", r.model) for r in shown]
        return at_most([*columns(rows, right=(3,)), *more])

    def to_pandas(self) -> Any:
        """A ``pandas.DataFrame`` with a row per run, columns as the fields of :class:`RunLine`.

        Raises InputError if pandas is not installed.
        """
        return table(RunLine, self)


def list_runs(root: str | os.PathLike[str]) -> RunList:
    """The runs kept in the folders directly below ``root``, newest first."""
    base = Path(root).expanduser().absolute()
    found = [_line(folder) for folder in (base.iterdir() if base.is_dir() else ())]
    known: Iterable[RunLine] = (line for line in found if line is not None)
    return RunList(sorted(known, key=lambda line: (line.created, line.path.name), reverse=True))


def _line(folder: Path) -> RunLine | None:
    about = read_json(folder / ABOUT)
    if not isinstance(about, dict):
        return None
    status = read_json(folder / STATUS) or {}
    kept = list_checkpoints(folder / CHECKPOINTS)
    # A killed process has not written where its last steps were.
    last = kept[-1].position if kept else Position()
    kind = about.get("kind") if about.get("format") == FORMAT else None
    return RunLine(
        folder,
        kind,
        _state(folder, status) if kind is not None else "unreadable",
        str(about.get("created", "")),
        str(about.get("model", "")),
        max(int(status.get("step", 0)), last.step),
        max(int(status.get("epoch", 0)), last.epoch),
        int(about.get("config", {}).get("epochs", 0)),
        status.get("loss"),
        len(kept),
    )


def _state(folder: Path, status: dict[str, Any]) -> OpenState:
    state = status.get("state", "ready")
    if is_held(folder / LOCK):
        return "paused" if state == "paused" else "running"
    return state if state in ("stopped", "finished", "failed") else "interrupted"
