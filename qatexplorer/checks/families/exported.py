"""What PT2E leaves float, and what its switches change, without a word: QX701 to QX709."""

from __future__ import annotations

import copy
import importlib
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import fx, nn

from qatexplorer.checks.evidence.convert_gap import LayerGap, convert_gap
from qatexplorer.checks.evidence.exported import (
    LAYERS,
    Mode,
    Operation,
    annotated,
    exported,
    modes_of,
    operation_name,
    operations_of,
    prepared_graph,
    regions_of,
    weights_rounded,
)
from qatexplorer.checks.evidence.prepared import prepared_model
from qatexplorer.checks.evidence.weights import kernel_scale
from qatexplorer.checks.families.observers import switch_line
from qatexplorer.checks.families.settings import shown
from qatexplorer.checks.rules import Found, rule
from qatexplorer.checks.subject import NoEvidence, Subject
from qatexplorer.evaluate.parity import percent
from qatexplorer.flows.base import FlowKind
from qatexplorer.forward.exported import is_int8_kernel, stack_of
from qatexplorer.forward.graph_module import source_of
from qatexplorer.quantizers.facts import fake_quants, flags_of

PT2E: tuple[FlowKind, ...] = ("annotation",)
TORCHAO: tuple[FlowKind, ...] = ("annotation", "layers")


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


def copy_of(model: fx.GraphModule) -> fx.GraphModule:
    """A deep copy, without what torch warns of its own classes while it is made."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return copy.deepcopy(model)


def switched(model: fx.GraphModule, training: bool) -> fx.GraphModule:
    """A copy of ``model`` that torchao's own switch has put into a mode."""
    pt2e = importlib.import_module("torchao.quantization.pt2e")
    twin = copy_of(model)
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
        Give the batch norm eps=1e-5 before exporting, and add what it loses to its running
        variance: it computes the same in eval mode, and trains on from there.
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
            _with_constants(path, norm, eps if other_eps else None, momentum),
            severity="error" if far > _LARGE_GAIN else "warning" if far > _SMALL_GAIN else "info",
        )


def _with_constants(path: str, norm: Any, eps: float | None, momentum: float | None) -> str:
    """Code that makes the float model's batch norm compute the same with PT2E's constants."""
    name = f"model.get_submodule({path!r})"
    lines = []
    if eps is not None:
        if norm.running_var is not None:
            lines.append(f"{name}.running_var += {norm.eps - eps!r}")
        lines.append(f"{name}.eps = {eps!r}")
    if norm.momentum is not None and momentum is not None and not _close(momentum, norm.momentum):
        lines.append(f"{name}.momentum = {momentum!r}")
    return "; ".join(lines)


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
    if not stays:
        return
    own = copy_of(subject.get(prepared_graph)).eval()
    kept = {one.node for one in modes_of(own) if one.training}
    for one in stays:
        also = "it goes on as in training in a script that calls it, and in the converted model"
        if one.node in kept:
            also = "the switch of a session does not reach there either"
        yield Found(
            one.path,
            f"torchao's move_exported_model_to_eval leaves {one.name} at "
            f"{one.path or one.source or 'the model itself'} in training mode: {also}.",
            "Take it out of torch.no_grad() in forward"
            if one.inside
            else f"model.{one.path or '…'} = nn.Dropout(p)  # for a dropout; nn.ReLU for RReLU",
            source="" if one.path else one.source,
        )


@rule("QX710", "mode-of-the-graph", "error", "trained", flows=PT2E)
def mode_of_the_graph(subject: Subject) -> Iterator[Found]:
    """The model says one mode and its operations compute in the other

    Symptom:
        A model in eval mode gives another output each time; densenet121 has 1.7 % top-1 in place
        of 72.9 %. Or nothing drops out in training.
    Cause:
        In an exported model each dropout and batch norm has a mode of its own, which .training
        says nothing of: a switch of torchao's sets the operations and not the flag, and setting
        the flag by hand sets no operation.
    Fix:
        Call model.eval() or model.train() of the session's model: both are set then.
    Sources:
        https://github.com/pytorch/pytorch/issues/115715
    """
    work = subject.work
    if not isinstance(work, fx.GraphModule):
        raise NoEvidence("The model is no exported graph yet.")
    known = {one.node for one in subject.get(in_eval) if one.training}
    modes = [one for one in modes_of(work) if one.node not in known and not one.inside]
    wrong = [one for one in modes if one.training != work.training]
    if wrong:
        says, computes = ("train", "eval") if work.training else ("eval", "train")
        verb = "is" if len(wrong) == 1 else "are"
        yield Found(
            wrong[0].path,
            f".training of the model says {says}, and {len(wrong):,} of {len(modes):,} operations "
            f"that have a mode {verb} in {computes} mode "
            f"({shown([one.path or one.name for one in wrong])}).",
            f"model.{says}()",
            source="" if wrong[0].path else wrong[0].source,
        )


# -- what convert and the backend make of it -------------------------------------------------------


