"""What the backend refuses of a qconfig, found out before a model is prepared with it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from torch.ao.quantization.backend_config import BackendConfig

from qatexplorer.evaluate.dry_run import constraint_broken, why_not
from qatexplorer.flows.layer_types import WEIGHTED
from qatexplorer.flows.qconfig import QConfigPlan


@dataclass(frozen=True)
class Refused:
    """A layer that the backend has no kernel for as the qconfig wants it, and torch's words."""

    path: str
    reason: str


def first_refused(
    model: nn.Module, plan: QConfigPlan, config: BackendConfig | None
) -> Refused | None:
    """The first layer of ``model`` that a rule of ``plan`` speaks of and that torch does not take
    to int8, None if it takes them all. One layer of each kind is tried.

    ``config`` has constraints that torch drops a qconfig for without a word; None for none.
    """
    if not plan.rules:
        return None
    resolver = plan.resolver(model)
    tried = set()
    for path, module in model.named_modules():
        if not isinstance(module, WEIGHTED):
            continue
        found = resolver.at(path)
        if not found.ruled or found.qconfig is None:
            continue
        kind = (type(module), found.activation, found.weight, getattr(module, "groups", 1) > 1)
        if kind in tried:
            continue
        tried.add(kind)
        if found.activation is not None and found.activation.per_channel:
            return Refused(path, "its activations have one scale for the whole tensor.")
        reason = constraint_broken(module, found.qconfig, config) if config is not None else ""
        reason = reason or why_not(module, found.qconfig, plan.backend)
        if reason:
            return Refused(path, reason)
    return None
