"""Range rules: torch's own observers stand where they were asked for."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.ao.quantization import (
    FakeQuantize,
    FusedMovingAvgObsFakeQuantize,
    HistogramObserver,
    MinMaxObserver,
    MovingAverageMinMaxObserver,
    QConfig,
)

from qatexplorer.cures.ranges import OBSERVERS
from tests.cures.nets import FLOWS, offer, session_of, usual, work_of
from tests.takehome.test_script import assert_the_same

TORCHS = {
    "min-max": MinMaxObserver,
    "moving average": MovingAverageMinMaxObserver,
    "histogram": HistogramObserver,
}


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("rule", OBSERVERS)
def test_the_range_is_that_of_torchs_observer(rule: str, flow: str) -> None:
    session = session_of(usual(), flow)
    found = session.cure("ranges", activation=rule)
    assert found.judged == "ptq"
    assert len(found.changes) == 1
    session.calibrate(3)
    model = work_of(session)
    of_input = "quant.activation_post_process" if flow == "eager" else "activation_post_process_0"
    mine = model.get_submodule(of_input)
    assert type(mine.activation_post_process) is TORCHS[rule]
    its = TORCHS[rule](dtype=torch.quint8, quant_min=0, quant_max=255)
    train = session.data.train  # type: ignore[union-attr]
    for x, _ in list(train)[:3]:
        its(x)
    wanted, found_ = its.calculate_qparams(), mine.calculate_qparams()  # type: ignore[operator]
    assert all(torch.equal(a, b) for a, b in zip(wanted, found_, strict=True))


@pytest.mark.parametrize("flow", FLOWS)
def test_weights_have_their_own_rule_and_what_is_said_of_one_module_stays(flow: str) -> None:
    session = session_of(usual(), flow)
    session.set_qconfig("fc", to_float=True)
    session.cure("ranges", weight="min-max")
    assert [rule.by for rule in session.qconfig_rules] == ["model", "path"]
    session.goto(session.flow.prepared_stage)
    kinds = {
        type(m.weight_fake_quant.activation_post_process)
        for m in work_of(session).modules()
        if hasattr(m, "weight_fake_quant")
    }
    assert kinds == {MinMaxObserver}
    session.undo_cure()
    assert [rule.by for rule in session.qconfig_rules] == ["path"]


@pytest.mark.parametrize("flow", FLOWS)
def test_the_script_has_it(flow: str) -> None:
    session = session_of(usual(), flow)
    session.cure("ranges", activation="histogram", weight="min-max")
    session.calibrate(2)
    session.goto(session.flow.int8_stage)
    assert_the_same(session, session.script(), usual)


def test_a_class_of_ones_own_has_no_rule() -> None:
    class Own(FakeQuantize):
        pass

    own = QConfig(activation=Own, weight=Own.with_args(dtype=torch.qint8, quant_min=-128))
    assert "of your own" in offer(session_of(usual(), "fx", qconfig=own), "ranges")
    nothing = session_of(nn.Sequential(nn.Conv2d(1, 4, 8), nn.Flatten()), "fx", qconfig={"": None})
    assert "in float" in offer(nothing, "ranges")


def test_the_fused_class_gives_way_only_where_it_must() -> None:
    session = session_of(usual(), "fx")
    session.cure("ranges", weight="min-max")
    session.goto(session.flow.prepared_stage)
    model = work_of(session)
    kind = type(model.get_submodule("activation_post_process_0"))
    assert kind is FusedMovingAvgObsFakeQuantize
