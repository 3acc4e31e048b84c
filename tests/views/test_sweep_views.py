"""A sweep in words: the best, how far the seeds differ, what is not done."""

from __future__ import annotations

import pytest

from qatexplorer.training.sweep import Sweep, SweptSettings
from qatexplorer.views.cures.sweeps import sweep_html
from tests.support.page_text import visible_text


def row(epoch: int | None, *metrics: float | None) -> SweptSettings:
    problems = ("the loss is NaN",) if None in metrics else ()
    seeds = tuple(range(len(metrics)))
    return SweptSettings(
        {"freeze_observer_epoch": epoch}, seeds, metrics, (0.1,) * len(metrics), 2.0, problems
    )


def words(*rows: SweptSettings, trainings: int = 4, mode: str = "max") -> str:
    made = Sweep(rows, "accuracy", mode, 0.99, 0.5, trainings, True)  # type: ignore[arg-type]
    return visible_text(sweep_html(made))


def test_the_best_is_named_with_how_far_seeds_differ() -> None:
    said = words(row(1, 0.97, 0.98), row(None, 0.90, 0.91))
    assert (
        "4 trainings of 4 done. accuracy beside: float 0.99; before, with fake quants on 0.5."
        in said
    )
    assert "The best is freeze_observer_epoch 1, by 0.07 before the next." in said
    assert "more than seeds differ (0.007071, standard deviation)" in said
    assert "observers frozen from epoch" in said
    assert "never" in said


def test_the_smallest_is_the_best_where_less_is_better() -> None:
    assert "The best is freeze_observer_epoch never" in words(
        row(1, 0.97, 0.98), row(None, 0.90, 0.91), mode="min"
    )


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ((row(1, 0.9, 0.8), row(2, 0.84, 0.85)), "so it may be chance"),
        ((row(1, 0.9), row(2, 0.8)), "One seed each: how far seeds differ is not known"),
        ((row(1, 0.9), row(2, None)), "Only freeze_observer_epoch 1 was trained to its end"),
        ((row(1, None), row(2, None)), "the loss is NaN"),
    ],
)
def test_what_is_not_known_is_said(rows: tuple[SweptSettings, ...], expected: str) -> None:
    assert expected in words(*rows)


def test_a_single_combination_is_the_best_of_nothing() -> None:
    assert "before the next" not in words(row(1, 0.9, 0.91))


def test_nothing_done_has_no_table() -> None:
    assert "0 trainings of 4 done" in words()
