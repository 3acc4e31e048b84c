"""Small nets and quantizers for what ExecuTorch brings: import it where executorch is installed."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from torch import Tensor, nn

HOME = "executorch.backends"
WHY = "executorch is not installed: pip install 'qatexplorer[executorch]'"


def need_executorch() -> None:
    """Skip the file where it is not installed."""
    pytest.importorskip("torchao")
    pytest.importorskip("executorch.exir", reason=WHY)


class ConvBn(nn.Module):
    """A convolution with its batch norm, one added to it, a pool, a linear layer."""

    def __init__(self, norm: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4) if norm else nn.Identity()
        self.act, self.mix = nn.ReLU(), nn.Conv2d(4, 4, 1)
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.bn(self.conv(x)))
        x = x + self.mix(x)
        fed: Tensor = self.fc(torch.flatten(self.pool(x), 1))
        return fed


class TinyTransformer(nn.Module):
    """Token ids (N, T) in, (N, T, 16) out; one attention head and a layer norm."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(16, 8)
        self.q, self.k, self.v = (nn.Linear(8, 8) for _ in range(3))
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 16)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        scores = self.q(x) @ self.k(x).transpose(1, 2) / 8**0.5
        x = self.norm(x + torch.softmax(scores, -1) @ self.v(x))
        logits: Tensor = self.head(x)
        return logits


def seeded(make: Any, *args: Any) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: nn.Module = make(*args).train()
        return model


def pixels(rows: int = 2) -> Tensor:
    return torch.randn(rows, 3, 6, 6, generator=torch.Generator().manual_seed(3))


def ids(rows: int = 2) -> Tensor:
    return torch.randint(0, 16, (rows, 5), generator=torch.Generator().manual_seed(3))


def xnnpack(per_channel: bool = True) -> Any:
    theirs = importlib.import_module(f"{HOME}.xnnpack.quantizer.xnnpack_quantizer")
    config = theirs.get_symmetric_quantization_config(is_per_channel=per_channel, is_qat=True)
    return theirs.XNNPACKQuantizer().set_global(config)


def xnnpack_per_tensor() -> Any:
    return xnnpack(False)


def vulkan() -> Any:
    theirs = importlib.import_module(f"{HOME}.vulkan.quantizer.vulkan_quantizer")
    config = theirs.get_symmetric_quantization_config()
    return theirs.VulkanQuantizer().set_global(config)


def samsung() -> Any:
    theirs = importlib.import_module(f"{HOME}.samsung.quantizer.quantizer")
    made = theirs.EnnQuantizer()
    made.setup_quant_params(theirs.Precision.A8W8, is_qat=True)
    return made


def cadence() -> Any:
    theirs = importlib.import_module(f"{HOME}.cadence.aot.quantizer.quantizer")
    return theirs.CadenceDefaultQuantizer(is_qat=True)


def example() -> Any:
    return importlib.import_module(f"{HOME}.example.example_quantizer").ExampleQuantizer()
