"""Weights that torch does not find, or rounds in int8 only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.ao.nn import intrinsic
from torch.ao.quantization.quantization_mappings import get_default_static_quant_module_mappings
from torch.nn.utils import parametrize

from qatexplorer.checks.edit_fixes import edit_fixes, tried_edits, use_fx
from qatexplorer.checks.evidence.layer_trials import try_layer
from qatexplorer.checks.evidence.layers import layers, qat_mapping
from qatexplorer.checks.evidence.qconfigs import qconfigs
from qatexplorer.checks.rules import Found, rule
from qatexplorer.checks.subject import Subject
from qatexplorer.flows.edits import Edit
from qatexplorer.flows.edits.layers import plain_base
from qatexplorer.flows.layer_types import TRANSPOSED, WEIGHTED
from qatexplorer.forward.scripted import ScriptedPart

_NORMS = {
    "remove_weight_norm": "weight_norm",
    "remove_spectral_norm": "spectral_norm",
    "remove_pruning": "a mask of torch.nn.utils.prune",
    "remove_parametrizations": "a parametrization",
}
_HOOKS = ("remove_weight_norm", "remove_spectral_norm", "remove_pruning")


@rule("QX121", "weight-norm", "warning", "weights")
def computed_by_hook(subject: Subject) -> Iterator[Found]:
    """A weight is computed before each forward

    Symptom:
        RuntimeError: Only Tensors created explicitly by the user (graph leaves) support the
        deepcopy protocol at the moment.

        TypeError: cannot assign 'torch.FloatTensor' as parameter 'weight' (torch.nn.Parameter or
        None expected)

        AttributeError: 'Conv1d' object has no attribute 'weight_g'
    Cause:
        torch.nn.utils.weight_norm, spectral_norm and prune keep the weight as a plain tensor that a
        hook computes. copy.deepcopy refuses it, and with it prepare_qat without inplace=True; QAT
        modules want a parameter there; and the hook does not follow a layer into int8.
    Fix:
        Make a parameter of it, with remove_weight_norm, remove_spectral_norm or prune.remove, on
        the trained model: the function stays. Training then goes on without the norm or the mask.
        A session does so on its copy.
    Sources:
        https://github.com/pytorch/pytorch/issues/28594
        https://github.com/pytorch/pytorch/issues/48448
        https://github.com/ModelTC/MQBench/issues/57
    """
    yield from _computed(subject, _HOOKS)


@rule("QX122", "parametrized-weight", "warning", "weights")
def parametrized(subject: Subject) -> Iterator[Found]:
    """A weight has a parametrization that torch's QAT modules do not take

    Symptom:
        AssertionError: nnq.Conv1d.from_float only works for Conv1d but got: ParametrizedConv1d

        AssertionError: qat.Conv2d.from_float only works for Conv2d, got ParametrizedConv2d
    Cause:
        torch looks the type up without the parametrization, and then most from_float methods
        compare the type with it. nn.Linear alone was made fit. In eager mode an nn.Conv1d is left
        as it is, trains without a fake quant, and stops convert.
    Fix:
        torch.nn.utils.parametrize.remove_parametrizations(layer, "weight"), on the trained model:
        the function stays. The optimizer then trains plain weights. A session does so on its copy.
    Sources:
        https://github.com/descriptinc/descript-audio-codec/issues/81
        https://github.com/pytorch/pytorch/pull/81993
    """
    yield from _computed(subject, ("remove_parametrizations",))


def _computed(subject: Subject, names: tuple[str, ...]) -> Iterator[Found]:
    """What copying the model has changed, where torch alone stops at it."""
    modules = dict(subject.base.named_modules())
    flow = "fx" if subject.flow.by_graph else "eager"
    for one in subject.edits:
        kind: Any = type(modules.get(one.path))
        if one.name not in names or one.path not in modules:
            continue
        trial = try_layer(kind, one.name, flow)
        if trial is None or not trial.call:
            continue
        error = trial.error if len(trial.error) < 120 else f"{trial.error[:119]}…"
        yield Found(
            one.path,
            f"The weight of {one.path} ({kind.__name__}) is computed by {_NORMS[one.name]}, and "
            f"{trial.call} raises for such a layer: {error} The session's copy has a parameter "
            "there; a script of yours needs the same.",
            one.code,
        )


@rule("QX123", "subclass-left-out", "warning", "weights")
def subclass_left_out(subject: Subject) -> Iterator[Found]:
    """Eager mode leaves a subclass of a layer out

    Symptom:
        RuntimeError: mat1 and mat2 must have the same dtype, but got QUInt8 and Float

        RuntimeError: Input type (c10::quint8) and bias type (float) should be the same
    Cause:
        prepare_qat and convert look for the exact type in their tables. A class of your own that
        derives from nn.Linear or nn.Conv2d is in none: its weight gets no fake quant, stays float,
        and an int8 tensor that comes to it stops the int8 model. Nothing warns.
    Fix:
        Use torch's class itself, or FX, which follows the forward of the subclass.
    Sources:
        https://github.com/pytorch/pytorch/issues/98596
        https://discuss.pytorch.org/t/154356
    """
    if subject.flow.by_graph:
        return
    given, mapping = subject.get(qconfigs).of, qat_mapping(subject)
    skipped: dict[str, tuple[type, type]] = {}
    for path, module in subject.base.named_modules():
        kind = parametrize.type_before_parametrizations(module)
        base = next((one for one in kind.__mro__[1:] if one in WEIGHTED), None)
        if base is None or kind in mapping or kind.__module__.startswith("torch."):
            continue
        if given[path] is not None and not isinstance(module, ScriptedPart):
            skipped[path] = (kind, base)
    plain = [
        path
        for path, (kind, base) in skipped.items()
        if plain_base(subject.base.get_submodule(path)) is base
    ]
    made = tried_edits(subject, [Edit("plain_class", path) for path in plain])
    for path, (kind, base) in skipped.items():
        code = made[path].code if path in made else f"Use nn.{base.__name__}, or flow='fx'."
        label = f"Use nn.{base.__name__}"
        yield Found(
            path,
            f"{path} is a {kind.__name__}, a subclass of {base.__name__}: eager mode looks for "
            "exact types and leaves its weight float.",
            code,
            (*edit_fixes(label, made.get(path), tuple(made.values())), *use_fx(subject)),
        )


@rule("QX124", "int8-not-simulated", "warning", "weights")
def int8_not_simulated(subject: Subject) -> Iterator[Found]:
    """A weight becomes int8 and is never rounded in training

    Symptom:
        Accuracy falls when the model is converted, and training did not help against it.
    Cause:
        torch's eager tables do not agree: nn.Conv1d (without a batch norm to fuse it with) and the
        transposed convolutions have an int8 module, and no module for training. Their weights get
        no fake quant; convert rounds them for the first time.
    Fix:
        FX gives an nn.Conv1d a fake quant for its weight. For a transposed convolution neither flow
        has one: see how far int8 is from the fake quants, or leave it float.
    Sources:
        https://github.com/pytorch/pytorch/blob/v2.13.0/torch/ao/quantization/quantization_mappings.py
    """
    if not subject.flow.offers_fusion:
        return
    known, mapping = subject.get(layers), qat_mapping(subject)
    static = get_default_static_quant_module_mappings()
    for path, module in subject.base.named_modules():
        kind: Any = type(module)
        if (
            kind not in WEIGHTED
            or path not in known.qconfig
            or kind in mapping
            or kind not in static
        ):
            continue
        fused = _fused_type(subject, known.group_of(path), kind)
        if fused in mapping:
            continue
        transposed = kind in TRANSPOSED
        fix = (
            f"session.configure(qconfig={{{path!r}: None}})  # leaves it float"
            if transposed
            else "session.configure(flow='fx')  # rounds it in training"
        )
        yield Found(
            path,
            f"The weight of {path} ({kind.__name__}) becomes int8, and eager mode has no module "
            "that rounds it in training.",
            fix,
            () if transposed else use_fx(subject),
        )


def _fused_type(subject: Subject, group: tuple[str, ...], kind: type) -> Any:
    """The class that a group fuses to; None for no group. Only Conv1d has such that train."""
    if not group or kind is not nn.Conv1d:
        return None
    kinds = {type(subject.base.get_submodule(path)) for path in group}
    if nn.BatchNorm1d in kinds:
        return intrinsic.ConvBnReLU1d if nn.ReLU in kinds else intrinsic.ConvBn1d
    return intrinsic.ConvReLU1d


@rule("QX125", "scripted-part", "warning", "int8")
def scripted_part(subject: Subject) -> Iterator[Found]:
    """A part of the model is TorchScript

    Symptom:
        RuntimeError: The following operation failed in the TorchScript interpreter.
    Cause:
        A scripted or traced part is compiled already. prepare_qat and convert find none of its
        layers and say nothing; FX calls it as a whole. It stays float, and in eager mode the first
        int8 tensor that comes to it stops the int8 model.
    Fix:
        Build that part from its Python class; load_state_dict brings its weights over, the names
        are the same. A session keeps it as one float box, dequantized before and quantized after.
    Sources:
        https://github.com/pytorch/pytorch/issues/76181
    """
    total = sum(p.numel() for p in subject.base.parameters())
    for path, part in subject.layers(ScriptedPart):
        count = sum(p.numel() for p in part.parameters())
        yield Found(
            path,
            f"{path} is TorchScript: it stays float, with {count:,} of the model's {total:,} "
            "parameters.",
            f"Build {path} from its Python class and call load_state_dict.",
            severity="warning" if count else "info",
        )
