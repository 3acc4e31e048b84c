"""Size on disk and time of one forward."""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import IO, Any, cast

import torch
from torch.nn import Module

from qatexplorer.data import as_args, cloned, device_of, on_device, synchronize
from qatexplorer.errors import InputError
from qatexplorer.evaluate.metric import batch_size, evaluation_mode
from qatexplorer.quantizers.engine import quantized_engine


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds for one forward: median, 10th and 90th percentile of ``repeats`` runs."""

    median_s: float
    p10_s: float
    p90_s: float
    repeats: int
    threads: int
    engine: str
    batch_size: int


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
    torch.save(model.state_dict(), cast(IO[bytes], counter))
    return counter.size


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
        repeats: timed runs at most; at least one is made.
        warmup: runs before those, not counted; at least one.
        budget_s: no new run begins when this many seconds are over.
        threads: torch threads for the measurement (put back after); None is the present number.
        engine: quantized engine; None is the present one.
        should_stop: asked before every run; True ends the measurement early.

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
    given = {
        name: as_args(cloned(on_device(inputs, device_of(model)))) for name, model in models.items()
    }
    times: dict[str, list[float]] = {name: [] for name in models}
    until = time.perf_counter() + budget_s

    def over() -> bool:
        return time.perf_counter() >= until or (should_stop is not None and should_stop())

    with quantized_engine(engine) as used, _threads(threads) as count, ExitStack() as stack:
        for model in models.values():
            stack.enter_context(evaluation_mode(model))
        for index in range(max(1, warmup)):
            if index and over():
                break
            for name in models:
                _seconds(models[name], *given[name])
        for index in range(max(1, repeats)):
            if index and over():
                break
            for name in models:
                times[name].append(_seconds(models[name], *given[name]))
    size = batch_size((inputs, None))
    return {name: _summary(taken, count, used, size) for name, taken in times.items()}


def _seconds(model: Module, args: Any, kwargs: Any) -> float:
    """Time of one forward, until its device has done it."""
    device = device_of(model)
    synchronize(device)
    started = time.perf_counter()
    model(*args, **kwargs)
    synchronize(device)
    return time.perf_counter() - started


def _summary(times: list[float], threads: int, engine: str, size: int) -> Latency:
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
    )


@contextmanager
def _threads(count: int | None) -> Iterator[int]:
    before = torch.get_num_threads()
    try:
        if count is not None and count != before:
            torch.set_num_threads(count)
        yield torch.get_num_threads()
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)
