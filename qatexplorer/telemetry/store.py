"""What a watch has recorded: bounded, readable from any thread, the same live and from a folder."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from qatexplorer.errors import InputError
from qatexplorer.forward.histograms import GridHistogram
from qatexplorer.telemetry.collect import Bins
from qatexplorer.telemetry.frames import Frame, grid_histogram_of
from qatexplorer.telemetry.records import (
    METRIC_INDEX,
    METRICS,
    ChannelLook,
    GradientHistogram,
    Overhead,
    SiteInfo,
    SiteLook,
    StateChange,
)

MAX_FRAMES = 512
MAX_DETAILED = 64

Details = Callable[[], Mapping[int, Frame]]


class Telemetry:
    """Looks at the fake quants of a training, oldest first.

    Bounded: beyond 512 looks every second one of the older half is dropped, and histograms and
    channels are kept for 64 looks at most, thinned in the same way; first and newest stay.

    ``details`` gives frames with histograms by step, where they are read only when asked for.
    """

    def __init__(
        self, infos: Sequence[SiteInfo], bins: int, details: Details | None = None
    ) -> None:
        self.infos = tuple(infos)
        self.bins = bins
        self._numbers = {info.path: index for index, info in enumerate(self.infos)}
        grids = {(info.quant_min, info.quant_max) for info in self.infos}
        self.codes = {grid: Bins.of(*grid, bins) for grid in grids}
        self._lock = threading.Lock()
        self._frames: list[Frame] = []
        self._detailed: list[Frame] = []
        self._states: list[StateChange] = []
        self._unseen: dict[str, str] = {i.path: i.unseen for i in self.infos if i.unseen}
        self._overhead: Callable[[], Overhead] | None = None
        self._details = details

    # -- writing --------------------------------------------------------------------------------

    def add(self, frame: Frame) -> None:
        """Record a look."""
        with self._lock:
            self._frames.append(frame.without_details())
            if len(self._frames) > MAX_FRAMES:
                self._frames = _thinned(self._frames)
            self._detailed.append(frame)
            if len(self._detailed) > MAX_DETAILED:
                self._detailed = _thinned(self._detailed)

    def set_frames(self, frames: Sequence[Frame]) -> None:
        """Take the looks of a run that was read, all of them."""
        with self._lock:
            self._frames = list(frames)

    def set_states(self, states: Sequence[StateChange]) -> None:
        with self._lock:
            self._states = list(states)

    def set_unseen(self, path: str, why: str) -> None:
        with self._lock:
            self._unseen[path] = why

    def set_overhead(self, overhead: Callable[[], Overhead]) -> None:
        """Where the present cost can be asked for."""
        self._overhead = overhead

    # -- reading --------------------------------------------------------------------------------

    @property
    def paths(self) -> tuple[str, ...]:
        """Of the watched fake quants."""
        return tuple(info.path for info in self.infos)

    def info(self, path: str) -> SiteInfo:
        """What does not change about a site. Raises InputError for a path that is not watched."""
        return self.infos[self._number(path)]

    @property
    def steps(self) -> tuple[int, ...]:
        """Steps that were looked at and are still kept."""
        with self._lock:
            return tuple(frame.step for frame in self._frames)

    @property
    def overhead(self) -> Overhead | None:
        """What it has cost so far; None if it is not known (a run that was killed)."""
        return self._overhead() if self._overhead is not None else None

    @property
    def unseen(self) -> Mapping[str, str]:
        """Why the values at a site cannot be seen, by its path."""
        with self._lock:
            return dict(self._unseen)

    def look(self, path: str) -> SiteLook | None:
        """The newest look at a site, None before the first."""
        number = self._number(path)
        with self._lock:
            if not self._frames:
                return None
            frame = self._frames[-1]
        return SiteLook(frame.step, path, tuple(frame.metrics[number].tolist()))

    def looks(self, path: str) -> tuple[SiteLook, ...]:
        """All looks at a site."""
        number = self._number(path)
        with self._lock:
            frames = list(self._frames)
        return tuple(SiteLook(f.step, path, tuple(f.metrics[number].tolist())) for f in frames)

    def series(self, path: str, metric: str) -> tuple[list[int], list[float]]:
        """Steps and values of one of :data:`~records.METRICS`, without those that have none."""
        if metric not in METRIC_INDEX:
            raise InputError(
                f"there is no metric {metric!r}.", remedy=f"Choose one of {', '.join(METRICS)}."
            )
        number, column = self._number(path), METRIC_INDEX[metric]
        with self._lock:
            pairs = [(f.step, float(f.metrics[number, column])) for f in self._frames]
        known = [(step, value) for step, value in pairs if not math.isnan(value)]
        return [step for step, _ in known], [value for _, value in known]

    def histograms(self, path: str) -> tuple[tuple[int, GridHistogram], ...]:
        """(step, histogram) of a site, where they are still kept."""
        number = self._number(path)
        return tuple(
            (f.step, self.histogram_in(f, number))
            for f in self._with_details()
            if number in f.counts
        )

    def histogram(self, path: str) -> GridHistogram | None:
        """The newest histogram of a site, None if there is none."""
        number = self._number(path)
        for frame in reversed(self._with_details()):
            if number in frame.counts:
                return self.histogram_in(frame, number)
        return None

    def histogram_in(self, frame: Frame, number: int) -> GridHistogram:
        """The histogram of site ``number`` in a frame that has it."""
        info = self.infos[number]
        bins = self.codes[(info.quant_min, info.quant_max)]
        return grid_histogram_of(info, bins, frame.counts[number], frame.metrics[number])

    def channels(self, path: str) -> tuple[ChannelLook, ...]:
        """Scale, zero point and range per channel of a site, where they are still kept."""
        number = self._number(path)
        return tuple(
            ChannelLook(f.step, *(tuple(row) for row in f.channels[number].tolist()))
            for f in self._with_details()
            if number in f.channels
        )

    def gradients(self, path: str) -> tuple[GradientHistogram, ...]:
        """Sizes of the gradients behind a fake quant; empty unless they were asked for."""
        number = self._number(path)
        found = [f.gradients.get(number) for f in self._with_details()]
        return tuple(g for g in found if g is not None)

    def states(self, path: str | None = None) -> tuple[StateChange, ...]:
        """Changes of state of one site or all, in order."""
        with self._lock:
            return tuple(s for s in self._states if path is None or s.path == path)

    def rows(self) -> Iterator[dict[str, Any]]:
        """One dict per look and site, for ``pandas.DataFrame(telemetry.rows())``."""
        with self._lock:
            frames = list(self._frames)
        for frame in frames:
            for info, values in zip(self.infos, frame.metrics.tolist(), strict=True):
                known = dict(zip(METRICS, values, strict=True))
                yield {"step": frame.step, "path": info.path, "kind": info.kind, **known}

    def frames(self) -> tuple[Frame, ...]:
        """Frames as they are kept, numbers only."""
        with self._lock:
            return tuple(self._frames)

    def _with_details(self) -> list[Frame]:
        if self._details is not None:
            return list(self._details().values())
        with self._lock:
            return list(self._detailed)

    def _number(self, path: str) -> int:
        number = self._numbers.get(path)
        if number is None:
            raise InputError(f"no fake quant at {path!r} was watched.", where=path)
        return number


def _thinned(frames: list[Frame]) -> list[Frame]:
    half = len(frames) // 2
    return [*frames[:half:2], *frames[half:]]
