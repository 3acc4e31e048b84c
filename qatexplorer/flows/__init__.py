"""Torch's quantization systems, one file each; a flow names its stages and runs torch's calls."""

from __future__ import annotations

from qatexplorer.errors import InputError
from qatexplorer.flows.base import Flow
from qatexplorer.flows.eager import EagerFlow
from qatexplorer.flows.fx import FxFlow

FLOWS: dict[str, type[Flow]] = {"eager": EagerFlow, "fx": FxFlow}


def get_flow(name: str) -> Flow:
    """The flow called ``name``. Raises InputError if there is none."""
    try:
        return FLOWS[name]()
    except (KeyError, TypeError):
        known = ", ".join(map(repr, FLOWS))
        raise InputError(
            f"there is no flow {name!r}.", remedy=f"Flows of this version: {known}."
        ) from None
