"""A small model with stubs of its own, and sessions of it whose qconfig is edited."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.ao.quantization import DeQuantStub, QuantStub

import qatexplorer as qx
from qatexplorer.flows.quant_spec import QuantSpec

W4 = QuantSpec(bits=4, signed=True, scheme="symmetric", per_channel=True)
W6 = QuantSpec(bits=6, signed=True, scheme="symmetric")
A6 = QuantSpec(bits=6)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.first = nn.Conv2d(1, 4, 3)
        self.block = nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 1))
        self.fc = nn.Linear(64, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.dequant(self.fc(torch.flatten(self.block(self.first(self.quant(x))), 1)))


X = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def net() -> nn.Module:
    torch.manual_seed(0)
    return Net().train()


def session_of(flow: str, **settings: Any) -> qx.Session:
    return qx.Session(net(), X, flow=flow, qconfig="fbgemm", **settings)
