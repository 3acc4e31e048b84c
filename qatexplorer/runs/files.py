"""Files that are whole or not there, and a lock that a killed process does not keep."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_held: set[Path] = set()


def fsync(path: Path) -> None:
    """Have the disk hold the file, or the names in the folder, at ``path``."""
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, value: Any, *, durable: bool = True) -> None:
    """Replace the file at ``path``: a reader sees the old or the new content, never a part.

    ``durable`` also holds for a power cut. Raises OSError; the old file then stays.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with open(part, "w", encoding="utf-8") as file:
            json.dump(value, file, indent=1)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    if durable:
        fsync(path.parent)


def read_json(path: Path) -> Any:
    """The content of a JSON file, None if there is none or it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


class Lock:
    """Held by one process at a time, and by none once that process has died.

    A record lock: not inherited by forked data loader workers, which may outlive a killed parent.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.resolve()
        self._file: int | None = None

    def acquire(self) -> bool:
        """False if another holds it, in this process or in another one."""
        if self._path in _held:
            return False
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        if not _lock(handle):
            os.close(handle)
            return False
        self._file = handle
        _held.add(self._path)
        return True

    def release(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
            _held.discard(self._path)

    def __del__(self) -> None:
        # A run that was made and never started.
        self.release()


def is_held(path: Path) -> bool:
    """Whether a living process holds the lock at ``path``."""
    path = path.resolve()
    # Looking at one's own lock file would release it: closing any handle does.
    if path in _held:
        return True
    try:
        handle = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        return not _lock(handle)
    finally:
        os.close(handle)


def _lock(handle: int) -> bool:
    try:
        if fcntl is not None:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            import msvcrt

            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
    except OSError:
        return False
    return True
