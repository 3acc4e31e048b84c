"""Many jobs: kept, taken up again, stopped, in processes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from qatexplorer.errors import InputError, RunFolderError, StoppedError, TrainingError
from qatexplorer.training.trials import TrialsProgress, trials

JOBS = [{"seed": seed} for seed in range(4)]


class Squares:
    """Notes what it was asked for."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.asked: list[int] = []
        self.fail_at = fail_at

    def __call__(self, key: Mapping[str, Any], should_stop: Callable[[], bool]) -> dict[str, Any]:
        seed = key["seed"]
        self.asked.append(seed)
        if seed == self.fail_at:
            raise KeyboardInterrupt
        return {"square": seed * seed, "process": os.getpid()}


def killed_at_two(key: Mapping[str, Any], should_stop: Callable[[], bool]) -> dict[str, Any]:
    if key["seed"] == 2:
        os._exit(9)
    return {"square": key["seed"] ** 2, "process": os.getpid()}


def test_jobs_are_done_once_and_in_order_and_equal_ones_are_one() -> None:
    work = Squares()
    found = trials([*JOBS, {"seed": 1}], work)
    assert [one.result["square"] for one in found] == [0, 1, 4, 9]
    assert work.asked == [0, 1, 2, 3]


def test_what_was_cut_short_goes_on_where_it_was(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        trials(JOBS, Squares(fail_at=2), tmp_path)
    again, seen = Squares(), list[TrialsProgress]()
    found = trials(JOBS, again, tmp_path, progress=seen.append)
    assert again.asked == [2, 3]
    assert [one.kept for one in found] == [True, True, False, False]
    assert [(p.done, p.total, p.kept) for p in seen] == [(2, 4, 2), (3, 4, 2), (4, 4, 2)]
    assert seen[0].eta_s is None
    assert (seen[1].eta_s is not None, seen[2].eta_s) == (True, 0.0)


def test_a_damaged_result_and_one_of_another_job_are_made_again(tmp_path: Path) -> None:
    trials(JOBS[:2], Squares(), tmp_path)
    first, second = sorted(tmp_path.glob("*.json"))
    first.write_text('{"key": {"se')
    second.write_text(json.dumps({"key": {"seed": 99}, "result": {"square": -1}}))
    again = Squares()
    assert [one.result["square"] for one in trials(JOBS[:2], again, tmp_path)] == [0, 1]
    assert again.asked == [0, 1]


def test_a_stop_returns_what_is_done() -> None:
    work = Squares()
    found = trials(JOBS, work, should_stop=lambda: len(work.asked) == 2)
    assert [one.key["seed"] for one in found] == [0, 1]

    def stops(key: Mapping[str, Any], should_stop: Callable[[], bool]) -> dict[str, Any]:
        raise StoppedError("in the middle of it.")

    assert trials(JOBS, stops) == ()


def test_bad_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="processes is 0"):
        trials(JOBS, Squares(), processes=0)
    with pytest.raises(InputError, match="no JSON"):
        trials([{"seed": object()}], Squares())
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="cannot be kept"):
        trials(JOBS, Squares(), tmp_path / "file")
    with pytest.raises(InputError, match="cannot be sent"):
        trials(JOBS, lambda key, should_stop: {}, processes=2)


def test_processes_do_the_jobs_and_one_that_is_killed_loses_no_result(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="has ended before") as caught:
        trials(JOBS, killed_at_two, tmp_path, processes=2)
    assert caught.value.fix == "Try processes=1; what is in the folder is not done again."
    again = Squares()
    found = trials(JOBS, again, tmp_path)
    assert [one.result["square"] for one in found] == [0, 1, 4, 9]
    assert (0 in again.asked, 2 in again.asked) == (False, True)
    assert {one.result["process"] for one in found if one.kept}.isdisjoint({os.getpid()})
