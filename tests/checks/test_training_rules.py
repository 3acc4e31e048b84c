"""What the rules on training measure, and the one that loops of one's own can ask."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import qatexplorer as qx
from qatexplorer.checks.evidence.classes import start
from qatexplorer.checks.evidence.weights import scale_of_kernel, weight_ranges
from qatexplorer.checks.evidence.zeros import zeros
from qatexplorer.checks.subject import NoEvidence, Subject
from tests.checks.examples_training import DATA, TRAIN, Net, Plan, pruned
from tests.support.training_models import one_thread, prepared

_ = one_thread


def subject_of(session: qx.Session) -> Subject:
    return session._checks._subject(session.run, False)


# -- the optimizer ---------------------------------------------------------------------------------


def test_an_optimizer_of_the_prepared_model_is_right() -> None:
    model = prepared()
    assert not qx.check_optimizer(model, torch.optim.SGD(model.parameters(), lr=0.1))


def test_an_optimizer_made_before_prepare_qat_trains_another_model() -> None:
    """prepare_qat copies; the weights stay what they were, whatever the optimizer does."""
    model = Net(Plan()).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    copied = torch.ao.quantization.prepare_qat(model)
    (found,) = qx.check_optimizer(copied, optimizer)
    assert (found.id, found.severity, found.path) == ("QX436", "error", "")
    before = copied.fc.weight.detach().clone()
    copied(TRAIN[0][0]).sum().backward()
    optimizer.step()
    assert torch.equal(copied.fc.weight, before)
    inplace = torch.ao.quantization.prepare_qat(model, inplace=True)
    assert not qx.check_optimizer(inplace, optimizer)


def test_parameters_that_are_frozen_are_not_missed() -> None:
    model = prepared()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("fc"))
    some = [p for p in model.parameters() if p.requires_grad]
    assert not qx.check_optimizer(model, torch.optim.SGD(some, lr=0.1))


def test_few_of_the_parameters_is_a_warning_with_the_first_layer_left_out() -> None:
    model = prepared()
    only = torch.optim.SGD([p for n, p in model.named_parameters() if n == "fc.bias"], lr=0.1)
    (found,) = qx.check_optimizer(model, only)
    assert (found.severity, found.path) == ("warning", "conv")


# -- chance ----------------------------------------------------------------------------------------


def test_chance_is_not_guessed_for_another_metric() -> None:
    def distance(output: Any, target: Any) -> float:
        return 0.0

    session = qx.Session(Net(Plan()).train(), TRAIN[0][0], data=DATA, metric=distance)
    session.warns = False
    session.train(1, progress=False)
    with pytest.raises(NoEvidence, match="not accuracy"):
        subject_of(session).get(start)


def test_without_a_run_the_float_model_is_not_evaluated() -> None:
    session = qx.Session(Net(Plan()).train(), TRAIN[0][0], data=DATA)
    session.warns = False
    skipped = {one.id: one.why for one in session.check().skipped}
    assert "check(thorough=True)" in skipped["QX431"]


def test_chance_is_that_of_the_most_frequent_class() -> None:
    session = qx.Session(Net(Plan()).train(), TRAIN[0][0], data=DATA)
    session.warns = False
    session.train(1, progress=False)
    found = subject_of(session).get(start)
    targets = torch.cat([y for _, y in DATA["eval"]])
    assert found.guess == float(targets.bincount().max()) / len(targets)
    assert (found.classes, found.samples) == (4, len(targets))
    assert session.run is not None
    assert session.run.baseline is not None
    assert found.value == session.run.baseline.value


# -- weights and zeros -----------------------------------------------------------------------------


@pytest.mark.parametrize("flow", ["eager", "fx"])
def test_zeros_before_during_and_after(flow: str) -> None:
    model, inputs = pruned(True)()
    session = qx.Session(model, inputs, flow=flow, data=DATA, engine="onednn")
    session.warns = False
    session.goto(session.flow.train_stage)
    session.calibrate(2)
    session.goto(session.flow.int8_stage)
    found = {one.path: one for one in subject_of(session).get(zeros)}
    assert set(found) == {"conv", "fc"}
    for path, one in found.items():
        weight = model.get_submodule(path).weight
        codes = session.int8.get_submodule(path).weight().int_repr()
        assert one.before == one.during == float((weight == 0).sum()) / weight.numel()
        assert one.after == float((codes == 0).sum()) / codes.numel()
        assert one.after >= one.before > 0.4


@pytest.mark.parametrize("flow", ["eager", "fx"])
def test_zeros_of_a_wrapped_layer_are_found_where_it_stands_now(flow: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)).train()
    stubs = {"stubs": "layers"} if flow == "eager" else {}
    session = qx.Session(model, torch.randn(4, 8), flow=flow, **stubs)
    session.warns = False
    session.goto(session.flow.train_stage)
    found = subject_of(session).get(zeros)
    assert [one.path for one in found] == ["0", "2"]
    assert all(one.during == one.before for one in found)


@pytest.mark.parametrize("flow", ["eager", "fx"])
def test_the_kernel_scale_is_measured_against_the_int8_layer(flow: str) -> None:
    """Channels of both signs, one of one sign, one that is all zero."""
    model, inputs = Net(Plan()).train(), TRAIN[0][0]
    with torch.no_grad():
        model.fc.weight[0].abs_()
        model.fc.weight[1] = 0.0
    session = qx.Session(model, inputs, flow=flow, data=DATA, engine="onednn")
    session.warns = False
    session.goto(session.flow.train_stage)
    session.calibrate(2)
    one = scale_of_kernel(session.model.get_submodule("fc"))
    assert one is not None
    site: Any = session.model.get_submodule("fc.weight_fake_quant")
    weight: Any = session.model.get_submodule("fc").weight
    scales, zeros_at = site.scale.clone(), site.zero_point.clone()
    session.goto(session.flow.int8_stage)
    int8 = session.int8.get_submodule("fc").weight()
    step = int8.q_per_channel_scales()
    used = torch.tensor([0, 2, 3])
    assert one.one_sign == 1
    assert one.off_by == pytest.approx(float(((scales - step).abs() / step)[used].max()), rel=1e-3)
    rounded = torch.fake_quantize_per_channel_affine(
        weight.detach(), scales, zeros_at, 0, -128, 127
    )
    away = (rounded - int8.dequantize()).abs() / step.reshape(-1, 1)
    assert one.values == weight.numel()
    assert one.moved / one.values == pytest.approx(float((away > 0.501).float().mean()), abs=0.02)


def test_a_weight_in_its_range_reaches_as_far_as_int8() -> None:
    session = qx.Session(Net(Plan()).train(), TRAIN[0][0], data=DATA)
    session.warns = False
    session.goto(session.flow.train_stage)
    assert not subject_of(session).get(weight_ranges)
    session.calibrate(1)
    for factor in (1.0, 2.0, 0.25):
        with torch.no_grad():
            session.model.get_submodule("fc").weight.mul_(factor)
        (one,) = [w for w in subject_of(session).get(weight_ranges) if w.path == "fc"]
        assert one.site == "fc.weight_fake_quant"
        assert one.reach[0] == pytest.approx({1.0: 1.0, 2.0: 2.0, 0.25: 0.5}[factor], rel=0.03)
        assert (one.clipped > 0.2) == (factor == 2.0)


def test_samples_of_calibration_are_counted_until_the_session_starts_again() -> None:
    session = qx.Session(Net(Plan()).train(), TRAIN[0][0], data=DATA)
    session.warns = False
    session.calibrate(2)
    session.calibrate(1)
    assert subject_of(session).calibrated == 24
    session.evaluate(latency=False)  # calibrates a copy
    assert subject_of(session).calibrated == 24
    session.reset()
    assert subject_of(session).calibrated == 0
