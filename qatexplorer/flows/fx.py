"""FX graph mode: ``prepare_qat_fx`` and ``convert_fx``, run once each and watched.

One call of ``prepare_qat_fx`` makes the stages trace, fuse, propagate, swap and insert. It runs
unchanged; :mod:`~qatexplorer.flows.fx_watch` tells when it passes from one to the next.
"""

from __future__ import annotations

import copy
import importlib
import linecache
import re
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from torch import fx, nn
from torch.ao.quantization import QConfigMapping
from torch.ao.quantization.quantize_fx import convert_fx, convert_to_reference_fx, prepare_qat_fx

from qatexplorer.errors import QatExplorerError, QConfigError, TraceFailedError
from qatexplorer.explain.blame import place_of
from qatexplorer.flows.base import Flow, FlowOptions, Seen, Stage, StageResult
from qatexplorer.flows.fx_notes import (
    frozen_branch_note,
    log_placements,
    lowering_notes,
    prepare_notes,
)
from qatexplorer.flows.fx_watch import ConvertWatch, PrepareLog, PrepareWatch, models_let_go
from qatexplorer.flows.own_qconfig import take_own_qconfigs
from qatexplorer.flows.user_hooks import WAYS_OUT, WHY, hooks_in, listed
from qatexplorer.forward.graph import Graph
from qatexplorer.forward.graph_module import (
    GraphRunError,
    Scopes,
    bound_arguments,
    graph_of_module,
    positional_inputs,
    scopes_of,
    shapes_of,
)
from qatexplorer.forward.trace import first_tensor_info

_STAGES = (
    Stage(
        "float",
        "Float",
        "",
        "The session's own copy of your model; yours stays as it is.",
        role="float",
    ),
    Stage(
        "trace",
        "Trace",
        "GraphModule(model, QuantizationTracer(…).trace(model))",
        "forward is run once with stand-ins for the tensors, and what it calls is written down as "
        "a graph. From here on the graph is the program: what was traced through is not run again.",
        role="traced",
    ),
    Stage(
        "fuse",
        "Fuse",
        "_fuse_fx(graph_module, is_qat=True, …)",
        "What matches a pattern of the backend config (conv, batch norm, ReLU) becomes one module, "
        "because int8 kernels compute it as one operation.",
        role="fused",
    ),
    Stage(
        "propagate",
        "Propagate qconfig",
        "propagate_qconfig_(model, flattened_qconfig_dict, …)",
        "The QConfigMapping is laid on the modules: it says what will be made for each weight and "
        "output. Nothing computes differently yet.",
        role="qconfig",
    ),
    Stage(
        "swap",
        "Swap modules",
        "_qat_swap_modules(model, module_to_qat_module)",
        "Modules with a qconfig for which the backend config names a QAT version become that; "
        "torch's own pass their weight through a fake quant in forward.",
        role="weights",
    ),
    Stage(
        "insert",
        "Insert observers",
        "insert_observers_for_model(model, …)",
        "Fake quants become nodes of the graph, one _insert_obs_or_fq each, on what operations "
        "with a qconfig take and give: no stubs are needed. Operations that pass values on share "
        "the one of their input.",
        role="inserted",
    ),
    Stage(
        "train",
        "Train",
        "your training loop on the prepared model",
        "Fake quants that are on round in forward, so the loss feels it and the weights learn to "
        "live with it; observers that are on follow the ranges.",
        role="trained",
    ),
    Stage(
        "convert",
        "Convert (reference)",
        "convert_to_reference_fx(model.eval())",
        "Fake quants that are nodes become a quantize and a dequantize, with float operations "
        "between: a model that says what int8 must compute, for any backend. convert_fx starts "
        "with it too.",
        role="reference",
    ),
    Stage(
        "lower",
        "Lower to int8",
        "convert_fx(model.eval())",
        "Where a dequantize, an operation and a quantize match a kernel of the backend, they "
        "become one int8 operation. What matches none stays float, between dequantize and "
        "quantize.",
        role="int8",
    ),
)
_PREPARED = ("trace", "fuse", "propagate", "swap", "insert")


# Frames around torch's own call that are neither torch's nor the user's.
PASSED_ON_THE_WAY = ("typing_extensions.py", "contextlib.py", "")


class _Reached(BaseException):
    """Ends ``prepare_qat_fx`` at the boundary asked for; no ``except Exception`` may hold it."""

    def __init__(self, result: StageResult) -> None:
        super().__init__()
        self.result = result


