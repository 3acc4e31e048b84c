"""Why a flow does not round a tensor that another one rounds, in one sentence each."""

from __future__ import annotations

from collections.abc import Mapping

from qatexplorer.flows.annotations import Annotation
from qatexplorer.flows.base import Role
from qatexplorer.migration.places import FloatModel, Reading
from qatexplorer.migration.records import Place
from qatexplorer.snapshot.records import ModuleRecord


def why_not(place: Place, node: str | None, reading: Reading, floats: FloatModel) -> str:
    """What is known to be the reason; ``node`` of the float model's graph makes the tensor."""
    if place.found_in:
        return f"It was found in {place.found_in}'s graph only, not in the float model's."
    rounds = _times(place, reading)
    if rounds:
        return f"It rounds this tensor {'once' if rounds == 1 else f'{rounds} times'} only."
    fused = reading.fused.get(node or "")
    if place.kind == "output" and fused is not None and fused[1] != node:
        label = floats.result(fused[1]).label
        return f"Fused into {fused[0]}: what is rounded is the {label}."
    holder = floats.modules.get(place.path)
    held = {tensor.name for tensor in holder.tensors} if holder is not None else set()
    if place.kind == "weight" and place.operation in held:
        return f"{_call(reading, 'inserted')} put no fake quant on its {place.operation}."
    if reading.located is None:
        return _of_modules(place, reading)
    return _of_graph(place, node, reading)


def _times(place: Place, reading: Reading) -> int:
    """How often the flow rounds the tensor of ``place``."""
    same = place.kind, place.path, place.operation, place.index
    return sum(
        (one.kind, one.path, one.operation, one.index) == same and not one.found_in
        for one in reading.places.values()
    )


def _of_modules(place: Place, reading: Reading) -> str:
    if place.kind == "input":
        stub = reading.flow.offers_stubs
        return (
            "No QuantStub quantizes it."
            if stub
            else f"{_call(reading, 'inserted')} put no fake quant here."
        )
    record = _record(place.path, reading)
    functional = record is not None and record.compute == "functional"
    if place.operation and not functional:
        if place.kind == "weight":
            return f"{place.operation} is a function: only modules have a weight with a fake quant."
        return f"{place.operation} is a function or method: this flow works on modules only."
    return _of_module(place, record, reading)


def _of_graph(place: Place, node: str | None, reading: Reading) -> str:
    assert reading.located is not None
    if node is not None and node not in reading.located:
        what = "input" if place.kind == "input" else "operation"
        return f"No {what} of its graph was found to be this one."
    if reading.annotations is not None:
        there = reading.located.get(node or "", "")
        if place.kind != "weight":
            return _of_annotations(there, reading.annotations)
        if there and there not in reading.annotations:
            return f"The quantizer did not annotate {there}, which takes it."
    if place.kind == "input" or place.operation:
        return f"{_call(reading, 'inserted')} put no fake quant here."
    return _of_module(place, _record(place.path, reading), reading)


def _of_annotations(node: str, annotations: Mapping[str, Annotation]) -> str:
    written = annotations.get(node)
    if written is None:
        return "The quantizer annotated neither this operation nor an input that takes its result."
    pattern = f" as part of {written.pattern}" if written.pattern else ""
    return f"The quantizer annotated it{pattern}, and nothing asks for its result to be rounded."


def _of_module(place: Place, record: ModuleRecord | None, reading: Reading) -> str:
    name = place.path or "The model"
    if record is not None and record.qconfig is None and _by_qconfig(reading):
        return f"{name} has no qconfig."
    if place.kind == "weight":
        made = f", a {record.type_name}" if record is not None else ""
        return f"{_call(reading, 'weights')} gave {name}{made}, no fake quant for its weight."
    made = record.type_name if record is not None else "this module"
    return f"{_call(reading, 'inserted')} put no fake quant on the output of {made}."


def _by_qconfig(reading: Reading) -> bool:
    """Whether qconfigs decide: then at least one module has one."""
    return reading.prepared is not None and any(m.qconfig for m in reading.prepared.modules)


def _record(path: str, reading: Reading) -> ModuleRecord | None:
    modules = reading.prepared.modules if reading.prepared is not None else ()
    return next((m for m in modules if m.origin == path and (path or not m.path)), None)


def _call(reading: Reading, role: Role) -> str:
    stage = reading.flow.stage_with(role)
    return stage.call.partition("(")[0] if stage is not None else reading.flow.title
