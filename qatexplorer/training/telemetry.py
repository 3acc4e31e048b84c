"""What the explorer's own loop sees of the fake quants: :mod:`qatexplorer.telemetry`, at the steps
that the loop chooses, as records of its history."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch.nn import Module

from qatexplorer.forward.histograms import MAX_BINS
from qatexplorer.quantizers.facts import fake_quants
from qatexplorer.runs.records import MAX_CHANNELS, SiteSample
from qatexplorer.telemetry.frames import Frame
from qatexplorer.telemetry.records import METRIC_INDEX, StateChange
from qatexplorer.telemetry.store import Telemetry
from qatexplorer.telemetry.watching import Watch


class Sampler:
    """Takes one :class:`SiteSample` of each watched fake quant in the steps it is asked to.

    ``telemetry`` has what was seen in full, None for a model without fake quants.

    Raises InputError if there is no fake quant at one of ``paths``.
    """

    def __init__(self, model: Module, paths: Sequence[str] | None, max_samples: int) -> None:
        self._watch: Watch | None = None
        if paths or (paths is None and fake_quants(model)):
            self._watch = Watch(model, 1, MAX_BINS, paths=paths, max_samples=max_samples)
        self._step, self._ended = -1, 0.0
        self._states: dict[str, StateChange] = {}
        self.spent_s = 0.0

    @property
    def telemetry(self) -> Telemetry | None:
        return self._watch.telemetry if self._watch is not None else None

    @contextmanager
    def watching(self, step: int) -> Iterator[None]:
        """Hooks are on the fake quants inside; :meth:`take` gives what they saw.

        ``spent_s`` is then the time that the looking took.
        """
        watch = self._watch
        if watch is None:
            yield
            return
        started = time.perf_counter()
        steps = step - self._step
        if self._step >= 0 and steps > 0:
            watch.account(steps, started - self._ended, self.spent_s)
        with watch.look_at(step):
            yield
        self._step, self._ended = step, time.perf_counter()
        self.spent_s = watch.look_s

    def take(self) -> list[SiteSample]:
        """The samples of the last watched forward (on a GPU perhaps of the one before)."""
        watch = self._watch
        if watch is None:
            return []
        started = time.perf_counter()
        frames, watch.arrived = watch.arrived, []
        samples = [sample for frame in frames for sample in self._samples(watch.telemetry, frame)]
        self.spent_s += time.perf_counter() - started
        return samples

    def _samples(self, telemetry: Telemetry, frame: Frame) -> list[SiteSample]:
        for change in telemetry.states()[-len(telemetry.infos) * 2 :]:
            if change.step <= frame.step:
                self._states[change.path] = change
        # Of a fake quant that did not run in this step there is nothing to tell.
        return [
            _sample(telemetry, frame, number, self._states[info.path])
            for number, info in enumerate(telemetry.infos)
            if number in frame.counts
        ]


def _sample(telemetry: Telemetry, frame: Frame, number: int, state: StateChange) -> SiteSample:
    scale, zero_point, low, high = (row.tolist() for row in frame.channels[number])
    few = len(scale) <= MAX_CHANNELS
    known = all(map(math.isfinite, low))
    metrics: Any = frame.metrics[number]
    return SiteSample(
        step=frame.step,
        path=telemetry.infos[number].path,
        scale=tuple(scale) if few else (),
        zero_point=tuple(int(z) for z in zero_point) if few else (),
        min_val=tuple(low) if few and known else (),
        max_val=tuple(high) if few and known else (),
        observer_enabled=state.observer_enabled,
        fake_quant_enabled=state.fake_quant_enabled,
        histogram=telemetry.histogram_in(frame, number),
        scale_summary=(
            float(metrics[METRIC_INDEX["scale_min"]]),
            float(metrics[METRIC_INDEX["scale_median"]]),
            float(metrics[METRIC_INDEX["scale_max"]]),
        ),
    )
