"""What a watch of FX quantization saw, in sentences and in placements of fake quants."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import fx, nn
from torch.ao.quantization import DeQuantStub, QuantStub
from torch.utils._pytree import tree_map_only

from qatexplorer.data import call_model, cloned
from qatexplorer.flows.base import FlowOptions
from qatexplorer.flows.fx_watch import LoweringPass, PrepareLog
from qatexplorer.forward.graph import Placement
from qatexplorer.forward.preserve import preserved_state
from qatexplorer.forward.scripted import ScriptedPart

_SHOWN = 6
_NO_CODE = (lambda: None).__code__


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
    paths: Mapping[str, type[nn.Module]],
    options: FlowOptions,
    log: PrepareLog,
) -> tuple[str, ...]:
    """What there is to say about one stage of ``prepare_qat_fx``.

    ``paths`` are the classes of the float model's modules.
    """
    if stage == "trace":
        return _trace_notes(module, paths, options)
    if stage == "propagate":
        return options.qconfig.notes
    if stage == "insert":
        notes = [
            f"Custom module {path}: swapped by float_to_observed_mapping[{before}: {after}]."
            for path, before, after in log.customs
        ]
        if log.shared:
            nodes = _listed([node for node, _ in log.shared])
            notes.append(
                "One fake quant for input and output, because the operation passes values on or "
                f"needs one scale: {nodes}."
            )
        return tuple(notes)
    return ()


def _trace_notes(
    module: fx.GraphModule, paths: Mapping[str, type[nn.Module]], options: FlowOptions
) -> tuple[str, ...]:
    notes = []
    custom = options.custom.for_fx()
    untraced = [path for path in options.custom.untraced_layers(module) if path]
    for node in module.graph.nodes:
        if node.op != "call_module":
            continue
        path = str(node.target)
        kind = type(module.get_submodule(path))
        if path in custom.non_traceable_module_names:
            notes.append(f"{path} ({kind.__name__}) is left as one call: non_traceable names it.")
        elif kind in custom.non_traceable_module_classes and kind is not ScriptedPart:
            notes.append(f"{path} is left as one call: non_traceable names {kind.__name__}.")
    notes += [
        f"{path} has layers of its own, which stay float: torch would swap them and its convert "
        f"would break them. In a script of your own: mapping.set_module_name({path!r}, None)."
        for path in untraced
    ]
    frozen = [node.name for node in module.graph.nodes if _in_train_mode_for_good(node)]
    if frozen:
        notes.append(
            "Tracing has written down training=True, so these stay in train mode after eval() and "
            f"in int8: {_listed(frozen)}. Modules (nn.Dropout, nn.BatchNorm2d) would follow eval()."
        )
    here = {path for path, _ in module.named_modules()}
    gone = {path: kind for path, kind in paths.items() if path not in here}
    stubs = [path for path, kind in gone.items() if issubclass(kind, (QuantStub, DeQuantStub))]
    if stubs:
        notes.append(
            f"{_listed(stubs)}: stubs do nothing in FX, which quantizes where the graph needs it."
        )
    unused = [path for path, kind in gone.items() if _is_layer(kind)]
    if unused:
        notes.append(f"No call of these was seen, so they are not in the graph: {_listed(unused)}.")
    return tuple(dict.fromkeys(notes))


def _in_train_mode_for_good(node: fx.Node) -> bool:
    """Whether it calls a function that behaves differently in training, with training=True."""
    if node.op != "call_function" or not callable(node.target):
        return False
    try:
        parameters = inspect.signature(node.target).parameters
    except (TypeError, ValueError):  # a built-in function
        return False
    if "training" not in parameters:
        return False
    given = dict(zip(parameters, node.args)) | dict(node.kwargs)  # noqa: B905 - args may be fewer
    return given.get("training", parameters["training"].default) is True


def frozen_branch_note(model: nn.Module, traced: fx.GraphModule, inputs: Any) -> tuple[str, ...]:
    """A note if ``model`` returns something else in eval mode and ``traced`` does not.

    Both are run in eval mode, where code of the user's own asks for ``self.training``; state and
    RNG are put back.
    """
    methods = (vars(type(m)).get("forward") for m in model.modules())
    if not any("training" in getattr(m, "__code__", _NO_CODE).co_names for m in methods):
        return ()
    shapes = []
    for one in (model, traced):
        with preserved_state(one), torch.no_grad():
            try:
                output = call_model(one.eval(), cloned(inputs))
            except Exception:
                return ()  # what does not run in eval mode is reported where it is run
        shapes.append(tree_map_only(torch.Tensor, lambda t: tuple(t.shape), output))
    if shapes[0] == shapes[1]:
        return ()
    note = (
        "A branch on self.training was traced in train mode and is part of the graph now: in eval "
        f"mode the graph gives {shapes[1]}, and your forward {shapes[0]}. Metrics and int8 see the "
        "former."
    )
    return (note,)


def _is_layer(kind: type[nn.Module]) -> bool:
    """Whether tracing makes a call of it one node (containers and the user's own are opened)."""
    return kind.__module__.startswith(("torch.nn", "torch.ao.nn")) and not issubclass(
        kind, (nn.Sequential, nn.ModuleList, nn.ModuleDict)
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" … ({len(names)})" if len(names) > _SHOWN else "")


def lowering_notes(passes: Sequence[LoweringPass]) -> tuple[str, ...]:
    """One sentence for each lowering pass that changed the graph."""
    return tuple(
        f"{done.name}: nodes made or changed {len(done.changed)}, removed {done.removed}."
        for done in passes
        if done.changed or done.removed
    )
