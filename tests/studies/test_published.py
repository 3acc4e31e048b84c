"""The page of results is what the studies print, all of it run."""

from __future__ import annotations

from qatexplorer.studies import STUDIES
from tests.support.rooms import ROOT

PAGE = (ROOT / "docs" / "published-results.md").read_text(encoding="utf-8")


def cells() -> list[list[str]]:
    lines = [line for line in PAGE.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_value_of_every_study_was_measured_with_five_seeds() -> None:
    rows = [row for row in cells() if len(row) == 4]
    for study in STUDIES:
        assert f"## {study.id}: {study.title}" in PAGE
        for row in study.rows:
            # So each name of a value is one that an arm of the study gives.
            assert any(r[:2] == [row.title, row.published or "–"] and r[3] == "5" for r in rows)
    assert "not run" not in PAGE
    assert "Smaller than" not in PAGE


def test_every_part_of_a_claim_has_an_answer() -> None:
    for study in STUDIES:
        for reading in study.readings:
            (row,) = [row for row in cells() if row[0].split(" (at most")[0] == reading.text]
            assert row[1] == (reading.published or "–")
            assert row[3].startswith(("yes", "no", "not clear (spread"))


def test_it_says_what_it_was_measured_on() -> None:
    for name in ("CPU: ", "torch: ", "date: "):
        assert name in " ".join(PAGE.split())
