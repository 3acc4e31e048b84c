"""Checkpoints on disk: a folder each with ``tensors.safetensors`` and ``state.json``."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from qatexplorer.errors import CheckpointError
from qatexplorer.runs.files import fsync, read_json, write_json

TENSORS, STATE, BEST = "tensors.safetensors", "state.json", "best.json"
_NAME = re.compile(r"^(\d{6})-step-(\d+)$")


@dataclass(frozen=True, slots=True)
class Position:
    """Where a run stands: ``step`` steps done, ``batch`` of them in ``epoch``.

    ``trained`` says that the epoch has no batch left and is to be evaluated next.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    trained: bool = False


@dataclass(frozen=True, slots=True)
class CheckpointInfo:
    """A checkpoint in a run folder. ``bytes`` on disk, ``saved_at`` in seconds since 1970,
    ``metric`` of the evaluation that followed, None if there was none."""

    path: Path
    position: Position
    reason: str
    bytes: int
    saved_at: float
    metric: float | None = None
    best: bool = False


class CheckpointStore:
    """The checkpoints of one run: the newest ``keep`` of them and the best one."""

    def __init__(self, folder: Path, keep: int = 3) -> None:
        self._folder, self._keep = folder, keep
        self._serial = max((serial for serial, _ in _listed(folder)), default=0)

    def save(
        self, position: Position, reason: str, tree: Mapping[str, Any], tensors: dict[str, Tensor]
    ) -> Path:
        """Write a checkpoint whole or not at all, then drop the oldest.

        Raises CheckpointError (a full disk, no permission); earlier checkpoints then stay.
        """
        self._serial += 1
        name = f"{self._serial:06}-step-{position.step}"
        part, done = self._folder / f".part-{name}", self._folder / name
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            _write_tensors(part / TENSORS, tensors)
            head = {
                "position": asdict(position),
                "reason": reason,
                "saved_at": time.time(),
                "tensor_bytes": (part / TENSORS).stat().st_size,
            }
            write_json(part / STATE, {**head, "tree": tree})
            os.replace(part, done)
            fsync(self._folder)
        except Exception as error:
            shutil.rmtree(part, ignore_errors=True)
            if isinstance(error, CheckpointError):
                raise
            raise _cannot_write(self._folder, error) from error
        self._prune()
        return done

    def note_metric(self, path: Path, value: float, mode: str) -> None:
        """The evaluation after checkpoint ``path`` gave ``value``: remember the best. Raises
        CheckpointError."""
        best = read_json(self._folder / BEST) or {}
        before = best.get("metric")
        better = before is None or (value > before if mode == "max" else value < before)
        if better and value == value:
            try:
                write_json(self._folder / BEST, {"name": path.name, "metric": value})
            except OSError as error:
                raise _cannot_write(self._folder, error) from error
            self._prune()

    def _prune(self) -> None:
        best = (read_json(self._folder / BEST) or {}).get("name")
        for _, path in _listed(self._folder)[: -self._keep]:
            if path.name != best:
                _remove(path)

    def tidy(self) -> None:
        """Remove what a killed process left half written or half removed."""
        for path in self._folder.glob(".*-step-*"):
            shutil.rmtree(path, ignore_errors=True)


def list_checkpoints(folder: Path) -> tuple[CheckpointInfo, ...]:
    """The whole checkpoints in ``folder``, oldest first."""
    best = read_json(folder / BEST) or {}
    found = []
    for _, path in _listed(folder):
        head = read_json(path / STATE)
        tensors = path / TENSORS
        try:
            if tensors.stat().st_size != head["tensor_bytes"]:
                continue
            is_best = path.name == best.get("name")
            found.append(
                CheckpointInfo(
                    path,
                    Position(**head["position"]),
                    str(head["reason"]),
                    tensors.stat().st_size + (path / STATE).stat().st_size,
                    float(head["saved_at"]),
                    best.get("metric") if is_best else None,
                    is_best,
                )
            )
        except (OSError, KeyError, TypeError):
            continue
    return tuple(found)


def read_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The tree and the tensors of a checkpoint. Raises CheckpointError if it cannot be read."""
    try:
        head = json.loads((path / STATE).read_text(encoding="utf-8"))
        # Copies: the file is mapped into memory and may be removed while the tensors live.
        tensors = {name: t.clone() for name, t in load_file(path / TENSORS).items()}
        return head["tree"], tensors
    except Exception as error:
        raise CheckpointError(
            f"The checkpoint {path.name} cannot be read.",
            why=f"{type(error).__name__}: {error}",
            fix="Take an earlier one: open_run(path).checkpoints lists them, and "
            "session.resume(path, checkpoint=…) goes on from it.",
        ) from error


def _write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    save_file(tensors, path)
    fsync(path)


def _listed(folder: Path) -> list[tuple[int, Path]]:
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    matches = [m for m in map(_NAME.match, names) if m]
    return sorted((int(m[1]), folder / m[0]) for m in matches)


def _remove(path: Path) -> None:
    # Renamed first, so that no reader takes what is half removed for a checkpoint.
    gone = path.with_name(f".gone-{path.name}")
    try:
        os.replace(path, gone)
    except OSError:
        return
    shutil.rmtree(gone, ignore_errors=True)


def _cannot_write(folder: Path, error: Exception) -> CheckpointError:
    text = str(error)
    full = "No space left" in text or "os error 28" in text
    return CheckpointError(
        "A checkpoint could not be written" + (": the disk is full." if full else "."),
        why=f"{type(error).__name__}: {text}",
        fix=f"Make room in {folder}; training goes on and the next checkpoint is tried again. "
        "Earlier checkpoints are kept.",
    )
