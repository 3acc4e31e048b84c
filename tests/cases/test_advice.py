"""What is proposed first for models that people got stuck with: what stopped them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.ao.quantization import DeQuantStub, QuantStub

import qatexplorer as qx
from qatexplorer.advice import Proposal
from tests.cases.models import batches, mean_square
from tests.support.engines import fake_machine, faked
from tests.support.saturating import new_session


class Stubbed(nn.Module):
    """Layers between stubs."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.body = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.dequant(self.body(self.quant(x)))


def first_of(model: nn.Module, shape: tuple[int, ...], flow: str, **settings: Any) -> Proposal:
    """The first proposal once the model has been checked."""
    data = batches(lambda: torch.randn(*shape), lambda x: torch.zeros_like(model(x)).detach())
    session = qx.Session(
        model.train(),
        (torch.randn(*shape),),
        flow=flow,
        data=data,
        loss=mean_square,
        metric=mean_square,
        **settings,
    )
    session.warns = False
    session.check()
    return session.advice()[0]


@pytest.mark.filterwarnings("ignore:The int8 engine onednn saturates")
def test_an_engine_that_saturates_on_this_cpu_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_machine(monkeypatch, faked("onednn", full=194), faked("qnnpack"))
    session = new_session(qconfig="onednn", engine="onednn")
    session.warns = False
    one = session.advice()[0]
    assert one.recipe == "engine"
    assert one.action.code == "session.configure(engine='qnnpack')"
    assert "194 of 127 steps" in one.reasons[0].text


def test_padding_as_a_word_is_put_right_first() -> None:
    layers = nn.Conv1d(1, 4, 3, padding="same"), nn.ReLU(), nn.Conv1d(4, 4, 3, padding="valid")
    one = first_of(Stubbed(*layers), (4, 1, 20), "eager")
    assert (one.recipe, one.reasons[0].path) == ("errors", "body.0")
    assert "QX101" in one.reasons[0].text
    assert one.action.code == "session.edit('number_padding', ['body.0', 'body.2'])"


def test_a_batch_norm_over_tokens_is_put_right_first() -> None:
    one = first_of(Stubbed(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU()), (3, 5, 6), "eager")
    assert one.phase == "fix"
    assert one.reasons[0].path.startswith("body")
    assert "QX503 batch-norm-over-tokens" in one.reasons[0].text


def test_a_norm_without_affine_is_put_right_first() -> None:
    layers = nn.Linear(6, 5), nn.BatchNorm1d(5, affine=False)
    one = first_of(Stubbed(*layers), (4, 6), "eager")
    assert "QX105" in one.reasons[0].text
    assert one.reasons[0].path == "body.1"


def test_silu_in_eager_mode_is_put_right_before_training() -> None:
    layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.SiLU(), nn.Conv2d(4, 4, 3)
    one = first_of(Stubbed(*layers), (2, 3, 12, 12), "eager")
    assert (one.recipe, one.phase) == ("errors", "fix")
    assert "silu" in " ".join(reason.text for reason in one.reasons).lower()


def test_a_model_without_stubs_gets_some_first() -> None:
    one = first_of(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), (2, 3, 8, 8), "eager")
    assert "QX907" in one.reasons[0].text
    assert one.action.code == "session.configure(stubs='model')"


def test_a_sound_model_is_measured_first() -> None:
    one = first_of(Stubbed(nn.Linear(6, 5), nn.ReLU()), (4, 6), "eager")
    assert (one.recipe, one.next.call) == ("evaluate", "goto")
