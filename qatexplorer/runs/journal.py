"""What a run records, appended to its folder as it happens: JSON lines, readable by pandas."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, fields
from itertools import islice
from pathlib import Path
from typing import Any

from qatexplorer.forward.histograms import GridHistogram
from qatexplorer.runs.records import (
    EpochRecord,
    History,
    Marker,
    Record,
    SiteSample,
    StepRecord,
)

CURVES, SAMPLES = "curves.jsonl", "samples.jsonl"
FLUSH_S = 0.25
SAMPLES_EVERY_S = 1.0
SAMPLES_BYTES = 16 << 20
MAX_WAITING = 20_000

_HISTOGRAM = ',"histogram":'
_NAMES: dict[type, str] = {
    StepRecord: "step",
    EpochRecord: "epoch",
    Marker: "marker",
    SiteSample: "sample",
}


class Appender:
    """Whole lines at the end of a file. Lines that a full disk refuses wait for the next time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting: list[str] = []
        self._file: int | None = None
        self._torn = _ends_torn(path)
        self.bytes = 0

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
        self._torn = False
        self.bytes += written
        self._waiting.clear()

    def sync(self) -> None:
        self.flush()
        if self._file is not None:
            os.fsync(self._file)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


class Journal:
    """The sink of a :class:`History`. Never raises: ``failed`` is called with what went wrong."""

    def __init__(self, folder: Path, failed: Callable[[OSError], Any]) -> None:
        self._curves, self._samples = Appender(folder / CURVES), Appender(folder / SAMPLES)
        self._failed = failed
        self._flushed = 0.0
        self._sampled, self._interval, self._budget = -1e9, SAMPLES_EVERY_S, SAMPLES_BYTES
        self._sampled_step = -1
        self._held: dict[str, SiteSample] = {}

    def record(self, record: Record) -> None:
        """Append ``record``; samples of fake quants are thinned by time, others all written."""
        if isinstance(record, SiteSample):
            self._sample(record)
        else:
            self._curves.add(to_line(record))
            if time.monotonic() - self._flushed > FLUSH_S:
                self.flush()

    def went_back(self, step: int, epoch: int) -> None:
        """What was appended after ``step`` steps is void: the run goes on from there."""
        line = json.dumps({"t": "back", "step": step, "epoch": epoch})
        self._curves.add(line)
        self._samples.add(line)
        self.flush()

    def _sample(self, sample: SiteSample) -> None:
        # All sites of a step or none: they are compared with each other.
        now = time.monotonic()
        if sample.step != self._sampled_step and now - self._sampled < self._interval:
            self._held[sample.path] = sample
            return
        self._sampled_step, self._sampled = sample.step, now
        self._held.pop(sample.path, None)
        self._samples.add(to_line(sample))
        if self._samples.bytes > self._budget:
            # A run of any length stays readable: each further 16 MiB take twice as long.
            self._budget += SAMPLES_BYTES
            self._interval *= 2

    def flush(self, *, newest: bool = False, durable: bool = False) -> None:
        """Write what waits; with ``newest`` the newest sample of every fake quant too."""
        self._flushed = time.monotonic()
        if newest:
            for sample in self._held.values():
                self._samples.add(to_line(sample))
            self._held.clear()
        try:
            for file in (self._curves, self._samples):
                file.sync() if durable else file.flush()
        except OSError as error:
            self._failed(error)

    def close(self) -> None:
        self.flush(newest=True, durable=True)
        self._curves.close()
        self._samples.close()


def to_line(record: Record) -> str:
    """One line of JSON, without its end; the histogram of a sample comes last."""
    values = {f.name: getattr(record, f.name) for f in fields(record)}
    histogram = values.pop("histogram", None)
    line = _dumps({"t": _NAMES[type(record)], **values})
    if histogram is None:
        return line
    return f"{line[:-1]}{_HISTOGRAM}{_dumps(asdict(histogram))}}}"


def read_history(folder: Path, metric_name: str, baseline: float | None) -> History:
    """The history of the run in ``folder``. Lines that a crash has torn are left out."""
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
    _read_samples(folder / SAMPLES, history)
    return history


def _read_samples(path: Path, history: History) -> None:
    # Histograms are nearly all of the file and most are too old to be kept: they stay text until
    # the history has chosen.
    for line in _lines(path):
        head, found, histogram = line.rstrip("\n").partition(_HISTOGRAM)
        with suppress(ValueError, TypeError, KeyError):
            row = json.loads(f"{head}}}" if found else head)
            if row.pop("t", None) == "back":
                history.samples_back(row["step"])
            elif not found or histogram.endswith("}}"):
                values: dict[str, Any] = {
                    k: tuple(v) if isinstance(v, list) else v for k, v in row.items()
                }
                kept: Any = histogram[:-1] or None
                history.add_samples([SiteSample(**values, histogram=kept)])
    history.open_histograms(_histogram_of)


def _histogram_of(text: Any) -> GridHistogram | None:
    try:
        found = json.loads(text)
        values: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in found.items()
        }
        return GridHistogram(**values)
    except (ValueError, TypeError, AttributeError):
        return None


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
