"""Studies are run: kept, taken up again, in processes, by the command line."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from qatexplorer.quantizers.environment import environment
from qatexplorer.studies import FULL, QUICK, STUDIES, Effort, Results, chosen, read, run
from qatexplorer.studies.__main__ import main
from qatexplorer.training.trials import TrialsProgress
from tests.studies.fake import FAKE, NOTES, jobs_run

Values = Mapping[int, Mapping[str, Mapping[str, float]]]
EXPECTED: Values = {
    seed: {"a": {"a": 14.0 + seed}, "long": {"long": 44.0 + seed}} for seed in range(2)
}


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    monkeypatch.setenv(NOTES, str(folder))
    return folder


def test_what_is_done_is_not_done_again(tmp_path: Path, notes: Path) -> None:
    first = run([FAKE], tmp_path / "kept", seeds=1)
    seen = list[TrialsProgress]()
    found = run([FAKE], tmp_path / "kept", seeds=2, progress=seen.append)
    assert (first.done, found.done, found.total) == (2, 4, 4)
    assert found.values == EXPECTED
    assert jobs_run(notes) == ["a-0", "a-1", "long-0", "long-1"]
    assert [one.kept for one in seen] == [2, 2, 2]
    assert seen[1].eta_s is not None
    # Another effort is another job.
    assert run([FAKE], tmp_path / "kept", seeds=1, effort=QUICK).values[0]["a"] == {"a": 11.0}
    assert len(jobs_run(notes)) == 6


def test_a_command_that_is_stopped_goes_on(
    tmp_path: Path, notes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (notes / "stop-a-1").touch()
    command = ["--seeds", "2", "--folder", str(tmp_path / "kept")]
    assert main(command, (FAKE,)) == 130
    said = capsys.readouterr()
    assert said.out == ""
    assert "Stopped: 2 of 4 jobs are in" in said.err
    assert read([FAKE], tmp_path / "kept", seeds=2).values == {0: EXPECTED[0]}
    table = tmp_path / "table.md"
    assert main([*command, "--markdown", str(table)], (FAKE,)) == 0
    said = capsys.readouterr()
    assert "4 of 4 jobs done" in said.err
    assert jobs_run(notes) == ["a-0", "a-1", "a-1", "long-0", "long-1"]
    assert "| long names are higher" in said.out
    assert table.read_text() == f"# Published results, tried on the digits\n\n{said.out}"
    (notes / "stop-a-0").touch()
    assert main(["--seeds", "1"], (FAKE,)) == 130
    assert "without --folder nothing is kept" in capsys.readouterr().err


def test_processes_give_what_one_gives(
    tmp_path: Path, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Processes that load torch anew take long; tests/training/test_trials.py has those.
    environment()
    context = multiprocessing.get_context("fork")
    monkeypatch.setattr(
        "qatexplorer.training.trials.multiprocessing.get_context", lambda _: context
    )
    found = run([FAKE], tmp_path / "kept", seeds=2, processes=2)
    assert found.values == EXPECTED
    assert jobs_run(notes) == ["a-0", "a-1", "long-0", "long-1"]
    assert {p.name.split("-")[2] for p in notes.iterdir()}.isdisjoint({str(os.getpid())})


def test_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["--seeds", "0"], ["--storage", "x.journal", "--processes", "2"]):
        with pytest.raises(SystemExit, match="2"):
            main(command)
    assert "start more of them" in capsys.readouterr().err
    assert main(["--studies", "R1,R2"]) == 1
    assert "there is no study R2." in capsys.readouterr().err


def test_studies_are_chosen_by_id() -> None:
    assert chosen() == STUDIES
    assert [study.id for study in chosen("r10, R1,R1")] == ["R10", "R1"]


def test_names_are_unique() -> None:
    arms = {arm.name: arm for study in STUDIES for arm in study.arms}
    for study in STUDIES:
        for arm in study.arms:  # two studies that share an arm mean the same work
            mine, other = arm.work, arms[arm.name].work
            assert getattr(mine, "func", mine) is getattr(other, "func", other)
            assert getattr(mine, "args", ()) == getattr(other, "args", ())
        values = [row.value for row in study.rows]
        assert len(set(values)) == len(values)


@pytest.fixture(scope="module")
def real() -> Results:
    """Two arms on real nets, trained for one or two epochs with few images."""
    return run(chosen("R4"), seeds=1, effort=Effort("tiny", 0.05, 128))


def test_a_real_study_is_the_same_again(real: Results, tmp_path: Path) -> None:
    (study,) = real.studies
    again = run(chosen("R4"), tmp_path, seeds=1, effort=real.effort)
    assert again.values == real.values
    assert [len(real.of(study, row.value)) for row in study.rows] == [1, 1]
    assert all(0 <= v <= 100 for row in study.rows for v in real.of(study, row.value).values())
    assert "128 training images" in repr(real)
    assert [p.name for p in (tmp_path / "nets").iterdir()] == ["digits_cnn-0.05-128-0.safetensors"]
    assert FULL.samples is None
