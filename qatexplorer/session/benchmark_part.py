"""The part of a session that measures how fast float and int8 are."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from qatexplorer.data import on_device
from qatexplorer.evaluate.benchmark import benchmark
from qatexplorer.evaluate.benchmark_records import Benchmark
from qatexplorer.session.measured import Measured
from qatexplorer.session.part import Part


class BenchmarkPart(Part):
    """Latency, throughput, memory and size of float, compiled float and int8."""

    _last: Measured

    def benchmark(
        self,
        batch_sizes: Iterable[int] | None = None,
        *,
        seconds: float = 10.0,
        threads: int | None = None,
        compiled: bool = True,
        progress: Callable[[str, float], Any] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> Benchmark:
        """Time float, ``torch.compile``d float and int8 by turns on this machine's CPU.

        Args:
            batch_sizes: lengths of the first dimension; None is 1 and that of the example input (or
                1 and 8 where that is 1). The example's samples are repeated or cut off.
            seconds: budget of the measurements that are compared. Modules and operators take less
                than half of it more, compiling several seconds a batch size.
            threads: of torch, put back after; None is as many as now.
            compiled: False leaves out ``torch.compile``, which needs a C++ compiler.
            progress: called with what is being done, and the share done by time, 0 to 1.
            should_stop: asked between forwards, not while compiling; True ends it, and the result
                has what was measured by then.

        Needs no data and no training: where there is no int8 model yet, a copy is converted, and a
        row that cannot be had says why. Raises InputError, BusyError while a run is going on.
        """
        report = progress or (lambda _what, _share: None)
        with self._lock:
            self._require_idle("measure latency")
            report(f"making the {self.flow.result} model", 0.0)
            models, notes = self._assessor.models_to_time()
            of, options = self._last.now, self._models.options
            form = self.flow.form(options)
        made = benchmark(
            models,
            on_device(options.example_inputs, torch.device("cpu")),
            notes=notes,
            batch_sizes=batch_sizes,
            seconds=seconds,
            threads=threads,
            engine=options.qconfig.backend if self.flow.runs_on_engine else "",
            form=form,
            compiled=compiled,
            progress=progress,
            should_stop=should_stop,
        )
        self._last.keep(of, benchmark=made)
        return made

    @property
    def last_benchmark(self) -> Benchmark | None:
        """What :meth:`benchmark` measured last; None before the first and after a change of the
        model."""
        return self._last.benchmark
