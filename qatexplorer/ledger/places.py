"""Names for tensors, the same in every flow, so that sites of two flows can be matched."""

from __future__ import annotations

from qatexplorer.forward.calls import Call
from qatexplorer.forward.record import Recording
from qatexplorer.ledger.records import TensorPlace


def place_of_call(call: Call, recording: Recording) -> TensorPlace:
    """The tensor that this call of a fake quant gets."""
    if not call.inputs:
        return TensorPlace(shape=call.shape)
    producer = recording.calls[call.inputs[0]]
    if producer.kind == "input":
        words = "the model's input" if producer.name == "0" else f"input {int(producer.name) + 1}"
        return TensorPlace(f"input:{producer.name}", words, shape=call.shape)
    if call.output_of is not None:
        path, port = call.output_of
        words = f"output of {path or 'the model'}" + (f", number {port + 1}" if port else "")
        return TensorPlace(f"module:{path}:{port}", words, path, port, call.shape)
    parameter = parameter_of(call, recording)
    if parameter is not None:
        direct = producer.kind == "param"
        words = parameter.name + ("" if direct else ", scaled by its batch norm")
        if not direct and not _scaled_by_norm(call, recording):
            words = f"{parameter.name}, after {producer.name}"
        return TensorPlace(f"param:{parameter.name}", words, parameter.scope, 0, call.shape)
    if producer.kind == "quant":
        return TensorPlace(
            f"quant:{producer.name}", f"what {producer.name} returns", shape=call.shape
        )
    where = f" in {producer.scope}" if producer.scope else ""
    source = f" ({producer.source})" if producer.source and not producer.scope else ""
    return TensorPlace(
        f"op:{producer.scope + '.' if producer.inner else ''}{producer.name}:{producer.ordinal}",
        f"result of {producer.name}{where}{source}",
        producer.scope,
        0,
        call.shape,
    )


def parameter_of(call: Call, recording: Recording) -> Call | None:
    """The parameter that the tensor is made of, None if the model's input is in it too."""
    best: Call | None = None
    waiting, seen = list(call.inputs[:1]), set()
    while waiting:
        index = waiting.pop()
        if index in seen:
            continue
        seen.add(index)
        source = recording.calls[index]
        if source.kind == "input":
            return None
        # A fake quant may look at a weight first (then this one is the second).
        if source.kind == "param" and (best is None or _size(source) > _size(best)):
            best = source
        waiting += source.inputs
    return best


def _size(call: Call) -> int:
    size = 1
    for length in call.shape or (0,):
        size *= length
    return size


def _scaled_by_norm(call: Call, recording: Recording) -> bool:
    waiting, seen = list(call.inputs[:1]), set()
    while waiting:
        index = waiting.pop()
        if index in seen:
            continue
        seen.add(index)
        source = recording.calls[index]
        if source.kind == "param" and source.name.endswith("running_var"):
            return True
        waiting += source.inputs
    return False
