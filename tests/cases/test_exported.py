"""What torch.export gives is no model that these flows take, and is refused in one sentence."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import qatexplorer as qx
from qatexplorer.errors import InputError, NotAModuleError


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
    assert "torchao.quantization.pt2e" in raised.value.why
    # What it says to do.
    session = qx.Session(SmallCNN().train(), IMAGE, flow="fx")
    assert not session.check().errors


def test_a_graph_that_fx_traced_is_a_model() -> None:
    traced = torch.fx.symbolic_trace(SmallCNN().train())
    session = qx.Session(traced, IMAGE, flow="fx")
    session.goto(session.flow.prepared_stage)
    assert sum(site.kind == "weight" for site in session.snapshot.sites) == 2


@pytest.mark.parametrize("name", ["pt2e", "torchao"])
def test_the_flow_of_torchao_is_named(name: str) -> None:
    with pytest.raises(InputError, match="has left torch for torchao") as raised:
        qx.Session(SmallCNN().train(), IMAGE, flow=name)
    assert "'eager', 'fx'" in raised.value.fix
