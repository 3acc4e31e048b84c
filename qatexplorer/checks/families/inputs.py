"""Rules on what goes into a model and what comes out, and on what FX cannot trace."""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch
from torch.ao.quantization import QuantStub

from qatexplorer.checks.evidence.float_run import FloatRun, float_run, kind_of
from qatexplorer.checks.evidence.traced import Stop, traced
from qatexplorer.checks.rules import EVERY, Found, rule
from qatexplorer.checks.subject import NoEvidence, Subject
from qatexplorer.data import call_model, cloned, device_of, on_device
from qatexplorer.flows.stubs import has_stubs
from qatexplorer.forward.graph_module import bound_arguments
from qatexplorer.forward.preserve import preserved_state
from qatexplorer.forward.trace import tensors_in


@rule("QX211", "untraceable", "error", "traced")
def untraceable(subject: Subject) -> Iterator[Found]:
    """FX cannot trace a module's forward

    Symptom:
        symbolically traced variables cannot be used as inputs to control flow
        Proxy object cannot be iterated
    Cause:
        FX runs forward once with stand-ins that have no values. An if on a tensor or on an
        argument, a loop over a tensor's pieces, int(x) or list(x.chunk(2)) cannot be followed.
    Fix:
        Write the line so that it does not look at values, fix the argument in a wrapper, leave the
        module as one call with non_traceable=[path], or use flow='eager'.
    Sources:
        https://github.com/pytorch/pytorch/issues/118634
        https://github.com/pytorch/pytorch/issues/74842
    """
    if not subject.flow.by_graph:
        return
    found = subject.get(traced)
    paths = [stop.path for stop in found.stops]
    for stop in found.stops:
        where = f"{stop.kind}.forward" + (f" ({stop.path})" if stop.path else "")
        line = f", at {stop.line!r}" if stop.line else ""
        fix = _rewritten(stop, subject) or stop.fix
        if found.complete and len(paths) > 1:
            fix += f" All of them at once: non_traceable={paths!r}."
        yield Found(
            stop.path,
            f"torch.fx cannot trace {where}{line}: {stop.error.rstrip('.')}.",
            fix,
            source=stop.source,
        )


_SPLITTING = ("chunk", "split", "unbind", "tensor_split")
_PIECES = re.compile(rf"\b(list|tuple)\((?P<call>.+\.({'|'.join(_SPLITTING)})\(.*?\))\)")


def _rewritten(stop: Stop, subject: Subject) -> str:
    """What to write in place of a line that takes a tensor's pieces as a list."""
    match = _PIECES.search(stop.line)
    if match is None or not stop.path:
        return ""
    try:
        run = subject.get(float_run)
    except NoEvidence:
        return ""
    counts = {
        len(operation.outputs)
        for operation in run.operations
        if operation.source == stop.source and operation.name in _SPLITTING
    }
    if len(counts) != 1:
        return ""
    names = ", ".join("abcdefgh"[: counts.pop()])
    shown = f"[{names}]" if match[1] == "list" else f"({names})"
    return (
        f"Name the pieces: {names} = {match['call']}, and write {shown} for the {match[1]}. Or "
        f"pass non_traceable=[{stop.path!r}], which leaves {stop.path} as one call in float."
    )


@rule("QX212", "whole-numbers-quantized", "error", "inserted")
def whole_numbers_quantized(subject: Subject) -> Iterator[Found]:
    """A QuantStub gets whole numbers

    Symptom:
        expected scalar type Float but found Long
    Cause:
        Only float values can be quantized. Indices, masks, token ids and labels have no scale, and
        the fake quant of a QuantStub (or of the one that QuantWrapper puts first) refuses them.
    Fix:
        Put the QuantStub after what turns them into floats, such as the embedding; pass the others
        on as they are.
    Sources:
        https://github.com/Lightning-AI/pytorch-lightning/issues/7926
    """
    if subject.flow.by_graph:
        return
    run = subject.get(float_run)
    if subject.options.stubs != "layers":
        for path, _ in subject.layers(QuantStub):
            given = [call.given for call in run.runs.get(path, [])]
            whole = [look for look in given if look is not None and not look.is_float]
            if whole:
                yield Found(
                    path,
                    f"{path} (QuantStub) gets a tensor of {whole[0].dtype}, which has no scale.",
                    f"Do not call {path} on it; put the stub after the layer that makes floats of "
                    "it.",
                )
    if subject.options.stubs == "model" and not _is_float_input(run) and len(run.inputs) == 1:
        yield Found(
            "",
            f"stubs='model' quantizes the input, which is of {run.inputs[0].dtype} and has no "
            "scale.",
            "session.configure(stubs='layers')",
        )


