"""Whether a claim comes out, and the tables that say so."""

from __future__ import annotations

import pytest

from qatexplorer.studies import QUICK, Reading, Results, as_markdown, spread, verdict
from tests.studies.fake import FAKE

ABOVE = Reading("it is higher", "a", "b")
LITTLE = Reading("it is little", "a", "b", "at most", 1.0, "so we say")


def by_seed(*values: float) -> dict[int, float]:
    return dict(enumerate(values))


@pytest.mark.parametrize(
    ("reading", "differences", "answer"),
    [
        (ABOVE, (3.0, 4.0, 5.0), "yes"),
        (ABOVE, (-3.0, -4.0, -5.0), "no"),
        (ABOVE, (-1.0, 0.0, 2.0), "not clear (spread larger than the difference)"),
        (ABOVE, (0.0, 0.0), "no"),
        (ABOVE, (3.0,), "not clear (one seed has no spread)"),
        (ABOVE, (), "not run"),
        (LITTLE, (0.0, 0.1, 0.2), "yes"),
        (LITTLE, (-9.0, -8.0), "yes"),
        (LITTLE, (1.0, 1.0), "yes"),
        (LITTLE, (1.5, 1.6, 1.7), "no"),
        (LITTLE, (0.2, 0.9, 1.6), "not clear (spread larger than the distance to 1)"),
    ],
)
def test_answers(reading: Reading, differences: tuple[float, ...], answer: str) -> None:
    against = by_seed(*(50.0 + seed for seed in range(len(differences))))
    of = {seed: against[seed] + d for seed, d in enumerate(differences)}
    assert str(verdict(reading, of, against)) == answer


def test_differences_are_taken_seed_by_seed() -> None:
    found = verdict(ABOVE, {0: 90.0, 1: 50.0, 2: 7.0}, {0: 89.0, 1: 48.0, 3: 9.0})
    assert found.difference is not None
    # Seeds lie 40 points apart, and their differences one; seeds that one has alone do not count.
    assert (found.difference.mean, found.difference.count) == (1.5, 2)
    assert found.answer == "yes"
    whole = spread(by_seed(1.0, 2.0, 3.0))
    assert whole is not None
    assert (whole.mean, whole.deviation) == (2.0, 1.0)


def test_tables_show_what_there_is() -> None:
    values = {0: {"a": {"a": 12.0}, "long": {"long": 44.0}}, 1: {"long": {"long": 46.0}}}
    results = Results((FAKE,), QUICK, 2, values, 60.0, {"torch": ("2.8", "2.13")}, 3, 4)
    text = as_markdown(results)
    lines = text.splitlines()
    assert "3 of 4 jobs (an arm with a seed) are done, 2 seeds, and took 1.0 minutes" in text
    assert "Smaller than the studies are meant to be (quick): 25% of the epochs." in text
    assert "torch: 2.8, 2.13." in text
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "|" in line]
    assert ["short", "10", "12.00", "1"] in cells
    assert ["long", "40", "45.00 ± 1.41", "2"] in cells
    assert ["long names are higher", "30", "+32.00", "not clear (one seed has no spread)"] in cells
    assert ["short ones are", "–", "−32.00", "not clear (one seed has no spread)"] in cells
    assert results["F1"].headed is False
    alone = repr(results["F1"])
    assert alone.startswith(text[text.index("## F1") : text.index("\n\nWhy sizes differ")])
    assert "25% of the epochs" in alone  # a table that is shown alone says so too
    with pytest.raises(KeyError):
        results["F2"]


def test_what_was_not_run_is_said_to_be() -> None:
    text = as_markdown(Results((FAKE,), QUICK, 2, total=4))
    assert text.count("not run") == 2 + 2 * 3
