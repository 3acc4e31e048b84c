"""What the errors of int8 layers say is to be done works."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.ao.quantization import DeQuantStub, QuantStub

import qatexplorer as qx
from qatexplorer.errors import InputError, StageError
from qatexplorer.quantizers.engine import available_engines
from tests.accuracy.int8_models import session_of

pytestmark = pytest.mark.filterwarnings("ignore::qatexplorer.errors.QatExplorerWarning")


class Sometimes(nn.Module):
    """A layer that only batches of more than two reach, and one inside of a container."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.always, self.rare = nn.Sequential(nn.Linear(4, 4)), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.always(self.quant(x))
        if len(x) > 2:
            y = self.rare(y)
        out: Tensor = self.dequant(y)
        return out


def session(batch: int = 2) -> qx.Session:
    return session_of(Sometimes(), (batch, 4), "eager", available_engines()[0])


def test_a_path_of_the_int8_model() -> None:
    made = session()
    with pytest.raises(StageError) as caught:
        made.int8_layer("alway.0")
    assert "Take the path of a module of session.int8.named_modules()" in caught.value.fix
    assert "always.0" in dict(made.int8.named_modules())
    assert made.int8_layer("always.0").worked is not None


def test_a_layer_inside() -> None:
    made = session()
    with pytest.raises(StageError) as caught:
        made.int8_layer("always")
    assert "Choose an int8 layer inside of it" in caught.value.fix
    assert made.int8_layer("always.0").worked is not None


def test_example_inputs_that_reach_the_layer() -> None:
    with pytest.raises(StageError) as caught:
        session().int8_layer("rare")
    assert "choose example inputs that reach it" in caught.value.fix
    assert session(batch=3).int8_layer("rare").worked is not None


def test_a_call_a_sample_and_an_output_that_are_there() -> None:
    made = session()
    with pytest.raises(StageError) as caught:
        made.int8_layer("always.0", call=1)
    assert "Ask for a call from 0 to 0" in caught.value.fix
    assert made.int8_layer("always.0", call=0).call == 0
    with pytest.raises(InputError) as wrong:
        made.int8_layer("always.0", sample=2)
    assert "Ask for a sample from 0 to 1" in wrong.value.fix
    assert made.int8_layer("always.0", sample=1).worked is not None
    with pytest.raises(InputError) as place:
        made.int8_layer("always.0", (4,))
    assert "numbers, each from 0 to below its size" in place.value.fix
    assert "sizes (4,)" in place.value.why
    assert made.int8_layer("always.0", (3,)).worked is not None


def test_going_to_the_int8_stage_first() -> None:
    made = qx.Session(Sometimes().train(), torch.randn(2, 4))
    with pytest.raises(StageError) as caught:
        made.int8_layer("always.0")
    assert "Call session.goto('convert') first" in caught.value.fix
    made.goto("convert")
    assert made.int8_layer("always.0").path == "always.0"