def _is_float_input(run: FloatRun) -> bool:
    return any(value.dtype.is_floating_point for value in run.inputs)


@rule("QX213", "several-inputs", "info", "qconfig")
def several_inputs(subject: Subject) -> Iterator[Found]:
    """QuantWrapper takes one tensor, and the model several

    Symptom:
        forward() takes 2 positional arguments but 3 were given
    Cause:
        torch's QuantWrapper has one stub, and a forward with one argument. One stub for all inputs
        would be wrong too: they have ranges of their own, and indices and masks have none.
    Fix:
        A QuantStub for each float tensor, called first in forward. stubs='model' makes that.
    Sources:
        https://github.com/Lightning-AI/pytorch-lightning/issues/7926
        https://github.com/Lightning-AI/pytorch-lightning/issues/15862
    """
    if subject.flow.by_graph or has_stubs(subject.base) or subject.options.stubs == "layers":
        return
    kinds = {True: list[str](), False: list[str]()}
    for name, value in bound_arguments(subject.base, subject.options.example_inputs).items():
        for tensor in list(tensors_in(value))[:1]:
            kinds[tensor.is_floating_point()].append(name)
    floats, others = kinds[True], kinds[False]
    if len(floats) + len(others) < 2:
        return
    left = f"; {_listed(others)} {_is(others)} of whole numbers and passed on as {_it(others)}"
    yield Found(
        "",
        f"The model takes {len(floats) + len(others)} tensors, and torch's QuantWrapper one: "
        f"{_listed(floats) or 'none'} can be quantized, each with a stub and scale of its own"
        f"{left if others else ''}.",
        "" if subject.options.stubs == "model" else "session.configure(stubs='model')",
    )


def _listed(names: list[str]) -> str:
    return ", ".join(names)


def _is(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _it(names: list[str]) -> str:
    return "it is" if len(names) == 1 else "they are"


@rule("QX214", "frozen-training-branch", "warning", "traced")
def frozen_training_branch(subject: Subject) -> Iterator[Found]:
    """A branch on self.training is part of FX's graph for good

    Symptom:
        After eval() the prepared model still returns what it returns in training: a list in place
        of a tensor, losses in place of boxes.
    Cause:
        FX traces in train mode and writes down the side of the branch that it took. eval() changes
        modules, not the graph.
    Fix:
        Take the branch out of forward: let forward return the same in both modes, and do the rest
        outside of the model.
    Sources:
        https://github.com/ultralytics/ultralytics/issues/19960
        https://github.com/pytorch/pytorch/issues/103681
    """
    if not subject.flow.by_graph:
        return
    graph, run = subject.get(traced), subject.get(float_run)
    if graph.kind and graph.kind != run.kind:
        yield Found(
            "",
            f"In eval mode the model returns a {run.kind}, and FX's graph, traced in train mode, a "
            f"{graph.kind}: metrics and int8 see the latter.",
            "Return the same from forward in both modes, and do what differs outside of the model.",
        )


@rule("QX215", "other-output-in-eval", "info", "float", flows=EVERY)
def other_output_in_eval(subject: Subject) -> Iterator[Found]:
    """The model returns something of another kind in eval mode than in training

    Symptom:
        The loss works and the metric raises, or the int8 model returns what no one expects.
    Cause:
        forward asks self.training. Fake quants are trained on one output, and int8, which runs in
        eval mode, gives the other.
    Fix:
        A loss and a metric that take either; or return the same from forward in both modes.
    Sources:
        https://github.com/ultralytics/ultralytics/issues/19960
    """
    if not subject.thorough:
        return
    model, inputs = subject.base, subject.options.example_inputs
    with preserved_state(model), torch.no_grad():
        model.train()
        training = kind_of(call_model(model, cloned(on_device(inputs, device_of(model)))))
    evaluated = subject.get(float_run).kind
    if training != evaluated:
        yield Found(
            "",
            f"The model returns a {training} in train mode and a {evaluated} in eval mode, which "
            "int8 runs in.",
            "Pass a loss= and a metric= to the session that take both.",
        )
