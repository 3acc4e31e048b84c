"""What a model may be, and the forms of example inputs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.ao.nn.quantized import FloatFunctional
from torch.ao.quantization import QuantWrapper

import qatexplorer as qx
from qatexplorer.data import as_data
from qatexplorer.errors import ExampleInputError
from qatexplorer.session.inputs import (
    check_model,
    copy_model,
    describe_inputs,
    example_inputs_from,
    graph_of,
)
from tests.support.models import Residual, image


@pytest.mark.parametrize(
    "model",
    [
        nn.Linear(2, 2),
        nn.Sequential(),
        Residual(),
        QuantWrapper(nn.Linear(2, 2)),
        FloatFunctional(),
    ],
    ids=lambda m: type(m).__name__,
)
def test_models_that_are_fine(model: nn.Module) -> None:
    assert check_model(model) is model


def test_whole_numbers_and_flags_in_buffers_are_fine() -> None:
    model = nn.BatchNorm2d(2)
    model.register_buffer("mask", torch.ones(2, dtype=torch.bool))
    assert check_model(model) is model


def test_copies_share_nothing_and_use_no_random_numbers() -> None:
    class Draws(nn.Linear):
        def __deepcopy__(self, memo: Any) -> nn.Module:
            return Draws(2, 2)

    torch.manual_seed(0)
    state = torch.get_rng_state()
    model = nn.Sequential(Draws(2, 2))
    state = torch.get_rng_state()
    copied = copy_model(model).model
    assert torch.equal(torch.get_rng_state(), state)
    assert copied[0].weight.data_ptr() != model[0].weight.data_ptr()


def test_inputs_in_words() -> None:
    inputs = (torch.zeros(8, 1, 8, 8), {"mask": torch.zeros(8, dtype=torch.bool)}, 3)
    assert describe_inputs(inputs) == "(Tensor float32 (8, 1, 8, 8), {mask: Tensor bool (8,)}, int)"


def test_inputs_of_the_first_training_batch() -> None:
    first = torch.ones(2, 6)
    data = as_data([[(first, 0), (first * 2, 1)], []])
    assert example_inputs_from(None, data) is first
    given = torch.zeros(1)
    assert example_inputs_from(given, data) is given


def test_shuffled_data_uses_no_random_numbers_of_the_user() -> None:
    from torch.utils.data import DataLoader, TensorDataset

    rows = DataLoader(TensorDataset(torch.randn(8, 6), torch.zeros(8)), 4, shuffle=True)
    state = torch.get_rng_state()
    example_inputs_from(None, as_data([rows, rows]))
    assert torch.equal(torch.get_rng_state(), state)


def test_error_in_torch_names_the_users_layer_and_line() -> None:
    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList([nn.Linear(6, 6), nn.Linear(5, 5)])

        def forward(self, x: Tensor) -> Tensor:
            for block in self.blocks:
                x = block(x)
            return x

    with pytest.raises(ExampleInputError) as caught:
        graph_of(Deep(), (torch.zeros(2, 6),))
    error = caught.value
    assert error.where == "blocks.1"
    assert "in Linear" in error.message
    assert f"test_inputs.py:{Deep.forward.__code__.co_firstlineno + 2}" in error.message
    assert "(2, 6)" in error.fix


def test_the_input_itself_is_not_written_to() -> None:
    x = image()
    before = x.clone()
    graph_of(nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(1, 2, 3)), (x,))
    assert torch.equal(x, before)


def test_a_forward_that_writes_to_its_input_sees_the_same_input_each_time() -> None:
    class Adds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            x.add_(1.0)
            return self.fc(x)

    x = torch.zeros(2, 6)
    rows = [(torch.zeros(2, 6), torch.tensor([0, 1]))]
    session = qx.Session(Adds().train(), (x,), stubs="layers", data=[rows, rows])
    session.goto("convert")
    session.goto("insert")
    histogram = session.histogram("fc.quant.activation_post_process")
    assert (histogram.min, histogram.max) == (1.0, 1.0)
    session.preflight()
    session.evaluate()
    assert torch.equal(x, torch.zeros(2, 6))
