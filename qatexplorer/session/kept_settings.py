"""The settings of a session as a run folder keeps them, and what to change to have them again."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from qatexplorer.errors import RunFolderError
from qatexplorer.flows.base import FlowOptions
from qatexplorer.quantizers.engine_choice import BACKENDS


def as_data(options: FlowOptions) -> dict[str, Any]:
    """Stubs, fusion and qconfig as JSON; a qconfig that is not one by name leaves a fingerprint."""
    plan = options.qconfig
    return {
        "stubs": options.stubs,
        "fusion": [list(run) for run in options.fusion],
        "qconfig": plan.name,
        "engine": plan.backend,
        "fingerprint": _fingerprint(options, plan.backend),
    }


def changes_for(options: FlowOptions, kept: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments for ``Session.configure`` that bring ``options`` to what :func:`as_data` kept.

    The engine stays the session's: it may be another machine that the run goes on, and training
    does not use it. Raises RunFolderError if the run had a qconfig of the user's own that is not
    this one.
    """
    if not kept:
        return {}
    changes: dict[str, Any] = {}
    if kept["fingerprint"] != _fingerprint(options, kept["engine"]):
        if kept["qconfig"] not in BACKENDS:
            raise RunFolderError(
                "The run was made with a qconfig of its own, and the session has another one.",
                why="A qconfig holds functions, which are not kept on disk.",
                remedy="Make the session with the qconfig= that the run was made with.",
            )
        changes |= {"qconfig": kept["qconfig"], "engine": options.qconfig.backend}
    if kept["stubs"] != options.stubs:
        changes["stubs"] = kept["stubs"]
    if kept["fusion"] != [list(run) for run in options.fusion]:
        changes["fusion"] = kept["fusion"]
    return changes


def _fingerprint(options: FlowOptions, engine: str) -> str:
    plan = options.qconfig
    text = repr((plan.default, plan.by_type, plan.by_regex, plan.by_path, engine))
    return hashlib.sha256(re.sub(r" at 0x[0-9a-f]+", "", text).encode()).hexdigest()[:16]
