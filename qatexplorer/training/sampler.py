"""When the explorer's own loop samples the fake quants: :mod:`qatexplorer.telemetry`, at the steps
that the loop chooses."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from torch.nn import Module

from qatexplorer.forward.histograms import MAX_BINS
from qatexplorer.quantizers.facts import fake_quants
from qatexplorer.runs.store import Telemetry
from qatexplorer.telemetry.watch import Watch


class Sampler:
    """Samples each watched fake quant in the steps it is asked to.

    ``telemetry`` has what was seen, None for a model without fake quants; with ``before`` it goes
    on from what an earlier part of the run has seen.

    Raises InputError if there is no fake quant at one of ``paths``.
    """

    def __init__(
        self,
        model: Module,
        paths: Sequence[str] | None,
        max_samples: int,
        before: Telemetry | None = None,
    ) -> None:
        self._watch: Watch | None = None
        if paths or (paths is None and fake_quants(model)):
            self._watch = Watch(model, 1, MAX_BINS, paths=paths, max_samples=max_samples)
            if before is not None:
                self._watch.go_on_with(before)
        self._step, self._ended = -1, 0.0
        self.spent_s = 0.0

    @property
    def telemetry(self) -> Telemetry | None:
        return self._watch.telemetry if self._watch is not None else None

    def followed(self, seconds: float) -> None:
        """The codes of all weights were taken in this step, in ``seconds``."""
        if self._watch is not None:
            self._watch.account_following(seconds)

    @contextmanager
    def sampling(
        self, step: int, known: Mapping[str, Mapping[str, float]] | None = None
    ) -> Iterator[None]:
        """Hooks are on the fake quants inside; ``spent_s`` is then the time that they and the
        counting took. ``known``: see :meth:`~qatexplorer.telemetry.watch.Watch.sampling`."""
        watch = self._watch
        if watch is None:
            yield
            return
        started = time.perf_counter()
        steps = step - self._step
        if self._step >= 0 and steps > 0:
            watch.account(steps, started - self._ended, self.spent_s)
        with watch.sampling(step, known):
            yield
        self._step, self._ended = step, time.perf_counter()
        self.spent_s = watch.sampling_s
