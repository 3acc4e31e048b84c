"""What is wrong with the qconfig, for this model and flow."""

from __future__ import annotations

import ast
import difflib
import inspect
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence

import torch
import torch.ao.quantization.quantize_fx
from torch import nn
from torch.ao.quantization import (
    FixedQParamsFakeQuantize,
    FusedMovingAvgObsFakeQuantize,
    get_default_qat_qconfig_mapping,
)
from torch.ao.quantization.backend_config import BackendConfig, get_native_backend_config

from qatexplorer.checks.evidence.qconfigs import QConfigs, qconfigs
from qatexplorer.checks.records import Severity
from qatexplorer.checks.rules import Found, rule
from qatexplorer.checks.subject import Subject
from qatexplorer.flows.layer_types import WEIGHTED
from qatexplorer.quantizers.facts import quant_range

_FIXED = (nn.Sigmoid, nn.Tanh, nn.Softmax, nn.Hardsigmoid)
_CONVS = tuple(kind for kind in WEIGHTED if kind is not nn.Linear)


@rule("QX301", "unmatched-qconfig", "error", "inserted")
def unmatched_qconfig(subject: Subject) -> Iterator[Found]:
    """The qconfig names a place that the model does not have

    Symptom:
        A layer that should stay float, or have another bit width, has the default fake quant, and
        torch says nothing.
    Cause:
        QConfigMapping.set_module_name, set_module_name_regex and set_object_type take any text or
        type. prepare_qat_fx looks each module up in them and never looks whether an entry was used.
    Fix:
        Take the path from model.named_modules(). A session refuses such a qconfig when it prepares
        the model.
    Sources:
        https://github.com/pytorch/pytorch/issues/85851
    """
    plan = subject.options.qconfig
    paths = [path for path, _ in subject.base.named_modules() if path]
    for path, _ in plan.by_path:
        if path and path not in paths:
            yield _unmatched(f"module {path!r}", _near(path, paths))
    for pattern, _ in plan.by_regex:
        if not any(re.match(pattern, path) for path in ("", *paths)):
            yield _unmatched(f"modules matching {pattern!r}", "")
    types = {type(module) for module in subject.base.modules()}
    for kind, _ in plan.by_type:
        if kind not in types and (plan.given is None or kind not in _torch_names()):
            near = [known for known in types if issubclass(known, kind)]
            hint = f" Its subclass {near[0].__name__} is another type to torch." if near else ""
            # A mapping given whole is handed to torch as it is, and may serve several models.
            severity: Severity = "error" if plan.given is None else "warning"
            found = _unmatched(f"type {kind.__name__}", "")
            yield Found("", f"{found.message}{hint}", found.fix, severity=severity)


def _unmatched(what: str, near: str) -> Found:
    hint = f" The nearest is {near!r}." if near else ""
    return Found(
        "",
        f"The qconfig names the {what}, which this model does not have: torch would ignore that "
        f"entry without a word.{hint}",
        f"qconfig={{{near!r}: …}}" if near else "Take names from model.named_modules().",
    )


def _near(path: str, paths: Sequence[str]) -> str:
    return next(iter(difflib.get_close_matches(path, paths, n=1, cutoff=0.4)), "")


def _torch_names() -> set[object]:
    """Types that torch's own default mapping has entries for, whatever the model."""
    return set(get_default_qat_qconfig_mapping("onednn").object_type_qconfigs)


@rule("QX302", "unsupported-dtype", "error", "int8")
def unsupported_dtype(subject: Subject) -> Iterator[Found]:
    """The qconfig's dtype has no int8 kernel

    Symptom:
        Expected input data type QUInt8 but got QInt8
        In FX nothing: the layer has no fake quants and stays float.
    Cause:
        torch's int8 layers take activations as quint8 and weights as qint8. Eager mode learns of
        another dtype when the int8 model runs. prepare_qat_fx drops a qconfig that its
        BackendConfig does not list, without a word.
    Fix:
        Observe activations with dtype=torch.quint8 and weights with dtype=torch.qint8, as torch's
        default QAT qconfigs do.
    Sources:
        https://github.com/pytorch/pytorch/issues/85851
    """
    known = subject.get(qconfigs)
    backend = subject.options.qconfig.backend
    config = subject.options.backend_config or get_native_backend_config()
    modules = dict(subject.base.named_modules())
    for place in known.places:
        activation, weight = known.made(place.qconfig)
        dtypes = (_dtype(activation), _dtype(weight))
        if None in dtypes or dtypes == (torch.quint8, torch.qint8):
            continue
        if subject.flow.by_graph:
            hit = [p for p in place.paths if not _listed(config, modules[p], dtypes)]
            effect = "prepare_qat_fx drops it, and the layer stays float"
        else:
            hit = [p for p in place.paths if not _runs(modules[p], dtypes, backend)]
            effect = f"the int8 layer of engine {backend} raises when it runs"
        if hit:
            yield Found(
                hit[0],
                f"The qconfig of {shown(hit)} asks for {_name(dtypes[0])} activations and "
                f"{_name(dtypes[1])} weights: {effect}.",
                f"qconfig={place.path or backend!r}"
                if not place.path
                else f"qconfig={{{place.path!r}: {backend!r}}}",
            )


