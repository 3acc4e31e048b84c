"""Cures in words: what one would do and has done, which are on, and what comes before training."""

from __future__ import annotations

from dataclasses import replace

import pytest

from qatexplorer.cures import Cost, Cured, LayerChange, Offer
from qatexplorer.evaluate.metric import MetricValue
from qatexplorer.views.cures.words import (
    before_training_html,
    cost_words,
    offer_html,
    on_html,
    outcome_html,
    settings_words,
    title_of,
)
from tests.support.page_text import visible_text


def value(number: float) -> MetricValue:
    return MetricValue("accuracy", number, 540, 0.1)


LAYERS = (LayerChange("<a> (output channels)", "widest channel over narrowest", 1207.3, 2.13),)
FOUND = Cured(
    "equalization", {}, "ptq", value(0.56), value(0.992), 0.06,
    ("<a> and b share the range of their channels",), value(0.99), LAYERS,
)  # fmt: skip
OFFER = Offer(
    "equalization", "Equalize layers", "arXiv 1906.04721", "ptq",
    does="Equalizes 1 pair (<a> and b).", signs="2 of the 6 channels of <a> are narrow.",
    cost=Cost(16, 1200),
)  # fmt: skip


def test_what_a_cure_would_do_costs_and_is_spoken_for_by() -> None:
    html = offer_html(OFFER)
    said = visible_text(html)
    assert "Equalizes 1 pair (<a> and b)." in said
    assert "Measured: 2 of the 6 channels of <a> are narrow." in said
    assert "16 of training batches, 1,200 of evaluation batches" in said
    assert "From: arXiv 1906.04721" in said
    assert "<a>" not in html
    assert "Measured" not in visible_text(offer_html(replace(OFFER, signs="")))


def test_why_one_does_not_apply_and_nothing_else_of_it() -> None:
    said = visible_text(offer_html(replace(OFFER, why_not="There are no fake quants.", does="")))
    assert said.startswith("Not now: There are no fake quants.")
    assert "Forwards" not in said


def test_the_cost_where_something_is_not_known() -> None:
    assert "an unknown number of evaluation batches" in cost_words(Cost(3, None))
    assert "pass data=" in cost_words(None)


def test_before_and_after_on_the_same_data() -> None:
    html = outcome_html(FOUND)
    said = visible_text(html)
    assert "Equalize layers: int8 after calibration alone has accuracy 0.992" in said
    assert "it has won back 100 %" in said
    assert "Measured on the same 540 samples." in said
    assert "+0.432" in said
    assert "widest channel over narrowest" in said
    assert "| <a> (output channels) | 1207 | 2.13" in said
    assert "<a>" not in html
    assert "taken back" in visible_text(outcome_html(FOUND, taken_back=True))


def test_a_cure_that_makes_it_worse_or_had_nothing_to_win_back() -> None:
    worse = visible_text(outcome_html(replace(FOUND, after=value(0.5))))
    assert "it has won back none" in worse
    assert "−0.06" in worse
    good = replace(FOUND, before=value(0.989), judged="fake_quant", layers=(), changes=())
    said = visible_text(outcome_html(good))
    assert said.startswith("Equalize layers: fake quant has accuracy")
    assert "won back" not in said
    assert "By layer" not in said


def test_long_lists_end() -> None:
    many = replace(FOUND, layers=LAYERS * 50, changes=("x",) * 45)
    said = visible_text(outcome_html(many))
    assert "… and 10 more" in said
    assert "… and 5 more" in said


def test_those_that_are_on() -> None:
    other = replace(FOUND, name="ranges", settings={"activation": "histogram", "weight": None})
    said = visible_text(on_html([FOUND, other]))
    assert "Equalize layers: int8 after calibration alone 0.56 → accuracy 0.992" in said
    assert "Change the rule of the ranges (activation histogram)" in said
    assert visible_text(on_html([])) == "No cure is on."
    assert settings_words({}) == ""
    assert title_of("of another version") == "of another version"


@pytest.mark.parametrize("whole", [value(0.99), None])
def test_before_training_the_page_says_what_was_measured(whole: MetricValue | None) -> None:
    said = visible_text(before_training_html(replace(FOUND, float_model=whole)))
    assert said.startswith("Training is not the first thing to try here: “Equalize layers”")
    assert "from 0.56 to accuracy 0.992" in said
    assert ("float model: 0.99" in said) == (whole is not None)
    assert "measured on 540 samples" in said
    sign = visible_text(before_training_html(OFFER))
    assert "2 of the 6 channels of <a> are narrow." in sign
    assert "is not measured yet" in sign
    assert before_training_html(None) == ""


def test_a_flow_that_comes_to_no_int8_is_judged_in_its_words() -> None:
    said = visible_text(outcome_html(replace(FOUND, result="converted")))
    assert "converted without training has accuracy 0.992" in said
    assert "int8" not in said
