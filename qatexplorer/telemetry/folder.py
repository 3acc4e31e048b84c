"""A run on disk: JSON lines that are only ever appended to, so that a killed kernel loses nothing.

``run.json`` says what was watched. ``sites.jsonl`` has one line per look and site with its numbers
(``pandas.read_json(path, lines=True)``), ``states.jsonl`` the changes of state, and
``histograms.jsonl`` and ``channels.jsonl`` what is too large to have every time. A long run is
written at growing distances, so that a folder of any run opens at once: every look at first, then
one whenever the run is 1/64 longer than at the last one that was written.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import numpy as np

from qatexplorer.errors import InputError
from qatexplorer.telemetry.frames import Frame, SiteCounts
from qatexplorer.telemetry.records import (
    METRICS,
    GradientHistogram,
    Overhead,
    SiteInfo,
    StateChange,
)
from qatexplorer.telemetry.store import Telemetry

log = logging.getLogger(__name__)

FORMAT = 1
GROWTH, DETAIL_GROWTH = 1 / 64, 1 / 8
HEADER, SITES, STATES = "run.json", "sites.jsonl", "states.jsonl"
HISTOGRAMS, CHANNELS, COST = "histograms.jsonl", "channels.jsonl", "overhead.json"


class RunWriter:
    """Writes a run to ``folder``. A full disk ends the writing, told once, and not the training.

    Raises InputError if there is a run in ``folder`` already, or it cannot be made.
    """

    def __init__(self, folder: Path, telemetry: Telemetry) -> None:
        self._infos = telemetry.infos
        self._looks = 0
        self._next = self._next_detail = 0
        self._files: dict[str, TextIOWrapper] = {}
        self._newest: Frame | None = None
        self.folder = folder
        self.failed = ""
        header = {
            "format": FORMAT,
            "bins": telemetry.bins,
            "metrics": METRICS,
            "sites": [info.as_dict() for info in telemetry.infos],
        }
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / HEADER).open("x", encoding="utf-8") as file:
                json.dump(header, file, indent=1)
            for name in (SITES, STATES, HISTOGRAMS, CHANNELS):
                self._files[name] = (folder / name).open("a", encoding="utf-8")
        except FileExistsError as error:
            raise InputError(
                f"there is a run in {folder} already.",
                why="Runs are appended to only while they go on.",
                remedy="Give each run a folder of its own.",
            ) from error
        except OSError as error:
            raise InputError(
                f"the run cannot be written to {folder}.",
                why=f"{type(error).__name__}: {error}",
                remedy="Choose a folder on a disk with room that you may write to.",
            ) from error

    def write(self, frame: Frame) -> None:
        """Append a look, unless the run is long and the last one written is near."""
        number, self._looks = self._looks, self._looks + 1
        if number < self._next:
            self._newest = frame
            return
        self._next = number + max(1, int(number * GROWTH))
        detailed = number >= self._next_detail
        if detailed:
            self._next_detail = number + max(1, int(number * DETAIL_GROWTH))
        self._append(frame, detailed)

    def write_states(self, changes: Sequence[StateChange]) -> None:
        self._put(STATES, (json.dumps(asdict(change)) for change in changes))

    def close(self, telemetry: Telemetry) -> None:
        """Append the newest look, which is always kept, and close."""
        if self._newest is not None:
            self._append(self._newest, True)
        overhead = telemetry.overhead
        try:
            text = json.dumps(
                {
                    "overhead": asdict(overhead) if overhead is not None else None,
                    "unseen": dict(telemetry.unseen),
                }
            )
            (self.folder / COST).write_text(text, encoding="utf-8")
            for file in self._files.values():
                file.close()
        except OSError as error:
            self._fail(error)
        self._files = {}

    def _append(self, frame: Frame, detailed: bool) -> None:
        self._newest = None
        self._put(SITES, self._site_lines(frame))
        if detailed:
            self._put(HISTOGRAMS, self._histogram_lines(frame))
            self._put(CHANNELS, self._channel_lines(frame))

    def _put(self, name: str, lines: Iterator[str]) -> None:
        if self.failed or name not in self._files:
            return
        try:
            self._files[name].write("".join(f"{line}\n" for line in lines))
            self._files[name].flush()
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        if not self.failed:
            self.failed = f"{type(error).__name__}: {error}"
            log.warning("telemetry is written to %s no more: %s", self.folder, self.failed)

    def _site_lines(self, frame: Frame) -> Iterator[str]:
        keys = [json.dumps(name) for name in METRICS]
        for info, values in zip(self._infos, frame.metrics.tolist(), strict=True):
            known = (f"{k}:{_short(v)}" for k, v in zip(keys, values, strict=True) if v == v)
            yield f'{{"step":{frame.step},"path":{json.dumps(info.path)},{",".join(known)}}}'

    def _histogram_lines(self, frame: Frame) -> Iterator[str]:
        for number, item in frame.counts.items():
            taken = np.flatnonzero(item.counts)
            first, stop = (int(taken[0]), int(taken[-1]) + 1) if len(taken) else (0, 0)
            row = {
                "step": frame.step,
                "path": self._infos[number].path,
                "first": item.first + first,
                "counts": item.counts[first:stop].tolist(),
                "zeros": item.zeros,
                "off_grid": item.off_grid,
                "codes_used": item.codes_used,
            }
            gradient = frame.gradients.get(number)
            if gradient is not None:
                row["gradient"] = asdict(gradient)
            yield json.dumps(row, separators=(",", ":"))

    def _channel_lines(self, frame: Frame) -> Iterator[str]:
        names = ("scale", "zero_point", "min_val", "max_val")
        for number, table in frame.channels.items():
            lists = ",".join(
                f'"{name}":[{",".join(_short(v) for v in row)}]'
                for name, row in zip(names, table.tolist(), strict=True)
            )
            path = json.dumps(self._infos[number].path)
            yield f'{{"step":{frame.step},"path":{path},{lists}}}'


def _short(value: float) -> str:
    """Nine digits hold a float32 exactly; what JSON has no word for is null."""
    return f"{value:.9g}" if math.isfinite(value) else "null"


def open_run(folder: str | Path) -> Telemetry:
    """Read a run that :func:`qatexplorer.watch` wrote; one that is still going on, too.

    The numbers are read now, histograms and channels when they are asked for. Nothing is
    unpickled. Raises InputError if there is no run in ``folder``.
    """
    folder = Path(folder)
    try:
        header = json.loads((folder / HEADER).read_text(encoding="utf-8"))
        if header["format"] != FORMAT:
            raise ValueError(f"format {header['format']!r} is not {FORMAT}")
        infos = [SiteInfo(**site) for site in header["sites"]]
        bins = int(header["bins"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"there is no telemetry of a run in {folder}.",
            why=f"{type(error).__name__}: {error}",
            remedy="Give the folder that was passed to watch(folder=…).",
        ) from error
    frames = _read_frames(folder / SITES, infos, list(header["metrics"]))
    reader = _Details(folder, infos, {frame.step: frame for frame in frames})
    telemetry = Telemetry(infos, bins, details=reader)
    telemetry.set_frames(frames)
    telemetry.set_states([StateChange(**row) for row in _lines(folder / STATES)])
    if (folder / COST).exists():
        cost = json.loads((folder / COST).read_text(encoding="utf-8"))
        if cost["overhead"]:
            known_cost = Overhead(**cost["overhead"])
            telemetry.set_overhead(lambda: known_cost)
        for path, why in cost["unseen"].items():
            telemetry.set_unseen(path, why)
    return telemetry


def _lines(path: Path) -> list[dict[str, Any]]:
    """Rows of a JSON lines file. What follows the last whole line was cut off by a kill."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1].split("\n")
    try:
        # One call for all lines is several times as fast as one each.
        rows: list[dict[str, Any]] = json.loads(f"[{','.join(line for line in whole if line)}]")
        return rows
    except ValueError:
        return [row for line in whole if (row := _row(line)) is not None]