@rule("QX707", "scale-of-convert", "info", "reference", flows=PT2E)
def scale_of_convert(subject: Subject) -> Iterator[Found]:
    """Convert computes another scale than the one that the weights were trained with

    Symptom:
        Weights of the converted model do not match those of the prepared one, though everything is
        frozen.
    Cause:
        FusedMovingAvgObsFakeQuantize rounds in training with the scale of its kernel, which
        divides the range of a symmetric weight by 127 or 128. convert_pt2e of torchao 0.18 asks
        calculate_qparams(), which divides by 127.5: up to 0.4 % apart, and 7 % at 4 bits. A channel
        whose weights have one sign is rounded twice as finely in training.
    Fix:
        Give the quantizer's specs FakeQuantize in place of the fused one: it asks
        calculate_qparams() in training too. It is slower.
    Sources:
        https://github.com/pytorch/ao/pull/4824
    """
    model = subject.get(prepared_graph)
    modules = dict(model.named_modules(remove_duplicate=False))
    apart = []
    for site, (owner, weight) in weights_rounded(model).items():
        one = kernel_scale(modules[site], weight)
        if one is not None and one.moved:
            apart.append((owner or site, one))
    if not apart:
        return
    where, worst = max(apart, key=lambda pair: pair[1].off_by)
    moved = sum(one.moved for _, one in apart) / sum(one.values for _, one in apart)
    one_sign = sum(one.one_sign for _, one in apart)
    more = f" ({one_sign:,} channels have weights of one sign only)" if one_sign else ""
    yield Found(
        where,
        f"Weights are trained with steps up to {percent(worst.off_by)} from those that convert "
        f"computes{more}: {percent(moved)} of the weights get a value more than half a step away.",
        _NOT_FUSED,
        severity="warning" if worst.codes < _EIGHT_BITS and not one_sign else "info",
    )


_NOT_FUSED = "QuantizationSpec(observer_or_fake_quant_ctr=FakeQuantize.with_args(observer=…), …)"
_EIGHT_BITS = 255
_LOW, _VERY_LOW = 25.0, 10.0
"""dB: noise of 5.6 % and of 32 % of the signal. Rounding weights the other way leaves 35 to 50."""


@rule("QX708", "convert-parts", "warning", "int8", flows=TORCHAO)
def convert_parts(subject: Subject) -> Iterator[Found]:
    """The converted model computes something else than the prepared one

    Symptom:
        The metric falls at convert_pt2e, before any backend has the model.
    Cause:
        Both are run in eval mode on the example input, and each operation's result is compared (in
        torchao's QAT each weight): signal to noise in dB, which is how torchao's maintainers
        measure it. A fake quant that is off, a scale that convert computes otherwise, weights of
        few bits and groups of another size are what parts them.
    Fix:
        Begin at the first layer that the finding names.
    Sources:
        https://github.com/pytorch/ao/pull/2937
        https://github.com/pytorch/ao/issues/2138
    """
    gap = subject.get(convert_gap)
    if not gap.output < _LOW:
        return
    low = [one for one in gap.layers if one.decibels < _LOW]
    worst = sorted(low, key=lambda one: one.decibels)[:_LISTED]
    first = f", first at {_layer(low[0])}" if low else ""
    lowest = f" Lowest: {', '.join(map(_layer, worst))}." if len(low) > 1 else ""
    yield Found(
        low[0].path if low else "",
        f"After convert the output has an SQNR of {gap.output:.1f} dB against the prepared "
        f"model{first}.{lowest}",
        _begin(subject, low[0].path if low else ""),
        severity="error" if gap.output < _VERY_LOW else None,
    )


def _begin(subject: Subject, path: str) -> str:
    """What to do about it, as far as the model shows the cause."""
    sites = fake_quants(subject.get(prepared_model)).values()
    off = next((site for site in sites if not flags_of(site).fake_quant), None)
    if off is not None:
        return f"{switch_line(off, 'enable_fake_quant')}  # and train on"
    if subject.flow.kind() == "layers":
        return f"Compare groups and scales of {path or 'each weight'} before and after."
    if any(scale_of_convert(subject)):
        return _NOT_FUSED
    return f"Compare weight, scale and zero point of {path or 'each layer'} before and after."


_LISTED = 4


def _layer(one: LayerGap) -> str:
    return f"{one.name} of {one.path or 'the model itself'} ({one.decibels:.1f} dB)"


@rule("QX709", "pairs-left", "warning", "int8", flows=PT2E)
def pairs_left(subject: Subject) -> Iterator[Found]:
    """The backend has left quantize and dequantize around operations that stay float

    Symptom:
        The lowered model is no faster than the float one, or slower.
    Cause:
        The quantizer wrote on an operation for which the backend has no int8 kernel. Its input is
        rounded, made float again, and computed in float: two passes over the tensor for nothing.
    Fix:
        Take these operations out of the quantizer's settings, or lower to a backend that has a
        kernel for them.
    Sources:
        https://github.com/pytorch/executorch/issues/9858
    """
    if not isinstance(subject.int8, fx.GraphModule):
        raise NoEvidence(f"Known from stage {subject.flow.int8_stage!r} on.")
    left = [
        (node, user)
        for node in subject.int8.graph.nodes
        if operation_name(node).startswith("dequantize_")
        for user in node.users
        if user.op == "call_function" and not is_int8_kernel(user)
    ]
    if not left:
        return
    counts = Counter(operation_name(user) for _, user in left)
    names = ", ".join(f"{name} ({count:,})" for name, count in counts.most_common(_LISTED))
    user = left[0][1]
    path = next((path for path, _ in reversed(stack_of(user))), "")
    borders = "1 tensor is" if len(left) == 1 else f"{len(left):,} tensors are"
    yield Found(
        path,
        f"{borders} rounded and made float again in the lowered model, for operations that compute "
        f"in float: {names}.",
        "Leave these operations out of what the quantizer annotates.",
        source="" if path else source_of(user),
    )
