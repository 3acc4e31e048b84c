"""Bias correction, against torch's own function and its definition."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.ao.nn import qat as nnqat
from torch.ao.quantization import FakeQuantize, disable_fake_quant, disable_observer
from torch.ao.quantization._correct_bias import bias_correction

from qatexplorer.cures.biases import bias_of, correct_biases, layers_with_bias
from qatexplorer.data import call_model
from qatexplorer.errors import InputError
from tests.cures.nets import FLOWS, chain, offer, session_of, usual, work_of
from tests.support.scripts import assert_the_same
from tests.support.training_models import batches

COARSE = FakeQuantize.with_args(
    quant_min=-4, quant_max=3, dtype=torch.qint8, qscheme=torch.per_tensor_symmetric
)


def plain() -> nn.Module:
    """Nothing that can be fused."""
    torch.manual_seed(0)
    return chain(nn.Conv2d(1, 6, 3), nn.Sigmoid(), nn.Conv2d(6, 6, 3))


def weights_only(model: nn.Module) -> nn.Module:
    """Three-bit weights, activations in float: what torch's function counts to the error too."""
    for layer in layers_with_bias(model):
        layer.weight_fake_quant = COARSE()
        layer.weight_fake_quant(layer.weight)  # type: ignore[operator]
    model.apply(disable_observer)
    for name, module in model.named_modules():
        if isinstance(module, FakeQuantize) and not name.endswith("weight_fake_quant"):
            module.apply(disable_fake_quant)
    return model.eval()


@pytest.mark.parametrize("flow", FLOWS)
def test_it_is_what_torchs_function_gives(flow: str) -> None:
    model = plain()
    session = session_of(model, flow)
    session.calibrate(2)
    mine = weights_only(work_of(session))
    its = copy.deepcopy(mine)
    before = [bias_of(layer).detach().clone() for layer in layers_with_bias(mine)]
    seen = batches()
    with torch.no_grad():
        correct_biases(mine, seen, call_model)
        bias_correction(
            copy.deepcopy(model).eval(), its, seen, target_modules={nnqat.Conv2d, nnqat.Linear}
        )
    found = [bias_of(layer).detach() for layer in layers_with_bias(mine)]
    wanted = [bias_of(layer).detach() for layer in layers_with_bias(its)]
    assert len(found) == len(wanted) == 3
    for old, one, other in zip(before, found, wanted, strict=True):
        assert float((one - old).abs().max()) > 1e-3
        assert torch.allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("flow", FLOWS)
def test_with_a_batch_norm_and_a_relu_inside_the_mean_error_is_gone(flow: str) -> None:
    session = session_of(usual(), flow)
    session.calibrate(4)
    model = weights_only(work_of(session))
    layer = layers_with_bias(model)[0]
    assert hasattr(layer, "bn")
    assert "ReLU" in type(layer).__name__
    seen = batches()
    images = torch.cat([x for x, _ in seen])

    def mean_before_relu(rounded: bool) -> Tensor:
        weight_fake_quant = layer.weight_fake_quant
        if not rounded:
            layer.weight_fake_quant = nn.Identity()
        given: list[Tensor] = []
        hook = layer.register_forward_pre_hook(lambda _m, args: given.append(args[0]))
        model(images)
        hook.remove()
        mean = layer._forward(given[0]).mean((0, 2, 3))  # type: ignore[operator]
        layer.weight_fake_quant = weight_fake_quant
        return mean  # type: ignore[no-any-return]

    with torch.no_grad():
        wanted, off = mean_before_relu(False), mean_before_relu(True)
        correct_biases(model, seen, call_model)
        corrected = mean_before_relu(True)
    assert float((off - wanted).abs().max()) > 1e-2
    assert torch.allclose(corrected, wanted, atol=1e-4)


@pytest.mark.parametrize("flow", FLOWS)
def test_it_is_undone_bit_for_bit_and_the_script_has_it(flow: str) -> None:
    session = session_of(usual(), flow)
    session.calibrate(2)
    before = work_of(session).state_dict()
    cured = session.cure("biases", batches=3)
    after = work_of(session).state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {line.partition(":")[0] for line in cured.changes}
    assert len(moved) == 3
    assert all(name.endswith("bias") for name in moved)
    session.undo_cure()
    undone = work_of(session).state_dict()
    assert all(torch.equal(before[name], undone[name]) for name in before)
    session.cure("biases", batches=3)
    session.train(1, progress=False)
    session.goto(session.flow.int8_stage)
    text = session.script()
    assert "def correct_biases(" in text
    assert "qatexplorer import" not in text
    assert_the_same(session, text, usual)


def test_it_is_not_done_twice_nor_on_trained_weights() -> None:
    session = session_of(usual(), "fx")
    session.calibrate(2)
    session.cure("biases")
    session.calibrate(2)
    assert "a second time" in offer(session, "biases")
    with pytest.raises(InputError, match="does not apply"):
        session.cure("biases")
    trained = session_of(usual(), "fx")
    trained.train(1, progress=False)
    assert "has been trained" in offer(trained, "biases")
    measured = session_of(usual(), "fx")
    measured.calibrate(2)
    measured.cure("batch_norms")
    assert "made up for" in offer(measured, "biases")


def test_it_says_where_there_is_no_bias() -> None:
    torch.manual_seed(0)
    session = session_of(nn.Sequential(nn.Conv2d(1, 4, 8, bias=False), nn.Flatten()), "fx")
    session.calibrate(1)
    assert "and a bias" in offer(session, "biases")
