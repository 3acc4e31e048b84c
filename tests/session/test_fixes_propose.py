"""Each fix of a proposal of mixed precision, done to the letter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.ao.quantization import QConfig

import qatexplorer as qx
from qatexplorer.accuracy.records import ProposalPoint
from qatexplorer.errors import QatExplorerError
from tests.support.narrow import narrow

X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
BATCH = (X, torch.tensor([0, 1, 2, 3]))


def session(qconfig: Any = None) -> qx.Session:
    net = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 4)).train()
    data = ([BATCH], [BATCH])
    made = qx.Session(net, X, data=data, flow="fx", qconfig=qconfig or narrow(4))
    made.calibrate(1)
    return made


def refused(call: Callable[[], Any]) -> str:
    with pytest.raises(QatExplorerError) as caught:
        call()
    return caught.value.fix


def test_a_goal() -> None:
    s = session()
    s.sensitivity("shadow")
    fix = "Pass wished_metric=0.95, or max_drop=0.01 for at most 0.01 below float."
    assert refused(s.propose) == fix
    assert s.propose(wished_metric=0.95).wished == 0.95
    found = s.propose(max_drop=0.01)
    assert found.float_metric is not None
    assert found.wished == found.float_metric - 0.01


def test_a_ranking() -> None:
    s = session()
    fix = 'Call session.sensitivity("shadow") first, or pass ranking=.'
    assert refused(lambda: s.propose(max_drop=0.1)) == fix
    ranked = s.sensitivity("shadow")
    assert s.propose(max_drop=0.1).points
    assert session().propose(max_drop=0.1, ranking=ranked).points


def test_a_treatment_and_a_mode() -> None:
    s = session()
    s.sensitivity("shadow")
    fix = "Use treatment='float', or a number of bits, 3 to 8."
    assert refused(lambda: s.propose(max_drop=0.1, treatment="int8")) == fix  # type: ignore[arg-type]
    assert s.propose(max_drop=0.1, treatment="float").points
    assert s.propose(max_drop=0.1, treatment=8).points
    fix = "Use metric_mode='max' or 'min'."
    assert refused(lambda: s.propose(max_drop=0.1, metric_mode="most")) == fix  # type: ignore[arg-type]
    assert s.propose(max_drop=0.1, metric_mode="min").metric_mode == "min"


def test_nothing_to_take_back() -> None:
    s = session()
    fix = "Set the qconfig that you want with session.configure(qconfig=…)."
    assert refused(s.take_back_point) == fix
    s.apply(ProposalPoint(("0",), 0.0, 0, 0.0))
    s.configure(qconfig={"0": None})
    assert refused(s.take_back_point) == fix
    s.configure(qconfig=narrow(4))
    s.goto(s.flow.prepared_stage)
    assert {site.owner for site in s.snapshot.sites} >= {"0", "2"}


def test_a_weight_that_takes_no_bits() -> None:
    plain = narrow(4)
    fixed = QConfig(activation=plain.activation, weight=lambda **given: plain.weight(**given))
    s = session(fixed)
    point = ProposalPoint(("0",), 0.0, 0, 0.0, "8")
    fix = "Pass session.configure(qconfig={path: …}) a qconfig of your own for it."
    assert refused(lambda: s.apply(point)) == fix
    s.configure(qconfig={"": fixed, "0": narrow(8)})
    s.goto(s.flow.prepared_stage)
    tops = {site.owner: site.quant_max for site in s.snapshot.sites if site.kind == "weight"}
    assert tops == {"0": 127, "2": 7}
