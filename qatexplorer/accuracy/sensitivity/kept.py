"""What of a sensitivity has been measured, batch by batch, so that it can go on later."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qatexplorer.errors import RunFolderError
from qatexplorer.runs.files import read_json, write_json

FORMAT = 1
Pair = tuple[float, float | None]
"""Metric and loss, or noise and signal."""


@dataclass
class BatchResult:
    """What one batch gave: ``values`` by what was measured; ``order`` is the index of the first
    call of each fake quant that runs, by path; ``forwards`` is what it cost."""

    digest: str
    samples: int
    values: dict[str, Pair] = field(default_factory=dict)
    order: dict[str, int] = field(default_factory=dict)
    complete: bool = False
    forwards: float = 0.0


@dataclass
class Kept:
    """All that has been measured of one model with one method.

    Attributes:
        key: what it is of: the model's fingerprint, method, metric and loss.
        seconds: spent on it so far. notes: what is not as one would think.
    """

    key: dict[str, str]
    batches: list[BatchResult] = field(default_factory=list)
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)

    def batch(self, index: int, digest: str, samples: int) -> BatchResult:
        """That of batch ``index``; a new one where another batch stood there when it was kept."""
        while len(self.batches) <= index:
            self.batches.append(BatchResult(digest, samples))
        if self.batches[index].digest != digest:
            self.batches[index] = BatchResult(digest, samples)
        return self.batches[index]

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def to_json(self) -> dict[str, Any]:
        batches = [vars(batch) for batch in self.batches]
        return {"format": FORMAT, **vars(self), "batches": batches}

    @classmethod
    def from_json(cls, found: Any) -> Kept:
        """Raises KeyError, TypeError or ValueError for what it did not write."""
        if found["format"] != FORMAT:
            raise ValueError(f"its format is {found['format']!r}")
        batches = [
            BatchResult(
                str(one["digest"]),
                int(one["samples"]),
                {str(k): (float(a), None if b is None else float(b))
                 for k, (a, b) in one["values"].items()},
                {str(path): int(index) for path, index in one["order"].items()},
                bool(one["complete"]),
                float(one["forwards"]),
            )
            for one in found["batches"]
        ]  # fmt: skip
        key = {str(k): str(v) for k, v in found["key"].items()}
        return cls(key, batches, float(found["seconds"]), [str(n) for n in found["notes"]])


class Folder:
    """A folder in which what has been measured with one method stands as JSON."""

    def __init__(self, folder: str | os.PathLike[str], method: str) -> None:
        self.path = Path(folder) / f"sensitivity-{method}.json"

    def read(self, key: dict[str, str]) -> Kept | None:
        """What stands there, None if nothing does.

        Raises RunFolderError if it cannot be understood, or is of something else than ``key``.
        """
        if not self.path.exists():
            return None
        try:
            kept = Kept.from_json(read_json(self.path))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RunFolderError(
                f"{self.path} holds no sensitivity that could be gone on with.",
                why=f"{type(error).__name__}: {error}",
                fix="Choose another folder, or delete that file.",
            ) from error
        if kept.key != key:
            other = [name for name in key if kept.key.get(name) != key[name]]
            raise RunFolderError(
                f"{self.path} holds the sensitivity of something else.",
                why=f"It was measured with another {' and '.join(other)}.",
                fix="Choose another folder, or delete that file.",
            )
        return kept

    def write(self, kept: Kept) -> None:
        """Raises RunFolderError if the disk refuses; what stood there stays."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.path, kept.to_json())
        except OSError as error:
            raise RunFolderError(
                f"the sensitivity cannot be kept in {self.path.parent}.",
                why=f"{type(error).__name__}: {error}",
                fix="Choose a folder that can be written to.",
            ) from error
