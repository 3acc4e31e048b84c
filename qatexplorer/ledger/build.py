"""The whole ledger of one prepared model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.ao.nn.intrinsic.modules.fused import _FusedModule
from torch.ao.quantization import quantize_fx  # noqa: F401 - the next import needs it first
from torch.ao.quantization.backend_config import get_native_backend_config

from qatexplorer.errors import (
    ExampleInputError,
    InputError,
    NotAModuleError,
    StageError,
    StoppedError,
)
from qatexplorer.flows import flow_of
from qatexplorer.flows.base import copy_sharing_parameters
from qatexplorer.forward.exported import is_exported
from qatexplorer.forward.preserve import preserved_state
from qatexplorer.forward.record import Recording, record_here
from qatexplorer.ledger.coverage import (
    Convert,
    Outcome,
    cover,
    explained,
    followers,
    outcome_of,
    torch_convert,
)
from qatexplorer.ledger.edges import edges_between
from qatexplorer.ledger.exported import as_exported
from qatexplorer.ledger.floats import Situation, float_rows
from qatexplorer.ledger.forwards import Forwards, LedgerProgress
from qatexplorer.ledger.measure import Values, drift_of, measure_step, measure_values
from qatexplorer.ledger.reasons import Known
from qatexplorer.ledger.records import Coverage, FloatRow, Ledger, LedgerRow, Redundancy
from qatexplorer.ledger.redundancy import Finding, find_redundancies
from qatexplorer.ledger.rows import Origins, make_rows
from qatexplorer.ledger.scales import FreshScales
from qatexplorer.ledger.words import cost_text
from qatexplorer.quantizers.facts import find_quantizers, has_range
from qatexplorer.snapshot.records import Graph


def ledger_of(
    model: nn.Module,
    example_inputs: Any,
    *,
    stage: str | None = None,
    origins: Origins | None = None,
    graph: Graph | None = None,
    samples: Mapping[str, Sequence[Any]] | None = None,
    timing: int = 0,
    mapping: Any = None,
    backend_config: Any = None,
    convert: Convert | None = None,
    engine: str | None = None,
    prepared: bool = False,
    effects: bool = False,
    progress: Callable[[LedgerProgress], Any] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Ledger:
    """Who put each fake quant of ``model`` there, what stays float, and what is one too many.

    Works on any module that torch's eager or FX flow, or torchao's PT2E, has prepared, also one
    prepared elsewhere.
    A copy that shares the parameters runs on the example inputs: twice, and twice more where values
    are quantized more than once. The model itself stays as it is.

    Args:
        model: the prepared module. example_inputs: in any form that ``Session`` takes.
        stage: the stage it is at, by default that of torch's flow with all fake quants.
        origins: stage and call of each fake quant, where known.
        graph: the dataflow graph whose edges are to be marked.
        samples: telemetry samples of a run by path, for the drift of scales.
        timing: rounds of timing per redundancy; 0 measures no times.
        mapping: QAT mapping in force (eager); backend_config: the one in force (FX).
        convert: turns a copy into int8, default torch's ``convert`` or ``convert_fx``.
        engine: quantized engine for that copy, default the one in force.
        prepared: the model is known to be prepared: no fake quant at all is then a finding, with a
            loud warning, and no error.
        effects: one more forward for each redundancy, for what it alone does to the output.
        progress: called with how far it is. should_stop: asked at every module call.

    Raises:
        NotAModuleError, ExampleInputError: the input cannot be used.
        StageError: the model holds no fake quant and no observer.
        StoppedError: ``should_stop`` said so.
    """
    _check(model, prepared)
    forwards = Forwards(progress, should_stop)
    known = Known(model, mapping, backend_config)
    work, uncopied = _copy_of(model)
    with preserved_state(work):  # where it could not be copied, it is the model
        recording, fresh, observed = _first_forward(work, example_inputs, forwards)
        rows = make_rows(model, recording, fresh, origins or {})
        exported = as_exported(model, recording) if is_exported(model) else None
        rows = exported.named(rows) if exported is not None else rows
        findings = find_redundancies(model, recording, known)
        values = measure_values(
            work, example_inputs, findings, forwards, observed=observed, effects=effects
        )
        if exported is not None:
            outcome = Outcome(None, None)  # of the graph itself
        elif uncopied is not None:
            outcome = Outcome(None, None, explained(uncopied, model), followers(recording, model))
        else:
            make = convert or torch_convert
            outcome = outcome_of(work, example_inputs, recording, make, engine, forwards)
    if exported is not None:
        floats, coverage = exported.float_rows(), exported.coverage()
    else:
        floats = float_rows(Situation(model, recording, outcome, known, graph))
        coverage = cover(model, recording, outcome)
    forwards.say("Putting it together")
    redundancies = _measured(
        model, example_inputs, findings, values, samples or {}, timing, forwards
    )
    redundancies = _on_graph(redundancies, findings, graph, recording)
    rows, flow = _linked(rows, redundancies), flow_of(model)
    return Ledger(
        flow=flow.name,
        stage=stage or flow.prepared_stage,
        rows=rows,
        floats=floats,
        redundancies=redundancies,
        coverage=coverage,
        warnings=_warnings(rows, floats, coverage, outcome, model, recording),
        notes=_notes(outcome) if exported is None else (_READ_OFF,),
        together_sqnr_db=values.together_sqnr_db,
    )


def _check(model: Any, prepared: bool) -> None:
    if not isinstance(model, nn.Module):
        raise NotAModuleError(
            f"the ledger is of a torch.nn.Module, and this is a {type(model).__name__}.",
            fix="Pass a model that prepare_qat or prepare_qat_fx returned.",
        )
    observed = "_observed_graph_module_attrs" in getattr(model, "meta", {})
    if not (prepared or observed or find_quantizers(model)):
        raise StageError(
            "the model holds no fake quant and no observer: there is nothing to account for.",
            fix="Prepare it first (session.goto('insert'), prepare_qat or prepare_qat_fx).",
        )


def _copy_of(model: nn.Module) -> tuple[nn.Module, Exception | None]:
    """A copy that shares the parameters; the model itself, and why, if it cannot be copied."""
    try:
        return copy_sharing_parameters(model), None
    except Exception as error:
        return model, error


def _first_forward(
    work: nn.Module, inputs: Any, forwards: Forwards
) -> tuple[Recording, Mapping[str, Tensor], bool]:
    """What one forward did, the scales that it alone asks for, and whether it was shown to them.

    Those that lacked a range before keep the one that they have found now: without one a scale is
    1, which is no grid to measure on or to convert with. All else is put back.
    """
    sites = find_quantizers(work)
    lacking = {path: module for path, module in sites.items() if not has_range(module)}
    fresh = FreshScales(sites)
    kept: list[tuple[Tensor, Tensor]] = []
    try:
        with preserved_state(work), forwards.one("Recording one forward", work):
            recording = record_here(work, inputs, on_quant=fresh)
            kept = [(b, b.clone()) for m in lacking.values() for b in m.buffers()]
    except (InputError, StoppedError):
        raise
    except Exception as error:
        raise ExampleInputError(
            "the prepared model's forward raises on the example inputs.",
            why=f"{type(error).__name__}: {error}",
            fix="Pass what you would pass to model(…).",
        ) from error
    with torch.no_grad():
        for buffer, found in kept:
            buffer.resize_(found.shape).copy_(found)
    return recording, fresh.found, bool(lacking)


def _measured(
    model: nn.Module,
    inputs: Any,
    findings: Sequence[Finding],
    values: Values,
    samples: Mapping[str, Sequence[Any]],
    timing: int,
    forwards: Forwards,
) -> tuple[Redundancy, ...]:
    done = []
    for index, finding in enumerate(findings):
        record = finding.record
        record = replace(record, numbers=values.numbers.get(index))
        if record.kind == "double":
            drift = drift_of(samples.get(record.first, ()), samples.get(record.second, ()))
            record = replace(record, drift=drift)
        if timing and finding.calls:
            cost = measure_step(model, inputs, finding, timing, forwards.say)
            record = replace(record, step=cost)
        done.append(replace(record, cost=cost_text(record)))
    return tuple(done)


def _on_graph(
    redundancies: Sequence[Redundancy],
    findings: Sequence[Finding],
    graph: Graph | None,
    recording: Recording,
) -> tuple[Redundancy, ...]:
    return tuple(
        replace(found, edges=edges_between(graph, finding, recording))
        for found, finding in zip(redundancies, findings, strict=True)
    )


def _linked(rows: Sequence[LedgerRow], redundancies: Sequence[Redundancy]) -> tuple[LedgerRow, ...]:
    with_: dict[str, list[str]] = {}
    for found in redundancies:
        if found.kind != "shared":
            with_.setdefault(found.first, []).append(found.second)
            with_.setdefault(found.second, []).append(found.first)
    return tuple(
        replace(row, redundant_with=tuple(dict.fromkeys(with_.get(row.path, ())))) for row in rows
    )


def _warnings(
    rows: Sequence[LedgerRow],
    floats: Sequence[FloatRow],
    coverage: Coverage,
    outcome: Outcome,
    model: nn.Module,
    recording: Recording,
) -> tuple[str, ...]:
    lines = []
    weights = [row for row in rows if row.kind == "weight" and not row.part_of and not row.ghost]
    if not coverage.params_int8 and not weights:
        why = Counter(row.reason for row in floats if row.params or row.macs).most_common(1)
        first = next((r for r in floats if why and r.reason == why[0][0]), None)
        reason = f" Most often because: {first.sentence} {first.fix}" if first else ""
        lines.append(f"NO WEIGHT OF THIS MODEL WILL BE INT8.{reason}")
    observers = [row.path for row in weights if row.role == "observer"]
    if observers:
        lines.append(
            f"Weights are only observed, not fake-quantized ({_some(observers)}): the qconfig is "
            "one for post-training quantization, and training will not feel the rounding."
        )
    unsimulated, second_names = _unsimulated(outcome, model, recording)
    if second_names:
        lines.append(
            f"Second names of a module that training simulates under its first: "
            f"{_some(second_names)}. torch swaps the first name only, so calls of these train "
            "with float weights and then run in int8. Give each place a module of its own."
        )
    if unsimulated:
        lines.append(
            f"These become int8 although training never rounded their weights: "
            f"{_some(unsimulated)}. torch's int8 mapping has an entry for them, its QAT "
            f"mapping has none.{_simulated_in_fx(model, unsimulated)}"
        )
    if outcome.error:
        what = "does not run" if outcome.int8_paths is not None else "cannot be made"
        lines.append(f"The int8 model {what}: {outcome.error}")
    return tuple(lines)


def _unsimulated(
    outcome: Outcome, model: nn.Module, recording: Recording
) -> tuple[list[str], list[str]]:
    """Layers that become int8 and have no weight fake quant, and those that are second names."""
    modules = dict(model.named_modules())
    ran = recording.module_calls
    simulated = {id(m.weight) for m in modules.values() if hasattr(m, "weight_fake_quant")}
    found = [
        path
        for path in sorted(outcome.int8_paths or ())
        if path in modules
        and ran.get(path)
        and isinstance(getattr(_layer(modules[path]), "weight", None), nn.Parameter)
        and _layer(modules[path]).weight.dim() > 1
        and not isinstance(modules[path], nn.Embedding)
        and not hasattr(modules[path], "weight_fake_quant")
    ]
    second = [path for path in found if id(_layer(modules[path]).weight) in simulated]
    return [path for path in found if path not in second], second


def _layer(module: nn.Module) -> Any:
    """The layer with the weight: a fused container without a QAT version holds it first."""
    return module[0] if isinstance(module, _FusedModule) else module


def _simulated_in_fx(model: nn.Module, paths: Sequence[str]) -> str:
    """What to do, where FX has a QAT class for all of them."""
    if isinstance(model, fx.GraphModule):
        return ""
    trained = {c.pattern for c in get_native_backend_config().configs if c.qat_module is not None}
    layers = [model.get_submodule(path) for path in paths]
    if all(type(layer) in trained for layer in layers):
        return " Fix: use flow='fx', whose backend config has QAT classes for them."
    return " Give them the qconfig None if the accuracy of the int8 model suffers."


def _some(paths: Sequence[str], most: int = 4) -> str:
    shown = ", ".join(paths[:most])
    return shown + (f" and {len(paths) - most} more" if len(paths) > most else "")


_READ_OFF = (
    "What becomes int8 was read off the graph: torchao's lowering to oneDNN has int8 kernels for "
    "convolutions, and linear layers on two dimensions, whose input and weight are rounded."
)


def _notes(outcome: Outcome) -> tuple[str, ...]:
    if outcome.basis == "int8 run":
        return ("What becomes int8 was read off a converted copy that ran the example input.",)
    if outcome.basis == "converted types":
        return ("What becomes int8 was read off a converted copy, which does not run.",)
    return ("A copy could not be converted; what becomes int8 is judged by the fake quants.",)
