"""Metric and loss with only one fake quant on, and with all but one, for each of them.

Every run begins at its fake quant, see :mod:`~qatexplorer.accuracy.sensitivity.replay`. Batch after
batch, so that the results of one forward are all that is held: first the baseline without fake
quants and each fake quant alone, the last one first, then the baseline with all and each left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from qatexplorer.accuracy.sensitivity.job import Job
from qatexplorer.accuracy.sensitivity.kept import BatchResult
from qatexplorer.accuracy.sensitivity.replay import Diverged, Run, Tape, Unchanged
from qatexplorer.accuracy.sensitivity.sites import Site, Subject
from qatexplorer.data import Batch, call_model, cloned

FLOAT, QUANTIZED, WEIGHTS, ACTIVATIONS = "float", "quantized", "weights", "activations"
_DIVERGED = (
    "The model draws random numbers, or calls its modules in another order, from forward to "
    "forward, so that whole forwards were run."
)
_DROPPED = (
    "The results of {dropped:,} module calls found no room in {limit:,} MB, and were computed anew."
)


def only(path: str) -> str:
    """Name of the value with only this fake quant on."""
    return f"only {path}"


def without(path: str) -> str:
    """Name of the value with all fake quants on but this."""
    return f"without {path}"


class Exact:
    """Measures it. ``naive`` runs whole forwards, for comparison and for models that do not call
    their modules in the same order each time."""

    def __init__(
        self, subject: Subject, job: Job, *, limit: int = 1 << 30, naive: bool = False
    ) -> None:
        self._subject, self._job, self._naive = subject, job, naive
        weights = [site.module for site in subject.sites if site.kind == "weight"]
        self._tape = Tape(subject.model, weights, limit)
        self._all = frozenset(id(site.module) for site in subject.sites)
        self._sites = list(subject.sites)
        self._share: dict[str, float] = {}  # of a forward that a fake quant's run takes
        self._done = self._total = 0.0

    def measure(self, data: Iterable[Batch]) -> None:
        """Fill the job's ``kept``; returns early when it is asked to stop."""
        expected = self._job.expected(data)
        for index, inputs, target in self._job.of(data, self._subject.model):
            result = self._job.result(index, inputs, target)
            expected = max(expected, index + 1)
            if not result.complete:
                self._batch(result, inputs, target, (index, expected))
            if self._job.stopped:
                return

    def _batch(self, result: BatchResult, inputs: Any, target: Any, place: tuple[int, int]) -> None:
        model, judge = self._subject.model, self._job.judge
        self._place, self._done = place, 0.0

        def run() -> Any:
            return call_model(model, cloned(inputs))

        def measured(name: str, forward: Callable[[], Any], otherwise: str = "") -> bool:
            """Whether to go on. ``otherwise`` is the value where the output is that one's."""
            if self._job.asked_to_stop():
                return False
            if name not in result.values:
                before = self._tape.computed
                try:
                    result.values[name] = judge(forward(), target)
                except Unchanged:
                    result.values[name] = result.values[otherwise]
                self._job.spend(result, (self._tape.computed - before) / max(self._tape.total, 1))
            return True

        weights = frozenset(id(s.module) for s in self._sites if s.kind == "weight")
        if not self._half(FLOAT, run, result, measured):
            return
        for name, on in ((WEIGHTS, weights), (ACTIVATIONS, self._all - weights)):
            self._say(f"only {name}", 1.0)
            if not measured(name, partial(self._tape.plain, run, on)):
                return
        if not self._half(QUANTIZED, run, result, measured):
            return
        self._tape.forget()
        for path in result.order:  # where data decides which modules run, some run in one half only
            result.values.setdefault(only(path), result.values[FLOAT])
            result.values.setdefault(without(path), result.values[QUANTIZED])
        result.complete = True

    def _half(
        self,
        base: str,
        run: Run,
        result: BatchResult,
        measured: Callable[..., bool],
    ) -> bool:
        """A baseline, and a run for each fake quant that differs there. Whether to go on."""
        alone = base == FLOAT
        name = only if alone else without
        every: frozenset[int] = frozenset() if alone else self._all
        if base in result.values and all(name(p) in result.values for p in result.order):
            return True
        self._say("all fake quants off" if alone else "all fake quants on", 1.0)
        if self._job.asked_to_stop():
            return False
        result.values.pop(base, None)  # after a stop it is run again, to fill the tape
        measured(base, partial(self._baseline, run, every))
        self._learn(result)
        # The last one first: what modules leave in their attributes is that of the baseline then.
        for site in reversed(self._in_order()):
            self._say(f"{'only' if alone else 'all but'} {site.path}", self._share[site.path])
            forward = partial(self._run, run, every ^ {id(site.module)}, site)
            if not measured(name(site.path), forward, base):
                return False
        if self._tape.dropped:
            limit = self._tape.limit // 10**6
            self._job.kept.note(_DROPPED.format(dropped=self._tape.dropped, limit=limit))
        return True

    def _baseline(self, run: Run, on: frozenset[int]) -> Any:
        try:
            return self._tape.record(run, on)
        except Diverged:
            self._give_up()
            return self._tape.plain(run, on)

    def _run(self, run: Run, on: frozenset[int], site: Site) -> Any:
        if not self._naive:
            try:
                return self._tape.replay(run, on, site.module)
            except Diverged:
                self._give_up()
        return self._tape.plain(run, on)

    def _give_up(self) -> None:
        self._naive = True
        self._job.kept.note(_DIVERGED)

    def _in_order(self) -> list[Site]:
        """Those that run, by their first call."""
        firsts = {s.path: self._tape.first_call(s.module) for s in self._sites}
        ran = [s for s in self._sites if firsts[s.path] is not None]
        return sorted(ran, key=lambda s: firsts[s.path] or 0)

    def _learn(self, result: BatchResult) -> None:
        for number, site in enumerate(self._in_order()):
            result.order.setdefault(site.path, number)
            share = 1.0 if self._naive else self._tape.remaining(site.module)
            self._share[site.path] = max(share, 0.01)

    def _say(self, what: str, cost: float) -> None:
        """Report before something that costs ``cost`` forwards."""
        index, expected = self._place
        paths = [s.path for s in self._sites]
        one = 4 + 2 * sum(self._share.get(path, 0.5) for path in paths)
        share = (index + min(self._done / one, 1.0)) / expected
        self._job.report(f"batch {index + 1} of {expected}: {what}", share)
        self._done += cost