def _dtype(fake_quant: object) -> torch.dtype | None:
    found = getattr(fake_quant, "dtype", None)
    return found if found in (torch.quint8, torch.qint8, torch.qint32) else None


def _runs(module: nn.Module, dtypes: tuple[object, object], engine: str) -> bool:
    # oneDNN's linear is the one kernel that takes signed activations.
    signed = engine == "onednn" and isinstance(module, nn.Linear)
    return dtypes[1] == torch.qint8 and (dtypes[0] == torch.quint8 or signed)


def _listed(config: BackendConfig, module: nn.Module, dtypes: tuple[object, object]) -> bool:
    """Whether the backend config has these dtypes for the type of ``module``."""
    for one in config.configs:
        if one.pattern is type(module):
            pairs = [(d.input_dtype, d.weight_dtype) for d in one.dtype_configs if not d.is_dynamic]
            return dtypes in pairs
    return True  # not a pattern of this backend: another reason, and not this rule's


@rule("QX303", "fixed-range-qconfig", "warning", "inserted")
def fixed_range_qconfig(subject: Subject) -> Iterator[Found]:
    """Sigmoid and its like get a qconfig that torch ignores

    Symptom:
        QConfig must specify a FixedQParamsObserver or a FixedQParamsFakeQuantize for fixed qparams
        ops, ignoring
    Cause:
        The range of sigmoid, tanh, softmax and hardsigmoid is known, and FX quantizes them with
        fixed scales only. torch's default mapping has entries for them;
        QConfigMapping().set_global(…) has not, and a qconfig with moving ranges is dropped.
    Fix:
        Start from get_default_qat_qconfig_mapping(backend) and change that.
    Sources:
        https://github.com/pytorch/pytorch/issues/88579
        https://github.com/pytorch/pytorch/issues/88620
    """
    plan = subject.options.qconfig
    if not subject.flow.by_graph or (plan.default_of and plan.given is None):
        return
    known = subject.get(qconfigs)
    for path, module in subject.layers(*_FIXED):
        qconfig = known.of.get(path)
        if qconfig is None or isinstance(known.made(qconfig)[0], FixedQParamsFakeQuantize):
            continue
        name = type(module).__name__
        yield Found(
            path,
            f"torch ignores the qconfig of {path} ({name}), whose range is fixed: it is left "
            "float, unless a layer after it asks for int8.",
            f"qconfig=get_default_qat_qconfig_mapping({plan.backend!r})",
        )


@rule("QX304", "per-tensor-weights", "info", "weights")
def per_tensor_weights(subject: Subject) -> Iterator[Found]:
    """One scale for all channels of a weight

    Symptom:
        Depthwise networks lose far more accuracy than with another backend's qconfig.
    Cause:
        The default qconfig named qnnpack has one scale for a whole weight. A channel whose values
        are a hundred times smaller than the largest one is left two or three codes.
    Fix:
        qconfig="onednn" has a scale for each output channel and runs on the qnnpack engine too.
    Sources:
        https://github.com/Edgecortix-Inc/pytorch_quantization/issues/5
    """
    known = subject.get(qconfigs)
    for place in known.places:
        weight = known.made(place.qconfig)[1]
        modules = dict(subject.base.named_modules())
        # A transposed convolution cannot have a scale per channel.
        hit = [p for p in place.paths if isinstance(modules[p], (nn.Linear, nn.Conv1d, nn.Conv2d))]
        if hit and _dtype(weight) == torch.qint8 and not getattr(weight, "is_per_channel", True):
            yield Found(
                place.path,
                f"Weights have one scale for all of their channels ({shown(hit)}).",
                'qconfig="onednn"' if not place.path else f'qconfig={{{place.path!r}: "onednn"}}',
            )


