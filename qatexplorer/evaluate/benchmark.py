"""How fast float, compiled float and int8 are on this machine, and where the time goes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from qatexplorer.data import as_args, cloned
from qatexplorer.errors import InputError, StoppedError
from qatexplorer.evaluate.benchmark_records import (
    FEWEST,
    FORM_LABELS,
    FORMS,
    Benchmark,
    BenchmarkRow,
    ModuleTime,
)
from qatexplorer.evaluate.compiled import compile_forward
from qatexplorer.evaluate.measure import (
    Case,
    size_on_disk,
    time_by_turns,
    torch_threads,
)
from qatexplorer.evaluate.metric import batch_size, evaluation_mode
from qatexplorer.evaluate.profiled import OperatorTime, operator_times, peak_memory
from qatexplorer.flows.base import copy_sharing_parameters
from qatexplorer.forward.costs import ModuleTimes, time_modules
from qatexplorer.forward.preserve import preserved_rng, preserved_state
from qatexplorer.quantizers.cpu import cpu_facts
from qatexplorer.quantizers.engine import quantized_engine

Progress = Callable[[str, float], Any]

BATCH = 8
"""The larger batch where the example input is of one sample."""

_MOST = 1_000  # measurements of a form: more say nothing new
_MODULE_SHARE, _PROFILE_SHARE = 0.15, 0.05  # of the time budget, for each of two forms
_COMPILE_GUESS_S = 12.0


def benchmark(
    models: Mapping[str, nn.Module],
    inputs: Any,
    *,
    notes: Mapping[str, str] | None = None,
    batch_sizes: Iterable[int] | None = None,
    seconds: float = 10.0,
    threads: int | None = None,
    engine: str | None = None,
    form: str = FORM_LABELS["int8"],
    compiled: bool = True,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Benchmark:
    """Time ``models`` by turns, in eval mode and without gradients, on the CPU.

    Args:
        models: ``"float"`` and ``"int8"``, or one of them; on the CPU. They are put back as they
            were: mode, buffers, hooks.
        inputs: tensor, tuple or dict for one forward. Another batch size repeats or cuts the first
            dimension of every tensor that is as long there as the batch.
        notes: what is to be said of a form: why it is missing, or what it was made of.
        batch_sizes: None is 1 and that of ``inputs``, or 1 and 8 where that is 1.
        seconds: budget of the measurements that are compared; modules and operators take less than
            half of it more, and compiling what it takes.
        threads: of torch; None is as many as now. engine: of the int8 kernels; None is the present,
            ``""`` says that it runs on none. form: what ``"int8"`` is called in the result.
        compiled: whether to time ``torch.compile`` of ``"float"`` too.
        progress: called with what is being done, and the share done by time, 0 to 1.
        should_stop: asked between forwards (not while compiling); True ends it, and what was
            measured by then is returned.

    Mode, threads, engine and random state are put back, and what this process has compiled is not
    touched. A form that does not run at a batch size has a row that says why. Raises InputError for
    arguments that cannot be, UnknownEngineError.
    """
    sizes = _sizes(batch_sizes, inputs)
    _check_positive("seconds", seconds)
    if threads is not None:
        _check_positive("threads", threads)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    with ExitStack() as stack:
        stack.enter_context(preserved_rng())
        used = stack.enter_context(quantized_engine(engine or None)) if engine != "" else ""
        count = stack.enter_context(torch_threads(threads))
        wanted = (*models, "compiled") if compiled and "float" in models else tuple(models)
        made = _Making(
            models, inputs, wanted, dict(notes or {}), seconds, progress, should_stop, form
        )
        for model in models.values():
            stack.enter_context(preserved_state(model))
            stack.enter_context(evaluation_mode(model))
        result = made.run(sizes)
    return replace(
        result,
        cpu=str(cpu_facts()["name"]),
        threads=count,
        engine=used,
        form=form,
        torch=str(torch.__version__),
        load=load,
    )


def with_batch(inputs: Any, size: int) -> Any:
    """``inputs`` with ``size`` samples: those that are there, repeated or cut off."""
    own = batch_size((inputs, None))

    def resized(tensor: Tensor) -> Tensor:
        if tensor.dim() == 0 or tensor.shape[0] != own:
            return tensor
        return tensor[torch.arange(size, device=tensor.device) % own]

    return inputs if size == own else tree_map_only(Tensor, resized, inputs)


def _sizes(wanted: Iterable[int] | None, inputs: Any) -> tuple[int, ...]:
    if wanted is None:
        own = batch_size((inputs, None))
        return (1, own if own > 1 else BATCH)
    sizes = tuple(sorted(set(wanted)))
    if not sizes or not all(isinstance(size, int) and size > 0 for size in sizes):
        raise InputError(f"batch_sizes are whole numbers of at least 1, not {list(sizes)}.")
    return sizes


def _check_positive(name: str, value: float) -> None:
    if not value > 0:
        raise InputError(f"{name} must be more than 0, not {value}.")


class _Clock:
    """Says how far a benchmark is, by the time that its parts are expected to take."""

    def __init__(self, progress: Progress | None, parts: Mapping[str, float]) -> None:
        self._progress, self._parts = progress, dict(parts)
        self._begun = time.perf_counter()

    @property
    def elapsed(self) -> float:
        return time.perf_counter() - self._begun

    def at(self, part: str, words: str, share: float = 0.0) -> None:
        """``share`` of ``part`` is done, and so are all parts before it."""
        names = list(self._parts)
        for before in names[: names.index(part)]:
            self._parts[before] = 0.0
        left = sum(self._parts.values()) - self._parts[part] * share
        done = self.elapsed
        if self._progress is not None:
            self._progress(words, done / (done + left) if done + left > 0 else 1.0)


class _Making:
    """One benchmark on its way."""

    def __init__(
        self,
        models: Mapping[str, nn.Module],
        inputs: Any,
        wanted: tuple[str, ...],
        notes: dict[str, str],
        seconds: float,
        progress: Progress | None,
        should_stop: Callable[[], bool] | None,
        form: str,
    ) -> None:
        self._form = form
        self._models, self._inputs = models, inputs
        self._notes, self._seconds = notes, seconds
        # A form that is missing has rows too, if something is said of it.
        self._forms = [form for form in FORMS if form in (*wanted, *notes)]
        self._should_stop = should_stop or (lambda: False)
        details = len(models) * seconds
        self._clock = _Clock(
            progress,
            {
                "compile": _COMPILE_GUESS_S if "compiled" in wanted else 0.0,
                "time": seconds,
                "modules": details * _MODULE_SHARE,
                "operators": details * _PROFILE_SHARE,
            },
        )
        self._cases: dict[tuple[str, int], Case] = {}
        self._rows: dict[tuple[str, int], BenchmarkRow] = {}
        self._said: list[str] = []

    def run(self, sizes: tuple[int, ...]) -> Benchmark:
        modules: tuple[ModuleTime, ...] = ()
        operators: tuple[OperatorTime, ...] = ()
        complete = True
        for form in self._forms:
            for size in sizes:
                self._rows[form, size] = self._row_of(form, size)
        with torch.no_grad():
            try:
                self._make_cases(sizes)
                self._measure()
                modules = self._modules(sizes)
                operators = self._operators(sizes)
            except StoppedError:
                complete = False
        return Benchmark(
            rows=tuple(self._rows.values()),
            modules=modules,
            operators=operators,
            seconds=self._clock.elapsed,
            complete=complete,
            notes=tuple(self._said),
        )

    def _row_of(self, form: str, size: int) -> BenchmarkRow:
        model = self._models.get("float" if form == "compiled" else form)
        bytes_ = None if model is None else size_on_disk(model)
        return BenchmarkRow(form, size, size_bytes=bytes_, note=self._notes.get(form, ""))

    def _ask(self) -> None:
        if self._should_stop():
            raise StoppedError("the benchmark was stopped.")

    def _words(self, form: str) -> str:
        return self._form if form == "int8" else form

    def _note(self, form: str, size: int, note: str) -> None:
        row = self._rows[form, size]
        self._rows[form, size] = replace(row, note=" ".join(filter(None, (row.note, note))))

    # -- its parts ------------------------------------------------------------------------------

    def _make_cases(self, sizes: tuple[int, ...]) -> None:
        """What is to be timed: each form that runs at each batch size."""
        cpu = torch.device("cpu")
        for number, size in enumerate(sizes):
            inputs = with_batch(self._inputs, size)
            for form, model in self._models.items():
                self._ask()
                try:
                    _call(model, inputs)
                except Exception as error:
                    self._note(form, size, _does_not_run(error, size))
                else:
                    self._cases[form, size] = Case(model, inputs, cpu)
            if "compiled" not in self._forms:
                continue
            if ("float", size) not in self._cases:
                self._note("compiled", size, "There is no float forward to compile.")
                continue
            self._ask()
            words = f"compiling the float model, batch of {size}"
            self._clock.at("compile", words, number / len(sizes))
            forward, why = compile_forward(
                copy_sharing_parameters(self._models["float"]), cloned(inputs)
            )
            if forward is None:
                self._note("compiled", size, why)
            else:
                self._cases["compiled", size] = Case(forward, inputs, cpu)

    def _measure(self) -> None:
        self._ask()
        if not self._cases:
            return
        words = "timing all forms by turns"
        self._clock.at("time", words)
        for key, latency in time_by_turns(
            self._cases,
            repeats=_MOST,
            budget_s=self._seconds,
            least=FEWEST,
            stops_at_once=True,
            progress=lambda share: self._clock.at("time", words, share),
            should_stop=self._should_stop,
        ).items():
            row = self._rows[key]
            self._rows[key] = replace(row, latency=latency, per_second=latency.per_second)
        self._ask()
        for form, size in self._cases:
            self._ask()
            case = self._cases[form, size]
            words = self._words(form)
            with self._tolerated(f"The peak of memory of {words} could not be measured"):
                given = cloned(case.inputs)
                peak = peak_memory(lambda: _call(case.call, given))  # noqa: B023
                self._rows[form, size] = replace(self._rows[form, size], peak_bytes=peak)

    def _modules(self, sizes: tuple[int, ...]) -> tuple[ModuleTime, ...]:
        """Module by module at the largest batch that runs."""
        found: list[ModuleTime] = []
        forms = self._largest(sizes)
        for number, (form, size) in enumerate(forms):
            words = f"timing the modules of {self._words(form)}"
            self._clock.at("modules", words, number / len(forms))
            model = self._models[form]
            with self._tolerated(f"The modules of {self._words(form)} could not be timed"):
                times = time_modules(
                    model,
                    self._cases[form, size].inputs,
                    repeats=_MOST,
                    budget_s=self._seconds * _MODULE_SHARE,
                    should_stop=self._should_stop,
                )
                found += _module_rows(form, model, times)
        return tuple(found)

    def _operators(self, sizes: tuple[int, ...]) -> tuple[OperatorTime, ...]:
        found: list[OperatorTime] = []
        for form, size in self._largest(sizes):
            self._ask()
            self._clock.at("operators", f"profiling the operators of {self._words(form)}")
            case, latency = self._cases[form, size], self._rows[form, size].latency
            once = latency.median_s if latency is not None else 1.0
            # The profiler makes a short forward several times as long.
            runs = max(1, min(20, round(self._seconds * _PROFILE_SHARE / (4 * max(once, 1e-4)))))
            with self._tolerated(f"The operators of {self._words(form)} could not be profiled"):
                given = cloned(case.inputs)
                found += operator_times(
                    form,
                    self._models[form],
                    lambda: _call(case.call, given),  # noqa: B023
                    runs,
                )
        self._clock.at("operators", "done", 1.0)
        return tuple(sorted(found, key=lambda row: -row.seconds))

    def _largest(self, sizes: tuple[int, ...]) -> list[tuple[str, int]]:
        """Each of the models with the largest batch size at which all of them run, else its own."""
        common = [s for s in sizes if all((form, s) in self._cases for form in self._models)]
        chosen = []
        for form in self._models:
            runs = common or [s for s in sizes if (form, s) in self._cases]
            if runs:
                chosen.append((form, runs[-1]))
        return chosen

    @contextmanager
    def _tolerated(self, what: str) -> Iterator[None]:
        """What fails here is missing in the result, which says so."""
        try:
            yield
        except StoppedError:
            raise
        except Exception as error:
            self._said.append(f"{what}: {_first_line(error)}")


def _call(call: Callable[..., Any], inputs: Any) -> Any:
    args, kwargs = as_args(inputs)
    return call(*args, **kwargs)


def _does_not_run(error: Exception, size: int) -> str:
    return f"Does not run with a batch of {size}: {_first_line(error)}"


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"


def _module_rows(form: str, model: nn.Module, times: ModuleTimes) -> list[ModuleTime]:
    """A module's own time is what is left without the modules nearest below it that were timed."""
    below: dict[str, float] = {}
    for path, seconds in times.seconds.items():
        if path:
            above = path.rpartition(".")[0]
            while above and above not in times.seconds:
                above = above.rpartition(".")[0]
            below[above] = below.get(above, 0.0) + seconds
    whole = times.seconds.get("", 0.0) or 1.0
    rows = []
    for path, module in model.named_modules():
        if path in times.seconds:
            seconds = times.seconds[path]
            own = max(0.0, seconds - below.get(path, 0.0))
            rows.append(ModuleTime(form, path, type(module).__name__, seconds, own, own / whole))
    return rows
