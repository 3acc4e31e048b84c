"""What PT2E leaves float, and what its switches change, without a word: QX701 to QX709."""

from __future__ import annotations

import copy
import importlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import fx, nn

from qatexplorer.checks.evidence.exported import (
    LAYERS,
    Mode,
    Operation,
    annotated,
    exported,
    modes_of,
    operations_of,
    prepared_graph,
    regions_of,
)
from qatexplorer.checks.families.settings import shown
from qatexplorer.checks.rules import Found, rule
from qatexplorer.checks.subject import Subject
from qatexplorer.evaluate.parity import percent
from qatexplorer.flows.base import FlowKind

PT2E: tuple[FlowKind, ...] = ("annotation",)


@rule("QX701", "region-left-float", "error", "qconfig", flows=PT2E)
def region_left_float(subject: Subject) -> Iterator[Found]:
    """Layers under torch.no_grad or autocast are not quantized

    Symptom:
        The quantized model is as large and as slow as the float one, and as exact.
    Cause:
        torch.export puts what runs in forward under torch.no_grad(), set_grad_enabled() or
        autocast into a graph of its own. torchao 0.18 looks at the outer graph only: no
        quantizer sees what is inside, nothing is annotated, and nothing raises. The switch between
        train and eval does not reach inside either.
    Fix:
        Take the context manager out of forward. To freeze a part for training, set
        requires_grad_(False) on its parameters.
    Sources:
        https://github.com/pytorch/executorch/issues/22069
        https://github.com/pytorch/ao/pull/4861
    """
    for region in regions_of(subject.get(annotated)):
        left = [one for one in region.operations if one.name in LAYERS and not one.taken]
        if not left:
            continue
        first, several = left[0], len(left) > 1
        yield Found(
            first.path,
            f"{region.reason} in forward hides {len(left):,} "
            f"{'operations' if several else 'operation'} from the quantizer "
            f"({shown([one.where for one in left])}): {'they stay' if several else 'it stays'} "
            "float, in training and after convert.",
            f"model.get_submodule({first.path!r}).requires_grad_(False)  # and no context manager",
            source=first.source,
        )


@rule("QX702", "nothing-annotated", "error", "qconfig", flows=PT2E)
def nothing_annotated(subject: Subject) -> Iterator[Found]:
    """The quantizer took nothing: the model stays float

    Symptom:
        prepare_qat_pt2e and convert_pt2e run through, and the result is the float model.
    Cause:
        A quantizer writes on the operations that its patterns match, with the settings that it was
        given. Without settings, or where no pattern matches, it writes nothing, and neither call
        says so.
    Fix:
        Give the quantizer its settings, for example
        X86InductorQuantizer().set_global(get_default_x86_inductor_quantization_config(is_qat=True)).
    Sources:
        https://github.com/pytorch/executorch/issues/7718
        https://github.com/pytorch/executorch/issues/22069
    """
    model = subject.get(annotated)
    operations = operations_of(model)
    if any(one.rounds for one in operations) or any(
        one.rounds for region in regions_of(model) for one in region.operations
    ):
        return
    hidden = sum(len(region.operations) for region in regions_of(model))
    inside = f", and {hidden:,} more lie in graphs that it does not see" if hidden else ""
    yield Found(
        "",
        f"The quantizer ({_quantizer(subject)}) has rounded none of {len(operations):,} operations"
        f"{inside}: after convert the model is the float model.",
        f"quantizer={_quantizer(subject)}().set_global(…)",
    )


def _quantizer(subject: Subject) -> str:
    given = getattr(subject.options, "quantizer", None)
    return "X86InductorQuantizer" if given is None else type(given).__name__


