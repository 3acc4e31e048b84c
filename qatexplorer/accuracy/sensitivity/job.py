"""One measurement going on: its batches, progress, stop, and what is kept of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from qatexplorer.accuracy.sensitivity.kept import BatchResult, Folder, Kept, Pair
from qatexplorer.accuracy.sensitivity.replay import seed
from qatexplorer.accuracy.sensitivity.sites import digest_of
from qatexplorer.data import Batch, device_of, on_device
from qatexplorer.errors import NoDataError
from qatexplorer.evaluate.metric import Metric, accuracy, batch_size, metric_name
from qatexplorer.training.loop import Loss, loss_of

_WRITE_EVERY_S = 2.0
NO_LOSS = "none"


@dataclass
class Judge:
    """Metric and loss of an output. ``loss`` is the user's, None for cross entropy where the
    target is class indices; where that does not fit there is none."""

    metric: Metric | None = None
    loss: Loss | None = None
    _fits: bool = True

    @property
    def name(self) -> str:
        return metric_name(self.metric)

    @property
    def loss_name(self) -> str:
        if self.loss is None:
            return "cross entropy" if self._fits else NO_LOSS
        return str(getattr(self.loss, "__name__", type(self.loss).__name__))

    def __call__(self, output: Any, target: Any) -> Pair:
        """Means over the batch."""
        measure = accuracy if self.metric is None else self.metric
        return float(measure(output, target)), self._loss_of(output, target)

    def loss_with_gradient(self, output: Any, target: Any) -> Tensor:
        """The loss itself, to go back from."""
        return loss_of(self.loss, 0.0)(output, target)

    def _loss_of(self, output: Any, target: Any) -> float | None:
        if not self._fits:
            return None
        try:
            return float(loss_of(self.loss, 0.0)(output, target))
        except Exception:
            if self.loss is not None:
                raise
            self._fits = False  # with a metric of its own, the target need not be class indices
            return None


@dataclass
class Job:
    """What all methods have in common while they run.

    Args:
        kept: what is known, and gets what is measured. folder: written to now and then.
        batches: of the evaluation data to use at most, None for all.
        progress: called with what is being done and the share done, 0 to 1.
        should_stop: asked between forwards.
    """

    kept: Kept
    judge: Judge
    batches: int | None = None
    folder: Folder | None = None
    progress: Callable[[str, float], Any] | None = None
    should_stop: Callable[[], bool] | None = None
    stopped: bool = False
    _began: float = field(default_factory=time.perf_counter)
    _first: tuple[float, float] | None = None  # when the first report was made, and its share
    _counted: float = field(default_factory=time.perf_counter)
    _written: float = field(default_factory=time.perf_counter)

    def of(self, data: Iterable[Batch], model: torch.nn.Module) -> Iterator[tuple[int, Any, Any]]:
        """(number, input, target) of the batches, on the device of ``model``. They are the same
        whenever the data is gone through anew, if torch's own random numbers shuffle it."""
        device, count = device_of(model), 0
        seed(device)
        source = iter(islice(iter(data), self.batches))
        while True:
            torch.default_generator.manual_seed(count)
            try:
                inputs, target = next(source)
            except StopIteration:
                break
            yield count, on_device(inputs, device), on_device(target, device)
            count += 1
        if count == 0:
            raise NoDataError(
                "There is no batch to measure on.",
                why="The eval iterable is empty, or batches is 0.",
                fix="Pass data whose eval part yields (input, target) batches.",
            )

    def result(self, index: int, inputs: Any, target: Any) -> BatchResult:
        """What is known of a batch."""
        digest = digest_of((inputs, target))
        return self.kept.batch(index, digest, batch_size((inputs, target)))

    def expected(self, data: Iterable[Batch]) -> int:
        """How many batches there will be, as far as can be known before."""
        size = getattr(data, "__len__", None)
        try:
            total = int(size()) if size is not None else None
        except TypeError:
            total = None
        known = [n for n in (total, self.batches) if n is not None]
        return max(min(known, default=1), 1)

    def asked_to_stop(self) -> bool:
        self.stopped = self.stopped or (self.should_stop is not None and bool(self.should_stop()))
        return self.stopped

    def report(self, what: str, share: float) -> None:
        """Say how far it is, with an estimate of the time that is left."""
        now = time.perf_counter()
        if self._first is None:
            self._first = (now, share)
        began, first = self._first
        if share > first + 0.01 and now - began > 0.5:
            left = (now - began) / (share - first) * (1 - share)
            what = f"{what}, about {in_words(left)} left"
        if self.progress is not None:
            self.progress(what, min(max(share, 0.0), 1.0))

    def spend(self, result: BatchResult, forwards: float) -> None:
        """Add the cost of what was just done, and write to the folder if it is time."""
        now = time.perf_counter()
        result.forwards += forwards
        self.kept.seconds += now - self._counted
        self._counted = now
        if self.folder is not None and now - self._written > _WRITE_EVERY_S:
            self.folder.write(self.kept)
            self._written = time.perf_counter()


def in_words(seconds: float) -> str:
    """``"8 s"``, ``"3 min"``, ``"2 h"``."""
    if seconds < 90:
        return f"{max(round(seconds), 1)} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{round(seconds / 3600)} h"