@rule("QX305", "fewer-bits", "info", "int8")
def fewer_bits(subject: Subject) -> Iterator[Found]:
    """Fewer than 8 bits are simulated, and 8 are stored

    Symptom:
        A 4-bit model is as large and as fast as the 8-bit one.
    Cause:
        torch has no layers with fewer bits: convert stores the 16 codes of a weight as qint8, one
        byte each, and the kernels are those of int8.
    Fix:
        Take it as a simulation of other hardware, or use all 256 codes.
    Sources:
        https://github.com/pytorch/ao/issues/4824
    """
    known = subject.get(qconfigs)
    for place in known.places:
        weight = known.made(place.qconfig)[1]
        if _dtype(weight) is None:
            continue
        low, high = quant_range(weight)
        if 0 < high - low < 127:
            yield Found(
                place.paths[0],
                f"The weights of {shown(place.paths)} use {high - low + 1} codes ({low} to "
                f"{high}), and the int8 model stores each in one byte: it gets neither smaller "
                "nor faster than with 256.",
                f"qconfig={subject.options.qconfig.backend!r}",
            )


@rule("QX306", "autocast-inside", "warning", "trained")
def autocast_inside(subject: Subject) -> Iterator[Found]:
    """A forward enters autocast, which the fused fake quant does not run under

    Symptom:
        expected scalar type Float but found BFloat16
    Cause:
        torch's default QAT qconfigs make FusedMovingAvgObsFakeQuantize, whose kernel takes float32
        only. Under autocast a layer's output is bfloat16 or half.
    Fix:
        get_default_qat_qconfig(backend, version=0) makes FakeQuantize, which runs under autocast;
        or train the prepared model in float32.
    Sources:
        https://github.com/pytorch/pytorch/issues/94371
        https://github.com/pytorch/pytorch/issues/42351
    """
    if subject.flow.by_graph:
        return  # a traced graph has no context managers: it computes in float32
    known = subject.get(qconfigs)
    seen: set[type] = set()
    for path, module in subject.layers():
        if type(module).__module__.startswith("torch.") or type(module) in seen:
            continue
        seen.add(type(module))
        inside = [
            one
            for one, layer in module.named_modules(prefix=path)
            if isinstance(layer, WEIGHTED) and _is_fused(known, one)
        ]
        line = _autocast_line(type(module)) if inside else None
        if line is not None:
            yield Found(
                path,
                f"{type(module).__name__}.forward enters autocast, and the fused fake quants of "
                f"{shown(inside)} take float32 only.",
                f"qconfig=get_default_qat_qconfig({subject.options.qconfig.backend!r}, version=0)",
                source=line,
            )


def _is_fused(known: QConfigs, path: str) -> bool:
    qconfig = known.of.get(path)
    made = known.made(qconfig) if qconfig is not None else ()
    return any(isinstance(one, FusedMovingAvgObsFakeQuantize) for one in made)


def _autocast_line(kind: type) -> str | None:
    """``"file:line"`` of a ``with autocast(…)`` in ``kind.forward`` that is not switched off."""
    try:
        lines, first = inspect.getsourcelines(kind.forward)  # type: ignore[attr-defined]
        file = inspect.getsourcefile(kind) or ""
        tree = ast.parse(textwrap.dedent("".join(lines)))
    except (OSError, TypeError, SyntaxError):
        return None
    for node in ast.walk(tree):
        for item in node.items if isinstance(node, ast.With) else ():
            call = item.context_expr
            if isinstance(call, ast.Call) and ast.unparse(call.func).endswith("autocast"):
                switch = {word.arg: word.value for word in call.keywords}.get("enabled")
                if switch is None or (isinstance(switch, ast.Constant) and switch.value is True):
                    return f"{file.rpartition('/')[2]}:{first + call.lineno - 1}"
    return None


def shown(paths: Iterable[str]) -> str:
    """Two by name, more by number."""
    names = [path or "the model itself" for path in paths]
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return (", ".join(names[:2]) if more else " and ".join(names[:2])) + more


def _name(dtype: object) -> str:
    return str(dtype).removeprefix("torch.")
