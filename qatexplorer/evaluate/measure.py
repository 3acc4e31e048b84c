"""Size on disk and time of one forward."""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import IO, Any, Generic, TypeVar, cast

import torch
from torch.nn import Module

from qatexplorer.data import as_args, cloned, device_of, on_device, synchronize
from qatexplorer.errors import InputError
from qatexplorer.evaluate.metric import batch_size, evaluation_mode
from qatexplorer.quantizers.engine import quantized_engine

Key = TypeVar("Key")

MEASUREMENT_S = 0.001
"""A forward that takes less is timed several at once. As short as those of torch's own timer: on a
busy machine most are then disturbed by nothing, and so is their median."""

_LONG_S = 0.5  # so long a forward reads all its weights from memory anyway
_SHORT_S = 0.05


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds for one forward: median, 10th and 90th percentile of ``repeats`` measurements.

    Attributes:
        q1_s, q3_s: quartiles of the measurements, their distance is the spread (IQR).
        runs_each: forwards in each measurement, which is their mean.
    """

    median_s: float
    p10_s: float
    p90_s: float
    repeats: int
    threads: int
    engine: str
    batch_size: int
    q1_s: float = 0.0
    q3_s: float = 0.0
    runs_each: int = 1

    @property
    def iqr_s(self) -> float:
        """Interquartile range."""
        return self.q3_s - self.q1_s

    @property
    def per_second(self) -> float:
        """Samples a second at the median."""
        return self.batch_size / self.median_s if self.median_s > 0 else float("inf")


@dataclass(frozen=True, slots=True)
class Case:
    """What is timed: ``call`` with ``inputs`` (tensor, tuple or dict), which lie on ``device``."""

    call: Callable[..., Any]
    inputs: Any
    device: torch.device


class _Counter(io.RawIOBase):
    """A file that only counts, so that measuring a size needs no second copy of the model."""

    def __init__(self) -> None:
        self.size = 0
        self._at = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        length = memoryview(data).nbytes
        self._at += length
        self.size = max(self.size, self._at)
        return length


def size_on_disk(model: Module) -> int:
    """Bytes of ``torch.save(model.state_dict())``; nothing is written anywhere."""
    counter = _Counter()
    torch.save(_plain(model.state_dict()), cast(IO[bytes], counter))
    return counter.size


def _plain(state: dict[str, Any]) -> dict[str, Any]:
    """``state`` with something of the same size for what oneDNN has packed for itself, which
    cannot be saved."""
    packed = [n for n, v in state.items() if isinstance(v, torch.Tensor) and v.is_mkldnn]
    for name in packed:
        state[name] = torch.empty(state[name].shape, dtype=state[name].dtype)
    return state


def latency(
    model: Module,
    inputs: Any,
    *,
    repeats: int = 30,
    warmup: int = 5,
    budget_s: float = 3.0,
    threads: int | None = None,
    engine: str | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Latency:
    """Time one forward of ``model`` on ``inputs``, in eval mode and without gradients.

    Args:
        repeats: measurements at most; at least one is made.
        warmup: runs before those, not counted; at least one.
        budget_s: no new measurement begins when this many seconds are over.
        threads: torch threads for the measurement (put back after); None is the present number.
        engine: quantized engine; None is the present one.
        should_stop: asked before every measurement; True ends it early.

    Raises UnknownEngineError, and whatever the model raises.
    """
    measured = compare_latency(
        {"model": model},
        inputs,
        repeats=repeats,
        warmup=warmup,
        budget_s=budget_s,
        threads=threads,
        engine=engine,
        should_stop=should_stop,
    )
    return measured["model"]


def compare_latency(
    models: Mapping[str, Module],
    inputs: Any,
    *,
    repeats: int = 30,
    warmup: int = 5,
    budget_s: float = 10.0,
    threads: int | None = None,
    engine: str | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> dict[str, Latency]:
    """Time several models by turns (A B A B …), so that ratios hold on a noisy machine.

    Arguments as for :func:`latency`; the budget is for all models together.
    """
    if not models:
        raise InputError("There is no model to time.")
    cases = {
        name: Case(model, on_device(inputs, device_of(model)), device_of(model))
        for name, model in models.items()
    }
    with ExitStack() as stack:
        for model in models.values():
            stack.enter_context(evaluation_mode(model))
        return time_by_turns(
            cases,
            repeats=repeats,
            warmup=warmup,
            budget_s=budget_s,
            threads=threads,
            engine=engine,
            should_stop=should_stop,
        )


def time_by_turns(
    cases: Mapping[Key, Case],
    *,
    repeats: int,
    warmup: int = 5,
    budget_s: float,
    threads: int | None = None,
    engine: str | None = None,
    least: int = 1,
    stops_at_once: bool = False,
    progress: Callable[[float], Any] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> dict[Key, Latency]:
    """Time calls by turns: a measurement of each, then the next of each.

    A measurement is the mean of so many forwards that it takes :data:`MEASUREMENT_S`, as
    ``torch.utils.benchmark`` makes them too. Where several are timed, two forwards go before it
    that are not counted (one of a slow model): they bring back into the caches what the others have
    pushed out.

    Args:
        least: measurements of each that are made though time is over, and
        stops_at_once: whether a stop ends these too; what was not timed by then is left out of what
            is returned.
        progress: called with the share that is done, 0 to 1.

    The others are those of :func:`latency`. The caller sets the models' mode.
    """
    begun = time.perf_counter()
    turns = _Turns(cases, begun + budget_s, should_stop, stops_at_once)
    with quantized_engine(engine) as used, torch_threads(threads) as count, torch.no_grad():
        turns.warm_up(max(1, warmup))
        for index in range(max(1, repeats)):
            if not turns.measure(index < least):
                break
            if progress is not None:
                spent = (time.perf_counter() - begun) / budget_s if budget_s > 0 else 1.0
                progress(min(1.0, max(spent, (index + 1) / repeats)))
    return {
        key: _summary(taken, turns.runs[key], count, used, batch_size((cases[key].inputs, None)))
        for key, taken in turns.times.items()
        if taken
    }


class _Turns(Generic[Key]):
    """The measurements of :func:`time_by_turns`, and how many forwards each is of."""

    def __init__(
        self,
        cases: Mapping[Key, Case],
        until: float,
        should_stop: Callable[[], bool] | None,
        stops_at_once: bool,
    ) -> None:
        self._until, self._stops_at_once = until, stops_at_once
        self._should_stop = should_stop or (lambda: False)
        self._cases = {
            key: (case.call, *as_args(cloned(case.inputs)), case.device)
            for key, case in cases.items()
        }
        self._fastest: dict[Key, float] = {}
        self.runs: dict[Key, int] = dict.fromkeys(cases, 1)
        self.times: dict[Key, list[float]] = {key: [] for key in cases}

    def _over(self, needed: bool) -> bool:
        if needed:
            return self._stops_at_once and self._should_stop()
        return self._should_stop() or time.perf_counter() >= self._until

    def warm_up(self, rounds: int) -> None:
        for index in range(rounds):
            for key, case in self._cases.items():
                if self._over(needed=index == 0):
                    return
                seconds = _seconds(*case, runs=1)
                self._fastest[key] = min(seconds, self._fastest.get(key, seconds))
                self.runs[key] = max(1, round(MEASUREMENT_S / max(self._fastest[key], 1e-6)))

    def measure(self, needed: bool) -> bool:
        """One measurement of each; False where it was over before the last."""
        for key, case in self._cases.items():
            if self._over(needed):
                return False
            fastest = self._fastest.get(key, 0.0)
            if len(self._cases) > 1 and fastest < _LONG_S:
                _seconds(*case, runs=2 if fastest < _SHORT_S else 1)
            self.times[key].append(_seconds(*case, runs=self.runs[key]))
        return True


def _seconds(
    call: Callable[..., Any], args: Any, kwargs: Any, device: torch.device, runs: int
) -> float:
    """Time of one of ``runs`` calls, until their device has done them."""
    synchronize(device)
    started = time.perf_counter()
    for _ in range(runs):
        call(*args, **kwargs)
    synchronize(device)
    return (time.perf_counter() - started) / runs


def _summary(times: list[float], runs: int, threads: int, engine: str, size: int) -> Latency:
    ordered = sorted(times)
    last = len(ordered) - 1
    return Latency(
        median_s=statistics.median(ordered),
        p10_s=ordered[round(0.1 * last)],
        p90_s=ordered[round(0.9 * last)],
        repeats=len(ordered),
        threads=threads,
        engine=engine,
        batch_size=size,
        q1_s=ordered[round(0.25 * last)],
        q3_s=ordered[round(0.75 * last)],
        runs_each=runs,
    )


@contextmanager
def torch_threads(count: int | None) -> Iterator[int]:
    """``count`` threads for torch inside, None for as many as now. Gives the number."""
    before = torch.get_num_threads()
    try:
        if count is not None and count != before:
            torch.set_num_threads(count)
        yield torch.get_num_threads()
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)
