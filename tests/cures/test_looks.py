"""What cures would do to a model, what that costs, and what speaks for one before training."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from qatexplorer.cures import CURES, Cured, Offer
from qatexplorer.evaluate.metric import MetricValue
from qatexplorer.flows.quant_spec import QuantSpec
from qatexplorer.session import cures_part
from tests.cures.nets import FLOWS, SETTINGS, chain, session_of, usual
from tests.support.training_models import Batches, data


def offers(session: Any) -> dict[str, Offer]:
    return {one.name: one for one in session.cures}


@pytest.mark.parametrize("flow", FLOWS)
def test_each_says_what_it_would_do_to_this_model(flow: str) -> None:
    session = session_of(usual(), flow)
    first = offers(session)
    assert first["equalization"].does == (
        "Equalizes 1 pair of layers (body.0 and body.3) and folds 2 batch norms into the layers "
        "before them."
    )
    assert "weights now have MovingAverageMinMaxObserver." in first["ranges"].does
    assert first["biases"].does == first["batch_norms"].does == ""
    assert not first["biases"].applies
    session.calibrate(2)
    then = offers(session)
    assert "off the bias of 3 layers, one after the other." in then["biases"].does
    assert "statistics of 2 batch norms anew" in then["batch_norms"].does
    assert "ranges of 2 weights" in then["batch_norms"].does
    assert {one.judged for one in then.values()} == {"ptq", "fake_quant"}
    assert all(one is other for one, other in zip(session.cures, then.values(), strict=True))
    session.cure("biases")
    assert "a second time" in offers(session)["biases"].why_not
    session.undo_cure()
    assert offers(session)["biases"].applies
    session.set_qconfig("fc", to_float=True)
    assert not offers(session)["biases"].applies


class Counted:
    """Batches that count how many of them are taken."""

    def __init__(self, batches: Batches) -> None:
        self.batches, self.taken = batches, 0

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        for batch in self.batches:
            self.taken += 1
            yield batch


@pytest.mark.parametrize("name", CURES)
def test_it_costs_the_forwards_that_it_says(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    train, evaluation = map(Counted, data(3))
    session = session_of(usual(), "fx", data=(train, evaluation))
    session.calibrate(2)
    worked: list[int] = []
    forward = cures_part.call_model

    def counted(model: nn.Module, inputs: Any) -> Any:
        worked.append(1)
        return forward(model, inputs)

    monkeypatch.setattr(cures_part, "call_model", counted)
    given = {} if name != "ranges" else SETTINGS["ranges"]
    cost = offers(session)[name].cost
    assert cost is not None
    train.taken = evaluation.taken = 0
    again = session.cure(name, **given)
    training = len(worked) if again.judged == "fake_quant" else train.taken
    assert (cost.training, cost.evaluation) == (training, evaluation.taken)
    assert again.float_model is not None
    left = offers(session)["ranges"].cost
    assert left is not None
    assert left.evaluation == (4 if again.judged == "fake_quant" else 6)  # float is known or not


def test_data_of_unknown_length_and_no_data() -> None:
    train, evaluation = data(3)

    class Stream:
        def __iter__(self) -> Iterator[Any]:
            return iter(evaluation)

    cost = offers(session_of(usual(), "fx", data=(train, Stream())))["ranges"].cost
    assert cost is not None
    assert cost.evaluation is None
    assert offers(session_of(usual(), "fx", data=None))["ranges"].cost is None


def narrow() -> nn.Module:
    """Two of the six channels of the first layer have a hundredth of the range of the others."""
    torch.manual_seed(0)
    model = chain(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3))
    with torch.no_grad():
        model.body[0].weight[:2] *= 0.01  # type: ignore[index]
        model.body[2].weight[:, :2] *= 100  # type: ignore[index]
    return model


def test_narrow_channels_are_counted_where_a_weight_has_one_scale() -> None:
    said = "Narrower than 1/16 of the range of the whole weight, which has one scale: "
    session = session_of(narrow(), "fx")
    assert offers(session)["equalization"].signs == f"{said}2 of the 6 channels of body.0."
    per_channel = QuantSpec(signed=True, scheme="symmetric", per_channel=True)
    session.set_qconfig("body.0", weight=per_channel)
    assert offers(session)["equalization"].signs == ""
    assert offers(session_of(narrow(), "fx", qconfig="onednn"))["equalization"].signs == ""
    assert offers(session_of(usual(), "fx"))["equalization"].signs == ""


def test_the_channels_of_a_pair_are_alike_afterwards() -> None:
    session = session_of(narrow(), "eager")
    layers = session.cure("equalization").layers
    assert [one.path for one in layers] == ["body.0 (output channels)", "body.2 (input channels)"]
    one, other = layers
    assert one.before > 50
    assert other.before > 50
    assert one.after == pytest.approx(other.after, rel=1e-3)
    assert one.after < 10


def cured(judged: Any, whole: float | None, before: float, after: float) -> Cured:
    def value(number: float) -> MetricValue:
        return MetricValue("accuracy", number, 100, 0.1)

    given = None if whole is None else value(whole)
    return Cured("equalization", {}, judged, value(before), value(after), 0.1, (), given)


@pytest.mark.parametrize(
    ("found", "share", "brings"),
    [
        (cured("ptq", 0.99, 0.56, 0.99), 1.0, True),
        (cured("ptq", 0.99, 0.59, 0.79), 0.5, False),
        (cured("ptq", 0.99, 0.985, 0.99), None, False),
        (cured("ptq", 0.99, 0.60, 0.50), -0.1 / 0.39, False),
        (cured("ptq", 0.20, 1.20, 0.25), 0.95, True),  # a loss, of which less is better
        (cured("fake_quant", 0.99, 0.56, 0.99), 1.0, False),
        (cured("ptq", None, 0.56, 0.99), None, False),
        (cured("ptq", float("nan"), 0.56, 0.99), None, False),
    ],
)
def test_what_was_won_back(found: Cured, share: float | None, brings: bool) -> None:
    assert found.won_back == (None if share is None else pytest.approx(share))
    assert found.brings_int8_back is brings


def test_what_speaks_for_something_else_than_training_first() -> None:
    session = session_of(narrow(), "fx", metric=one_after_the_other([1.0, 1.0, 0.2, 0.2]))
    sign = session.before_training
    assert isinstance(sign, Offer)
    assert sign.name == "equalization"
    found = session.cure("equalization")
    assert found.brings_int8_back
    assert session.before_training is found
    session.undo_cure()
    assert isinstance(session.before_training, Offer)
    session.train(1, progress=False)
    assert session.before_training is None
    assert session_of(usual(), "fx").before_training is None


def one_after_the_other(first: list[float]) -> Any:
    """A metric of these values, a batch each, and of 1 then: no net has to learn for the test."""
    values = itertools.chain(first, itertools.repeat(1.0))

    def metric(_output: Any, _target: Any) -> float:
        return next(values)

    return metric
