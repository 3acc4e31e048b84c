"""A ranking of fake quants and a proposal as words, tables and figures."""

from __future__ import annotations

import re
from dataclasses import replace

import plotly.graph_objects as go
import pytest

from qatexplorer.accuracy.records import Proposal, ProposalPoint, Sensitivity, SensitivityRow
from qatexplorer.views.common.busy import left_words
from qatexplorer.views.sensitivity.figures import MOST_BARS, bars_figure, curve_figure
from qatexplorer.views.sensitivity.tables import point_rows, ranking_columns, ranking_rows
from qatexplorer.views.sensitivity.words import (
    METHODS,
    Size,
    applied_words,
    method_words,
    proposal_html,
    spearman_words,
    summary_html,
)
from tests.support.page_text import visible_text

ROWS = (
    SensitivityRow("a.weight_fake_quant", "a", "weight", 0.25, 0.70, 0.90),
    SensitivityRow("<b>.activation_post_process", "<b>", "activation", 0.05, 0.9, 0.71),
    SensitivityRow("c.weight_fake_quant", "c", "weight", -0.01, 0.96, 0.7),
)
EXACT = Sensitivity(
    "exact",
    ROWS,
    forwards=12.5,
    seconds=3.0,
    metric_name="accuracy",
    float_metric=0.95,
    quantized_metric=0.7,
    weights_only=0.72,
    activations_only=0.93,
    samples=540,
    batches=2,
)
SHADOW = replace(
    EXACT, method="shadow", forwards=2.0, seconds=0.5, spearman=0.31, spearman_loss=0.9
)
POINTS = (
    ProposalPoint((), 0.7, 1000, 1.0),
    ProposalPoint(("a",), 0.9, 3000, 0.6),
    ProposalPoint(("a", "<b>"), 0.94, 4000, 0.1),
)
FOUND = Proposal(
    POINTS,
    wished=0.85,
    chosen=POINTS[1],
    metric_name="accuracy",
    float_metric=0.95,
    evaluations=7,
    samples=540,
    seconds=2.0,
    notes=("<i>note</i>",),
    int8_error="no kernel",
)


@pytest.mark.parametrize("method", METHODS)
def test_the_cost_of_a_method_is_told_by_the_numbers_of_the_model(method: str) -> None:
    words = visible_text(method_words(method, Size(21, 8), {}))  # type: ignore[arg-type]
    number = {"exact": "46 runs a batch", "shadow": "less than 24", "gradient": "24 forwards"}
    assert number[method] in words
    none = visible_text(method_words(method, Size(0, 8), {}))  # type: ignore[arg-type]
    assert none == "There are no fake quants yet: prepare the model first."


def test_what_exact_will_take_is_estimated_from_what_was_measured() -> None:
    words = visible_text(method_words("exact", Size(21, 8), {"shadow": SHADOW}))
    # 46 runs a batch, 8 batches, 0.5 s for 2 batches of 2 forwards each
    assert f"At most about {46 * 8 * 0.5 / 4:.0f} s" in words
    words = visible_text(method_words("exact", Size(21, 8), {"exact": EXACT}))
    assert "It took 12.5 forwards of the model a batch, 540 samples, 3.0 s" in words
    unfinished = replace(EXACT, complete=False)
    assert "It took" not in method_words("exact", Size(21, 8), {"exact": unfinished})


def test_summary_names_totals_cost_and_correlation() -> None:
    said = visible_text(summary_html(replace(SHADOW, notes=("a & b",), complete=False)))
    for part in ("0.95", "0.7", "0.72", "0.93", "2.0 forwards", "540 samples", "a & b", "Stopped"):
        assert part in said
    assert "Stopped" not in visible_text(summary_html(SHADOW))


@pytest.mark.parametrize(
    ("value", "words"), [(0.31, "low: do not go by"), (0.6, "partly"), (0.92, "much the same")]
)
def test_a_low_correlation_is_called_low(value: float, words: str) -> None:
    assert words in spearman_words(replace(SHADOW, spearman=value, spearman_loss=None))


def test_no_correlation_is_said_where_there_is_none() -> None:
    assert spearman_words(EXACT) == ""
    unknown = replace(SHADOW, spearman=None, spearman_loss=None)
    assert spearman_words(unknown) == "not known: exact was not run"


def test_rows_of_the_ranking() -> None:
    rows = ranking_rows(EXACT)
    assert [row["sel"] for row in rows] == [f"site:{row.path}" for row in ROWS]
    assert rows[0]["cells"] == ["a.weight_fake_quant", "■ weight", "0.25", "0.7", "0.9"]
    assert rows[1]["flags"] == ["activation"]
    assert ranking_rows(replace(EXACT, rows=(SensitivityRow("x", "", "weight", 1.0),)))[0][
        "cells"
    ] == ["x", "■ weight", "1", "", ""]


