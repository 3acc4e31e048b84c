"""A look whose numbers are on their way to the host."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from qatexplorer.telemetry.collect import RawLook
from qatexplorer.telemetry.frames import Frame, build_frame
from qatexplorer.telemetry.gradients import FIRST, RawGradients, gradient_numbers
from qatexplorer.telemetry.host import HostCopy
from qatexplorer.telemetry.records import METRIC_INDEX, GradientHistogram
from qatexplorer.telemetry.store import Telemetry


class PendingLook:
    """Ready when all its copies are; :meth:`frame` waits for them."""

    def __init__(
        self, step: int, raws: list[RawLook], gradients: list[RawGradients], timers: list[Any]
    ) -> None:
        self.step, self._raws, self._gradients, self._timers = step, raws, gradients, timers
        self._copies = [
            HostCopy(tensors)
            for tensors in (*(r.tensors() for r in raws), *(g.tensors() for g in gradients))
        ]

    @property
    def ready(self) -> bool:
        return all(copy.ready for copy in self._copies)

    @property
    def device_s(self) -> float:
        return float(sum(timer.seconds for timer in self._timers))

    def frame(self, telemetry: Telemetry, observing: list[bool]) -> Frame:
        host: list[Any] = [copy.wait() for copy in self._copies]
        looks = len(self._raws)
        raws = [replace(r, **t) for r, t in zip(self._raws, host[:looks], strict=True)]
        infos = telemetry.infos
        frame = build_frame(self.step, raws, infos, observing, telemetry.codes)
        numbers = {info.path: index for index, info in enumerate(infos)}
        found: dict[int, GradientHistogram] = {}
        for source, tensors in zip(self._gradients, host[looks:], strict=True):
            raw = replace(source, **tensors)
            for index, path in enumerate(raw.paths):
                for name, value in gradient_numbers(raw, index).items():
                    frame.metrics[numbers[path], METRIC_INDEX[name]] = value
                found[numbers[path]] = GradientHistogram(
                    step=self.step,
                    first=FIRST,
                    counts=tuple(raw.counts[index].tolist()),
                    zeros=int(raw.sums[0, index]),
                    sampled=raw.sampled[index],
                    total=raw.totals[index],
                )
        return replace(frame, gradients=found)
