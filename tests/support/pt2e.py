"""Nets for the PT2E flow that convert fast, and the flow's stages on them."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from qatexplorer.flows.base import FlowOptions, StageResult
from qatexplorer.flows.pt2e import Pt2eFlow
from qatexplorer.flows.qconfig import resolve_qconfig


class Branches(nn.Module):
    """Two convolutions summed, pooled, flattened, a linear layer; the first is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
        self.left, self.right = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.drop = nn.Dropout(0.1)
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.relu(self.left(x) + self.right(x))
        x = self.pool(torch.cat([x, x], 1))[:, :4]
        return self.fc(self.drop(torch.flatten(x, 1)))


def branches() -> nn.Module:
    torch.manual_seed(0)
    return Branches().train()


def images(rows: int = 4) -> Tensor:
    return torch.randn(rows, 3, 4, 4, generator=torch.Generator().manual_seed(3))


def linears() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4)).train()


def rows(count: int = 4) -> Tensor:
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(3))


def options_of(inputs: Any, quantizer: Any = None) -> FlowOptions:
    return FlowOptions(resolve_qconfig(None, None), inputs, quantizer=quantizer)


def walked(
    model: nn.Module, inputs: Any, quantizer: Any = None
) -> tuple[dict[str, StageResult], StageResult]:
    """Stages "export" to "fuse" by name, and the prepared model, from a copy of ``model``."""
    flow, options = Pt2eFlow(), options_of(inputs, quantizer)
    stages = {"export": flow.apply("export", copy.deepcopy(model), options)}
    prepared = flow.apply("insert", stages["export"].model, options, stages.__setitem__)
    return stages, prepared


def converted(prepared: nn.Module, inputs: Any, stage: str) -> StageResult:
    return Pt2eFlow().apply(stage, copy.deepcopy(prepared), options_of(inputs))
