"""Perplexity, and the share of what was lost that training won back."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from qatexplorer.evaluate.evaluation import Evaluation, ModelResult
from qatexplorer.evaluate.metric import MetricValue, evaluate
from qatexplorer.evaluate.perplexity import perplexity
from qatexplorer.evaluate.won_back import WonBack
from qatexplorer.views.common.results import results_html


def test_a_guess_among_so_many_tokens_has_their_number() -> None:
    scores, target = torch.zeros(2, 7, 5), torch.randint(0, 7, (2, 5))
    assert float(perplexity(scores, target)) == pytest.approx(7)
    sure = 50.0 * nn.functional.one_hot(target, 7).transpose(1, 2).float()
    assert float(perplexity(sure, target)) == pytest.approx(1)


def test_over_batches_it_is_that_of_all_tokens_together() -> None:
    torch.manual_seed(0)
    scores, target = torch.randn(6, 7, 5), torch.randint(0, 7, (6, 5))
    model = nn.Identity()
    batches = [(scores[:4], target[:4]), (scores[4:], target[4:])]
    whole = nn.functional.cross_entropy(scores, target).exp()
    found = evaluate(model, batches, perplexity)
    assert found.value == pytest.approx(float(whole), rel=1e-5)
    assert (found.name, found.mode, found.samples) == ("perplexity", "min", 6)

    def plain(output: Any, target: Any) -> torch.Tensor:
        return perplexity(output, target)

    mean = sum(float(plain(*b)) * len(b[0]) for b in batches) / 6
    assert evaluate(model, batches, plain).value == pytest.approx(mean)
    assert evaluate(model, batches, plain).mode == ""
    assert abs(mean - float(whole)) > 1e-4


def value(number: float, mode: str = "max", complete: bool = True) -> MetricValue:
    name = "accuracy" if mode == "max" else "perplexity"
    return MetricValue(name, number, 10, 0.1, complete, mode)


def evaluation(*numbers: float, mode: str = "max") -> Evaluation:
    names = ("float", "ptq", "fake_quant", "int8")
    return Evaluation(
        {n: ModelResult(n, value(x, mode)) for n, x in zip(names, numbers, strict=True)}
    )


@pytest.mark.parametrize(
    ("made", "share", "words"),
    [
        (evaluation(0.9, 0.5, 0.8, 0.8), 0.75, "won back 75 % of what"),
        (evaluation(1.3, 1.7, 1.4, 1.4, mode="min"), 0.75, "won back 75 % of what"),
        (evaluation(0.9, 0.5, 0.8, 0.4), -0.25, "won back nothing"),
        (evaluation(1.3, 1.7, 1.2, 1.2, mode="min"), 1.25, "won back all"),
    ],
)
def test_the_share_won_back(made: Evaluation, share: float, words: str) -> None:
    found = made.won_back
    assert found is not None
    assert found.share == pytest.approx(share)
    assert words in found.summary()
    assert found.summary() in results_html(made).replace("&#x27;", "'")
    assert words in repr(made)


@pytest.mark.parametrize(
    "made",
    [
        evaluation(0.9, 0.91, 0.9, 0.9),  # nothing was lost
        evaluation(1.3, 1.2, 1.2, 1.2, mode="min"),
        Evaluation({"float": ModelResult("float", value(0.9))}),
        evaluation(0.9, math.nan, 0.9, 0.9),
    ],
)
def test_where_nothing_is_lost_or_known_nothing_is_said(made: Evaluation) -> None:
    assert made.won_back is None
    assert "won back" not in results_html(made)


def test_half_a_measurement_does_not_count() -> None:
    whole, half = value(0.9), value(0.5, complete=False)
    assert WonBack.of(whole, half, whole, whole) is None
    unknown = MetricValue("mine", 0.5, 10, 0.1)
    assert WonBack.of(unknown, unknown, unknown, unknown) is None
