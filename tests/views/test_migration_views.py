"""What the page and the file say of one model in several flows."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

import qatexplorer as qx
from qatexplorer.errors import ReportError
from qatexplorer.migration.records import Cell, FlowColumn, Migration, OutputGap, Place, Rounding
from qatexplorer.migration.text import as_text
from qatexplorer.migration.words import db, grid_range, missing_words, scale_words
from qatexplorer.views.migration.page import summary_html, worth_html
from qatexplorer.views.migration.table import (
    place_columns,
    place_filters,
    place_rows,
    selection_of,
)
from tests.migration.nets import Scores
from tests.support.html_checker import Checker

ROUNDED = Rounding(
    "act", "FakeQuantize", "torch.quint8", 0, 255, "torch.per_tensor_affine", None,
    (0.5,), (10,), (-5.0,), (122.5,), "all",
)  # fmt: skip
EVIL = "<b>&"


def known(*, error: str = "") -> Migration:
    place = Place("output:evil::0", "output", EVIL, "", 0, label=f"output of {EVIL}")
    return Migration(
        model=EVIL,
        flows=(
            FlowColumn("eager", "Eager", "prepare()", fake_quants=1, places=1,
                       not_measured={"metric": "it raised <i>.", "parity": "no int8."}),
            FlowColumn("fx", "FX", "prepare()", error=error),
        ),
        places=(place,),
        cells=(Cell(place, "eager", ROUNDED), *(() if error else (Cell(place, "fx", None, EVIL),))),
        outputs=(OutputGap("float", "eager", math.inf, 1), OutputGap("float", "fx", None, 1)),
    )  # fmt: skip


def test_names_and_errors_of_users_are_no_markup(tmp_path: Path) -> None:
    for found in (known(), known(error=f"cannot {EVIL}")):
        page = found.report(tmp_path / "m.html", overwrite=True).read_text()
        assert EVIL not in page
        assert "&lt;b&gt;&amp;" in page
        parts = str(summary_html(found)) + str(worth_html(found))
        words = Checker(parts).words
        assert EVIL not in parts
        assert "float" in words


def test_a_file_that_is_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "m.html"
    path.write_text("mine")
    with pytest.raises(ReportError, match="there already"):
        known().report(path)
    assert path.read_text() == "mine"


def test_rows_have_a_cell_a_column_and_select_what_the_page_shows() -> None:
    session = qx.Session(Scores(), torch.randn(2, 6), flow="fx")
    session.goto(session.flow.prepared_stage)
    found = qx.migrate(session, flows=["eager", "fx"], int8=False)
    columns, rows = place_columns(found), place_rows(found)
    assert [column["label"] for column in columns] == [
        "Tensor", "eager", "fx", "Differs in", "Why not in all"
    ]  # fmt: skip
    assert all(len(row["cells"]) == len(row["sort"]) == len(columns) for row in rows)
    by_id = {row["id"]: row for row in rows}
    chosen = {key: selection_of(found, key, session.snapshot) for key in by_id}
    assert chosen["weight:first::0"] == "site:first.weight_fake_quant"
    assert chosen["output:first::0"] == "module:first"  # FX does not round it
    assert selection_of(found, "nothing", session.snapshot) == ""
    assert by_id["output:first::0"]["flags"] == ["only-eager"]
    assert "per_channel_symmetric, axis 0" in by_id["weight:first::0"]["tips"]["1"]
    assert "runs in forward" in by_id["weight:first::0"]["tips"]["1"]
    assert "runs by hook" in by_id["output:first::0"]["tips"]["1"]
    counts = {one["flag"]: one["label"] for one in place_filters(found)}
    assert counts["only-eager"] == "Only eager (1)"
    assert sum(row["flags"] == ["alike"] for row in rows) == int(counts["alike"][14:-1])


def test_words_of_numbers() -> None:
    assert (scale_words(ROUNDED), grid_range(ROUNDED)) == ("scale 0.5, zero 10", "[-5, 122.5]")
    assert [db(value) for value in (math.inf, None, 12.34)] == [
        "the same", "cannot be compared", "12.3 dB"
    ]  # fmt: skip
    said = list(missing_words(known().flows[0]))
    assert said == [
        "Not measured (metric with fake quants): it raised <i>.",
        "Not measured (agreement of int8 and fake quants): no int8.",
    ]


def test_text_keeps_to_the_width_of_a_terminal() -> None:
    text = as_text(known(error="a message " * 30), 60)
    sentences = [line for line in text.splitlines() if "message" in line]
    assert len(sentences) > 1
    assert max(map(len, sentences)) <= 60
    assert known(error="no").summary() == (
        "1 place rounded in eager, the only flow that takes this model."
    )