class FxFlow(Flow):
    """``torch.ao.quantization`` in FX graph mode."""

    name: ClassVar[str] = "fx"
    title: ClassVar[str] = "FX graph mode (prepare_qat_fx)"
    traces_with_fx: ClassVar[bool] = True
    stages: ClassVar[tuple[Stage, ...]] = _STAGES
    calls: ClassVar[tuple[tuple[str, ...], ...]] = (_PREPARED,)
    offers_stubs: ClassVar[bool] = False
    offers_fusion: ClassVar[bool] = False
    by_graph: ClassVar[bool] = True

    def apply(
        self, stage: str, model: nn.Module, options: FlowOptions, seen: Seen | None = None
    ) -> StageResult:
        with models_let_go():
            if stage in _PREPARED:
                return self._prepare(stage, model, options, seen)
            if stage == "convert":
                return self._reference(model, options, seen)
            if stage == "lower":
                return self._lower(model, options, seen)
        return StageResult(model)

    def _prepare(
        self, until: str, model: nn.Module, options: FlowOptions, seen: Seen | None
    ) -> StageResult:
        """Run ``prepare_qat_fx`` once, to its end or up to an earlier boundary."""
        inputs = positional_inputs(model, options.example_inputs)
        custom = options.custom.for_fx()
        paths = {path: type(m) for path, m in model.named_modules()}

        # torch would ignore names that are not there. Reported when the mapping is laid on the
        # model.
        mapping, wrong = _mapping_or_error(model, options)
        mapping = _float_where_untraced(mapping, options.custom.untraced_layers(model))

        def at(stage: str, module: fx.GraphModule) -> None:
            if stage == until:
                raise _Reached(StageResult(module))
            if seen is not None:
                result = _described(stage, module, options, watch.log, paths)
                if stage == "trace":
                    notes = frozen_branch_note(model, module, options.example_inputs)
                    result = replace(result, notes=(*result.notes, *notes))
                seen(stage, result)
            if stage == "fuse" and wrong is not None:
                raise wrong

        watch = PrepareWatch(at)
        try:
            with watch.open():
                prepared = prepare_qat_fx(
                    model, mapping, inputs, custom, backend_config=options.backend_config
                )
        except _Reached as reached:
            return reached.result
        except Exception as error:
            if watch.log.reached or isinstance(error, QatExplorerError):
                raise
            raise _trace_failed(error, model, options.example_inputs) from error
        if seen is None:
            return StageResult(prepared)
        return _described("insert", prepared, options, watch.log, paths)

    def _reference(self, model: nn.Module, options: FlowOptions, seen: Seen | None) -> StageResult:
        prepared = _graph_module(model).eval()
        scopes = scopes_of(prepared)
        reference = convert_to_reference_fx(
            prepared,
            convert_custom_config=options.custom.for_fx_convert(),
            backend_config=options.backend_config,
        )
        if seen is None:
            return StageResult(reference)
        graph = _converted_graph(reference, options, scopes)
        return StageResult(reference, graph=graph)

    def _lower(self, model: nn.Module, options: FlowOptions, seen: Seen | None) -> StageResult:
        watch = ConvertWatch()
        prepared = _graph_module(model).eval()
        scopes = scopes_of(prepared)
        with watch.open():
            int8 = convert_fx(
                prepared,
                convert_custom_config=options.custom.for_fx_convert(),
                backend_config=options.backend_config,
            )
        if seen is None:
            return StageResult(int8)
        graph = _converted_graph(int8, options, scopes)
        return StageResult(int8, graph=graph, notes=lowering_notes(watch.passes))


def _converted_graph(module: fx.GraphModule, options: FlowOptions, scopes: Scopes) -> Graph:
    """Its graph, without shapes if it does not run: the caller runs it once more and says so."""
    try:
        return graph_of_module(module, shapes_of(module, options.example_inputs), scopes)[0]
    except GraphRunError as error:
        note = f"The graph does not run here: {error}"
        return graph_of_module(module, {}, scopes, note)[0]


def _graph_module(model: nn.Module) -> fx.GraphModule:
    assert isinstance(model, fx.GraphModule)  # prepare_qat_fx made it
    return model


def _mapping_or_error(
    model: nn.Module, options: FlowOptions
) -> tuple[QConfigMapping, QConfigError | None]:
    try:
        mapping = options.qconfig.as_mapping(model)
        set_on_the_way = take_own_qconfigs(model)
        if set_on_the_way:
            mapping = copy.deepcopy(mapping)
        for path, qconfig in set_on_the_way.items():
            mapping.set_module_name(path, qconfig) if path else mapping.set_global(qconfig)
        return mapping, None
    except QConfigError as error:
        return QConfigMapping(), error


def _float_where_untraced(mapping: QConfigMapping, paths: Collection[str]) -> QConfigMapping:
    """``mapping`` with None for modules that stay one call.

    ``prepare_qat_fx`` swaps the layers inside, and ``convert_fx`` takes the observers out of their
    fake quants and leaves them: the int8 model does not run.
    """
    paths = [path for path in paths if path not in mapping.module_name_qconfigs]
    if paths:
        mapping = copy.copy(mapping)
        mapping.module_name_qconfigs = mapping.module_name_qconfigs.copy()
        for path in paths:
            mapping.set_module_name(path, None)
    return mapping


