"""What a training run records. No torch tensor is kept in any record."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from qatexplorer.runs.config import TrainingConfig

if TYPE_CHECKING:
    from qatexplorer.forward.histograms import GridHistogram

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
    "paused",
    "resumed",
    "stopped",
    "resumed from checkpoint",
    "checkpoint failed",
]

MAX_CHANNELS = 4096
MAX_STEPS = 20_000
MAX_SITE_SAMPLES = 200
MAX_SITE_HISTOGRAMS = 16

__all__ = [
    "EpochRecord",
    "History",
    "Marker",
    "MarkerKind",
    "Progress",
    "Record",
    "RunState",
    "SiteSample",
    "StepRecord",
    "TrainingConfig",
]

R = TypeVar("R")


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
class SiteSample:
    """One look at one fake quant, taken in step ``step`` after its forward.

    Attributes:
        path: of the fake quant module.
        scale, zero_point, min_val, max_val: one entry per channel, or one; empty above 4,096
            channels and (the last two) before the observer has seen data.
        scale_summary: (min, median, max) of scale over the channels.
        observer_enabled, fake_quant_enabled: the flags.
        histogram: of the tensor before quantization; kept for the first and the newest samples of
            a site only.
    """

    step: int
    path: str
    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    min_val: tuple[float, ...]
    max_val: tuple[float, ...]
    observer_enabled: bool
    fake_quant_enabled: bool
    histogram: GridHistogram | None = None
    scale_summary: tuple[float, float, float] = (math.nan, math.nan, math.nan)


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


Record = StepRecord | EpochRecord | Marker | SiteSample


class History:
    """What a run has recorded so far. Reads give immutable copies and may come from any thread.

    Bounded: beyond 20,000 steps, and beyond 200 samples of one fake quant, every second one of the
    older half is dropped; first and newest always stay. ``baseline`` is the metric of the float
    model, None if it was not measured. ``sink`` is handed each record as it is added.
    """

    def __init__(self, metric_name: str = "accuracy", baseline: float | None = None) -> None:
        self.metric_name = metric_name
        self.baseline = baseline
        self._lock = threading.Lock()
        self._steps: list[StepRecord] = []
        self._epochs: list[EpochRecord] = []
        self._markers: list[Marker] = []
        self._sites: dict[str, list[SiteSample]] = {}
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
    def sites(self) -> Mapping[str, tuple[SiteSample, ...]]:
        """Samples by the path of the fake quant, oldest first."""
        with self._lock:
            return MappingProxyType({path: tuple(s) for path, s in self._sites.items()})

    def samples(self, path: str) -> tuple[SiteSample, ...]:
        """Samples of one fake quant, cheaper than ``sites[path]``; empty if there are none."""
        with self._lock:
            return tuple(self._sites.get(path, ()))

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

    def add_samples(self, records: Iterable[SiteSample]) -> None:
        records = tuple(records)
        with self._lock:
            for record in records:
                kept = self._sites.setdefault(record.path, [])
                kept.append(record)
                # Histograms are most of a sample's memory; the first shows where it started.
                old = len(kept) - 1 - MAX_SITE_HISTOGRAMS
                if old > 0 and kept[old].histogram is not None:
                    kept[old] = replace(kept[old], histogram=None)
                if len(kept) > MAX_SITE_SAMPLES:
                    self._sites[record.path] = thinned(kept)
        for record in records:
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
        self.samples_back(step)

    def open_histograms(self, opened: Callable[[Any], GridHistogram | None]) -> None:
        """Replace the histogram of every sample that has one by ``opened(histogram)``."""
        with self._lock:
            for path, samples in self._sites.items():
                self._sites[path] = [
                    s if s.histogram is None else replace(s, histogram=opened(s.histogram))
                    for s in samples
                ]

    def samples_back(self, step: int) -> None:
        """Forget the samples taken in step ``step`` and later."""
        with self._lock:
            for path, samples in self._sites.items():
                self._sites[path] = [s for s in samples if s.step < step]


def thinned(records: Sequence[R]) -> list[R]:
    """The records without every second one of the older half; first and newest half stay."""
    half = len(records) // 2
    return [*records[:half:2], *records[half:]]
