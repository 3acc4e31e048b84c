"""What torchao's QAT does otherwise than it was asked: QX721 to QX723, and QX404 and QX708 there.

Prepared by ``quantize_`` of torchao alone; the session has the same configuration.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

import qatexplorer as qx
from qatexplorer.checks.records import Findings
from qatexplorer.flows.torchao import TorchaoFlow
from tests.checks.examples import EXAMPLES, Example


@dataclass(frozen=True)
class Swapped(Example):
    """In the flow torchao. What a model holds as ``asked`` makes its configuration, and ``then`` is
    done to the prepared model before it is converted."""

    def check(self, *, broken: bool) -> Findings:
        model, inputs = self.broken() if broken else self.fixed()
        session = qx.Session(model, inputs, flow="torchao", base_config=model.asked())
        session.warns = False
        session.goto("train")
        model.then(session.model)
        session.goto("convert")
        return session.check()


def groups(size: int) -> Any:
    from torchao.quantization import IntxWeightOnlyConfig, PerGroup

    return IntxWeightOnlyConfig(torch.int4, PerGroup(size))  # type: ignore[attr-defined]


def groups_of_32() -> Any:
    return groups(32)


def without_a_base() -> Any:
    from torchao.quantization.qat import IntxFakeQuantizeConfig, QATConfig

    weight = IntxFakeQuantizeConfig(torch.int4, group_size=32)  # type: ignore[attr-defined]
    return QATConfig(weight_config=weight, step="prepare")


def nothing(model: Any) -> None:
    """As it is."""


def groups_of_8(model: Any) -> None:
    """As a script does that tries another size on the prepared model."""
    model[0].weight_fake_quantizer.config.group_size = 8


def rounding_off(model: Any) -> None:
    from torchao.quantization.qat.linear import disable_linear_fake_quant

    model.apply(disable_linear_fake_quant)


def made(
    *layers: Callable[[], nn.Module], asked: Any = groups_of_32, then: Any = nothing
) -> Callable[[], Any]:
    def make() -> Any:
        torch.manual_seed(0)
        model: Any = nn.Sequential(nn.Linear(32, 32), *(layer() for layer in layers)).train()
        model.asked, model.then = asked, then
        return model, (torch.randn(4, 32),)

    return make


def alone(model: Any) -> tuple[Any, Any]:
    """The model prepared and the one converted, by torchao alone."""
    import copy

    from torchao.quantization import quantize_
    from torchao.quantization.qat import QATConfig

    asked = model.asked()
    own = isinstance(asked, QATConfig)
    prepared = copy.deepcopy(model)
    quantize_(prepared, asked if own else QATConfig(asked, step="prepare"))
    model.then(prepared)
    converted = copy.deepcopy(prepared)
    quantize_(converted, QATConfig(asked.base_config if own else asked, step="convert"))
    return prepared, converted


@torch.no_grad()
def noise(model: Any, inputs: Any) -> float:
    """The share of noise that convert adds to the output."""
    prepared, converted = alone(model)
    before, after = prepared(*inputs), converted(*inputs)
    return float((before - after).norm() / before.norm())


def is_float(weight: Any) -> bool:
    return type(weight) is nn.Parameter


def swapped(*arguments: Any, **named: Any) -> None:
    if not TorchaoFlow().unavailable():
        EXAMPLES.append(Swapped(*arguments, **named))


swapped(
    "QX721",
    "groups_of_8_in_training",
    made(then=groups_of_8),
    made(),
    lambda model, x: noise(model, x) > 0.05,
    paths=("0",),
)
swapped(
    "QX722",
    "no_base_config",
    made(asked=without_a_base),
    made(),
    lambda model, x: is_float(alone(model)[1][0].weight),
    paths=("0",),
)
swapped(
    "QX723",
    "convolution",
    made(lambda: nn.Unflatten(1, (32, 1)), lambda: nn.Conv1d(32, 4, 1)),
    made(nn.ReLU),
    lambda model, x: any(
        isinstance(layer, nn.Conv1d) and is_float(layer.weight) for layer in alone(model)[1]
    ),
    paths=("2",),
)
swapped(
    "QX404",
    "torchao",
    made(then=rounding_off),
    made(),
    lambda model, x: not alone(model)[0][0].weight_fake_quantizer.enabled,
)
swapped(
    "QX708",
    "rounding_off_torchao",
    made(then=rounding_off),
    made(),
    lambda model, x: noise(model, x) > 0.05,
    paths=("0",),
)
