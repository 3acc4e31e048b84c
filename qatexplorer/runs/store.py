"""The samples of a run: bounded, readable from any thread, the same live and from a folder."""

from __future__ import annotations

import math
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from qatexplorer.errors import InputError
from qatexplorer.forward.histograms import GridHistogram
from qatexplorer.runs.samples import (
    METRIC_INDEX,
    METRICS,
    Array,
    Bins,
    Channels,
    Counts,
    FakeQuantInfo,
    GradientHistogram,
    Overhead,
    Sample,
    StateChange,
    StepSamples,
    histogram_of,
)
from qatexplorer.shown import Shown, at_most, columns, first
from qatexplorer.tables import table_of_columns

R = TypeVar("R")

MAX_STEPS = 512
MAX_DETAILED = 64
MAX_CHANGES = 20_000
MAX_SHOWN = 12

_COLUMNS: dict[str, Any] = {
    "step": int,
    "path": str,
    "kind": str,
    "observer_enabled": bool,
    "fake_quant_enabled": bool,
    "bn_frozen": bool | None,
    **dict.fromkeys(METRICS, float),
}


class Source(Protocol):
    """Where the samples of a run on disk are read, when they are first asked for."""

    def steps(self) -> list[StepSamples]: ...

    def states(self) -> list[StateChange]: ...

    def details(self, steps: Sequence[StepSamples]) -> list[StepSamples]: ...


class Sink(Protocol):
    """What is handed each record as it is added."""

    def write(self, samples: StepSamples) -> None: ...

    def write_states(self, changes: Sequence[StateChange]) -> None: ...


