"""Range rules: torch's own observers stand where they were asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
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
from qatexplorer.flows.percentile import PercentileObserver
from qatexplorer.flows.quant_spec import QuantSpec, spec_of
from tests.cures.nets import FLOWS, offer, session_of, usual, work_of
from tests.support.scripts import assert_the_same

TORCHS = {
    "min-max": MinMaxObserver,
    "moving average": MovingAverageMinMaxObserver,
    "histogram": HistogramObserver,
    "percentile": PercentileObserver,
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
    four = QuantSpec(bits=4, signed=True, scheme="symmetric", fake_quant="FakeQuantize")
    session.set_qconfig("body.3", weight=four)
    session.cure("ranges", weight="min-max")
    assert [rule.by for rule in session.qconfig_rules] == ["model", "path"]
    session.goto(session.flow.train_stage)
    named = work_of(session).named_modules()
    kinds = {
        path: type(m.weight_fake_quant.activation_post_process)
        for path, m in named
        if hasattr(m, "weight_fake_quant")
    }
    assert kinds == {
        "body.0": MinMaxObserver,
        "body.3": MovingAverageMinMaxObserver,
        "fc": MinMaxObserver,
    }
    session.undo_cure()
    assert [rule.by for rule in session.qconfig_rules] == ["path"]


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("rule", ["histogram", "percentile"])
def test_the_script_has_it(rule: str, flow: str) -> None:
    session = session_of(usual(), flow)
    session.cure("ranges", activation=rule, weight="min-max")
    session.calibrate(2)
    session.goto(session.flow.int8_stage)
    text = session.script()
    assert ("class PercentileObserver(HistogramObserver):" in text) == (rule == "percentile")
    assert "qatexplorer import" not in text
    assert_the_same(session, text, usual)


@pytest.mark.parametrize("percentile", [90.0, 99.0, 100.0])
def test_a_percentile_is_numpys_to_a_bin(percentile: float) -> None:
    generator = torch.Generator().manual_seed(0)
    spec = QuantSpec(
        observer="PercentileObserver", fake_quant="FakeQuantize", percentile=percentile
    )
    made: Any = spec.make()
    assert spec_of(made) == spec
    assert QuantSpec.from_json(spec.to_json()) == spec
    values = torch.randn(3, 4000, generator=generator)
    for part in values:
        made.activation_post_process(part)
    scale, zero_point = made.calculate_qparams()
    low, high = -float(zero_point * scale), float((255 - zero_point) * scale)
    wanted = np.percentile(values.numpy(), [100 - percentile, percentile])
    width = float(values.max() - values.min()) / 2048
    steps = 3 * width + float(scale)  # three histograms put together, and the zero point's rounding
    assert low == pytest.approx(wanted[0], abs=steps)
    assert high == pytest.approx(wanted[1], abs=steps)


def test_a_percentile_of_one_value_and_of_nothing() -> None:
    observer = PercentileObserver()
    with pytest.warns(UserWarning, match="must run observer"):
        assert float(observer.calculate_qparams()[0]) == 1.0
    observer(torch.full((5,), 2.0))
    scale, zero_point = observer.calculate_qparams()
    assert float((255 - zero_point) * scale) == pytest.approx(2.0, rel=0.01)


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
    session.goto(session.flow.train_stage)
    model = work_of(session)
    kind = type(model.get_submodule("activation_post_process_0"))
    assert kind is FusedMovingAvgObsFakeQuantize
