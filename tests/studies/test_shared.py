"""Processes share the jobs of studies through one of optuna's storages."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Mapping
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest

from qatexplorer.errors import InputError
from qatexplorer.studies import run
from qatexplorer.studies.shared import shared_trials
from qatexplorer.training.trials import trials
from tests.studies.fake import FAKE

pytest.importorskip("optuna")

JOBS = [{"seed": seed} for seed in range(5)]


def square(key: Mapping[str, Any], should_stop: Callable[[], bool]) -> dict[str, Any]:
    return {"square": key["seed"] ** 2, "process": os.getpid()}


def take_part(storage: str, folder: Path, both: Barrier) -> None:
    waits = [True]

    def first_together(key: Mapping[str, Any], should_stop: Callable[[], bool]) -> dict[str, Any]:
        if waits.pop() if waits else False:
            both.wait(60)  # however late the other one starts, it gets a job
        return square(key, should_stop)

    done = shared_trials(JOBS, first_together, folder / "kept", storage)
    mine = [one.key["seed"] for one in done if not one.kept]
    squares = [one.result["square"] for one in done]
    (folder / "said.json").write_text(json.dumps([mine, squares]))


@pytest.mark.parametrize("kind", ["journal", "sqlite"])
def test_two_processes_do_each_job_once(kind: str, tmp_path: Path) -> None:
    storage = str(tmp_path / "jobs") if kind == "journal" else f"sqlite:///{tmp_path}/jobs.db"
    context = multiprocessing.get_context("fork")  # they load nothing anew, and torch does no work
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    both = context.Barrier(2)
    others = [context.Process(target=take_part, args=(storage, folder, both)) for folder in folders]
    for other in others:
        other.start()
    for other in others:
        other.join(60)
        assert other.exitcode == 0
    said = [json.loads((folder / "said.json").read_text()) for folder in folders]
    assert all(mine for mine, _ in said)
    assert sorted(said[0][0] + said[1][0]) == list(range(5))
    alone = [one.result["square"] for one in trials(JOBS, square)]
    assert [squares for _, squares in said] == [alone, alone]
    # Each has the results of both on its own disk.
    kept = [trials(JOBS, square, folder / "kept") for folder in folders]
    assert all(one.kept for found in kept for one in found)
    assert [one.result for one in kept[0]] == [one.result for one in kept[1]]


def test_a_job_that_failed_or_whose_process_died_is_done_by_another(tmp_path: Path) -> None:
    storage = str(tmp_path / "jobs")

    def fails(key: Mapping[str, Any], should_stop: Callable[[], bool]) -> dict[str, Any]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shared_trials(JOBS[:2], fails, None, storage)
    context = multiprocessing.get_context("fork")
    dies = context.Process(target=shared_trials, args=(JOBS[:1], _dies, None, storage))
    dies.start()
    dies.join(60)
    assert dies.exitcode == 9
    # While it may be alive its job is left to it.
    asked = iter([False, False, True])
    found = shared_trials(JOBS[:2], square, None, storage, should_stop=lambda: next(asked))
    assert [one.key["seed"] for one in found] == [1]
    found = shared_trials(JOBS[:2], square, None, storage, stale_s=0.0)
    assert [(one.key["seed"], one.kept) for one in found] == [(0, False), (1, True)]


def _dies(key: Mapping[str, Any], should_stop: Callable[[], bool]) -> dict[str, Any]:
    os._exit(9)


def test_a_process_that_began_a_moment_later_gives_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qatexplorer.studies import shared

    storage = str(tmp_path / "jobs")
    first, second = (shared._Shared(JOBS[:1], storage, 900.0) for _ in range(2))
    (name,) = first.keys
    assert first._begun(name)
    assert not second._begun(name)  # as if it had seen nothing of the first one
    first.end({"result": {"square": 0}, "seconds": 0.1})
    assert list(second.done()) == [name]


def test_studies_share_a_storage(tmp_path: Path) -> None:
    storage = str(tmp_path / "jobs")
    first = run([FAKE], tmp_path / "one", seeds=1, storage=storage)
    seen: list[Any] = []
    second = run([FAKE], tmp_path / "two", seeds=1, storage=storage, progress=seen.append)
    assert first.values == second.values == run([FAKE], seeds=1).values
    assert (seen[-1].done, seen[-1].kept) == (2, 2)


def test_without_optuna_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InputError, match="optuna is not installed"):
        shared_trials(JOBS, square, None, str(tmp_path / "jobs"))
