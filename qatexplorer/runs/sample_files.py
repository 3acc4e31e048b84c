"""Samples on disk: JSON lines that are only ever appended to, so that a killed kernel loses none.

``samples.jsonl`` has one line per sample with its numbers (``pandas.read_json(path, lines=True)``),
``states.jsonl`` the changes of state, and ``histograms.jsonl`` and ``channels.jsonl`` what is too
large to have every time. A long run is written at growing distances, so that a folder of any run
opens at once: every sampled step at first, then one whenever the run is 1/64 longer than at the
last one that was written. What follows a line ``{"back": step}`` took the place of what was taken
in that step and later: the run was resumed from there.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from qatexplorer.errors import RunFolderError
from qatexplorer.runs.files import Appender, read_json, write_json
from qatexplorer.runs.samples import (
    EXACT,
    METRICS,
    Array,
    Counts,
    FakeQuantInfo,
    GradientHistogram,
    Overhead,
    StateChange,
    StepSamples,
    rounded,
)
from qatexplorer.runs.store import Telemetry

GROWTH, DETAIL_GROWTH = 1 / 64, 1 / 8
SAMPLES, STATES = "samples.jsonl", "states.jsonl"
HISTOGRAMS, CHANNELS, COST = "histograms.jsonl", "channels.jsonl", "overhead.json"
_CHANNEL_ROWS = ("scale", "zero_point", "min_val", "max_val")


def about_samples(telemetry: Telemetry) -> dict[str, Any]:
    """What run.json says of the samples in its folder."""
    return {
        "bins": telemetry.bins,
        "metrics": METRICS,
        "fake_quants": [info.as_dict() for info in telemetry.infos],
    }


class SampleWriter:
    """Appends the samples of a run to its folder. Never raises: ``failed`` is called with what
    went wrong, and lines that a full disk refuses wait for the next time."""

    def __init__(
        self, folder: Path, telemetry: Telemetry, failed: Callable[[OSError], Any]
    ) -> None:
        self._folder, self._telemetry, self._failed = folder, telemetry, failed
        names = (SAMPLES, STATES, HISTOGRAMS, CHANNELS)
        self._files = {name: Appender(folder / name) for name in names}
        self._next = self._next_detail = 0.0
        self._newest: StepSamples | None = None
        self._paths = [json.dumps(info.path) for info in telemetry.infos]
        keys = [json.dumps(name) for name in METRICS]
        self._keys = [(key, name in EXACT) for key, name in zip(keys, METRICS, strict=True)]

    def write(self, samples: StepSamples) -> None:
        """Append the samples of a step, unless the run is long and the last one written is near."""
        step = samples.step
        if step < self._next:
            self._newest = samples
            return
        self._next = step + max(1, int(step * GROWTH))
        detailed = step >= self._next_detail
        if detailed:
            self._next_detail = step + max(1, int(step * DETAIL_GROWTH))
        self._append(samples, detailed)
        # The newest is always kept, with its histograms.
        self._newest = None if detailed else samples
        self.flush()

    def write_states(self, changes: Sequence[StateChange]) -> None:
        self._put(STATES, (json.dumps(asdict(change)) for change in changes))
        self.flush()

    def went_back(self, step: int) -> None:
        """What was taken in step ``step`` and later is void: the run goes on from there."""
        for name in self._files:
            self._put(name, [json.dumps({"back": step})])
        self._next = self._next_detail = step
        self.flush()

    def flush(self, *, newest: bool = False, durable: bool = False) -> None:
        """Write what waits; with ``newest`` the newest samples, which may not have been, too."""
        if newest and self._newest is not None:
            self._append(self._newest, True)
            self._newest = None
        try:
            for file in self._files.values():
                file.sync() if durable else file.flush()
            if newest:
                self._write_cost()
        except OSError as error:
            self._failed(error)

    def close(self) -> None:
        self.flush(newest=True, durable=True)
        for file in self._files.values():
            file.close()

    def _write_cost(self) -> None:
        overhead = self._telemetry.overhead
        cost = {
            "overhead": asdict(overhead) if overhead is not None else None,
            "unseen": dict(self._telemetry.unseen),
        }
        write_json(self._folder / COST, cost, durable=False)

    def _append(self, samples: StepSamples, detailed: bool) -> None:
        self._put(SAMPLES, self._sample_lines(samples))
        if detailed:
            self._put(HISTOGRAMS, self._histogram_lines(samples))
            self._put(CHANNELS, self._channel_lines(samples))

    def _put(self, name: str, lines: Iterable[str]) -> None:
        for line in lines:
            self._files[name].add(line)

    def _sample_lines(self, samples: StepSamples) -> Iterator[str]:
        for path, values in zip(self._paths, samples.metrics.tolist(), strict=True):
            known = [
                f"{key}:{int(v) if exact else _short(v)}"
                for (key, exact), v in zip(self._keys, values, strict=True)
                if v == v
            ]
            if known:
                yield f'{{"step":{samples.step},"path":{path},{",".join(known)}}}'

    def _histogram_lines(self, samples: StepSamples) -> Iterator[str]:
        for number, item in samples.counts.items():
            taken = np.flatnonzero(item.counts)
            first, stop = (int(taken[0]), int(taken[-1]) + 1) if len(taken) else (0, 0)
            row = {
                "step": samples.step,
                "path": self._telemetry.infos[number].path,
                "first": item.first + first,
                "counts": item.counts[first:stop].tolist(),
                "zeros": item.zeros,
                "off_grid": item.off_grid,
                "codes_used": item.codes_used,
            }
            gradient = samples.gradients.get(number)
            if gradient is not None:
                row["gradient"] = asdict(gradient)
            yield json.dumps(row, separators=(",", ":"))

    def _channel_lines(self, samples: StepSamples) -> Iterator[str]:
        for number, table in samples.channels.items():
            lists = ",".join(
                f'"{name}":[{",".join(_short(v) for v in row)}]'
                for name, row in zip(_CHANNEL_ROWS, table.tolist(), strict=True)
            )
            yield f'{{"step":{samples.step},"path":{self._paths[number]},{lists}}}'


def _short(value: float) -> str:
    """Nine digits hold a float32 exactly; what JSON has no word for is null."""
    return f"{value:.9g}" if math.isfinite(value) else "null"


def read_telemetry(folder: Path, about: dict[str, Any]) -> Telemetry | None:
    """The samples of the run in ``folder``, whose run.json is ``about``; None if it has none.

    Works while the run goes on. Raises RunFolderError if run.json is damaged.
    """
    if "fake_quants" not in about:
        return None
    try:
        infos = [FakeQuantInfo(**info) for info in about["fake_quants"]]
        metrics = [str(name) for name in about["metrics"]]
        telemetry = Telemetry(infos, int(about["bins"]), _Files(folder, infos, metrics))
    except (KeyError, TypeError, ValueError) as error:
        raise RunFolderError(
            f"What run.json in {folder} says of the fake quants cannot be read.",
            why=f"{type(error).__name__}: {error}",
            fix="curves.jsonl and samples.jsonl beside it are JSON lines, which "
            "pandas.read_json(path, lines=True) reads.",
        ) from error
    cost = read_json(folder / COST)
    with suppress(KeyError, TypeError):  # none yet, or not whole
        if cost["overhead"]:
            overhead = Overhead(**cost["overhead"])
            telemetry.set_overhead(lambda: overhead)
        for path, why in cost["unseen"].items():
            telemetry.set_unseen(path, why)
    return telemetry


class _Files:
    """The :class:`~qatexplorer.runs.store.Source` of a run folder. A damaged line is left out."""

    def __init__(self, folder: Path, infos: Sequence[FakeQuantInfo], metrics: list[str]) -> None:
        self._folder, self._count = folder, len(infos)
        self._numbers = {info.path: index for index, info in enumerate(infos)}
        self._columns = [name if name in metrics else "" for name in METRICS]

    def steps(self) -> list[StepSamples]:
        tables: dict[int, Array] = {}
        for number, row in self._rows(SAMPLES, tables):
            step, get = row["step"], row.get
            if step not in tables:
                tables[step] = np.full((self._count, len(METRICS)), math.nan)
            # None becomes NaN.
            tables[step][number] = [get(name) for name in self._columns]
        return [StepSamples(step, rounded(table)) for step, table in sorted(tables.items())]

    def states(self) -> list[StateChange]:
        found: list[StateChange] = []
        names = [field.name for field in fields(StateChange)]
        for row in _lines(self._folder / STATES):
            if "back" in row:
                found = [change for change in found if change.step < row["back"]]
            else:
                with suppress(KeyError):
                    found.append(StateChange(*(row[name] for name in names)))
        return found

    def details(self, steps: Sequence[StepSamples]) -> list[StepSamples]:
        counts: dict[int, dict[int, Counts]] = {}
        channels: dict[int, dict[int, Array]] = {}
        gradients: dict[int, dict[int, GradientHistogram]] = {}
        for number, row in self._rows(HISTOGRAMS, counts, gradients):
            counts.setdefault(row["step"], {})[number] = Counts(
                first=row["first"],
                counts=np.array(row["counts"], dtype=np.int64),
                zeros=row["zeros"],
                off_grid=row["off_grid"],
                codes_used=row["codes_used"],
            )
            if row.get("gradient"):
                item = {**row["gradient"], "counts": tuple(row["gradient"]["counts"])}
                gradients.setdefault(row["step"], {})[number] = GradientHistogram(**item)
        for number, row in self._rows(CHANNELS, channels):
            table = np.array([row[name] for name in _CHANNEL_ROWS], dtype=np.float32)
            channels.setdefault(row["step"], {})[number] = table
        return [
            StepSamples(
                s.step,
                s.metrics,
                counts.get(s.step, {}),
                channels.get(s.step, {}),
                gradients.get(s.step, {}),
            )
            for s in steps
            if s.step in counts or s.step in channels
        ]

    def _rows(self, name: str, *tables: dict[int, Any]) -> Iterator[tuple[int, dict[str, Any]]]:
        """(number of the fake quant, row); where the run went back, ``tables`` by step do too."""
        for row in _lines(self._folder / name):
            if "back" in row:
                for table in tables:
                    for step in [step for step in table if step >= row["back"]]:
                        del table[step]
                continue
            number = self._numbers.get(row.get("path", ""))
            if number is not None and isinstance(row.get("step"), int):
                yield number, row


def _lines(path: Path) -> list[dict[str, Any]]:
    """Rows of a JSON lines file. What follows the last whole line was cut off by a kill."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8", errors="replace")
    whole = text[: text.rfind("\n") + 1].split("\n")
    try:
        # One call for all lines is several times as fast as one each.
        rows: list[Any] = json.loads(f"[{','.join(line for line in whole if line)}]")
    except ValueError:
        rows = [_row(line) for line in whole]
    return [row for row in rows if isinstance(row, dict)]


def _row(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None
