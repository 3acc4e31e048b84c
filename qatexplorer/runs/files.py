"""Files that are whole or not there, files that only grow, and a lock that a killed process does
not keep."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

MAX_WAITING = 20_000

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


class Appender:
    """Whole lines at the end of a file. Lines that a full disk refuses wait for the next time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting: list[str] = []
        self._file: int | None = None
        self._torn = _ends_torn(path)
        self._unsynced = False

    def add(self, line: str) -> None:
        self._waiting.append(line)
        if len(self._waiting) > MAX_WAITING:
            del self._waiting[: MAX_WAITING // 2 : 2]

    def flush(self) -> None:
        """Hand the lines to the operating system: a killed process loses none of them.

        Raises OSError.
        """
        if not self._waiting:
            return
        text = ("\n" if self._torn else "") + "\n".join(self._waiting) + "\n"
        if self._file is None:
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        data = text.encode()
        written = os.write(self._file, data)
        if written < len(data):
            self._torn = True
            raise OSError(28, "No space left on device", str(self._path))
        self._torn, self._unsynced = False, True
        self._waiting.clear()

    def sync(self) -> None:
        """Have the disk hold the lines, too. Raises OSError."""
        self.flush()
        if self._file is not None and self._unsynced:
            os.fsync(self._file)
            self._unsynced = False

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


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


def _ends_torn(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            file.seek(0, os.SEEK_END)
            if not file.tell():
                return False
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
    except OSError:
        return False
