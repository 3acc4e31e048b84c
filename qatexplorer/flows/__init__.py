"""Torch's quantization systems, one file each; a flow names its stages and runs torch's calls."""

from __future__ import annotations

from typing import TypeVar

from torch import nn
from torch.fx import GraphModule

from qatexplorer.errors import InputError
from qatexplorer.flows.base import Flow, Role, Stage, StageResult
from qatexplorer.flows.eager import EagerFlow
from qatexplorer.flows.fx import FxFlow
from qatexplorer.flows.pt2e import Pt2eFlow, require_available
from qatexplorer.flows.torchao import TorchaoFlow
from qatexplorer.forward.either_mode import EitherMode
from qatexplorer.forward.exported import is_exported
from qatexplorer.quantizers.torchao_grids import is_torchao

__all__ = [
    "FLOWS",
    "Flow",
    "Role",
    "Stage",
    "StageResult",
    "flow_of",
    "get_flow",
    "other_kind",
    "register",
    "runnable_flow",
]

FLOWS: dict[str, type[Flow]] = {}
"""The flows that a session can be asked for, by name."""

F = TypeVar("F", bound=type[Flow])


def register(flow: F) -> F:
    """Make a flow known under its ``name``: a decorator of the class, or a call with it.

    Raises InputError if its stages lack a role that every flow has (:data:`flows.base.Role`), or
    if another flow has the name.
    """
    flow.check()
    known = FLOWS.setdefault(flow.name, flow)
    if (known.__module__, known.__qualname__) != (flow.__module__, flow.__qualname__):
        raise InputError(f"there is a flow {flow.name!r} already.", fix="Choose another name.")
    FLOWS[flow.name] = flow  # a notebook's cell may be run again
    return flow


register(EagerFlow)
register(FxFlow)
register(Pt2eFlow)
register(TorchaoFlow)


def get_flow(name: str) -> Flow:
    """The flow called ``name``, also where it cannot run. Raises InputError if there is none."""
    try:
        return FLOWS[name]()
    except (KeyError, TypeError):
        known = ", ".join(map(repr, FLOWS))
        raise InputError(f"there is no flow {name!r}.", fix=f"Flows: {known}.") from None


def runnable_flow(name: str) -> Flow:
    """The flow called ``name``. Raises InputError if there is none, and UnsupportedTorchError, with
    what to install, where it cannot run."""
    flow = get_flow(name)
    require_available(flow)
    return flow


def flow_of(model: nn.Module) -> Flow:
    """The flow of torch that has prepared ``model``, as far as the model shows it."""
    if isinstance(model, GraphModule):
        exported = isinstance(model, EitherMode) or is_exported(model)
        return Pt2eFlow() if exported else FxFlow()
    return TorchaoFlow() if any(map(is_torchao, model.modules())) else EagerFlow()


def other_kind(flow: Flow) -> Flow:
    """The first flow that works on the other thing: on a graph's operations, or on modules."""
    return next(f for f in FLOWS.values() if f.by_graph != flow.by_graph)()