@rule("QX703", "still-float", "info", "reference", flows=PT2E)
def still_float(subject: Subject) -> Iterator[Found]:
    """Operations that no pattern of the quantizer took are still float after convert

    Symptom:
        convert_pt2e "does not work": parameters are still float32, and the code calls the same
        aten operations.
    Cause:
        The converted model computes in float between quantize and dequantize: int8 comes with the
        backend that lowers it. Of the parameters, only weights that the quantizer wrote on are
        stored as int8; biases and what no pattern took stay float.
    Fix:
        Where a layer was not taken, give the quantizer settings for it, or take a quantizer that
        has a pattern for its operation; then lower the model.
    Sources:
        https://github.com/pytorch/ao/issues/1290
        https://github.com/pytorch/executorch/issues/7718
    """
    operations = operations_of(subject.get(annotated))
    if not any(one.rounds for one in operations):
        return  # said by a rule of its own
    left = [one for one in operations if not one.taken]
    if not left:
        return
    layers = [one for one in left if one.name in LAYERS and one.parameters]
    by_name = Counter(one.name for one in left)
    names = ", ".join(f"{name} ({count:,})" for name, count in by_name.most_common(6))
    all_values, kept = _parameters(operations), _parameters(left)
    share = f" {percent(kept / all_values)} of the parameters stay float with them." if kept else ""
    first = max(layers or left, key=lambda one: one.parameters)
    yield Found(
        first.path,
        f"The quantizer ({_quantizer(subject)}) wrote on {len(operations) - len(left):,} of "
        f"{len(operations):,} operations. No pattern took the others, which are still float after "
        f"convert: {names}.{share}",
        _settings_for(layers),
        source="" if first.path else first.source,
        severity="warning" if layers else "info",
    )


def _parameters(operations: Sequence[Operation]) -> int:
    return sum(one.parameters for one in operations)


def _settings_for(layers: Sequence[Operation]) -> str:
    if not layers:
        return "session.goto('lower')  # a backend computes some of them within its int8 kernels"
    return f"A quantizer with a pattern for {layers[0].name}, or leave {layers[0].path} float."


# -- constants that the switches replace -----------------------------------------------------------


def switched(model: fx.GraphModule, training: bool) -> fx.GraphModule:
    """A copy of ``model`` that torchao's own switch has put into a mode."""
    pt2e = importlib.import_module("torchao.quantization.pt2e")
    twin = copy.deepcopy(model)
    if training:
        pt2e.move_exported_model_to_train(twin)
    else:
        pt2e.move_exported_model_to_eval(twin)
    return twin


def in_eval(subject: Subject) -> tuple[Mode, ...]:
    """What torchao's move_exported_model_to_eval makes of the prepared model's modes"""
    model = subject.get(prepared_graph)
    return modes_of(switched(model, False)) if modes_of(model) else ()


def in_training(subject: Subject) -> tuple[Mode, ...]:
    """What torchao's move_exported_model_to_train makes of the prepared model's modes"""
    model = subject.get(prepared_graph)
    return modes_of(switched(model, True)) if modes_of(model) else ()


@rule("QX704", "norm-constants", "warning", "weights", flows=PT2E)
def norm_constants(subject: Subject) -> Iterator[Found]:
    """A batch norm gets torch's default eps and momentum

    Symptom:
        The prepared model is not the float model though nothing is rounded; running statistics
        move faster or slower than they did in float.
    Cause:
        prepare_qat_pt2e puts a pattern of its own in place of a convolution with a batch norm, and
        the switch between train and eval one in place of every batch norm. Both are written with
        eps=1e-5 and momentum=0.1, whatever the model has (MobileNetV3 and EfficientNet have 1e-3).
    Fix:
        Set eps=1e-5 before exporting and multiply nothing by hand: for running variances far above
        eps the difference is small, as the finding says for each batch norm. Train a few batches
        if it is not.
    Sources:
        https://github.com/pytorch/ao/blob/main/torchao/quantization/pt2e/export_utils.py
    """
    modules = dict(subject.base.named_modules())
    now = {one.path: one for one in subject.get(in_eval) if one.number("eps") is not None}
    for path, mode in now.items():
        norm: Any = modules.get(path)
        if not isinstance(norm, nn.modules.batchnorm._BatchNorm):
            continue
        eps, momentum = mode.number("eps"), mode.number("momentum")
        other_eps = eps is not None and not _close(eps, norm.eps)
        other_momentum = norm.momentum is not None and not _close(momentum or 0.0, norm.momentum)
        if not (other_eps or other_momentum):
            continue
        assert eps is not None
        changes = [f"eps {eps:.3g} in place of {norm.eps:.3g}"] if other_eps else []
        changes += [f"momentum {momentum:.3g} in place of {norm.momentum:.3g}"] * other_momentum
        far = _gain(norm, eps) if other_eps else 0.0
        effect = f": its output is up to {percent(far)} larger or smaller for it" if far else ""
        yield Found(
            path,
            f"PT2E computes the batch norm {path} with {' and '.join(changes)}{effect}.",
            f"model.get_submodule({path!r}).eps = {eps:.3g}  # in the float model, before training"
            if other_eps
            else f"model.get_submodule({path!r}).momentum = {momentum:.3g}",
            severity="error" if far > _LARGE_GAIN else "warning" if far > _SMALL_GAIN else "info",
        )


