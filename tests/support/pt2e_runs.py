"""Small networks and sessions in the PT2E flow, for the tests of what comes after its stages.

None of the networks but ``Normed`` has a batch norm behind a convolution: torchao traces what it
looks for anew at each convert, and with those that takes ten times as long.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn

import qatexplorer as qx
from tests.support.training_models import data


class Plain(nn.Module):
    """Two convolutions, a sum, a dropout and a linear layer; (N, 1, 8, 8) in, (N, 4) out."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        self.mix = nn.Conv2d(4, 4, 3, padding=1)
        self.drop = nn.Dropout(0.1)
        self.fc = nn.Linear(64, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu(self.conv(x)))
        x = torch.relu(self.mix(x) + x)
        fed: Tensor = self.fc(self.drop(x.flatten(1)))
        return fed


class Normed(nn.Module):
    """A batch norm behind a convolution, and one on its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.own = nn.BatchNorm1d(256)
        self.fc = nn.Linear(256, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn(self.conv(x)))
        fed: Tensor = self.fc(self.own(x.flatten(1)))
        return fed


def plain(make: type[nn.Module] = Plain, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make().train()


def session(make: type[nn.Module] = Plain, count: int = 3, **settings: Any) -> qx.Session:
    source = data(count)
    return qx.Session(plain(make), source[0][0][0], flow="pt2e", data=source, **settings)


def prepared_by_torchao(model: nn.Module, x: Tensor, quantizer: Any = None) -> fx.GraphModule:
    """By torchao's own calls, nothing of ours between them."""
    from torchao.quantization.pt2e.quantize_pt2e import prepare_qat_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    shapes = ({0: torch.export.Dim.AUTO},)
    exported = torch.export.export(model, (x,), dynamic_shapes=shapes).module()
    config = x86.get_default_x86_inductor_quantization_config(is_qat=True)
    quantizer = quantizer or x86.X86InductorQuantizer().set_global(config)
    prepared: fx.GraphModule = prepare_qat_pt2e(exported, quantizer)
    return prepared
