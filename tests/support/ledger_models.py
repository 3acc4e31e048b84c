"""Models for the ledger: old-style QAT modules, double quantization, and what stays float."""

from __future__ import annotations

import operator
from typing import Any

import torch
import torch.ao.nn.qat as nnqat
import torch.nn.functional as F
from torch import Tensor, nn
from torch.ao.quantization import (
    DeQuantStub,
    QuantStub,
    get_default_qat_qconfig,
    get_default_qat_qconfig_mapping,
)
from torch.ao.quantization.backend_config import BackendPatternConfig, get_native_backend_config
from torch.ao.quantization.quantize_fx import prepare_qat_fx


class OldLinear(nnqat.Linear):
    """``torch.nn.qat.Linear`` as it was up to torch 1.6: it fake-quantizes its own output."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.activation_post_process = self.qconfig.activation()

    def forward(self, input: Tensor) -> Tensor:
        out = F.linear(input, self.weight_fake_quant(self.weight), self.bias)
        return self.activation_post_process(out)


class OwnName(nnqat.Linear):
    """The same mistake under a name that prepare does not overwrite."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.out_fake_quant = self.qconfig.activation()

    def forward(self, input: Tensor) -> Tensor:
        return self.out_fake_quant(F.linear(input, self.weight_fake_quant(self.weight), self.bias))


class TwoLinear(nn.Module):
    """Stubs around two linear layers; FX takes the stubs for identities and drops them."""

    def __init__(self, stubs: bool = True) -> None:
        super().__init__()
        self.quant = QuantStub() if stubs else nn.Identity()
        self.fc1, self.fc2 = nn.Linear(6, 6), nn.Linear(6, 4)
        self.dequant = DeQuantStub() if stubs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.dequant(self.fc2(self.fc1(self.quant(x))))


class Flat(nn.Module):
    """Conv, pool, and one way of flattening before the linear layer."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.conv, self.bn, self.relu = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()
        self.pool, self.drop = nn.AdaptiveAvgPool2d(2), nn.Dropout(0.3)
        self.flat = nn.Flatten()
        self.fc = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu(self.bn(self.conv(x))))
        if self.way == "method":
            x = x.flatten(1)
        elif self.way == "module":
            x = self.flat(x)
        elif self.way == "dropout":
            x = torch.flatten(self.drop(x), 1)
        elif self.way == "index":
            x = torch.flatten(x[:, :, :, :], 1)
        else:
            x = torch.flatten(x, 1)
        return self.fc(x)


WAYS = {"method": "flatten", "module": nn.Flatten, "dropout": nn.Dropout, "index": operator.getitem}
"""Ways of :class:`Flat` that FX quantizes twice, and the pattern that says so."""


def old_style_fx(x: Tensor, forwards: int = 20) -> nn.Module:
    """A model prepared by FX whose linear layers are :class:`OldLinear`."""
    config = get_native_backend_config()
    known = {c.pattern: c for c in config.configs if isinstance(c.pattern, type)}
    for pattern, like in ((nn.Linear, nn.Linear), (OldLinear, nnqat.Linear)):
        config.set_backend_pattern_config(
            BackendPatternConfig(pattern)
            .set_observation_type(known[like].observation_type)
            .set_dtype_configs(known[like].dtype_configs)
            .set_root_module(nn.Linear)
            .set_qat_module(OldLinear)
            .set_reference_quantized_module(known[nn.Linear].reference_quantized_module)
        )
    torch.manual_seed(0)
    model = prepare_qat_fx(
        TwoLinear(stubs=False).train(),
        get_default_qat_qconfig_mapping("onednn"),
        (x,),
        backend_config=config,
    )
    return seen(model, x, forwards)


def eager(model: nn.Module, qconfig: str = "onednn") -> nn.Module:
    """``model`` in train mode with the backend's default QAT qconfig on its root."""
    model.train()
    model.qconfig = get_default_qat_qconfig(qconfig)
    return model


def seen(model: nn.Module, x: Tensor, forwards: int = 5) -> nn.Module:
    """``model`` after ``forwards`` forwards of random inputs like ``x``."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for _ in range(forwards):
            model(torch.randn(x.shape, generator=generator))
    return model
