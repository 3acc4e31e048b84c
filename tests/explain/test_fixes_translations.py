"""Each fix in the table of torch's errors, done to the letter: then the int8 model runs.

A row names the rule, what its text says, and the model as that says it should be.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.ao.nn.quantized import FloatFunctional
from torch.ao.quantization import (
    DeQuantStub,
    QuantStub,
    QuantWrapper,
    add_quant_dequant,
    default_embedding_qat_qconfig,
    get_default_qat_qconfig,
    prepare_qat,
)
from torch.nn import functional as F

from qatexplorer.evaluate.int8 import run_int8
from qatexplorer.explain.translations import RULES, translate
from tests.explain.test_deploy_translations import (
    IMAGES,
    ROWS,
    Block,
    MyConv,
    MyLinear,
    conv,
    linear,
    qint8_activations,
    to_int8,
    weights,
)
from tests.support.training_models import one_thread  # noqa: F401

REMEDIES = {rule.id: rule.remedy for rule in RULES}
ENGINE = "qnnpack"
X = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))


class Island(nn.Module):
    """``inner`` in float, between a DeQuantStub and a QuantStub, with qconfig None."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.before, self.after = inner, DeQuantStub(), QuantStub()
        inner.qconfig = None  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.inner(self.before(x)))


def island(function: Callable[[Any, Tensor], Any], **parts: Any) -> nn.Module:
    return Island(Block(function, **parts))


def on_rows(part: nn.Module) -> nn.Module:
    """``part`` after an int8 linear layer."""
    return linear(lambda s, y: s.part(y), part=part)


def on_images(part: nn.Module) -> nn.Module:
    return conv(lambda s, y: s.part(y), part=part)


def no_qconfig(model: nn.Module, path: str) -> nn.Module:
    model.get_submodule(path).qconfig = None  # type: ignore[assignment]
    return model


def qconfig_at(model: nn.Module, path: str, qconfig: Any) -> nn.Module:
    model.get_submodule(path).qconfig = qconfig
    return model


def ff(function: Callable[[Any, Tensor], Any], **parts: Any) -> nn.Module:
    return linear(function, ff=FloatFunctional(), **parts)


