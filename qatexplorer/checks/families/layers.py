"""Layers that torch cannot quantize as they are built: padding, batch norms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from qatexplorer.checks.edit_fixes import edit_fixes, tried_edits
from qatexplorer.checks.evidence.layers import Layers, layers
from qatexplorer.checks.evidence.qconfigs import qconfigs
from qatexplorer.checks.records import Severity
from qatexplorer.checks.rules import Found, rule
from qatexplorer.checks.subject import Subject
from qatexplorer.flows.base import copy_sharing_parameters
from qatexplorer.flows.edits import Edit
from qatexplorer.flows.edits.layers import is_frozen_norm, number_of, padding_sides
from qatexplorer.flows.fusion import find_fusable
from qatexplorer.flows.layer_types import BATCH_NORMS
from qatexplorer.shown import listed

_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


# -- padding ------------------------------------------------------------------------------------


@rule("QX101", "string-padding", "error", "int8")
def string_padding(subject: Subject) -> Iterator[Found]:
    """Padding is given as a word

    Symptom:
        RuntimeError: quantized::conv1d_prepack() Expected a value of type 'List[int]' for argument
        'padding' but instead found type 'tuple'.

        TypeError: conv2d() received an invalid combination of arguments - got (Tensor, Tensor,
        Tensor, tuple of (int, int), tuple of (str, str), tuple of (int, int), int)
    Cause:
        padding="same" and padding="valid" are never turned into numbers, and the int8 convolutions
        want numbers. A convolution alone fails when it is converted, after training; one that is
        fused with its batch norm fails in the first forward of the prepared model. Neither error
        names the layer.
    Fix:
        Give the number that the word stands for: 0 for "valid", dilation * (kernel_size - 1) // 2
        for "same". Where that division leaves a rest, as with an even kernel, the two sides differ:
        put a layer that pads before the convolution, such as nn.ConstantPad1d. The weights stay as
        they are.
    Sources:
        https://github.com/pytorch/pytorch/issues/76304
        https://github.com/pytorch/pytorch/pull/77928
    """
    known = subject.get(layers)
    words: dict[str, Any] = {
        path: conv
        for path, conv in subject.layers(*_CONVS)
        if type(conv) in _CONVS and isinstance(conv.padding, str) and path in known.qconfig
    }
    edits = [
        Edit("number_padding", path)
        if number_of(conv) is not None
        else Edit("pad_layer", path, _stubs_for(subject, conv))
        for path, conv in words.items()
    ]
    made = tried_edits(subject, edits)
    for path, conv in words.items():
        number, sides = number_of(conv), padding_sides(conv)
        equal = f"the number that it stands for is {number}"
        if number is None:
            equal = f"its kernel {conv.kernel_size} is padded {sides} before and after"
        fused = any(type(_at(subject, one)) in BATCH_NORMS for one in known.group_of(path))
        when = "the first forward of the prepared model raises" if fused else "convert raises"
        yield Found(
            path,
            f"The padding of {path} is the word {conv.padding!r}: {when}; {equal}.",
            made[path].code if path in made else "",
            edit_fixes(
                "Pad by a number" if number is not None else "Pad in a layer before it",
                made.get(path),
                tuple(made.values()),
            ),
            stage=subject.stage_of("trained") if fused else None,
        )


@rule("QX102", "padding-mode", "error", "int8")
def padding_mode(subject: Subject) -> Iterator[Found]:
    """The padding mode has no int8 convolution

    Symptom:
        ValueError: 'padding_mode' replicate is not supported by quantized convolution

        AssertionError: Conv3d does not support reflection padding
    Cause:
        The int8 convolutions pad with zeros, and Conv1d and Conv2d by reflection too. "replicate"
        and "circular" raise when the model is converted, after training, and so does "reflect" of
        a Conv3d.
    Fix:
        Put a layer that pads before the convolution, and let that pad by 0. In eager mode the
        layers of these modes take float tensors only: a DeQuantStub before and a QuantStub after.
    Sources:
        https://github.com/pytorch/pytorch/blob/v2.13.0/torch/ao/nn/quantized/modules/conv.py
    """
    known = subject.get(layers)
    found: dict[str, Any] = {
        path: conv
        for path, conv in subject.layers(*_CONVS)
        if type(conv) in _CONVS and path in known.qconfig and not _mode_has_int8(conv)
    }
    pads = {p: c for p, c in found.items() if any(n for side in padding_sides(c) for n in side)}
    made = tried_edits(
        subject, [Edit("pad_layer", path, _stubs_for(subject, conv)) for path, conv in pads.items()]
    )
    for path, conv in found.items():
        code = f"model.get_submodule({path!r}).padding_mode = 'zeros'  # it pads by 0"
        yield Found(
            path,
            f"{path} pads in mode {conv.padding_mode!r}, and there is no int8 "
            f"{type(conv).__name__} that does: convert raises.",
            made[path].code if path in made else code,
            edit_fixes("Pad in a layer before it", made.get(path), tuple(made.values())),
        )


def _mode_has_int8(conv: Any) -> bool:
    reflects = conv.padding_mode == "reflect" and not isinstance(conv, nn.Conv3d)
    return conv.padding_mode == "zeros" or reflects


def _stubs_for(subject: Subject, conv: Any) -> str | None:
    """``"float"`` where the layer that pads has to stand between stubs."""
    takes_int8 = conv.padding_mode == "zeros" or _mode_has_int8(conv)
    between = subject.flow.offers_stubs and subject.options.stubs != "layers"
    return "float" if between and not takes_int8 else None


def _at(subject: Subject, path: str) -> nn.Module:
    return subject.base.get_submodule(path)


# -- batch norms --------------------------------------------------------------------------------


@rule("QX105", "norm-without-affine", "error", "fused")
def norm_without_affine(subject: Subject) -> Iterator[Found]:
    """A batch norm has no weight and no bias

    Symptom:
        AssertionError: Only support fusing BatchNorm2d with affine set to True

        RuntimeError: Weight must be provided

        AttributeError: 'NoneType' object has no attribute 'device'
    Cause:
        The fused modules of training, and the int8 BatchNorm2d and BatchNorm3d, read the weight and
        bias of the batch norm, and with affine=False both are None. FX fuses each batch norm with
        the layer before it and stops there; in eager mode fuse_modules_qat does.
    Fix:
        Give it a weight of ones and a bias of zeros that do not learn: it computes, and trains, as
        before.
    Sources:
        https://github.com/pytorch/pytorch/issues/72049
        https://github.com/pytorch/pytorch/pull/45474
    """
    known = subject.get(layers)
    edits = [
        Edit("frozen_affine", path)
        for path, norm in subject.layers(*BATCH_NORMS)
        if type(norm) in BATCH_NORMS and not norm.affine and norm.track_running_stats
    ]
    if not edits:
        return
    made = tried_edits(subject, edits)
    groups = _groups_with(subject, edits)
    bad = {e.path: e for e in edits if _stops(known, groups, e.path, _at(subject, e.path))}
    for path in bad:
        group = next((group for group in groups if path in group), ())
        alone = f"there is no int8 {type(_at(subject, path)).__name__} without them"
        why = f"torch cannot fuse it with {group[0]}" if group else alone
        yield Found(
            path,
            f"{path} has no weight and bias (affine=False): {why}.",
            made[path].code if path in made else "",
            edit_fixes(
                "Give it ones and zeros", made.get(path), [made[p] for p in bad if p in made]
            ),
            stage=None if group else subject.stage_of("int8"),
        )


def _groups_with(subject: Subject, edits: Sequence[Edit]) -> Any:
    """The groups that would be fused if these batch norms had a weight and a bias."""
    twin = copy_sharing_parameters(subject.base)
    for one in edits:
        norm: Any = twin.get_submodule(one.path)
        norm.affine = True
    return find_fusable(twin, subject.options.graph)


def _stops(known: Layers, groups: Any, path: str, norm: nn.Module) -> bool:
    group = next((group for group in groups if path in group), ())
    if group:
        return group[0] in known.qconfig
    return path in known.qconfig and not isinstance(norm, nn.BatchNorm1d)


@rule("QX106", "norm-without-statistics", "error", "fused")
def norm_without_statistics(subject: Subject) -> Iterator[Found]:
    """A batch norm keeps no statistics

    Symptom:
        AssertionError: Only support fusing BatchNorm2d with tracking_running_stats set to True

        NotImplementedError: Could not run 'quantized::batch_norm2d' …
    Cause:
        With track_running_stats=False a batch norm computes mean and variance of each batch, in
        eval mode too. Neither the fused modules nor the int8 ones can: they have the statistics as
        numbers.
    Fix:
        Let it keep statistics (track_running_stats=True) and train the float model until they are
        right, or use a GroupNorm or InstanceNorm, which have none.
    Sources:
        https://github.com/pytorch/pytorch/blob/v2.13.0/torch/ao/quantization/fuser_method_mappings.py
    """
    known = subject.get(layers)
    for path, norm in subject.layers(*BATCH_NORMS):
        if (
            type(norm) not in BATCH_NORMS
            or norm.track_running_stats
            or norm.running_mean is not None
        ):
            continue
        before = [
            one
            for one in known.before.get(path, ())
            if isinstance(_at(subject, one), (*_CONVS, nn.Linear)) and one in known.qconfig
        ]
        in_fx = before if subject.flow.by_graph else []
        if in_fx or (path in known.qconfig and not isinstance(norm, nn.BatchNorm1d)):
            what = f"fuse it with {before[0]}" if before else "make an int8 one of it"
            yield Found(
                path,
                f"{path} keeps no statistics (track_running_stats=False): torch cannot {what}.",
                f"{path}: track_running_stats=True, and train the float model again.",
                stage=None if before else subject.stage_of("int8"),
            )


@rule("QX107", "other-batch-norm", "warning", "int8")
def other_batch_norm(subject: Subject) -> Iterator[Found]:
    """A batch norm of another class than torch's quantization knows

    Symptom:
        NotImplementedError: Could not run 'aten::native_batch_norm' with arguments from the
        'QuantizedCPU' backend

        RuntimeError: promoteTypes with quantized numbers is not handled yet
    Cause:
        torch fuses and swaps exactly BatchNorm1d, BatchNorm2d and BatchNorm3d. SyncBatchNorm, and
        the FrozenBatchNorm2d of torchvision and detectron2, are neither fused with the convolution
        before them nor made int8: in eager mode the int8 model stops there, in FX they are computed
        in float, between two conversions.
    Fix:
        Put a BatchNorm with the same numbers there. For a frozen one keep weight and bias frozen,
        and freeze the statistics from the first epoch on (freeze_bn_epoch=0).
    Sources:
        https://github.com/pytorch/pytorch/issues/41642
        https://github.com/pytorch/pytorch/issues/42113
    """
    known = subject.get(layers)
    modules = dict(subject.base.named_modules())
    norms = {
        path: norm
        for path, norm in modules.items()
        if isinstance(norm, nn.SyncBatchNorm) or is_frozen_norm(norm)
    }
    values = {path: _dimensions(known, path, norm) for path, norm in norms.items()}
    wanted = [Edit("plain_batch_norm", p, value) for p, value in values.items() if value]
    made = tried_edits(subject, wanted)
    for path, norm in norms.items():
        if subject.get(qconfigs).of[path] is None:
            continue
        stops = not subject.flow.by_graph and known.after_int8(path, modules)
        stops = stops and subject.options.stubs != "layers"
        severity: Severity = "error" if stops else "warning"
        then = "the int8 model stops there" if stops else "it is not fused, and stays float"
        yield Found(
            path,
            f"{path} is a {type(norm).__name__}, which torch's quantization does not know: {then}.",
            made[path].code if path in made else "",
            edit_fixes("Put a BatchNorm there", made.get(path), tuple(made.values())),
            severity=severity,
        )


def _dimensions(known: Layers, path: str, norm: nn.Module) -> int | None:
    for number in (1, 2, 3):
        if f"{number}d" in type(norm).__name__:
            return number
    shape = known.shape.get(path)
    return max(1, len(shape) - 2) if shape is not None and 2 <= len(shape) <= 5 else None


@rule("QX108", "zero-gamma", "error", "trained")
def zero_gamma(subject: Subject) -> Iterator[Found]:
    """The weight of a fused batch norm holds zeros

    Symptom:
        RuntimeError: `zero_point` must be between `quant_min` and `quant_max`.

        The loss is NaN from the first step on.
    Cause:
        The fused convolution and batch norm scale the weight by gamma, round it, and divide the
        result by gamma again: 0 / 0. ResNets whose last batch norm of each block starts at zero
        (zero_init_last of timm, zero_init_residual of torchvision) are built so.
    Fix:
        Train the float model first, or load its weights: no gamma is exactly zero then. Or let the
        fused modules compute it the slow way, which does not divide by gamma.
    Sources:
        https://github.com/pytorch/pytorch/blob/v2.13.0/torch/ao/nn/intrinsic/qat/modules/conv_fused.py
    """
    known = subject.get(layers)
    fused: dict[str, str] = {}
    for path, norm in subject.layers(*BATCH_NORMS):
        group, weight = known.group_of(path), norm.weight
        zero = isinstance(weight, torch.Tensor) and bool((weight == 0).any())
        if zero and group and group[0] in known.qconfig:
            fused[path] = group[0]
    if not fused:
        return
    path, conv = next(iter(fused.items()))
    weight = _at(subject, path).weight
    assert isinstance(weight, torch.Tensor)
    zeros = int((weight == 0).sum())
    others = listed(list(fused)[1:])
    more = f" So it is at {others}." if others else ""
    slow = "_enable_slow_path_for_better_numerical_stability"
    yield Found(
        path,
        f"{zeros:,} of {weight.numel():,} weights of {path} are 0, and {conv}, fused with it, "
        f"divides by them: what it gives is NaN.{more}",
        f"for m in prepared.modules():\n    if hasattr(m, {slow!r}):\n        m.{slow} = True",
    )