def _row(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def _read_frames(path: Path, infos: Sequence[SiteInfo], metrics: list[str]) -> list[Frame]:
    numbers = {info.path: index for index, info in enumerate(infos)}
    columns = [name if name in metrics else "" for name in METRICS]
    tables: dict[int, Any] = {}
    for row in _lines(path):
        table = tables.get(row["step"])
        if table is None:
            table = tables[row["step"]] = np.full((len(infos), len(METRICS)), math.nan)
        number = numbers.get(row["path"])
        if number is not None:
            get = row.get
            # None becomes NaN.
            table[number] = [get(name) for name in columns]
    return [Frame(step, table, {}, {}, {}) for step, table in sorted(tables.items())]


class _Details:
    """Histograms and channels of a folder, read at the first call."""

    def __init__(self, folder: Path, infos: Sequence[SiteInfo], frames: dict[int, Frame]) -> None:
        self._folder, self._frames = folder, frames
        self._numbers = {info.path: index for index, info in enumerate(infos)}
        self._read: dict[int, Frame] | None = None

    def __call__(self) -> Mapping[int, Frame]:
        if self._read is None:
            self._read = self._all()
        return self._read

    def _all(self) -> dict[int, Frame]:
        counts: dict[int, dict[int, SiteCounts]] = {}
        channels: dict[int, dict[int, Any]] = {}
        gradients: dict[int, dict[int, GradientHistogram]] = {}
        for row in _lines(self._folder / HISTOGRAMS):
            step, number = row["step"], self._numbers.get(row["path"], -1)
            counts.setdefault(step, {})[number] = SiteCounts(
                first=row["first"],
                counts=np.array(row["counts"]),
                zeros=row["zeros"],
                off_grid=row["off_grid"],
                codes_used=row["codes_used"],
            )
            if row.get("gradient"):
                item = {**row["gradient"], "counts": tuple(row["gradient"]["counts"])}
                gradients.setdefault(step, {})[number] = GradientHistogram(**item)
        for row in _lines(self._folder / CHANNELS):
            table = [row[name] for name in ("scale", "zero_point", "min_val", "max_val")]
            known = channels.setdefault(row["step"], {})
            known[self._numbers.get(row["path"], -1)] = np.array(table, dtype=np.float32)
        return {
            step: Frame(
                step,
                self._frames[step].metrics,
                counts.get(step, {}),
                channels.get(step, {}),
                gradients.get(step, {}),
            )
            for step in sorted(self._frames.keys() & (counts.keys() | channels.keys()))
        }
