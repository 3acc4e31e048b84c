"""Many trainings that do not need each other: one after another or in processes of their own, each
result kept as soon as it is there, so that what was cut short goes on where it was."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from qatexplorer.errors import InputError, RunFolderError, StoppedError, TrainingError
from qatexplorer.runs.files import read_json, write_json

ShouldStop = Callable[[], bool]
Run = Callable[[Mapping[str, Any], ShouldStop], Mapping[str, Any]]
"""Does a job: of its key and a function that says whether to stop (then it raises StoppedError),
makes the result, a dict for JSON."""

_ASK_EVERY_S = 0.2


@dataclass(frozen=True)
class Trial:
    """A job that was done. ``key`` and ``result`` are as JSON holds them; ``seconds`` it took;
    ``kept``: it was done before and read from the folder."""

    key: Mapping[str, Any]
    result: Mapping[str, Any]
    seconds: float
    kept: bool = False


@dataclass(frozen=True)
class TrialsProgress:
    """``done`` of ``total`` jobs are done, ``kept`` of them before. ``elapsed_s`` of this call;
    ``eta_s`` by the mean time of the jobs done, None before there is one."""

    done: int
    total: int
    kept: int
    elapsed_s: float
    eta_s: float | None


def trials(
    jobs: Sequence[Mapping[str, Any]],
    run: Run,
    folder: str | os.PathLike[str] | None = None,
    processes: int = 1,
    *,
    should_stop: ShouldStop | None = None,
    progress: Callable[[TrialsProgress], Any] | None = None,
) -> tuple[Trial, ...]:
    """Do ``run(key, should_stop)`` for each key of ``jobs``; returns what was done, in their order.

    Args:
        jobs: a key a job, a dict for JSON; equal ones are one job.
        run: for more than one process it must be picklable: a function of a module, or an instance
            of a class of a module with ``__call__``.
        folder: each result is written to ``<hash of the key>.json`` there, whole or not at all, and
            a job whose file is there is not done again. None keeps nothing.
        processes: more than one does as many jobs at a time, each in a fresh process with its share
            of torch's threads. (With another number of threads sums can differ in the last bit.)
        should_stop: asked a few times a second, and within a job as often as ``run`` does; after
            True no job begins, and what is done is returned.
        progress: called on this thread at the start and after each job.

    Raises what ``run`` raises, after which no job begins; InputError for a key that is no JSON, for
    a ``run`` that cannot be sent to a process; RunFolderError for a folder that cannot be written;
    TrainingError if a process was killed. What is in the folder by then stays.
    """
    _check_processes(processes)
    place = _Place(folder)
    keys = list({place.name(key): json.loads(json.dumps(key)) for key in jobs}.values())
    found = {place.name(key): trial for key in keys if (trial := place.read(key)) is not None}
    waiting = [key for key in keys if place.name(key) not in found]
    watch = _Watch(len(keys), len(found), processes, should_stop or (lambda: False), progress)
    several = processes > 1 and len(waiting) > 1
    done = (
        _in_processes(waiting, run, place, min(processes, len(waiting)), watch)
        if several
        else _in_turn(waiting, run, place, watch)
    )
    watch.report()
    for trial in done:
        found[place.name(trial.key)] = trial
        watch.one_more(trial)
    return tuple(found[place.name(key)] for key in keys if place.name(key) in found)


def _check_processes(processes: Any) -> None:
    if isinstance(processes, bool) or not isinstance(processes, int) or processes < 1:
        raise InputError(f"processes is {processes!r}; it must be a whole number from 1 on.")


class _Place:
    """The folder of the results, or none."""

    def __init__(self, folder: str | os.PathLike[str] | None) -> None:
        self._folder = None if folder is None else Path(folder).expanduser().absolute()
        if self._folder is not None:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise _unusable(self._folder, error) from error

    @staticmethod
    def name(key: Mapping[str, Any]) -> str:
        try:
            text = json.dumps(key, sort_keys=True)
        except TypeError as error:
            raise InputError("the key of a job is no JSON.", why=str(error)) from error
        return hashlib.sha256(text.encode()).hexdigest()[:20]

    def read(self, key: Mapping[str, Any]) -> Trial | None:
        if self._folder is None:
            return None
        kept = read_json(self._folder / f"{self.name(key)}.json")
        if not isinstance(kept, dict) or kept.get("key") != key or "result" not in kept:
            return None
        return Trial(key, kept["result"], float(kept.get("seconds", 0.0)), kept=True)

    def write(self, trial: Trial) -> None:
        if self._folder is None:
            return
        path = self._folder / f"{self.name(trial.key)}.json"
        content = {"key": trial.key, "result": trial.result, "seconds": trial.seconds}
        try:
            write_json(path, content)
        except OSError as error:
            raise _unusable(self._folder, error) from error


def _unusable(folder: Path, error: OSError) -> RunFolderError:
    return RunFolderError(
        f"results cannot be kept in {folder}.", why=f"{type(error).__name__}: {error}"
    )


class _Watch:
    """Counts, estimates, reports, and asks whether to stop."""

    def __init__(
        self,
        total: int,
        kept: int,
        processes: int,
        should_stop: ShouldStop,
        progress: Callable[[TrialsProgress], Any] | None,
    ) -> None:
        self.should_stop, self._progress = should_stop, progress
        self._total, self._kept, self._processes = total, kept, processes
        self._done, self._seconds, self._began = kept, 0.0, time.perf_counter()

    def one_more(self, trial: Trial) -> None:
        self._done += 1
        self._seconds += trial.seconds
        self.report()

    def report(self) -> None:
        if self._progress is None:
            return
        here, left = self._done - self._kept, self._total - self._done
        eta = None
        if not left:
            eta = 0.0
        elif here:
            # Of the last ones there are fewer than processes.
            eta = self._seconds / here * -(-left // self._processes)
        elapsed = time.perf_counter() - self._began
        self._progress(TrialsProgress(self._done, self._total, self._kept, elapsed, eta))


def _done(key: Mapping[str, Any], run: Run, place: _Place, should_stop: ShouldStop) -> Trial:
    began = time.perf_counter()
    result = json.loads(json.dumps(dict(run(key, should_stop))))
    trial = Trial(key, result, time.perf_counter() - began)
    place.write(trial)
    return trial


def _in_turn(
    keys: Sequence[Mapping[str, Any]], run: Run, place: _Place, watch: _Watch
) -> Iterator[Trial]:
    for key in keys:
        if watch.should_stop():
            return
        try:
            yield _done(key, run, place, watch.should_stop)
        except StoppedError:
            return


# -- in processes ----------------------------------------------------------------------------------


def _in_processes(
    keys: Sequence[Mapping[str, Any]], run: Run, place: _Place, processes: int, watch: _Watch
) -> Iterator[Trial]:
    try:
        sent = pickle.dumps((run, place))
    except Exception as error:
        raise InputError(
            "the jobs cannot be sent to processes of their own.",
            why=f"{type(error).__name__}: {error}",
            fix="Use processes=1, or define what they need in a module that can be imported.",
        ) from error
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    threads = max(1, torch.get_num_threads() // processes)
    pool = ProcessPoolExecutor(processes, context, _begin, (sent, stop, threads))
    try:
        waiting: set[Future[Trial]] = {pool.submit(_do, key) for key in keys}
        while waiting:
            if not stop.is_set() and watch.should_stop():
                stop.set()
            finished, waiting = wait(waiting, _ASK_EVERY_S, FIRST_COMPLETED)
            for one in finished:
                try:
                    yield one.result()
                except StoppedError:
                    continue
    except BrokenProcessPool as error:
        raise TrainingError(
            "a process that was doing a job has ended before it was done.",
            why="It was killed (by a lack of memory?), or it could not start: a script that starts "
            'processes needs its own work under if __name__ == "__main__".',
            fix="Try processes=1; what is in the folder is not done again.",
        ) from error
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


_own: dict[str, Any] = {}


def _begin(sent: bytes, stop: Any, threads: int) -> None:
    """In a fresh process, before its first job."""
    torch.set_num_threads(threads)
    _own.update(sent=sent, stop=stop)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()  # a process whose parent was killed would wait for jobs for ever
        os.kill(os.getpid(), signal.SIGTERM)


def _do(key: Mapping[str, Any]) -> Trial:
    stop: Any = _own["stop"]
    if stop.is_set():
        raise StoppedError("the jobs were stopped.")
    if "run" not in _own:  # here, so that an error of it comes back with its own words
        _own["run"], _own["place"] = pickle.loads(_own.pop("sent"))
    return _done(key, _own["run"], _own["place"], stop.is_set)