def test_columns_that_a_method_does_not_fill_are_left_out() -> None:
    assert [one["label"] for one in ranking_columns(EXACT)][-2:] == ["Only this on", "All but this"]
    bare = tuple(replace(row, only=None, without=None) for row in ROWS)
    assert [one["label"] for one in ranking_columns(replace(SHADOW, rows=bare))][-1] == "Score"


def test_rows_of_the_points() -> None:
    rows = point_rows(FOUND)
    assert [row["sel"] for row in rows] == ["point:0", "point:1", "point:2"]
    assert rows[0]["cells"] == ["0", "0.7", "1.0 kB", "100 %", "everything quantized"]
    assert rows[2]["cells"][4] == "a, <b>"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_bars_differ_in_pattern_and_colour(theme: str) -> None:
    figure = bars_figure(EXACT, theme, "a.weight_fake_quant")  # type: ignore[arg-type]
    go.Figure(figure.to_dict())  # plotly itself finds it valid
    weight, activation = figure.data
    assert list(weight.x) == [0.25, -0.01]
    assert list(activation.x) == [0.05]
    assert list(weight.y) == [0, 2]
    assert list(activation.y) == [1]
    assert weight.marker.pattern.shape != activation.marker.pattern.shape
    assert weight.marker.color != activation.marker.color
    assert list(weight.marker.line.width) == [3, 0]
    low, high = figure.layout.yaxis.range
    assert low > high  # the worst is on top
    assert "a.weight_fake_quant" in figure.layout.meta["alt"]
    assert len(figure.layout.meta["table"]["rows"]) == 3


def test_many_bars_are_the_worst_and_the_others_are_counted() -> None:
    rows = tuple(SensitivityRow(f"m{n}", "", "weight", 10.0 ** (2 - n / 5)) for n in range(40))
    figure = bars_figure(replace(SHADOW, rows=rows))
    assert len(figure.data[0].x) == MOST_BARS
    assert "16 more in the table" in figure.layout.meta["subtitle"]
    assert figure.layout.xaxis.type == "log"
    assert bars_figure(EXACT).layout.xaxis.type == "linear"  # scores of exact may be below zero
    assert bars_figure(replace(EXACT, rows=())).layout.meta["alt"].endswith("measured.")


def test_the_curve_shows_points_wish_and_choice() -> None:
    figure = curve_figure(FOUND, POINTS[2], 0.92, "dark")
    go.Figure(figure.to_dict())
    assert list(figure.data[0].x) == [1.0, 3.0, 4.0]
    assert list(figure.data[0].y) == [0.7, 0.9, 0.94]
    assert (list(figure.data[1].x), list(figure.data[1].y)) == ([4.0], [0.94])
    assert sorted(shape.y0 for shape in figure.layout.shapes) == [0.92, 0.95]
    assert "Chosen: 2 modules" in figure.layout.meta["alt"]
    none = curve_figure(FOUND, None, 0.99)
    assert len(none.data) == 1
    assert "No point reaches it" in none.layout.meta["alt"]
    assert curve_figure(replace(FOUND, points=())).layout.meta["alt"].endswith("measured.")


def test_a_proposal_is_never_called_the_smallest() -> None:
    said = visible_text(proposal_html(FOUND, POINTS[2], 0.92))
    assert "Smallest set found: 2 modules left in float: a, <b>" in said
    assert "no kernel" not in said  # that is known of the point that was asked for only
    assert "no kernel" in visible_text(proposal_html(FOUND, POINTS[1], 0.85))
    assert "This point: 2 modules" in visible_text(proposal_html(FOUND, POINTS[2], 0.85))
    assert "a smaller set that it did not try may exist" in said
    assert "7 evaluations of 540 samples" in said
    assert "<i>note</i>" in said
    assert not re.search(r"the smallest (set|one)(?! found)", said)
    bits = replace(POINTS[1], treatment="8")
    assert "with 8 bits for the weight" in visible_text(proposal_html(FOUND, bits, 0.9))


def test_a_proposal_without_a_choice_or_a_need() -> None:
    none = visible_text(proposal_html(FOUND, None, 0.99))
    assert "No set that was measured reaches accuracy 0.99" in none
    assert "The best has 0.94, with 2 modules left in float" in none
    worst_is_best = replace(FOUND, metric_mode="min")
    assert "The best has 0.7" in visible_text(proposal_html(worst_is_best, None, 0.1))
    enough = visible_text(proposal_html(FOUND, POINTS[0], 0.6))
    assert "nothing needs to be changed" in enough
    stopped = replace(FOUND, complete=False, points=(), chosen=None)
    assert "It was stopped" in visible_text(proposal_html(stopped, None, 0.9))


def test_small_words() -> None:
    assert left_words("3 modules in float", 0.5, 1.0) == "3 modules in float …"
    assert left_words("x", 0.25, 10.0) == "x, at most about 30 s left …"
    assert visible_text(applied_words(POINTS[2])) == "In force: left in float: a, <b>."