class Zeroed(nn.Module):
    """Conv and batch norm with a gamma of zero."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.bn = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)


FIXES: list[tuple[str, str, Callable[[], nn.Module], Tensor]] = [
    # (rule, what it says, the model after that, input)
    ("float-into-int8", "Put a QuantStub before it", lambda: linear(lambda s, y: y), ROWS),
    (
        "float-into-int8",
        "wrap the model in QuantWrapper",
        lambda: QuantWrapper(nn.Linear(8, 8)),
        ROWS,
    ),
    (
        "float-into-int8",
        "set its qconfig to None",
        lambda: no_qconfig(nn.Sequential(nn.Linear(8, 8)), "0"),
        ROWS,
    ),
    ("quantized-twice", "Do not wrap a model that has stubs", lambda: linear(lambda s, y: y), ROWS),
    (
        "quantized-twice",
        "put a DeQuantStub before the second QuantStub",
        lambda: linear(lambda s, y: s.q(s.d(y)), q=QuantStub(), d=DeQuantStub()),
        ROWS,
    ),
    ("arithmetic", "ff.add(a, b)", lambda: ff(lambda s, y: s.ff.add(y, y)), ROWS),
    ("arithmetic", "ff.mul(a, b)", lambda: ff(lambda s, y: s.ff.mul(y, y)), ROWS),
    ("arithmetic", "ff.add_scalar(a, 2.0)", lambda: ff(lambda s, y: s.ff.add_scalar(y, 2.0)), ROWS),
    ("arithmetic", "ff.mul_scalar(a, 2.0)", lambda: ff(lambda s, y: s.ff.mul_scalar(y, 2.0)), ROWS),
    ("arithmetic", "ff.add_relu(a, b)", lambda: ff(lambda s, y: s.ff.add_relu(y, y)), ROWS),
    ("arithmetic", "ff.cat([...])", lambda: ff(lambda s, y: s.ff.cat([y, y], 1)), ROWS),
    (
        "arithmetic",
        "a - b as add of mul_scalar(b, -1)",
        lambda: ff(lambda s, y: s.ff.add(y, s.neg.mul_scalar(y, -1)), neg=FloatFunctional()),
        ROWS,
    ),
    (
        "arithmetic",
        "a / 2 as mul_scalar(a, 0.5)",
        lambda: ff(lambda s, y: s.ff.mul_scalar(y, 0.5)),
        ROWS,
    ),
    (
        "arithmetic",
        "For a division by a tensor: Keep this part in float",
        lambda: on_rows(island(lambda s, y: y / (y.abs() + 1))),
        ROWS,
    ),
    (
        "batch-norm",
        "right after a convolution use nn.BatchNorm2d and put it in the list of fused",
        lambda: torch.ao.quantization.fuse_modules_qat(
            on_images(nn.Sequential(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8))).train(),
            [["block.part.0", "block.part.1"]],
        ),
        IMAGES,
    ),
    ("batch-norm", "nn.LayerNorm", lambda: on_rows(nn.LayerNorm(8)), ROWS),
    ("batch-norm", "nn.GroupNorm", lambda: on_images(nn.GroupNorm(2, 8)), IMAGES),
    (
        "batch-norm",
        "nn.InstanceNorm2d",
        lambda: on_images(nn.InstanceNorm2d(8, affine=True)),
        IMAGES,
    ),
    ("batch-norm", "Keep this part in float", lambda: on_rows(Island(nn.BatchNorm1d(8))), ROWS),
    (
        "layer-left-float",
        "Use nn.Linear or nn.Conv2d itself",
        lambda: on_rows(nn.Linear(8, 8)),
        ROWS,
    ),
    (
        "layer-left-float",
        "Use nn.Linear or nn.Conv2d itself",
        lambda: on_images(nn.Conv2d(8, 8, 3)),
        IMAGES,
    ),
    (
        "layer-left-float",
        "ff.matmul(a, b)",
        lambda: ff(lambda s, y: s.ff.matmul(y, y.transpose(0, 1))),
        ROWS,
    ),
    ("layer-left-float", "Keep this part in float", lambda: on_rows(Island(MyLinear(8, 8))), ROWS),
    (
        "layer-left-float",
        "Keep this part in float",
        lambda: on_images(Island(MyConv(8, 8, 3))),
        IMAGES,
    ),
    (
        "int8-with-float",
        "Quantize the other tensor with a QuantStub of its own and use FloatFunctional",
        lambda: ff(lambda s, y: s.ff.add(y, s.q(s.p)), p=weights(1, 8), q=QuantStub()),
        ROWS,
    ),
    (
        "int8-with-float",
        "Quantize the other tensor with a QuantStub of its own and use FloatFunctional",
        lambda: ff(
            lambda s, y: s.ff.cat([s.q(s.p).expand(4, 8), y], 1), p=weights(1, 8), q=QuantStub()
        ),
        ROWS,
    ),
    (
        "int8-with-float",
        "Keep this part in float",
        lambda: on_rows(island(lambda s, y: y + s.p, p=weights(1, 8))),
        ROWS,
    ),
    ("no-int8-kernel", "Keep this part in float", lambda: on_rows(Island(nn.SiLU())), ROWS),
    (
        "no-int8-kernel",
        "Keep this part in float",
        lambda: on_rows(island(lambda s, y: F.softmax(y, 1))),
        ROWS,
    ),
    (
        "scalar-arithmetic",
        "ff.mul_scalar(a, 2.0)",
        lambda: ff(lambda s, y: s.ff.mul_scalar(y, 2.0)),
        ROWS,
    ),
    (
        "scalar-arithmetic",
        "ff.mul(a, b)",
        lambda: conv(
            lambda s, y: s.ff.mul(y, s.pool(y)), ff=FloatFunctional(), pool=nn.AdaptiveAvgPool2d(1)
        ),
        IMAGES,
    ),
    (
        "scalar-arithmetic",
        "Keep this part in float",
        lambda: on_rows(island(lambda s, y: y * 2)),
        ROWS,
    ),
    (
        "per-channel-tensor",
        "Call the layer instead",
        lambda: linear(lambda s, y: s.fc(y), fc=nn.Linear(8, 8)),
        ROWS,
    ),
    (
        "per-channel-tensor",
        "Keep this part in float",
        lambda: on_rows(island(lambda s, y: F.linear(y, s.fc.weight), fc=nn.Linear(8, 8))),
        ROWS,
    ),
    (
        "weight-is-a-method",
        "take the dtype of an input instead",
        lambda: linear(lambda s, y: s.fc(y).to(y.dtype), fc=nn.Linear(8, 8)),
        ROWS,
    ),
    (
        "weight-is-a-method",
        "Keep this part in float",
        lambda: on_rows(island(lambda s, y: s.fc(y.to(s.fc.weight.dtype)), fc=nn.Linear(8, 8))),
        ROWS,
    ),
    (
        "never-ran",
        "Call the layer itself",
        lambda: linear(lambda s, y: s.fc(y), fc=nn.Linear(8, 8)),
        ROWS,
    ),
    (
        "never-ran",
        "set this layer's qconfig to None",
        lambda: no_qconfig(linear(lambda s, y: y, fc=nn.Linear(8, 8)), "block.fc"),
        ROWS,
    ),
    (
        "embedding",
        "torch.ao.quantization.default_embedding_qat_qconfig",
        lambda: qconfig_at(nn.Sequential(nn.Embedding(10, 8)), "0", default_embedding_qat_qconfig),
        torch.arange(4),
    ),
    (
        "embedding",
        "or to None",
        lambda: no_qconfig(nn.Sequential(nn.Embedding(10, 8)), "0"),
        torch.arange(4),
    ),
    (
        "integer-input",
        "put the QuantStub after the embedding",
        lambda: nn.Sequential(
            qconfig_at(nn.Sequential(nn.Embedding(10, 8)), "0", None),
            QuantStub(),
            nn.Linear(8, 8),
            DeQuantStub(),
        ),
        torch.arange(4),
    ),
    (
        "transposed-per-channel",
        "per-tensor weight (the 'qnnpack' one)",
        lambda: qconfig_at(
            on_images(nn.ConvTranspose2d(8, 4, 2)), "block.part", get_default_qat_qconfig("qnnpack")
        ),
        IMAGES,
    ),
    (
        "transposed-per-channel",
        "Keep this part in float",
        lambda: on_images(Island(nn.ConvTranspose2d(8, 4, 2))),
        IMAGES,
    ),
    ("prelu", "Keep this part in float", lambda: on_rows(Island(nn.PReLU())), ROWS),
    ("prelu", "use ReLU or LeakyReLU", lambda: on_rows(nn.ReLU()), ROWS),
    ("prelu", "use ReLU or LeakyReLU", lambda: on_rows(nn.LeakyReLU()), ROWS),
    (
        "prelu",
        "per-tensor weight (the 'qnnpack' one)",
        lambda: qconfig_at(on_rows(nn.PReLU()), "block.part", get_default_qat_qconfig("qnnpack")),
        ROWS,
    ),
    (
        "tuple-output",
        "Set the qconfig of that module to None",
        lambda: no_qconfig(nn.Sequential(nn.GRU(8, 8)), "0"),
        ROWS[None],
    ),
    (
        "one-sample",
        "a larger batch",
        lambda: nn.Sequential(QuantStub(), nn.BatchNorm1d(8), DeQuantStub()),
        ROWS[:2],
    ),
    (
        "view",
        "Use reshape, flatten or contiguous()",
        lambda: conv(lambda s, y: y.reshape(2, -1)),
        IMAGES,
    ),
    (
        "view",
        "Use reshape, flatten or contiguous()",
        lambda: conv(lambda s, y: y.flatten(1)),
        IMAGES,
    ),
    (
        "view",
        "Use reshape, flatten or contiguous()",
        lambda: conv(lambda s, y: y.contiguous().view(2, -1)),
        IMAGES,
    ),
    ("view", "keep a group norm in float", lambda: on_images(Island(nn.GroupNorm(2, 8))), IMAGES),
]


def _id(case: Any) -> str:
    return f"{case[0]}: {case[1][:30]}"


@pytest.mark.parametrize("case", FIXES, ids=_id)
def test_eager(case: Any) -> None:
    rule, said, make, x = case
    assert said in REMEDIES[rule]
    assert torch.isfinite(run_int8(to_int8(make(), x), x, "onednn")[0]).all()
