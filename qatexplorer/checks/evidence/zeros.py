"""How much of each weight is zero: in the float model, in training, in int8."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from qatexplorer.checks.subject import Subject
from qatexplorer.flows.layer_types import WEIGHTED
from qatexplorer.quantizers.types import is_torchao_tensor


@dataclass(frozen=True)
class Zeros:
    """Shares of a weight's values that are zero, 0 to 1; None where there is no such model yet.

    Attributes:
        path: of the layer in the float model. values: how many its weight has.
        before: in the float model. during: in the model being worked on. after: in int8.
    """

    path: str
    values: int
    before: float
    during: float | None = None
    after: float | None = None


def zeros(subject: Subject) -> tuple[Zeros, ...]:
    """Zeros of the weights, before, during and after training."""
    work = dict(subject.work.named_modules()) if subject.work is not None else {}
    int8 = dict(subject.int8.named_modules()) if subject.int8 is not None else {}
    origin = _origins(subject)
    found = []
    for path, module in subject.layers(*WEIGHTED):
        weight = getattr(module, "weight", None)
        if isinstance(weight, Tensor) and weight.numel():
            subject.stop_if_asked()
            there = origin.get(path, path)
            found.append(
                Zeros(
                    path,
                    weight.numel(),
                    _share(weight),
                    _share_of(work.get(there), weight.numel()),
                    _share_of(int8.get(there), weight.numel()),
                )
            )
    return tuple(found)


def _origins(subject: Subject) -> dict[str, str]:
    """Path in the newest snapshot by path in the float model, where a wrapper makes them differ."""
    newest = subject.snapshots.get(subject.work_stage)
    records = newest.modules if newest is not None else ()
    return {one.origin: one.path for one in records if one.origin and one.origin != one.path}


def _share_of(module: nn.Module | None, values: int) -> float | None:
    weight: Any = getattr(module, "weight", None)
    # An int8 layer gives its weight when it is called.
    made = weight() if callable(weight) and not isinstance(weight, Tensor) else weight
    if not isinstance(made, Tensor) or made.numel() != values:
        return None
    return _share(made)


@torch.no_grad()
def _share(weight: Tensor) -> float:
    if is_torchao_tensor(weight):  # a tensor of torchao's
        weight = weight.dequantize()
    codes = weight.int_repr() if weight.is_quantized else weight
    if weight.is_quantized and weight.qscheme() in (torch.per_tensor_affine,):
        codes = codes - weight.q_zero_point()
    return float((codes == 0).sum()) / weight.numel()
