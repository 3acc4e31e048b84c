"""A run folder opened again: curves, checkpoints, and a way to go on."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from torch.nn import Module

from qatexplorer.errors import InputError, RunFolderError
from qatexplorer.runs.checkpoint import (
    CheckpointInfo,
    Position,
    list_checkpoints,
    read_checkpoint,
)
from qatexplorer.runs.config import TrainingConfig
from qatexplorer.runs.files import is_held, read_json
from qatexplorer.runs.folder import ABOUT, CHECKPOINTS, LOCK, STATUS, Wish, ask, read_about
from qatexplorer.runs.journal import read_history
from qatexplorer.runs.model_state import load_model
from qatexplorer.runs.records import History
from qatexplorer.runs.run_writer import Saved

OpenState = Literal["running", "paused", "interrupted", "stopped", "finished", "failed"]


@dataclass(frozen=True)
class OpenedRun:
    """A run as its folder tells it, at the moment of opening. See :func:`open_run`.

    Attributes:
        path: the run folder.
        state: ``"running"`` or ``"paused"`` in a living process; ``"interrupted"`` if that process
            died; else how the run ended.
        about: run.json: versions, settings, what the session was set to.
        history: curves, markers and samples of fake quants, histograms among them.
        checkpoints: whole checkpoints, oldest first.
        status: the last word of the run: step, epoch, process, error.
    """

    path: Path
    state: OpenState
    about: dict[str, Any]
    history: History
    checkpoints: tuple[CheckpointInfo, ...]
    status: dict[str, Any]

    @property
    def last_checkpoint(self) -> CheckpointInfo | None:
        """The newest checkpoint, None before the first."""
        return self.checkpoints[-1] if self.checkpoints else None

    @property
    def best_checkpoint(self) -> CheckpointInfo | None:
        """The one with the best metric, None before the first evaluation."""
        return next((info for info in self.checkpoints if info.best), None)

    def ask(self, wish: Wish) -> None:
        """Ask the process that trains for ``"pause"``, ``"run"`` or ``"stop"``; it looks about
        twice a second. Raises RunFolderError if there is none."""
        ask(self.path, wish)

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
        info = checkpoint or self.last_checkpoint
        if info is None:
            raise RunFolderError(
                f"The run in {self.path} has no checkpoint yet.",
                why="It ended before its first one; the curves are all that there is.",
                remedy="Train again, with a smaller checkpoint_every= if epochs are long.",
            )
        tree, tensors = read_checkpoint(info.path)
        history = open_history(self.path, self.about)
        history.go_back(info.position.step, info.position.epoch)
        return Saved(info.position, tree, tensors, history)

    def config(self, **changes: Any) -> TrainingConfig:
        """The settings of the run, with some changed.

        Raises InputError if the run had a function of the user's (an optimizer, a scheduler),
        which is not kept on disk, and ``changes`` does not bring it.
        """
        names = {field.name for field in fields(TrainingConfig)}
        unknown = sorted(changes.keys() - names)
        if unknown:
            raise InputError(
                f"There is no setting {unknown[0]!r}.",
                remedy="Settings are the fields of qatexplorer.TrainingConfig.",
            )
        known = {k: v for k, v in self.about.get("config", {}).items() if k in names}
        for name, value in known.items():
            if isinstance(value, dict) and "given" in value and name not in changes:
                raise InputError(
                    f"The run was made with {name}={value['given']}, a function of yours.",
                    why="Functions are not kept on disk: reading one back would run code.",
                    remedy=f"Pass it again: {name}=….",
                )
            known[name] = tuple(value) if isinstance(value, list) else value
        return TrainingConfig(**{**known, **changes})


def open_run(path: str | os.PathLike[str]) -> OpenedRun:
    """Open the run that was kept in folder ``path``; nothing is changed and no code is run.

    Works while the run goes on in another process, and after that process was killed. Raises
    RunFolderError if there is no run.
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
    """The curves of a run folder."""
    return read_history(folder, str(about.get("metric", "metric")), about.get("baseline"))


@dataclass(frozen=True, slots=True)
class RunLine:
    """One run in a list: cheap to read, without curves."""

    path: Path
    state: OpenState
    created: str
    model: str
    step: int
    epoch: int
    epochs: int
    loss: float | None
    checkpoints: int


def list_runs(root: str | os.PathLike[str]) -> tuple[RunLine, ...]:
    """The runs kept in the folders directly below ``root``, newest first."""
    found = []
    base = Path(root).expanduser().absolute()
    for folder in base.iterdir() if base.is_dir() else ():
        about = read_json(folder / ABOUT)
        if not isinstance(about, dict):
            continue
        status = read_json(folder / STATUS) or {}
        config = about.get("config", {})
        kept = list_checkpoints(folder / CHECKPOINTS)
        # A killed process has not left word of its last steps.
        last = kept[-1].position if kept else Position()
        found.append(
            RunLine(
                folder,
                _state(folder, status),
                str(about.get("created", "")),
                str(about.get("model", "")),
                max(int(status.get("step", 0)), last.step),
                max(int(status.get("epoch", 0)), last.epoch),
                int(config.get("epochs", 0)),
                status.get("loss"),
                len(kept),
            )
        )
    return tuple(sorted(found, key=lambda line: (line.created, line.path.name), reverse=True))


def _state(folder: Path, status: dict[str, Any]) -> OpenState:
    told = status.get("state", "ready")
    if is_held(folder / LOCK):
        return "paused" if told == "paused" else "running"
    return told if told in ("stopped", "finished", "failed") else "interrupted"
