"""Jobs that processes on several machines share through one of optuna's storages.

A job that somebody does is a trial there. Two processes may begin the same job at the same moment:
storages number trials in the order in which they are there to be read, so the process whose trial
has the lower number does it and the other one gives way. (To take a trial that waits in optuna's
queue is not safe with SQLite, which has no locks on rows.) What a job gave is an attribute of its
trial, so that the machines need no other file in common.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from qatexplorer.errors import InputError, RunFolderError
from qatexplorer.training.trials import Run, ShouldStop, Trial, TrialsProgress, trials

Key = Mapping[str, Any]

STALE_S = 900.0
"""A job that was begun longer ago than this and is not done can be begun by another process: the
first one is thought to be dead. None of our jobs takes a tenth of it."""

NAME = "qatexplorer.studies"
"""Of the study in optuna's storage."""

_ASK_EVERY_S = 0.5
_ATTEMPTS = 3


def shared_trials(
    jobs: Sequence[Key],
    run: Run,
    folder: str | os.PathLike[str] | None,
    storage: str,
    *,
    should_stop: ShouldStop | None = None,
    progress: Callable[[TrialsProgress], Any] | None = None,
    stale_s: float = STALE_S,
) -> tuple[Trial, ...]:
    """As :func:`~qatexplorer.training.trials.trials`, but every process that calls this with the
    same ``storage`` does its share of the jobs. Ends when all are done, whoever did them.

    Args:
        folder: has the results of all processes in the end. What it has before is not done again.
        storage: URL of a database (``"sqlite:///studies.db"``), or the path of a journal file.

    The trials' ``kept`` says that another process, or this one before, did the job. Raises
    InputError without optuna, RunFolderError for a storage that cannot be opened, and what ``run``
    raises (the job can be begun again then).
    """
    shared = _Shared(jobs, storage, stale_s)
    stop = should_stop or (lambda: False)
    began, before = time.perf_counter(), len(shared.done())

    def report() -> int:
        done, total = len(shared.done()), len(shared.keys)
        if progress is not None:
            elapsed = time.perf_counter() - began
            eta = elapsed / (done - before) * (total - done) if done > before else None
            progress(TrialsProgress(done, total, before, elapsed, eta))
        return total - done

    mine: set[str] = set()
    left = report()
    while left and not stop():
        name = shared.begin()
        if name is None:  # others are at the last ones
            time.sleep(_ASK_EVERY_S)
            left = len(shared.keys) - len(shared.done())
            continue
        try:
            (trial,) = trials([shared.keys[name]], run, folder)
        except BaseException:
            shared.end(None)
            raise
        mine.add(name)
        shared.end({"result": trial.result, "seconds": trial.seconds})
        left = report()
    records = shared.done()
    found = {name: key for name, key in shared.keys.items() if name in records}
    if folder is not None:
        trials(list(found.values()), _Known(records), folder)
    return tuple(
        Trial(key, records[name]["result"], records[name]["seconds"], name not in mine)
        for name, key in found.items()
    )


class _Known:
    """Gives the results that are known already, as a job."""

    def __init__(self, records: Mapping[str, Any]) -> None:
        self._records = records

    def __call__(self, key: Key, should_stop: ShouldStop) -> Mapping[str, Any]:
        result: Mapping[str, Any] = self._records[_name(key)]["result"]
        return result


