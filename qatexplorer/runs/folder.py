"""The folder of a run: who it is, where it stands, who holds it, and what is requested of it."""

from __future__ import annotations

import datetime
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from qatexplorer._version import __version__
from qatexplorer.errors import BusyError, QatExplorerError, RunFolderError
from qatexplorer.runs.files import Lock, is_held, read_json, write_json

FORMAT = 2
ABOUT, STATUS, REQUEST, LOCK, CHECKPOINTS = (
    "run.json",
    "status.json",
    "request.json",
    "lock",
    "checkpoints",
)
STATUS_EVERY_S = 2.0
Request = Literal["run", "pause", "stop"]
Kind = Literal["session", "watch"]
"""Who wrote the folder: a training run of ours, or a watch inside a loop of the user's."""


class RunFolder:
    """A run folder that this process writes to; it is locked until :meth:`close`."""

    def __init__(self, path: Path, lock: Lock, about: dict[str, Any]) -> None:
        self.path, self.about = path, about
        self._lock = lock
        self._reported = 0.0

    @classmethod
    def create(
        cls, path: str | os.PathLike[str], about: Mapping[str, Any], kind: Kind = "session"
    ) -> RunFolder:
        """A new run at ``path``. Raises RunFolderError if there is one, or nothing can be
        written there."""
        folder = Path(path).expanduser().absolute()
        if (folder / ABOUT).exists():
            raise RunFolderError(
                f"{folder} holds a run already.",
                fix=(
                    "Go on with it by session.resume(path), or choose a new run_dir."
                    if kind == "session"
                    else "Give each watch a folder of its own."
                ),
            )
        lock = _locked(folder)
        made = {
            "format": FORMAT,
            "kind": kind,
            "qatexplorer": __version__,
            "torch": str(torch.__version__),
            "created": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            **about,
        }
        try:
            write_json(folder / ABOUT, made)
        except (OSError, TypeError) as error:
            lock.release()
            raise _unusable(folder, error) from error
        return cls(folder, lock, made)

    @classmethod
    def reopen(cls, path: str | os.PathLike[str]) -> RunFolder:
        """Take over a run that no process holds. Raises RunFolderError and BusyError."""
        folder = Path(path).expanduser().absolute()
        about = read_about(folder)
        return cls(folder, _locked(folder), about)

    def note(self, **changes: Any) -> None:
        """Change what run.json says. Raises RunFolderError."""
        self.about.update(changes)
        try:
            write_json(self.path / ABOUT, self.about)
        except (OSError, TypeError) as error:
            raise _unusable(self.path, error) from error

    def report(self, status: Mapping[str, Any], *, now: bool = True) -> None:
        """Write where the run stands; with ``now`` False at most every two seconds.

        Raises OSError.
        """
        if now or time.monotonic() - self._reported > STATUS_EVERY_S:
            self._reported = time.monotonic()
            me = {"pid": os.getpid(), "host": socket.gethostname(), "at": time.time()}
            write_json(self.path / STATUS, {**status, **me}, durable=False)

    def request(self) -> Request | None:
        """What another process requests of this run, once."""
        path = self.path / REQUEST
        if not path.exists():
            return None
        found = (read_json(path) or {}).get("request")
        path.unlink(missing_ok=True)
        return found if found in ("run", "pause", "stop") else None

    def close(self) -> None:
        self._lock.release()

    def discard(self) -> None:
        """The run never came to be: the folder may be used for another one."""
        (self.path / ABOUT).unlink(missing_ok=True)


def read_about(folder: Path) -> dict[str, Any]:
    """What run.json says. Raises RunFolderError if there is no run of a known format."""
    about = read_json(folder / ABOUT)
    if not isinstance(about, dict):
        raise RunFolderError(
            f"{folder} holds no run.",
            why="There is no readable run.json in it.",
            fix="Pass the folder that was given as run_dir= (or to watch as folder=).",
        )
    if about.get("format") != FORMAT or about.get("kind") not in ("session", "watch"):
        raise RunFolderError(
            f"{folder} holds a run in format {about.get('format')!r}; this release of qatexplorer "
            f"reads format {FORMAT} only.",
            why="Its samples are laid out in another way, and would show as an empty run.",
            fix="Open it with the release that wrote it. Its .jsonl files are JSON lines, which "
            "pandas.read_json(path, lines=True) reads.",
        )
    return about


def request(folder: Path, what: Request) -> None:
    """Request something of the process that holds the run; it looks about twice a second.

    Raises RunFolderError if no process holds it.
    """
    if not is_held(folder / LOCK):
        raise RunFolderError(
            f"No process is training in {folder}.", fix="Go on with session.resume(path)."
        )
    write_json(folder / REQUEST, {"request": what}, durable=False)


def error_as_data(error: QatExplorerError | None) -> dict[str, Any] | None:
    """An error as JSON."""
    if error is None:
        return None
    names = ("message", "where", "why", "fix")
    return {"type": type(error).__name__, **{name: getattr(error, name) for name in names}}


def _locked(folder: Path) -> Lock:
    lock = Lock(folder / LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if lock.acquire():
            return lock
    except OSError as error:
        raise _unusable(folder, error) from error
    status = read_json(folder / STATUS) or {}
    raise BusyError(
        f"A run is going on in {folder}"
        + (f" (process {status['pid']} on {status['host']})." if "pid" in status else "."),
        fix="Stop it there, or from here: open_run(path).request('stop'); then resume.",
    )


def _unusable(folder: Path, error: Exception) -> RunFolderError:
    return RunFolderError(
        f"The run cannot be kept in {folder}.",
        why=f"{type(error).__name__}: {error}",
        fix="Choose another folder that you may write to, or free space there.",
    )
