"""What a watch of FX quantization saw, in sentences and in placements of fake quants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import fx

from qatexplorer.flows.base import FlowOptions
from qatexplorer.flows.fx_watch import LoweringPass, PrepareLog
from qatexplorer.snapshot.records import Placement

_SHOWN = 6


def log_placements(placed: Mapping[str, Placement], log: PrepareLog) -> dict[str, Placement]:
    """``placed`` with the torch call that made each, and for whose sake it is shared."""
    calls = {inserted.site: inserted.call for inserted in log.insertions}
    found = {}
    for path, place in placed.items():
        sharing = tuple(node for node, sites in log.shared if path in sites)
        found[path] = replace(place, call=calls.get(path, ""), shared_by=sharing)
    return found


def prepare_notes(
    stage: str,
    module: fx.GraphModule,
    paths: Mapping[str, str],
    options: FlowOptions,
    log: PrepareLog,
) -> tuple[str, ...]:
    """What there is to say about one stage of ``prepare_qat_fx``.

    ``paths`` are the class names of the float model's modules.
    """
    if stage == "trace":
        return _trace_notes(module, paths, options)
    if stage == "insert":
        notes = [
            f"Custom module {path}: swapped by float_to_observed_mapping[{before}: {after}]."
            for path, before, after in log.customs
        ]
        if log.shared:
            nodes = ", ".join(node for node, _ in log.shared[:_SHOWN])
            more = " …" if len(log.shared) > _SHOWN else ""
            notes.append(
                "One fake quant for input and output, because the operation passes values on or "
                f"needs one scale ({len(log.shared)} times): {nodes}{more}."
            )
        return tuple(notes)
    return ()


def _trace_notes(
    module: fx.GraphModule, paths: Mapping[str, str], options: FlowOptions
) -> tuple[str, ...]:
    notes = []
    custom = options.custom.for_fx()
    for node in module.graph.nodes:
        if node.op != "call_module":
            continue
        path = str(node.target)
        kind = type(module.get_submodule(path))
        if path in custom.non_traceable_module_names:
            notes.append(f"{path} ({kind.__name__}) is left as one call: non_traceable names it.")
        elif kind in custom.non_traceable_module_classes:
            notes.append(f"{path} is left as one call: non_traceable names {kind.__name__}.")
    here = {path for path, _ in module.named_modules()}
    gone = [path for path in paths if path not in here]
    if gone:
        shown = ", ".join(gone[:_SHOWN]) + (" …" if len(gone) > _SHOWN else "")
        notes.append(
            f"Not in the graph, since no call of them was seen ({len(gone)} modules): {shown}."
        )
    return tuple(dict.fromkeys(notes))


def lowering_notes(passes: Sequence[LoweringPass]) -> tuple[str, ...]:
    """One sentence for each lowering pass that changed the graph."""
    return tuple(
        f"{done.name}: nodes made or changed {len(done.changed)}, removed {done.removed}."
        for done in passes
        if done.changed or done.removed
    )