class Telemetry(Shown):
    """Samples of the fake quants of a training, oldest first.

    Bounded: beyond 512 sampled steps every second one of the older half is dropped, and histograms
    and channels are kept for 64 steps at most, thinned in the same way; first and newest stay.

    Args:
        infos: of the fake quants.
        bins: of a histogram, about.
        source: a run on disk to begin with. It is read when something is asked for, the
            histograms only when they are.

    ``sink`` is handed each record as it is added.
    """

    def __init__(
        self, infos: Sequence[FakeQuantInfo], bins: int, source: Source | None = None
    ) -> None:
        self.infos = tuple(infos)
        self.bins = bins
        self.sink: Sink | None = None
        self._numbers = {info.path: index for index, info in enumerate(self.infos)}
        self._lock = threading.RLock()
        self._steps: list[StepSamples] = []
        self._detailed: list[StepSamples] = []
        self._states: list[StateChange] = []
        self._newest_state: dict[str, StateChange] = {}
        self._unseen: dict[str, str] = {i.path: i.unseen for i in self.infos if i.unseen}
        self._overhead: Callable[[], Overhead] | None = None
        self._source, self._details_source = source, source
        grids = {(info.quant_min, info.quant_max) for info in self.infos}
        self.grids: Mapping[tuple[int, int], Bins] = {g: Bins.of(*g, bins) for g in grids}

    # -- writing --------------------------------------------------------------------------------

    def add(self, samples: StepSamples) -> None:
        """Record the samples of a step."""
        with self._lock:
            self._read(details=True)
            self._steps.append(samples.without_details())
            if len(self._steps) > MAX_STEPS:
                self._steps = thinned(self._steps)
            self._detailed.append(samples)
            if len(self._detailed) > MAX_DETAILED:
                self._detailed = thinned(self._detailed)
        if self.sink is not None:
            self.sink.write(samples)

    def add_states(self, changes: Sequence[StateChange]) -> None:
        """Record changes of state; what says again what was known already is left out."""
        with self._lock:
            self._read()
            new = [c for c in changes if not _same_state(self._newest_state.get(c.path), c)]
            self._states += new
            self._newest_state.update((c.path, c) for c in new)
            if len(self._states) > MAX_CHANGES:
                # First states stay: they say how the run began.
                first, half = len(self.infos), len(self._states) // 2
                self._states = [*self._states[:first], *self._states[max(first, half) :]]
        if new and self.sink is not None:
            self.sink.write_states(new)

    def set_unseen(self, path: str, why: str) -> None:
        with self._lock:
            self._unseen[path] = why

    def set_overhead(self, overhead: Callable[[], Overhead]) -> None:
        """Where the present cost can be asked for."""
        self._overhead = overhead

    def go_back(self, step: int) -> None:
        """Forget the samples taken in step ``step`` and later."""
        with self._lock:
            self._read(details=True)
            self._steps = [s for s in self._steps if s.step < step]
            self._detailed = [s for s in self._detailed if s.step < step]
            self._states = [s for s in self._states if s.step < step]
            self._newest_state = {s.path: s for s in self._states}

    def joined(self, infos: Sequence[FakeQuantInfo]) -> Telemetry:
        """A store for fake quants ``infos`` and, after them, those of this one that are not among
        them, with all that is recorded here. A resumed run goes on with it."""
        new = {info.path for info in infos}
        made = Telemetry([*infos, *(i for i in self.infos if i.path not in new)], self.bins)
        numbers = {old: made._numbers[info.path] for old, info in enumerate(self.infos)}
        with self._lock:
            self._read(details=True)
            made._steps = [s.moved(numbers, len(made.infos)) for s in self._steps]
            made._detailed = [s.moved(numbers, len(made.infos)) for s in self._detailed]
            made._states, made._newest_state = list(self._states), dict(self._newest_state)
        return made

    # -- reading --------------------------------------------------------------------------------

    @property
    def paths(self) -> tuple[str, ...]:
        """Of the watched fake quants."""
        return tuple(info.path for info in self.infos)

    def info(self, path: str) -> FakeQuantInfo:
        """What does not change about a fake quant. Raises InputError if it is not watched."""
        return self.infos[self._number(path)]

    @property
    def steps(self) -> tuple[int, ...]:
        """Steps that were sampled and are still kept."""
        return tuple(samples.step for samples in self._all())

    @property
    def overhead(self) -> Overhead | None:
        """What it has cost so far; None if it is not known (a run that was killed)."""
        return self._overhead() if self._overhead is not None else None

    @property
    def unseen(self) -> Mapping[str, str]:
        """Why the values at a fake quant cannot be seen, by its path."""
        with self._lock:
            return dict(self._unseen)

    def sample(self, path: str, *, details: bool = True) -> Sample | None:
        """The newest sample of a fake quant, None before the first; ``details`` as below."""
        number, steps = self._number(path), self._all()
        if not steps:
            return None
        full = self._with_details()[-1:] if details else []
        newest = full[0] if full and full[0].step == steps[-1].step else steps[-1]
        return self._sample(newest, number, self.states(path))

    def samples(
        self, path: str, *, details: bool = True, most: int | None = None
    ) -> tuple[Sample, ...]:
        """Samples of a fake quant, oldest first.

        ``details`` False leaves histograms and channels out, which is many times as fast;
        ``most`` is how many there are at most, at even distances up to the newest.
        """
        number, states, steps = self._number(path), self.states(path), self._all()
        full = {s.step: s for s in self._with_details()} if details else {}
        known = [s for s in steps if not _nothing(s.metrics[number])]
        if most is not None and len(known) > most:
            group = -(-len(known) // most)
            known = known[::-group][::-1]
        return tuple(self._sample(full.get(s.step, s), number, states) for s in known)

    def series(self, path: str, metric: str) -> tuple[list[int], list[float]]:
        """Steps and values of one of :data:`METRICS`, without those that have none."""
        number, column = self._number(path), _column(metric)
        pairs = [(s.step, float(s.metrics[number, column])) for s in self._all()]
        known = [(step, value) for step, value in pairs if not math.isnan(value)]
        return [step for step, _ in known], [value for _, value in known]

    def table(self, metric: str, most: int | None = None) -> tuple[list[int], Array]:
        """One of :data:`METRICS` of all fake quants at once.

        Returns the steps, oldest first, and a float64 array steps × fake quants in the order of
        :attr:`infos`, NaN where there is no number. ``most`` is how many steps there are at most,
        at even distances up to the newest. Raises InputError for an unknown metric.
        """
        column, steps = _column(metric), self._all()
        if most is not None and len(steps) > most:
            group = -(-len(steps) // most)
            steps = steps[::-group][::-1]
        rows = [s.metrics[:, column] for s in steps]
        found = np.array(rows) if rows else np.empty((0, len(self.infos)))
        return [s.step for s in steps], found

    def newest_counts(self) -> tuple[int | None, Mapping[int, Counts]]:
        """The newest step whose histograms are kept, and those by number of the fake quant (its
        place in :attr:`infos`), as they were counted; (None, {}) where there are none."""
        for samples in reversed(self._with_details()):
            if samples.counts:
                return samples.step, samples.counts
        return None, {}

    def histograms(self, path: str) -> tuple[tuple[int, GridHistogram], ...]:
        """(step, histogram) of a fake quant, where they are still kept."""
        number = self._number(path)
        return tuple(
            (s.step, self._histogram(s, number)) for s in self._with_details() if number in s.counts
        )

    def histogram(self, path: str) -> GridHistogram | None:
        """The newest histogram of a fake quant, None if there is none."""
        number = self._number(path)
        for samples in reversed(self._with_details()):
            if number in samples.counts:
                return self._histogram(samples, number)
        return None

    def channels(self, path: str) -> tuple[tuple[int, Channels], ...]:
        """(step, scale, zero point and range per channel) of a fake quant, where still kept."""
        number = self._number(path)
        return tuple(
            (s.step, _channels(s.channels[number]))
            for s in self._with_details()
            if number in s.channels
        )

    def gradients(self, path: str) -> tuple[GradientHistogram, ...]:
        """Sizes of the gradients behind a fake quant; empty unless they were asked for."""
        number = self._number(path)
        found = [s.gradients.get(number) for s in self._with_details()]
        return tuple(g for g in found if g is not None)

    def states(self, path: str | None = None) -> tuple[StateChange, ...]:
        """Changes of state of one fake quant or all, in order."""
        with self._lock:
            self._read()
            return tuple(s for s in self._states if path is None or s.path == path)

    def rows(self) -> Iterator[dict[str, Any]]:
        """One dict per sample, with its numbers and its state (no histogram)."""
        states = {path: self.states(path) for path in self.paths}
        for samples in self._all():
            for number, info in enumerate(self.infos):
                if _nothing(samples.metrics[number]):
                    continue
                sample = self._sample(samples, number, states[info.path])
                yield {
                    "step": sample.step,
                    "path": info.path,
                    "kind": info.kind,
                    "observer_enabled": sample.observer_enabled,
                    "fake_quant_enabled": sample.fake_quant_enabled,
                    "bn_frozen": sample.bn_frozen,
                    **dict(zip(METRICS, sample.values, strict=True)),
                }

    def to_pandas(self) -> Any:
        """:meth:`rows` as a ``pandas.DataFrame``. Raises InputError if pandas is not installed."""
        rows = list(self.rows())
        return table_of_columns((n, hint, [r[n] for r in rows]) for n, hint in _COLUMNS.items())

    def __repr__(self) -> str:
        return at_most(telemetry_lines(self))

    # -- inside ---------------------------------------------------------------------------------

    def _read(self, details: bool = False) -> None:
        """Read what is on disk and was not read yet; the lock is held."""
        if self._source is not None:
            source, self._source = self._source, None
            self._steps = source.steps()
            self._states = source.states()
            self._newest_state = {s.path: s for s in self._states}
        if details and self._details_source is not None:
            source, self._details_source = self._details_source, None
            self._detailed = source.details(self._steps)

    def _all(self) -> list[StepSamples]:
        with self._lock:
            self._read()
            return list(self._steps)

    def _with_details(self) -> list[StepSamples]:
        with self._lock:
            self._read(details=True)
            return list(self._detailed)

    def _sample(self, samples: StepSamples, number: int, states: Sequence[StateChange]) -> Sample:
        index = bisect_right(states, samples.step, key=lambda change: change.step)
        now = states[index - 1] if index else None
        return Sample(
            samples.step,
            self.infos[number].path,
            _numbers(samples.metrics[number]),
            now.observer_enabled if now else True,
            now.fake_quant_enabled if now else True,
            now.bn_frozen if now else None,
            _channels(samples.channels[number]) if number in samples.channels else None,
            self._histogram(samples, number) if number in samples.counts else None,
        )

    def _histogram(self, samples: StepSamples, number: int) -> GridHistogram:
        info = self.infos[number]
        grid = self.grids[(info.quant_min, info.quant_max)]
        return histogram_of(info, grid, samples.counts[number], samples.metrics[number])

    def _number(self, path: str) -> int:
        number = self._numbers.get(path)
        if number is None:
            raise InputError(f"no fake quant at {path!r} was watched.", where=path)
        return number


def _column(metric: str) -> int:
    if metric not in METRIC_INDEX:
        raise InputError(
            f"there is no metric {metric!r}.", fix=f"Choose one of {', '.join(METRICS)}."
        )
    return METRIC_INDEX[metric]


def _numbers(row: Array) -> tuple[float, ...]:
    # One NaN for all, so that two records with the same numbers are equal.
    return tuple(v if math.isfinite(v) else math.nan for v in row.tolist())


def _channels(table: Array) -> Channels:
    return Channels(*(_numbers(row) for row in table))


def _nothing(row: Array) -> bool:
    return math.isnan(row[METRIC_INDEX["sampled"]]) and math.isnan(row[METRIC_INDEX["scale_min"]])


def _same_state(one: StateChange | None, two: StateChange) -> bool:
    return one is not None and (one.observer_enabled, one.fake_quant_enabled, one.bn_frozen) == (
        two.observer_enabled,
        two.fake_quant_enabled,
        two.bn_frozen,
    )


def thinned(records: Sequence[R]) -> list[R]:
    """The records without every second one of the older half; first and newest half stay."""
    half = len(records) // 2
    return [*records[:half:2], *records[half:]]


def telemetry_lines(telemetry: Telemetry, most: int = MAX_SHOWN) -> list[str]:
    """Samples for people: how many there are, what they cost, the newest of each fake quant."""
    steps, overhead = telemetry.steps, telemetry.overhead
    taken = f"{len(steps):,} sampled steps ({steps[0]} to {steps[-1]})" if steps else "no sample"
    lines = [f"Telemetry of {len(telemetry.infos):,} fake quants: {taken}"]
    if overhead is not None:
        lines.append(f"cost: {overhead.words()}")
    if not steps:
        return lines
    shown, more = first(telemetry.infos, most)
    rows = [("fake quant", "scale", "clipped", "SQNR")]
    for info in shown:
        sample = telemetry.sample(info.path, details=False)
        if sample is not None:
            scale, clipped = f"{sample.scale_median:.3g}", f"{100 * sample.clipped:.2g} %"
            rows.append((info.path, scale, clipped, f"{sample.sqnr_db:.1f} dB"))
    return [*lines, *columns(rows, right=(1, 2, 3)), *more]
