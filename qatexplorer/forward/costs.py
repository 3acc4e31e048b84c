"""What each module of a model costs in one forward: multiply-accumulates and time.

Both are sums: those of a module contain those of all modules below it, and a module that several
paths name counts once, at the first of its paths.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from qatexplorer.data import as_args, cloned, device_of, on_device, synchronize
from qatexplorer.errors import StoppedError
from qatexplorer.forward.hooks import hooked
from qatexplorer.forward.preserve import preserved_state
from qatexplorer.forward.record import record_forward
from qatexplorer.forward.scripted import named_python_modules
from qatexplorer.quantizers.facts import freeze_observers


def count_macs(model: nn.Module, inputs: Any) -> dict[str, int]:
    """Multiply-accumulates of each module in one forward of ``inputs``, by path.

    ``""`` is the whole model. A module that runs without a multiplication of matrices has 0; one
    that does not run is left out, unless something below it runs (a ``ModuleList``). Operations
    count for the module whose forward calls them. The formulas are torch's own, see
    :mod:`~qatexplorer.forward.macs`; they know float operations, so the model to count is the float
    one. It runs once in the mode it is in, and is put back. Raises whatever its forward raises.
    """
    recording = record_forward(model, inputs)
    found: dict[str, int] = {"": 0}
    for path in recording.module_calls:
        for around in _around(path):
            found.setdefault(around, 0)
    for path, macs in recording.module_macs.items():
        for around in _around(path):
            found[around] = found.get(around, 0) + macs
    order = {path: index for index, (path, _) in enumerate(model.named_modules())}
    return dict(sorted(found.items(), key=lambda item: order.get(item[0], len(order))))


def _around(path: str) -> Iterator[str]:
    """``"a.b"``, ``"a"`` and ``""`` for ``"a.b"``."""
    while path:
        yield path
        path = path.rpartition(".")[0]
    yield ""


@dataclass(frozen=True, slots=True)
class ModuleTimes:
    """Seconds of one forward, medians over ``repeats`` of them.

    Attributes:
        seconds: spent in each module that ran, all its calls and all below it together, by path.
            What the hooks that measure take themselves is in it: a few microseconds for every
            module below.
        forward_s: of the whole forward without any hook, timed by turns with the others.
    """

    seconds: Mapping[str, float]
    forward_s: float
    repeats: int


def time_modules(
    model: nn.Module,
    inputs: Any,
    *,
    repeats: int = 9,
    warmup: int = 2,
    budget_s: float = 20.0,
    progress: Callable[[float], Any] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> ModuleTimes:
    """Time every module of ``model`` by hooks, in eval mode, without gradients, observers off.

    Args:
        repeats: forwards that are timed at most, by turns with as many that have no hooks; at least
            one. warmup: forwards before those.
        budget_s: no further forward begins when this many seconds are over.
        progress: called with the share of the work that is done, 0 to 1.
        should_stop: asked before every forward; True ends it with StoppedError.

    On a device other than the CPU each hook waits for it, which is slower than a plain forward. The
    model's state, mode, hooks and random state are put back. Raises whatever its forward raises.
    """
    until = time.perf_counter() + budget_s
    turns = warmup + max(1, repeats)
    device = device_of(model)
    args, kwargs = as_args(on_device(inputs, device))
    plain: list[float] = []
    taken: dict[str, list[float]] = {}

    def forward() -> float:
        given, named = cloned(args), cloned(kwargs)
        synchronize(device)
        started = time.perf_counter()
        model(*given, **named)
        synchronize(device)
        return time.perf_counter() - started

    with preserved_state(model), torch.no_grad():
        model.eval()
        freeze_observers(model)
        for turn in range(turns):
            if should_stop is not None and should_stop():
                raise StoppedError("timing the modules was stopped.")
            if plain and time.perf_counter() >= until:
                break
            whole = forward()
            spent: dict[str, float] = {}
            with _stopwatches(model, device, spent):
                forward()
            if turn >= warmup:
                plain.append(whole)
                for path, seconds in spent.items():
                    taken.setdefault(path, []).append(seconds)
            if progress is not None:
                progress((turn + 1) / turns)
    medians = {path: statistics.median(values) for path, values in taken.items()}
    return ModuleTimes(medians, statistics.median(plain), len(plain))


@contextmanager
def _stopwatches(model: nn.Module, device: torch.device, spent: dict[str, float]) -> Iterator[None]:
    """Add the time of every module call to ``spent``, by the first path of the module."""
    paths = {id(module): path for path, module in model.named_modules()}
    running: list[tuple[int, float]] = []

    def begin(_path: str, module: nn.Module, _args: Any, _kwargs: Any) -> None:
        synchronize(device)
        running.append((id(module), time.perf_counter()))

    def end(_path: str, module: nn.Module, _args: Any, _kwargs: Any, _out: Any) -> None:
        synchronize(device)
        now = time.perf_counter()
        while running:
            key, started = running.pop()
            if key == id(module):
                break  # those above were left by an exception that was caught
        else:
            return
        path = paths.get(id(module))
        # A module that calls itself is in its own time already.
        if path is not None and all(key != id(module) for key, _ in running):
            spent[path] = spent.get(path, 0.0) + now - started

    # The outermost of the module's hooks: what its other hooks do is part of its time.
    with hooked(named_python_modules(model), begun=begin, left=end):
        yield