class _Shared:
    """The jobs in a storage. ``keys`` are those of this call, by name."""

    def __init__(self, jobs: Sequence[Key], storage: str, stale_s: float) -> None:
        self._optuna = _optuna()
        self.keys = {_name(key): json.loads(json.dumps(key)) for key in jobs}
        self._storage, self._stale_s = _opened(self._optuna, storage), stale_s
        self._study: int = self._made()
        self._trial: int | None = None

    def _made(self) -> int:
        try:
            found: int = self._storage.create_new_study(
                [self._optuna.study.StudyDirection.MINIMIZE], NAME
            )
        except self._optuna.exceptions.DuplicatedStudyError:
            found = self._storage.get_study_id_from_name(NAME)
        return found

    def _trials(self) -> list[Any]:
        """Trials that were not given up, the lowest number first."""
        gone = self._optuna.trial.TrialState.FAIL
        found = self._storage.get_all_trials(self._study, deepcopy=False)
        return sorted((one for one in found if one.state != gone), key=lambda one: one.number)

    def done(self) -> dict[str, Any]:
        """Result and seconds of the jobs that are done, by name."""
        complete = self._optuna.trial.TrialState.COMPLETE
        return {
            one.user_attrs["job"]: one.user_attrs["record"]
            for one in self._trials()
            if one.state == complete and one.user_attrs["job"] in self.keys
        }

    def begin(self) -> str | None:
        """The name of a job that is this process's to do, None where none is left to begin."""
        self._give_up_stale()
        begun = {one.user_attrs["job"] for one in self._trials()}
        for name in self.keys:
            if name not in begun and self._begun(name):
                return name
        return None

    def _begun(self, name: str) -> bool:
        """Begin a job, and give way to a process that has done so just before."""
        token = uuid.uuid4().hex
        template = self._optuna.trial.create_trial(
            state=self._optuna.trial.TrialState.RUNNING,
            user_attrs={
                "job": name,
                "key": self.keys[name],
                "token": token,
                "began": time.time(),
                "worker": f"{platform.node()}:{os.getpid()}",
            },
        )
        trial: int = self._storage.create_new_trial(self._study, template_trial=template)
        first = next(one for one in self._trials() if one.user_attrs["job"] == name)
        if first.user_attrs["token"] != token:
            self._storage.set_trial_state_values(trial, self._optuna.trial.TrialState.FAIL)
            return False
        self._trial = trial
        return True

    def end(self, record: Mapping[str, Any] | None) -> None:
        """The job that this process has begun is done, or given up (None)."""
        states, trial, self._trial = self._optuna.trial.TrialState, self._trial, None
        try:
            if record is None:
                self._storage.set_trial_state_values(trial, states.FAIL)
            else:
                self._storage.set_trial_user_attr(trial, "record", dict(record))
                self._storage.set_trial_state_values(trial, states.COMPLETE, [record["seconds"]])
        except self._optuna.exceptions.UpdateFinishedTrialError:
            return  # it took so long that another process has begun it anew

    def _give_up_stale(self) -> None:
        states = self._optuna.trial.TrialState
        for one in self._trials():
            late = time.time() - one.user_attrs["began"] > self._stale_s
            if one.state == states.RUNNING and late:
                number = self._storage.get_trial_id_from_study_id_trial_number(
                    self._study, one.number
                )
                try:
                    self._storage.set_trial_state_values(number, states.FAIL)
                except self._optuna.exceptions.UpdateFinishedTrialError:
                    continue  # it has just ended


def _name(key: Key) -> str:
    return json.dumps(key, sort_keys=True)


def _optuna() -> Any:
    try:
        found = importlib.import_module("optuna")
    except ImportError as error:
        raise InputError(
            "optuna is not installed, so there is no storage to share.",
            why=f"{type(error).__name__}: {error}",
            fix='Install it: pip install "qatexplorer[optuna]".',
        ) from error
    found.logging.set_verbosity(found.logging.WARNING)
    return found


def _opened(optuna: Any, storage: str) -> Any:
    path = None if "://" in storage else Path(storage).expanduser().absolute()
    for attempt in range(_ATTEMPTS):
        try:
            if path is not None:
                journal = importlib.import_module("optuna.storages.journal")
                return optuna.storages.JournalStorage(journal.JournalFileBackend(str(path)))
            waits = {"connect_args": {"timeout": 60}} if storage.startswith("sqlite") else {}
            return optuna.storages.RDBStorage(storage, engine_kwargs=waits)
        except Exception as error:
            if attempt < _ATTEMPTS - 1:  # two that make its tables at once get in each other's way
                time.sleep(_ASK_EVERY_S)
                continue
            raise RunFolderError(
                f"the storage {storage!r} cannot be opened.",
                why=f"{type(error).__name__}: {error}",
                fix="Give a URL such as sqlite:///studies.db, or a journal file, in a folder that "
                "is there.",
            ) from error
