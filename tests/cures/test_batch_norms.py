"""Batch norms measured anew, against torch's own function and by hand."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.ao.quantization import disable_observer
from torch.optim.swa_utils import update_bn

import qatexplorer as qx
from qatexplorer.cures.batch_norms import reestimate_batch_norms
from qatexplorer.data import call_model
from tests.cures.nets import FLOWS, chain, offer, session_of, usual, work_of
from tests.support.scripts import assert_the_same
from tests.support.training_models import batches


@pytest.mark.parametrize("flow", FLOWS)
def test_it_is_what_torchs_function_gives(flow: str) -> None:
    torch.manual_seed(0)
    net = chain(nn.Conv2d(1, 6, 3), nn.Sigmoid(), nn.BatchNorm2d(6), nn.Conv2d(6, 6, 3))
    session = session_of(net, flow)
    session.calibrate(2)
    mine = work_of(session).apply(disable_observer)
    its = copy.deepcopy(mine)
    seen = batches()
    with torch.no_grad():
        reestimate_batch_norms(mine.eval(), seen, call_model)
        update_bn(seen, its)
    one, other = mine.state_dict(), its.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
    norm = next(m for m in mine.modules() if isinstance(m, nn.BatchNorm2d))
    assert norm.momentum == 0.1
    assert not norm.training
    assert int(norm.num_batches_tracked) == len(seen)  # type: ignore[arg-type]


@pytest.mark.parametrize("flow", FLOWS)
def test_inside_a_fused_layer_it_is_the_mean_over_the_batches(flow: str) -> None:
    """Of what the rounded weight gives, with the scale that the batches before have led to."""
    session = session_of(usual(), flow)
    session.train(1, progress=False)
    before = work_of(session).eval().apply(disable_observer)
    session.cure("batch_norms", batches=3)
    layer: Any = next(m for m in before.modules() if hasattr(m, "bn"))
    given: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _m, args: given.append(args[0]))
    with torch.no_grad():
        for x, _ in list(session.data.train)[:3]:  # type: ignore[union-attr]
            before(x)
        hook.remove()
        means, variances, variance = [], [], layer.bn.running_var
        for x in given:
            scale = (layer.bn.weight / torch.sqrt(variance + layer.bn.eps)).reshape(-1, 1, 1, 1)
            rounded = torch.conv2d(x, layer.weight_fake_quant(layer.weight * scale))
            channels = (rounded / scale.reshape(1, -1, 1, 1)).transpose(0, 1).flatten(1)
            means.append(channels.mean(1))
            variances.append(channels.var(1))
            variance = torch.stack(variances).mean(0)
    cured: Any = next(m for m in work_of(session).modules() if hasattr(m, "bn"))
    assert torch.allclose(cured.bn.running_mean, torch.stack(means).mean(0), atol=1e-5)
    assert torch.allclose(cured.bn.running_var, variance, atol=1e-5)
    assert not torch.allclose(cured.bn.running_var, layer.bn.running_var, atol=1e-3)


def test_fake_quant_and_int8_agree_on_the_weights_afterwards() -> None:
    """The range of a weight with another scale in it is measured anew, as convert does in FX."""
    session = session_of(usual(), "fx")
    session.calibrate(2)
    session.cure("batch_norms")
    for layer in (m for m in work_of(session).modules() if hasattr(m, "bn")):
        scale = layer.bn.weight / torch.sqrt(layer.bn.running_var + layer.bn.eps)
        top = (layer.weight * scale.reshape(-1, 1, 1, 1)).abs().max()
        observer = layer.weight_fake_quant.activation_post_process
        assert torch.allclose(torch.max(-observer.min_val, observer.max_val), top)


@pytest.mark.parametrize("flow", FLOWS)
def test_it_is_undone_bit_for_bit_and_the_script_has_it(flow: str) -> None:
    session = session_of(usual(), flow)
    session.calibrate(2)
    session.train(1, progress=False, freeze_observer_epoch=0, freeze_bn_epoch=0)
    before = work_of(session).state_dict()
    cured = session.cure("batch_norms", batches=2)
    assert cured.judged == "fake_quant"
    assert cured.changes
    after = work_of(session).state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert {line.partition(":")[0] for line in cured.changes} <= moved
    session.undo_cure()
    undone = work_of(session).state_dict()
    assert all(torch.equal(before[name], undone[name]) for name in before)
    session.cure("batch_norms", batches=2)
    session.goto(session.flow.int8_stage)
    text = session.script()
    assert "def reestimate_batch_norms(" in text
    assert "qatexplorer import" not in text
    assert_the_same(session, text, usual)


def test_it_says_where_there_is_no_batch_norm() -> None:
    torch.manual_seed(0)
    session: qx.Session = session_of(chain(nn.Conv2d(1, 6, 3)), "fx")
    session.calibrate(1)
    assert "no batch norm" in offer(session, "batch_norms")
