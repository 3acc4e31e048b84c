"""Time of each operator and peak of memory of a forward, as torch's profiler sees them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.profiler import ProfilerActivity, profile, record_function

from qatexplorer.forward.hooks import hooked
from qatexplorer.forward.scripted import named_python_modules

OUTSIDE = "outside of operators"
"""Name of the row for what is spent in Python, and by the profiler itself."""

_MODULE = "qatexplorer module "


@dataclass(frozen=True, slots=True)
class OperatorTime:
    """One of torch's operators in one module, in one forward under ``torch.profiler``.

    Attributes:
        form: of the model, ``"float"`` or ``"int8"``.
        path: of the module in whose forward it is called, ``""`` for the model's own.
        name: of the operator, as ``"aten::addmm"``; :data:`OUTSIDE` is what no operator takes.
        calls: in one forward. seconds: in one forward, without the operators that it calls.
        share: of the forward under the profiler, 0 to 1.
    """

    form: str
    path: str
    name: str
    calls: float
    seconds: float
    share: float


def operator_times(
    form: str, model: nn.Module, forward: Callable[[], Any], runs: int
) -> tuple[OperatorTime, ...]:
    """The operators that ``forward``, which calls ``model``, runs on this thread and the CPU,
    means over ``runs`` forwards, the longest first. Raises what the forward raises."""
    with _named_modules(model), profile(activities=[ProfilerActivity.CPU]) as seen:
        for _ in range(runs):
            with record_function(_MODULE):
                forward()
    spent: dict[tuple[str, str], tuple[int, float]] = {}
    for event in seen.events() or ():
        if event.device_type != DeviceType.CPU:
            continue
        around = event
        while around is not None and not around.name.startswith(_MODULE):
            around = around.cpu_parent
        if around is None:
            continue
        own = around is event
        key = ("", OUTSIDE) if own else (around.name[len(_MODULE) :], event.name)
        calls, micros = spent.get(key, (0, 0.0))
        spent[key] = calls + (not own), micros + event.self_cpu_time_total
    total = sum(micros for _, micros in spent.values()) or 1.0
    rows = [
        OperatorTime(form, path, name, calls / runs, micros / runs / 1e6, micros / total)
        for (path, name), (calls, micros) in spent.items()
    ]
    return tuple(sorted(rows, key=lambda row: -row.seconds))


def peak_memory(forward: Callable[[], Any]) -> int:
    """Bytes that torch's CPU allocator holds at most during ``forward``, above what it held before:
    activations, the output and buffers of operators. Weights and inputs, which are there before,
    are not in it, nor what a kernel allocates by itself. Raises what the forward raises."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        result = forward()
    found: Any = seen.profiler
    events = [
        (event.start_ns(), event.nbytes())
        for event in found.kineto_results.events()
        if event.name() == "[memory]" and event.device_type() == DeviceType.CPU
    ]
    del result  # until here the output is part of what is held
    held = peak = 0
    for _, size in sorted(events, key=lambda event: event[0]):
        held += size
        peak = max(peak, held)
    return peak


@contextmanager
def _named_modules(model: nn.Module) -> Iterator[None]:
    """Every module call is a range of the profiler, named by the first path of the module."""
    running = list[tuple[str, Any]]()

    def begin(path: str, *_call: Any) -> None:
        entered = record_function(_MODULE + path)
        entered.__enter__()
        running.append((path, entered))

    def end(path: str, *_call: Any) -> None:
        while running:
            name, entered = running.pop()
            entered.__exit__(None, None, None)
            if name == path:
                break  # those above were left by an exception that was caught

    with hooked(named_python_modules(model), begun=begin, left=end):
        yield
