"""What a training run records. No torch tensor is kept in any record."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from qatexplorer.runs.config import TrainingConfig
from qatexplorer.runs.samples import Sample
from qatexplorer.runs.store import Telemetry, thinned
from qatexplorer.shown import Shown, at_most
from qatexplorer.tables import choose

RunState = Literal["ready", "running", "paused", "stopped", "finished", "failed"]
"""``stopped``, ``finished`` and ``failed`` are final."""

MarkerKind = Literal[
    "observers frozen",
    "batch-norm statistics frozen",
    "fake quants off",
    "fake quants on",
    "learning rate",
    "label smoothing",
    "gradient clipping",
    "weight averaging",
    "weight dampening",
    "weight freezing",
    "paused",
    "resumed",
    "stopped",
    "resumed from checkpoint",
    "checkpoint failed",
]

MAX_STEPS = 20_000
MAX_EPOCHS_SHOWN = 16

__all__ = [
    "EpochRecord",
    "History",
    "Marker",
    "MarkerKind",
    "Progress",
    "Record",
    "RunState",
    "StepRecord",
    "TrainingConfig",
]


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One optimizer step. ``step`` counts from 0 over the whole run, ``seconds`` is its time
    without telemetry, ``samples`` the batch size, ``lr`` that of the first parameter group."""

    step: int
    epoch: int
    loss: float
    seconds: float
    samples: int
    lr: float = math.nan


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """One pass over the training data and the evaluation after it.

    ``train_loss`` is the mean over samples, ``metric`` None if the evaluation did not finish,
    ``seconds`` training and evaluation together, pauses left out.
    """

    epoch: int
    train_loss: float
    metric: float | None
    seconds: float
    observers_frozen: bool
    bn_frozen: bool
    lr: float


@dataclass(frozen=True, slots=True)
class Marker:
    """Something that happened before step ``step`` of epoch ``epoch``; ``note`` says how much."""

    step: int
    epoch: int
    kind: MarkerKind
    note: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run is. ``step`` is the number of steps done; ``total_steps`` is an estimate until
    the first epoch is over if the data has no length (0 is unknown). Times in seconds, pauses left
    out; ``eta_s`` None while unknown. ``loss`` of the newest step."""

    state: RunState
    step: int
    total_steps: int
    epoch: int
    epochs: int
    elapsed_s: float
    eta_s: float | None
    loss: float | None


Record = StepRecord | EpochRecord | Marker


class History(Shown):
    """What a run has recorded so far. Reads give immutable copies and may come from any thread.

    Bounded: beyond 20,000 steps every second one of the older half is dropped; first and newest
    always stay. ``baseline`` is the metric of the float model, None if it was not measured.
    ``telemetry`` holds the samples of the fake quants, None if there are none. ``sink`` is handed
    each record of the curves as it is added.
    """

    def __init__(self, metric_name: str = "accuracy", baseline: float | None = None) -> None:
        self.metric_name = metric_name
        self.baseline = baseline
        self._lock = threading.Lock()
        self._steps: list[StepRecord] = []
        self._epochs: list[EpochRecord] = []
        self._markers: list[Marker] = []
        self.telemetry: Telemetry | None = None
        self.sink: Callable[[Record], Any] | None = None

    @property
    def steps(self) -> tuple[StepRecord, ...]:
        with self._lock:
            return tuple(self._steps)

    @property
    def epochs(self) -> tuple[EpochRecord, ...]:
        with self._lock:
            return tuple(self._epochs)

    @property
    def markers(self) -> tuple[Marker, ...]:
        with self._lock:
            return tuple(self._markers)

    @property
    def sites(self) -> Mapping[str, tuple[Sample, ...]]:
        """Samples by the path of the fake quant, oldest first; made when they are looked up."""
        return _Samples(self.telemetry)

    def samples(self, path: str) -> tuple[Sample, ...]:
        """Samples of one fake quant; empty if there are none."""
        return _Samples(self.telemetry).get(path, ())

    def add_step(self, record: StepRecord) -> None:
        with self._lock:
            self._steps.append(record)
            if len(self._steps) > MAX_STEPS:
                self._steps = thinned(self._steps)
        self._pass_on(record)

    def add_epoch(self, record: EpochRecord) -> None:
        with self._lock:
            self._epochs.append(record)
        self._pass_on(record)

    def add_marker(self, record: Marker) -> None:
        with self._lock:
            self._markers.append(record)
        self._pass_on(record)

    def _pass_on(self, record: Record) -> None:
        if self.sink is not None:
            self.sink(record)

    def go_back(self, step: int, epoch: int) -> None:
        """Forget what came after ``step`` steps, in the middle or at the end of ``epoch``."""
        with self._lock:
            self._steps = [s for s in self._steps if s.step < step]
            self._epochs = [e for e in self._epochs if e.epoch < epoch]
            self._markers = [m for m in self._markers if m.step <= step and m.epoch <= epoch]
        if self.telemetry is not None:
            self.telemetry.go_back(step)

    def to_pandas(self, records: Literal["steps", "epochs", "markers"] = "steps") -> Any:
        """A ``pandas.DataFrame`` of the steps (or epochs, or markers), a row each.

        Columns are the fields of :class:`StepRecord` (or :class:`EpochRecord`, :class:`Marker`).
        Raises InputError if pandas is not installed.
        """
        return choose(
            records,
            {
                "steps": (StepRecord, self.steps),
                "epochs": (EpochRecord, self.epochs),
                "markers": (Marker, self.markers),
            },
        )

    def __repr__(self) -> str:
        return at_most(history_lines(self))


class _Samples(Mapping[str, tuple[Sample, ...]]):
    """Of the fake quants that were sampled; a long run has many, so they are made one by one."""

    def __init__(self, telemetry: Telemetry | None) -> None:
        self._telemetry = telemetry

    def __getitem__(self, path: str) -> tuple[Sample, ...]:
        if self._telemetry is None or path not in self._telemetry.paths:
            raise KeyError(path)
        return self._telemetry.samples(path)

    def __iter__(self) -> Iterator[str]:
        telemetry = self._telemetry
        return iter(telemetry.paths if telemetry is not None and telemetry.steps else ())

    def __len__(self) -> int:
        return sum(1 for _ in self)


def history_lines(history: History, most_epochs: int = MAX_EPOCHS_SHOWN) -> list[str]:
    """A history for people: how long it is, its newest epochs, what the float model had."""
    steps, epochs, metric = history.steps, history.epochs, history.metric_name
    lines = [f"History of {len(epochs):,} epochs, {steps[-1].step + 1 if steps else 0:,} steps"]
    earlier = len(epochs) - most_epochs
    if earlier > 0:
        lines.append(f"… {earlier:,} earlier epochs")
    lines += [
        f"epoch {e.epoch + 1}: mean loss {e.train_loss:.4g}"
        + (f", {metric} {e.metric:.4g}" if e.metric is not None else "")
        for e in epochs[-most_epochs:]
    ]
    if history.baseline is not None:
        lines.append(f"{metric} of the float model: {history.baseline:.4g}")
    return lines
