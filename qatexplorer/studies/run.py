"""Does the arms of studies for each seed: kept, resumed, in processes; and what they gave."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from qatexplorer.quantizers.environment import environment
from qatexplorer.studies.base import Study, Work
from qatexplorer.studies.bench import Bench
from qatexplorer.studies.effort import FULL, Effort
from qatexplorer.studies.results import Results
from qatexplorer.training.trials import ShouldStop, Trial, TrialsProgress, trials

Key = Mapping[str, Any]


@dataclass(frozen=True)
class Worker:
    """Does one job: an arm with a seed. ``nets`` is where float nets are kept, None nowhere."""

    arms: Mapping[str, Work]
    nets: Path | None = None

    def __call__(self, key: Key, should_stop: ShouldStop) -> dict[str, Any]:
        """The values of the arm, the seconds that it took, and what it ran on.

        It computes with one thread, whatever the number of processes, so that the sums are the
        same.
        """
        if multiprocessing.parent_process() is not None:
            # Ctrl-C goes to all processes of a terminal; the first one ends the others.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        bench = Bench(Effort(**key["effort"]), self.nets)
        threads, began = torch.get_num_threads(), time.perf_counter()
        torch.set_num_threads(1)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                values = dict(self.arms[key["arm"]](key["seed"], bench))
        finally:
            torch.set_num_threads(threads)
        return {"values": values, "seconds": time.perf_counter() - began, "on": _here()}


def _here() -> dict[str, str]:
    found = environment()
    return {
        "CPU": str(found.cpu["name"]),
        "kernels": found.kernels,
        **found.versions,
        "date": datetime.now(timezone.utc).date().isoformat(),
    }


def jobs_of(studies: Iterable[Study], seeds: int, effort: Effort = FULL) -> list[dict[str, Any]]:
    """A key for each arm and seed; an arm that studies share is there once."""
    arms = dict.fromkeys(arm.name for study in studies for arm in study.arms)
    return [
        {"arm": name, "seed": seed, "effort": effort.to_json()}
        for seed in range(seeds)
        for name in arms
    ]


def run(
    studies: Sequence[Study],
    folder: str | os.PathLike[str] | None = None,
    *,
    seeds: int = 5,
    effort: Effort = FULL,
    processes: int = 1,
    storage: str | None = None,
    progress: Callable[[TrialsProgress], Any] | bool = False,
    should_stop: ShouldStop | None = None,
) -> Results:
    """Do what is not done yet of ``studies`` and return all that is known of them.

    Args:
        folder: each job is kept there as it ends, and is not done again; None keeps nothing.
        seeds: of 0 up to this.
        processes: jobs done at a time, see :func:`~qatexplorer.training.trials.trials`.
        storage: of optuna; several machines share the jobs, see :mod:`.shared`.
        progress: called as jobs end, or True for tqdm's bar, in notebooks as a widget.
        should_stop: asked between jobs; what is done by then is returned.

    Raises what an arm raises and what ``trials`` raises.
    """
    jobs = jobs_of(studies, seeds, effort)
    place = None if folder is None else Path(folder).expanduser().absolute()
    arms = {arm.name: arm.work for study in studies for arm in study.arms}
    worker = Worker(arms, place and place / "nets")
    with _Reporting(progress) as report:
        if storage is not None:
            from qatexplorer.studies.shared import shared_trials

            found = shared_trials(
                jobs, worker, place, storage, should_stop=should_stop, progress=report
            )
        else:
            found = trials(jobs, worker, place, processes, should_stop=should_stop, progress=report)
    return results_of(studies, seeds, effort, found, len(jobs))


def read(
    studies: Sequence[Study],
    folder: str | os.PathLike[str],
    *,
    seeds: int = 5,
    effort: Effort = FULL,
) -> Results:
    """What the folder has of ``studies``; nothing is run."""
    return run(studies, folder, seeds=seeds, effort=effort, should_stop=lambda: True)


def results_of(
    studies: Sequence[Study], seeds: int, effort: Effort, found: Iterable[Trial], total: int
) -> Results:
    """The results of jobs that were done."""
    values: dict[int, dict[str, Mapping[str, float]]] = {}
    on: dict[str, dict[str, None]] = {}
    done, seconds = 0, 0.0
    for trial in found:
        done, seconds = done + 1, seconds + trial.result["seconds"]
        values.setdefault(trial.key["seed"], {})[trial.key["arm"]] = trial.result["values"]
        for name, text in trial.result["on"].items():
            on.setdefault(name, {})[text] = None
    ran_on = {name: tuple(sorted(texts)) for name, texts in on.items()}
    return Results(tuple(studies), effort, seeds, values, seconds, ran_on, done, total)


class _Reporting:
    """Reports to a function, to tqdm's bar, or to nobody."""

    def __init__(self, progress: Callable[[TrialsProgress], Any] | bool) -> None:
        self._progress, self._bar = progress, None

    def __enter__(self) -> Callable[[TrialsProgress], Any] | None:
        if self._progress is not True:
            return self._progress or None
        from tqdm.auto import tqdm

        self._bar = tqdm(unit="job")
        return self._show

    def _show(self, now: TrialsProgress) -> None:
        bar: Any = self._bar
        bar.total = now.total
        bar.update(now.done - bar.n)
        if now.eta_s is not None:
            bar.set_postfix_str(f"about {now.eta_s:,.0f} s left")

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