def _described(
    stage: str,
    module: fx.GraphModule,
    options: FlowOptions,
    log: PrepareLog,
    paths: dict[str, type[nn.Module]],
) -> StageResult:
    if stage == "trace":  # ids, shapes and dtypes stay the same up to convert
        try:
            log.shapes.update(shapes_of(module, options.example_inputs))
        except GraphRunError as error:
            raise _traced_wrongly(error) from error
    graph, placed = graph_of_module(module, log.shapes, Scopes(log.scopes))
    notes = prepare_notes(stage, module, paths, options, log)
    return StageResult(module, graph=graph, placed=log_placements(placed, log), notes=notes)


def _traced_wrongly(error: GraphRunError) -> TraceFailedError:
    line = f" at {error.source}" if error.source else ""
    return TraceFailedError(
        f"the graph that torch.fx has traced does not run on the example inputs{line}: "
        f"{str(error)[:200]}",
        where="",
        why="Tracing takes every argument of forward for a tensor. What hangs on an optional one "
        "that is not given (None), or on a value, was written down as if it were there.",
        fix="Wrap the model in a module whose forward takes only the arguments you use, or use "
        "flow='eager'.",
    )


def _trace_failed(error: Exception, model: nn.Module, inputs: Any) -> TraceFailedError:
    place = place_of(error, model)
    path = place.path or ""
    kind = place.type_name or type(model).__name__
    file, _, number = place.source.rpartition(":")
    line = f" at {Path(file).name}:{number}" if Path(file).name not in PASSED_ON_THE_WAY else ""
    first = (str(error).strip().splitlines() or [""])[0]
    why = (
        "Tracing runs forward with stand-ins that have no values, so it cannot follow if, for and "
        "Python functions that depend on what is in a tensor."
    )
    deciding = _deciding_arguments(model, inputs, place.source)
    if not isinstance(error, fx.proxy.TraceError) and (
        hooks := {h.place for *_, h in hooks_in(model)}
    ):
        why = f"Hooks do not run in tracing: {listed(frozenset(hooks))}. {WHY[True]}"
        fix = WAYS_OUT[True]
    elif not path and _takes_any_arguments(error, model):
        why += " transformers wraps forward in functions that take *args and **kwargs, for which "
        why += "torch.fx has no stand-ins."
        fix = _through_export()
    elif deciding and not path:
        why += f" The line asks for {', '.join(deciding)}: every argument of forward is traced, "
        why += "also one that is left at its default."
        fix = _fixed_arguments(model, inputs)
    elif path:
        fix = (
            f"Pass non_traceable=[{path!r}] (or [{kind}]) to leave this module as one call in "
            "float; or use flow='eager'; or write that line without looking at values of tensors."
        )
    else:
        fix = (
            "The line is in the model's own forward: move it into a submodule and name that in "
            "non_traceable=[…], or use flow='eager'."
        )
    return TraceFailedError(
        f"torch.fx cannot trace {kind}.forward{line}: {type(error).__name__}: {first[:200]}",
        where=path,
        why=why,
        fix=fix,
    )


def _takes_any_arguments(error: Exception, model: nn.Module) -> bool:
    """Whether a model of transformers failed because of the functions around its forward."""
    theirs = any(c.__module__.partition(".")[0] == "transformers" for c in type(model).__mro__)
    known = ("co_varnames is too small", "Proxy object cannot be iterated")
    return theirs and any(text in str(error) for text in known)


def _through_export() -> str:
    """The flows that need no tracing by torch.fx, and what is to be installed for them."""
    flows = importlib.import_module("qatexplorer.flows").FLOWS  # which imports this file
    others = {n: f().unavailable() for n, f in flows.items() if not f.offers_qconfig}
    ways = [f"flow={name!r}" for name, why in others.items() if not why]
    if ways:
        return f"Use {' or '.join(ways)}, which does not trace with torch.fx; or flow='eager'."
    missing = "; ".join(dict.fromkeys(others.values()))
    return f"Use flow='eager'. flow='pt2e' takes such models too, and cannot run here: {missing}."


def _deciding_arguments(model: nn.Module, inputs: Any, source: str) -> tuple[str, ...]:
    """Arguments of ``model.forward`` that are no tensors and stand in the line at ``source``."""
    file, _, number = source.rpartition(":")
    line = linecache.getline(file, int(number)) if number.isdigit() else ""
    try:
        arguments = bound_arguments(model, inputs)
    except (TypeError, ValueError):
        return ()
    plain = (name for name, value in arguments.items() if first_tensor_info(value) is None)
    return tuple(name for name in plain if re.search(rf"\b{re.escape(name)}\b", line))


def _fixed_arguments(model: nn.Module, inputs: Any) -> str:
    """How to leave out of the traced forward what is no tensor."""
    arguments = bound_arguments(model, inputs)
    tensors = [name for name, value in arguments.items() if first_tensor_info(value) is not None]
    fixed = [f"{name}={value!r}" for name, value in arguments.items() if name not in tensors]
    return (
        "Fix it: wrap the model in a module with "
        f"def forward(self, {', '.join(tensors)}): "
        f"return self.model({', '.join([*tensors, *fixed])}), and pass that; or use flow='eager'."
    )
