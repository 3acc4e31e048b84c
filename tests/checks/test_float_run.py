"""One forward of the float model, and what is kept of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import qatexplorer as qx
from qatexplorer.checks.evidence.float_run import (
    KEPT_CALLS,
    SAMPLED,
    FloatRun,
    float_run,
    kind_of,
    sampled,
)
from qatexplorer.checks.subject import Subject
from tests.cases.models import Yolo, assert_untouched, state_of


def run_of(model: nn.Module, *inputs: Any) -> FloatRun:
    return float_run(subject_of(model, *inputs))


def subject_of(model: nn.Module, *inputs: Any) -> Subject:
    session = qx.Session(model.train(), inputs, flow="eager")
    session.warns = False
    return session._checks._subject(None)


def test_modules_are_counted_by_path_and_by_every_name() -> None:
    run = run_of(Yolo(), torch.rand(2, 3, 16, 16))
    assert run.counts["stem.act"] == 5
    names = [f"{path}.act" for path in ("stem", "block.cv1", "block.m.0", "block.cv2", "down")]
    assert {name: run.counts_by_name[name] for name in names} == dict.fromkeys(names, 1)
    assert [call.name for call in run.runs["stem.act"]] == [
        "stem.act", "block.cv1.act", "block.m.0.act", "block.cv2.act", "down.act"
    ]  # fmt: skip
    assert run.kind == "Tensor"  # in eval mode; a list in training


def test_names_in_one_sequential_are_taken_in_turn() -> None:
    act = nn.ReLU()
    run = run_of(nn.Sequential(nn.Linear(2, 2), act, nn.Linear(2, 2), act), torch.rand(3, 2))
    assert run.counts["1"] == 2
    assert run.counts_by_name["1"] == run.counts_by_name["3"] == 1


def test_ranges_are_those_of_the_tensors() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(inplace=True))
    x = torch.randn(3, 4)
    run = run_of(model, x)
    with torch.no_grad():
        made = model[0](x)
    given, got = run.runs["0"][0].given, run.runs["0"][0].got
    assert given is not None
    assert got is not None
    assert (given.low, given.high) == (float(x.min()), float(x.max()))
    assert (got.low, got.high) == (float(made.min()), float(made.max()))  # before it is written to
    after = run.runs["1"][0].got
    assert after is not None
    assert (after.low, after.shape) == (float(made.clamp(0).min()), (3, 5))


def test_methods_of_a_float_functional_are_calls() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ff, self.a = torch.ao.nn.quantized.FloatFunctional(), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.ff.mul(self.ff.add(self.a(x), x), x)

    run = run_of(Sum(), torch.rand(3, 4))
    assert [call.method for call in run.runs["ff"]] == ["add", "mul"]
    assert len(run.runs["ff"][0].others) == 1


def test_samples_are_bounded_and_of_the_same_places_in_every_model() -> None:
    large = torch.randn(2, 3, 100, 100)
    sample = sampled(large)
    assert sample is not None
    assert sample.shape == (SAMPLED,)
    twice = sampled((large * 2, None))
    assert twice is not None
    assert torch.equal(twice, sample * 2)
    int8 = sampled(torch.quantize_per_tensor(large, 0.01, 128, torch.quint8))
    assert int8 is not None
    inside = sample.abs() < 1.2
    assert float((int8 - sample)[inside].abs().max()) <= 0.0051
    small = torch.randn(7)
    kept = sampled(small)
    assert kept is not None
    assert torch.equal(kept, small)
    assert kept.data_ptr() != small.data_ptr()
    assert sampled("no tensor") is None

    class Often(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            for _ in range(KEPT_CALLS + 5):
                x = self.fc(x)
            return x

    run = run_of(Often(), torch.rand(1, 2))
    assert len(run.outputs["fc"]) == KEPT_CALLS
    assert run.counts["fc"] == KEPT_CALLS + 5


def test_outputs_are_those_of_an_eval_forward() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    x = torch.randn(6, 4)
    run = run_of(model, x)
    with torch.no_grad():
        wanted = model.eval()(x).flatten()
    assert torch.allclose(run.outputs["2"][0], wanted)
    assert torch.allclose(run.outputs[""][0], wanted)


def test_nothing_is_left_behind_and_nothing_is_drawn() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    subject = subject_of(model, torch.randn(6, 4))
    before, rng = state_of(subject.base), torch.get_rng_state()
    fast = torch.backends.mha.get_fastpath_enabled()
    float_run(subject)
    assert_untouched(subject.base, before)
    assert torch.equal(torch.get_rng_state(), rng)
    assert torch.backends.mha.get_fastpath_enabled() == fast


def test_it_is_one_forward() -> None:
    forwards = []

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            forwards.append(1)
            out: Tensor = self.fc(x)
            return out

    subject = subject_of(Counting(), torch.rand(3, 2))
    forwards.clear()
    assert subject.get(float_run) is subject.get(float_run)
    assert len(forwards) == 1


def test_a_transformer_layer_is_looked_into() -> None:
    """In eval mode torch would compute it in one call."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    run = run_of(nn.Sequential(layer), torch.rand(2, 3, 8))
    assert run.counts["0.linear1"] == 1


def test_a_stub_hands_on_another_tensor() -> None:
    """It returns the very same one, which would then be int8 and float at once."""

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.quant, self.fc = torch.ao.quantization.QuantStub(), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.quant(x)) + x

    run = run_of(Both(), torch.rand(2, 4))
    add = next(one for one in run.operations if one.name == "add")
    assert run.inputs[0].number in [value.number for value in add.inputs]
    producers = {call.index: call for call in run.calls}
    linear = next(call for call in run.calls if call.name == "linear")
    assert "identity" in [producers[index].name for index in linear.inputs]


def test_a_transposed_view_is_an_operation() -> None:
    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.fc(x.T)
            return out

    run = run_of(Turned(), torch.rand(3, 4))
    entered = [e for e in run.events if getattr(e, "path", "") == "fc"]
    assert entered[0].inputs[0].known  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("output", "kind"),
    [
        (torch.ones(1), "Tensor"),
        ([1, 2], "list of 2"),
        ((1,), "tuple of 1"),
        ({"out": 1, "aux": 2}, "dict of out, aux"),
        (None, "NoneType"),
    ],
)
def test_kinds_of_outputs(output: Any, kind: str) -> None:
    assert kind_of(output) == kind
