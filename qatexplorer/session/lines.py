"""A session as lines of text, for its ``repr``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qatexplorer.data import Data
from qatexplorer.flows.base import FlowOptions
from qatexplorer.flows.edits import Edit
from qatexplorer.flows.pt2e_quantizers import name_of
from qatexplorer.session.stages import Stages
from qatexplorer.shown import columns, first
from qatexplorer.training.run import TrainingRun

_SHOWN_EDITS = 3


def session_lines(
    stages: Stages,
    options: FlowOptions,
    run: TrainingRun | None,
    data: Data | None,
    edits: Sequence[Edit] = (),
) -> list[str]:
    """Flow, settings, edits, and a line for each stage."""
    name = stages.snapshots[stages.names[0]].modules[0].type_name
    words = f"run {run.state}" if run is not None else "no run"
    source = "none" if data is None else data.name
    lines = [
        f"Session of {name}: flow {stages.flow.name}, at stage {stages.current!r}, {words}",
        f"{_settings(stages, options)}, data {source}",
    ]
    shown, more = first([f"edited: {one}" for one in edits], _SHOWN_EDITS)
    lines += [*shown, *more]
    changes = stages.summaries()
    rows = [
        (
            ">" if stage == stages.current else " ",
            stage,
            changes.get(stage, "your model" if stage in stages.snapshots else "not reached yet"),
        )
        for stage in stages.names
    ]
    return [*lines, *columns(rows)]


def _settings(stages: Stages, options: FlowOptions) -> str:
    """What says how the model is quantized."""
    flow, plan = stages.flow, options.qconfig
    if flow.offers_quantizer:
        return f"quantizer {name_of(options.quantizer)}"
    if flow.offers_qconfig:
        return f"qconfig {plan.name}, engine {plan.backend}"
    given = options.base_config
    one = given.values() if isinstance(given, Mapping) else () if given is None else (given,)
    return "base_config " + (", ".join(type(config).__name__ for config in one) or "of the flow")
