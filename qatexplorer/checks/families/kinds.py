"""Kinds of layers that need a qconfig of their own, or that a flow cannot take."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.ao.quantization import (
    QConfig,
    default_embedding_qat_qconfig,
    default_weight_fake_quant,
)

from qatexplorer.checks.edit_fixes import use_fx
from qatexplorer.checks.evidence.layer_trials import try_layer
from qatexplorer.checks.evidence.layers import layers
from qatexplorer.checks.records import Fix
from qatexplorer.checks.rules import Found, rule
from qatexplorer.checks.subject import Subject
from qatexplorer.flows.layer_types import TRANSPOSED

_RECURRENT = (nn.GRU, nn.RNN, nn.LSTM, nn.GRUCell, nn.RNNCell, nn.LSTMCell)
_FLOATS = torch.per_channel_affine_float_qparams

_LAYERS = Fix(
    "Wrap each layer", "configure", (("stubs", "layers"),), "session.configure(stubs='layers')"
)


def _with_qconfigs(
    subject: Subject, label: str, given: Mapping[str, QConfig | None], shown: str
) -> Fix:
    """The fix that gives the modules at these paths such a qconfig, and leaves the rest."""
    plan = subject.options.qconfig
    mapping = copy.copy(plan.given)
    if mapping is not None:
        mapping.module_name_qconfigs = OrderedDict({**mapping.module_name_qconfigs, **given})
    changed = replace(
        plan, by_path=tuple({**dict(plan.by_path), **given}.items()), given=mapping, name="custom"
    )
    whole = plan.default_of or "…"
    entries = ", ".join(f"{path!r}: {shown}" for path in given)
    code = f"session.configure(qconfig={{'': {whole!r}, {entries}}})"
    return Fix(label, "configure", (("qconfig", changed),), code)


@rule("QX131", "transposed-per-channel", "error", "int8")
def transposed_per_channel(subject: Subject) -> Iterator[Found]:
    """A transposed convolution has a scale for each channel

    Symptom:
        RuntimeError: Per Channel Quantization is currently disabled for transposed conv
    Cause:
        torch has no int8 kernel for a transposed convolution whose weight has a scale a channel,
        and the qconfigs of x86, fbgemm and onednn make such. It is said by convert, after training.
        In FX torch's default mapping of x86 and fbgemm makes an exception for them, that of onednn
        does not.
    Fix:
        Give these layers a qconfig whose weight has one scale:
        QConfig(activation=…, weight=torch.ao.quantization.default_weight_fake_quant).
    Sources:
        https://github.com/pytorch/pytorch/issues/54816
        https://github.com/pytorch/pytorch/issues/47535
    """
    known = subject.get(layers)
    found = [
        path
        for path, module in subject.layers(*TRANSPOSED)
        if type(module) in TRANSPOSED
        and path in known.qconfig
        and getattr(known.weight_of(path), "is_per_channel", False)
    ]
    if not found:
        return
    given = {
        path: QConfig(known.qconfig[path].activation, default_weight_fake_quant) for path in found
    }
    shown = "QConfig(qconfig.activation, torch.ao.quantization.default_weight_fake_quant)"
    fix = _with_qconfigs(subject, "One scale for each of their weights", given, shown)
    for path in found:
        kind = type(subject.base.get_submodule(path)).__name__
        yield Found(
            path,
            f"The weight of {path} ({kind}) has a scale for each channel, and torch has no int8 "
            f"{kind} with such: convert raises.",
            f"qconfig={{{path!r}: {shown}}}",
            (fix,),
        )


@rule("QX132", "embedding-qconfig", "error", "int8")
def embedding_qconfig(subject: Subject) -> Iterator[Found]:
    """An embedding has the qconfig of the other layers

    Symptom:
        AssertionError: Embedding quantization is only supported with
        float_qparams_weight_only_qconfig.

        AssertionError: Embedding weights requires a qscheme of
        torch.per_channel_affine_float_qparams Got torch.per_channel_symmetric.
    Cause:
        An int8 embedding keeps a float scale and zero point for each row, which the qconfig of a
        convolution does not make. FX refuses it when it prepares, eager mode in convert, after
        training.
    Fix:
        torch.ao.quantization.default_embedding_qat_qconfig for the embedding, or None to leave it
        float.
    Sources:
        https://github.com/pytorch/pytorch/issues/87187
    """
    known = subject.get(layers)
    found = [
        path
        for path, module in subject.layers(nn.Embedding, nn.EmbeddingBag)
        if type(module) in (nn.Embedding, nn.EmbeddingBag)
        and path in known.qconfig
        and getattr(known.weight_of(path), "qscheme", None) != _FLOATS
    ]
    if not found:
        return
    shown = "torch.ao.quantization.default_embedding_qat_qconfig"
    fixes = (
        _with_qconfigs(
            subject,
            "Give embeddings a qconfig of theirs",
            dict.fromkeys(found, default_embedding_qat_qconfig),
            shown,
        ),
        _with_qconfigs(subject, "Leave embeddings float", dict.fromkeys(found), "None"),
    )
    stage = subject.stage_of("inserted") if subject.flow.by_graph else None
    raises = "prepare_qat_fx" if subject.flow.by_graph else "convert"
    for path in found:
        scheme = str(getattr(known.weight_of(path), "qscheme", "none")).removeprefix("torch.")
        yield Found(
            path,
            f"The qconfig of {path} gives its weight the scheme {scheme}, and an embedding needs "
            f"per_channel_affine_float_qparams: {raises} raises.",
            f"qconfig={{{path!r}: {shown}}}",
            fixes,
            stage=stage,
        )


@rule("QX133", "recurrent-layer", "error", "int8")
def recurrent_layer(subject: Subject) -> Iterator[Found]:
    """A recurrent layer cannot be quantized in this flow

    Symptom:
        TypeError: fused_moving_avg_obs_fake_quant(): argument 'input' (position 1) must be Tensor,
        not tuple

        NotImplementedError: Could not run 'aten::zero_' with arguments from the 'QuantizedCPU'
        backend
    Cause:
        Of the recurrent layers eager mode knows nn.LSTM alone. The output of the others gets a fake
        quant, which takes one tensor and not the pair that an nn.GRU gives; and where one is given
        int8 tensors, it has no kernel for them. FX leaves all of them float.
    Fix:
        Leave it float: its qconfig None, and in eager mode a DeQuantStub before and a QuantStub
        after it. Or FX, which does the latter itself.
    Sources:
        https://github.com/pytorch/pytorch/issues/42594
        https://github.com/pytorch/pytorch/issues/71028
    """
    known = subject.get(layers)
    modules = dict(subject.base.named_modules())
    flow = "fx" if subject.flow.by_graph else "eager"
    for path, module in subject.layers(*_RECURRENT):
        kind: Any = type(module)
        if kind not in _RECURRENT or path not in known.qconfig:
            continue
        trial = try_layer(kind, "", flow)
        if trial is None or not trial.call:
            continue
        in_training = trial.call == "the first QAT forward"
        if not in_training and not _gets_int8(subject, path, modules):
            continue
        none = _with_qconfigs(subject, "Leave it float", {path: None}, "None")
        yield Found(
            path,
            f"{path} is of type {kind.__name__}, at which {trial.call} raises: {trial.error}",
            f"qconfig={{{path!r}: None}}" + ("" if flow == "fx" else ", and stubs around it"),
            (none,) if flow == "fx" else use_fx(subject),
            stage=subject.stage_of("trained") if in_training else None,
        )


def _gets_int8(subject: Subject, path: str, modules: Mapping[str, nn.Module]) -> bool:
    """Whether int8 tensors come to it: in eager mode from a module that will be int8."""
    options = subject.options
    if subject.flow.by_graph or options.stubs == "layers":
        return False
    before = subject.get(layers).before.get(path, ())
    return (options.stubs == "model" and not before) or subject.get(layers).after_int8(
        path, modules
    )


@rule("QX134", "attention", "error", "weights")
def attention(subject: Subject) -> Iterator[Found]:
    """nn.MultiheadAttention stops prepare_qat

    Symptom:
        AssertionError: qat.Linear.from_float only works for Linear, got
        NonDynamicallyQuantizableLinear
    Cause:
        The output layer of nn.MultiheadAttention is of a class that torch's own QAT table maps to
        nn.qat.Linear, and whose from_float does not take it.
    Fix:
        A table without that class: session.configure(qat_mapping='attention'), or prepare_qat with
        mapping={k: v for k, v in get_default_qat_module_mappings().items() if k is not
        NonDynamicallyQuantizableLinear}. The attention then becomes torch's quantizable one, or
        use FX, which leaves it float.
    Sources:
        https://github.com/pytorch/pytorch/issues/118165
        https://github.com/pytorch/pytorch/issues/135197
    """
    if not subject.flow.offers_fusion:
        return
    known, mapping = subject.get(layers), subject.options.qat_mapping
    taken = mapping is None or nn.modules.linear.NonDynamicallyQuantizableLinear in mapping
    fix = Fix(
        "Take torch's table without that class",
        "configure",
        (("qat_mapping", "attention"),),
        "session.configure(qat_mapping='attention')",
    )
    for path, module in subject.layers(nn.MultiheadAttention):
        inner = f"{path}.out_proj" if path else "out_proj"
        if taken and type(module) is nn.MultiheadAttention and inner in known.qconfig:
            yield Found(
                path,
                f"{inner} is a NonDynamicallyQuantizableLinear, which prepare_qat cannot swap: it "
                "raises.",
                fix.code,
                (fix, *use_fx(subject)),
            )


@rule("QX135", "prelu", "error", "int8")
def prelu(subject: Subject) -> Iterator[Found]:
    """nn.PReLU does not survive int8

    Symptom:
        IndexError: Dimension out of range (expected to be in range of [-1, 0], but got 1)
    Cause:
        With a qconfig that has a scale for each channel, convert asks the one-dimensional weight of
        nn.PReLU for a second dimension. With one scale it is converted, and the int8 module takes
        for its output the scale of something else: what it gives is far from the fake quants.
    Fix:
        Leave it float (qconfig None; in eager mode with a DeQuantStub before and a QuantStub after
        it), or use nn.ReLU or nn.LeakyReLU.
    Sources:
        https://github.com/pytorch/pytorch/blob/v2.13.0/torch/ao/nn/quantized/modules/activation.py
    """
    known = subject.get(layers)
    found = [
        path
        for path, module in subject.layers(nn.PReLU)
        if type(module) is nn.PReLU and path in known.qconfig
    ]
    for path in found:
        stops = getattr(known.weight_of(path), "is_per_channel", False)
        stops = stops and not subject.flow.by_graph
        what = "convert raises for it" if stops else "its int8 module gives something else"
        fixes: tuple[Fix, ...] = (_LAYERS,)
        if subject.flow.by_graph:
            fixes = (_with_qconfigs(subject, "Leave PReLU float", dict.fromkeys(found), "None"),)
        yield Found(
            path,
            f"{path} is a PReLU that is to be int8: {what}.",
            f"qconfig={{{path!r}: None}}",
            fixes,
        )
