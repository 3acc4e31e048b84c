"""What torch.export gives is no model that a session takes: it exports the model itself."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import qatexplorer as qx
from qatexplorer.errors import InputError, NotAModuleError, UnsupportedTorchError


class SmallCNN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.act = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Any:
        return self.fc(torch.flatten(self.pool(self.act(self.bn(self.conv(x)))), 1))


IMAGE = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(22))


@pytest.mark.parametrize("flow", ["eager", "fx"])
@pytest.mark.parametrize("program", [True, False])
def test_a_graph_of_aten_operations_is_refused(flow: str, program: bool) -> None:
    exported = torch.export.export(SmallCNN().eval(), (IMAGE,))
    with pytest.raises(NotAModuleError) as raised:
        qx.Session(exported if program else exported.module(), IMAGE, flow=flow)
    assert "torch.export" in raised.value.message
    assert "it exports the model itself" in raised.value.why
    # What it says to do.
    session = qx.Session(SmallCNN().train(), IMAGE, flow="pt2e")
    session.goto("insert")
    assert [site.kind for site in session.snapshot.sites].count("weight") == 2


def test_a_graph_that_fx_traced_is_a_model() -> None:
    traced = torch.fx.symbolic_trace(SmallCNN().train())
    session = qx.Session(traced, IMAGE, flow="fx")
    session.goto(session.flow.prepared_stage)
    assert sum(site.kind == "weight" for site in session.snapshot.sites) == 2


def test_a_flow_that_there_is_not() -> None:
    with pytest.raises(InputError, match="there is no flow 'pt3e'") as raised:
        qx.Session(SmallCNN().train(), IMAGE, flow="pt3e")
    assert "'eager', 'fx', 'pt2e'" in raised.value.fix


def test_without_torchao_the_flow_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UnsupportedTorchError, match="flow 'pt2e' cannot run here") as raised:
        qx.Session(SmallCNN().train(), IMAGE, flow="pt2e")
    assert raised.value.why == "Torchao is not installed."
    assert raised.value.fix == "Run pip install 'torchao>=0.18,<0.19'"
    assert qx.Session(SmallCNN().train(), IMAGE).goto("train").sites  # the rest works
