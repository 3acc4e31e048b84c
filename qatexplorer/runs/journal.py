"""The curves of a run, appended to its folder as they grow: JSON lines, readable by pandas."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import Any

from qatexplorer.runs.files import Appender
from qatexplorer.runs.records import EpochRecord, History, Marker, Record, StepRecord

CURVES = "curves.jsonl"
FLUSH_S = 0.25

_NAMES: dict[type, str] = {StepRecord: "step", EpochRecord: "epoch", Marker: "marker"}


class Journal:
    """The sink of a :class:`History`. Never raises: ``failed`` is called with what went wrong."""

    def __init__(self, folder: Path, failed: Callable[[OSError], Any]) -> None:
        self._curves = Appender(folder / CURVES)
        self._failed = failed
        self._flushed = 0.0

    def record(self, record: Record) -> None:
        """Append ``record``."""
        values = {f.name: getattr(record, f.name) for f in fields(record)}
        self._curves.add(_dumps({"t": _NAMES[type(record)], **values}))
        if time.monotonic() - self._flushed > FLUSH_S:
            self.flush()

    def went_back(self, step: int, epoch: int) -> None:
        """What was appended after ``step`` steps is void: the run goes on from there."""
        self._curves.add(json.dumps({"t": "back", "step": step, "epoch": epoch}))
        self.flush()

    def flush(self, *, durable: bool = False) -> None:
        """Write what waits."""
        self._flushed = time.monotonic()
        try:
            self._curves.sync() if durable else self._curves.flush()
        except OSError as error:
            self._failed(error)

    def close(self) -> None:
        self.flush(durable=True)
        self._curves.close()


def read_history(folder: Path, metric_name: str, baseline: float | None) -> History:
    """The curves of the run in ``folder``. Lines that a crash has torn are left out."""
    history = History(metric_name, baseline)
    for row in _rows(folder / CURVES):
        kind = row.pop("t", None)
        with suppress(TypeError, KeyError):
            if kind == "step":
                history.add_step(StepRecord(**row))
            elif kind == "epoch":
                history.add_epoch(EpochRecord(**row))
            elif kind == "marker":
                history.add_marker(Marker(**row))
            elif kind == "back":
                history.go_back(row["step"], row["epoch"])
    return history


def _lines(path: Path) -> Iterator[str]:
    if path.is_file():
        with open(path, encoding="utf-8", errors="replace") as file:
            yield from file


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    lines = _lines(path)
    while block := list(islice(lines, 500)):
        yield from (row for row in _parsed(block) if isinstance(row, dict))


def _parsed(lines: list[str]) -> list[Any]:
    try:
        # One call for many lines takes half the time of a call for each.
        found: list[Any] = json.loads(f"[{','.join(lines)}]")
        return found
    except ValueError:
        pass
    rows = []
    for line in lines:
        with suppress(ValueError):
            rows.append(json.loads(line))
    return rows


def _dumps(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