_SMALL_GAIN, _LARGE_GAIN = 0.001, 0.05
"""Less is less than a quarter of an int8 step of 255; more is more than 12 steps."""


def _close(one: float, two: float) -> bool:
    return abs(one - two) <= 1e-6 * max(abs(one), abs(two))


@torch.no_grad()
def _gain(norm: Any, eps: float) -> float:
    """By which share the largest change of a channel's factor is, for another eps."""
    if norm.running_var is None:
        return 0.0
    ratio = torch.sqrt((norm.running_var + norm.eps) / (norm.running_var + eps))
    return float((ratio - 1).abs().max())


@rule("QX705", "dropout-share", "warning", "trained", flows=PT2E)
def dropout_share(subject: Subject) -> Iterator[Found]:
    """move_exported_model_to_train sets each dropout to p = 0.5

    Symptom:
        Quantization-aware training of a model with dropout is far worse than in eager mode.
    Cause:
        The switch puts a dropout of its own, written with p=0.5, in place of each one of the
        graph, also where the model was exported in train mode and nothing had to be switched.
    Fix:
        Export in train mode and train without calling the switch first; after an evaluation, set
        the p of each dropout anew, or train in a session, which keeps it.
    Sources:
        https://github.com/pytorch/ao/blob/main/torchao/quantization/pt2e/export_utils.py
    """
    before = [one for one in modes_of(subject.get(exported)) if one.name == "dropout"]
    if not before:
        return
    left = Counter(one.number("p") for one in subject.get(in_training) if one.name == "dropout")
    changed = []
    for one in before:
        if left[one.number("p")]:
            left[one.number("p")] -= 1
        else:
            changed.append(one)
    now = next((p for p, count in left.items() if count and p is not None), None)
    if not changed or now is None:
        return
    listed = shown([f"{one.path or one.source} (p = {one.number('p'):.3g})" for one in changed])
    yield Found(
        changed[0].path,
        f"torchao's move_exported_model_to_train sets {len(changed):,} of {len(before):,} dropouts "
        f"to p = {now:.3g}: {listed}. A session keeps them; a script that calls it does not.",
        "session.train(…)  # or export in train mode, and train without the switch",
        source="" if changed[0].path else changed[0].source,
    )


@rule("QX706", "left-in-training", "error", "trained", flows=PT2E)
def left_in_training(subject: Subject) -> Iterator[Found]:
    """An operation stays in training mode in eval

    Symptom:
        The same input gives another output each time in eval mode; or accuracy collapses
        (densenet121: 1.7 % in place of 72.9 %).
    Cause:
        In an exported model the mode is an argument of each operation, and .training says nothing
        of it. torchao's move_exported_model_to_eval knows dropout and batch norm. Dropout2d,
        AlphaDropout, RReLU, instance norms and what lies under torch.no_grad() stay as they are.
    Fix:
        Export in eval mode a model whose other dropouts you do not need, or put torch's own
        Dropout in their place.
    Sources:
        https://github.com/pytorch/pytorch/issues/115715
        https://github.com/pytorch/pytorch/issues/103681
    """
    stays = [one for one in subject.get(in_eval) if one.training]
    for one in stays:
        also = "a session's switch does not reach there either" if one.inside else (
            "it goes on as in training in a script that calls it, and in the converted model"
        )  # fmt: skip
        yield Found(
            one.path,
            f"torchao's move_exported_model_to_eval leaves {one.name} at "
            f"{one.path or one.source or 'the model itself'} in training mode: {also}.",
            "Take it out of torch.no_grad() in forward"
            if one.inside
            else f"model.{one.path or '…'} = nn.Dropout(p)  # for a dropout; nn.ReLU for RReLU",
            source="" if one.path else one.source,
        )
    yield from _other_than_its_flag(subject, {one.node for one in stays})


def _other_than_its_flag(subject: Subject, known: set[str]) -> Iterator[Found]:
    """Of the model being worked on: operations in train mode though the model is in eval mode."""
    work = subject.work
    if not isinstance(work, fx.GraphModule) or work.training or not subject.observed:
        return
    wrong = [one for one in modes_of(work) if one.training and one.node not in known]
    if wrong:
        yield Found(
            wrong[0].path,
            f".training of the model says eval, and {len(wrong):,} of its operations are in train "
            f"mode ({shown([one.path or one.name for one in wrong])}).",
            "torchao.quantization.pt2e.move_exported_model_to_eval(session.model)",
        )
