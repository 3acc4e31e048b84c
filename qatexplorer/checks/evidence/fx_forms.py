"""Functional layers (F.linear, F.conv2d …) as the model calls them, and whether FX converts them.

FX looks for weight and bias at certain places and hands the other arguments to the int8 kernel as
they were written. Each form of a call is tried in a model of that call alone, once in a process.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.ao.quantization import QConfigMapping
from torch.ao.quantization.backend_config import BackendPatternConfig, get_native_backend_config
from torch.ao.quantization.quantize_fx import convert_fx, prepare_qat_fx
from torch.utils._pytree import tree_map_only

from qatexplorer.checks.evidence.float_run import Operation, Value, float_run
from qatexplorer.checks.subject import NoEvidence, Subject
from qatexplorer.forward.preserve import preserved_rng
from qatexplorer.quantizers.engine import quantized_engine
from qatexplorer.quantizers.types import KEEPING
from qatexplorer.shown import first_line

LAYERS = ("linear", "conv1d", "conv2d", "conv3d")
_ARGUMENTS = {
    "linear": ("input", "weight", "bias"),
    "conv": ("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
}
_DEFAULTS: dict[str, Any] = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}


@dataclass(frozen=True)
class Form:
    """A call that FX does not convert. ``written``: the arguments as they have to be written;
    ``error``: torch's."""

    operation: Operation
    written: str
    error: str
    count: int


def fx_forms(subject: Subject) -> tuple[Form, ...]:
    """Convert each kind of functional layer call"""
    if not subject.flow.by_graph:
        raise NoEvidence("Eager mode quantizes modules only.")
    run, plan = subject.get(float_run), subject.options.qconfig
    leaves = _calls_of_modules(subject)
    found: dict[tuple[str, str, str], Form] = {}
    for operation in run.operations:
        if operation.name not in LAYERS or operation.path in leaves:
            continue
        mapping = _mapping(subject, operation)
        error = "" if mapping is None else _tried(operation, mapping, plan.backend)
        if error:
            key = (operation.name, operation.path, operation.source)
            count = found[key].count + 1 if key in found else 1
            found[key] = Form(operation, _written(operation, run.parameters), error, count)
    return tuple(found.values())


def _calls_of_modules(subject: Subject) -> frozenset[str]:
    """Paths of modules that stay one call, in whose forward nothing is traced."""
    custom = subject.options.custom.for_fx()
    kinds = tuple(custom.non_traceable_module_classes)
    paths = set()
    for path, module in subject.base.named_modules():
        whole = path in custom.non_traceable_module_names or type(module) in kinds
        torchs = type(module).__module__.startswith(("torch.nn.", "torch.ao."))
        torchs = torchs and not isinstance(module, (nn.Sequential, nn.ModuleList))
        if whole or torchs:
            paths |= {f"{path}.{name}".strip(".") for name, _ in module.named_modules()} | {path}
    return frozenset(paths)


def _mapping(subject: Subject, operation: Operation) -> QConfigMapping | None:
    """The qconfigs in force for ``operation``; None if it stays float."""
    plan = subject.options.qconfig
    mapping = plan.as_mapping(subject.base)
    parts = operation.path.split(".")
    prefixes = [".".join(parts[:n]) for n in range(len(parts), 0, -1)]
    own = next((p for p in prefixes if p in mapping.module_name_qconfigs), None)
    chosen = mapping.module_name_qconfigs[own] if own is not None else mapping.global_qconfig
    if own is None and operation.func in mapping.object_type_qconfigs:
        chosen = mapping.object_type_qconfigs[operation.func]
    if chosen is None or mapping.module_name_regex_qconfigs:
        return None
    return QConfigMapping().set_global(chosen)


_KNOWN: dict[Any, str] = {}


def _tried(operation: Operation, mapping: QConfigMapping, engine: str) -> str:
    form = tree_map_only(Value, lambda _value: "tensor", (operation.args, operation.kwargs))
    given = [
        (name, type(value).__name__, isinstance(value, (tuple, list)) and len(value))
        for name, value in (*enumerate(form[0]), *sorted(form[1].items()))
    ]
    key = (operation.name, repr(given), repr(mapping.global_qconfig), engine)
    if key not in _KNOWN:
        _KNOWN[key] = _error_of(operation, mapping, engine)
    return _KNOWN[key]


class _OneCall(nn.Module):
    """The call alone: its first tensor is the input, the others are parameters."""

    def __init__(self, operation: Operation) -> None:
        super().__init__()
        self.operation = operation
        self.numbers = list(dict.fromkeys(value.number for value in operation.inputs))
        values = {value.number: value for value in operation.inputs}
        for number in self.numbers[1:]:
            drawn = torch.rand(values[number].shape) - 0.5
            setattr(self, f"p{number}", nn.Parameter(drawn))

    def forward(self, x: Tensor) -> Any:
        def tensor(value: Value) -> Any:
            return x if value.number == self.numbers[0] else getattr(self, f"p{value.number}")

        given = (self.operation.args, self.operation.kwargs)
        args, kwargs = tree_map_only(Value, tensor, given)
        return self.operation.func(*args, **kwargs)


def _error_of(operation: Operation, mapping: QConfigMapping, engine: str) -> str:
    """What torch says to it in int8, ``""`` if it runs or does not even in float."""
    with (
        quantized_engine(engine),
        preserved_rng(),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        try:
            model = _OneCall(operation).train()
            first = operation.inputs[0]
            inputs = torch.rand(1, *first.shape[1:])
            prepared = prepare_qat_fx(model, mapping, (inputs,))
            prepared(inputs)
        except Exception:
            return ""
        try:
            int8 = convert_fx(prepared.eval())
            with torch.no_grad():
                int8(inputs)
        except Exception as error:
            text = first_line(error)
            return f"{type(error).__name__}: {text.partition(' Declaration: ')[0].rstrip('.')}"
    return ""


def _written(operation: Operation, parameters: Mapping[int, str]) -> str:
    """The arguments of ``operation`` as FX converts them: all by position, numbers as tuples."""
    names = _ARGUMENTS["linear" if operation.name == "linear" else "conv"]
    given = dict(zip(names, operation.args, strict=False)) | operation.kwargs
    dims = int(operation.name[4]) if operation.name.startswith("conv") else 0
    shown = []
    for name in names:
        value = given.get(name, _DEFAULTS.get(name))
        if isinstance(value, Value):
            own = parameters.get(value.number, "")
            inside = own.removeprefix(f"{operation.path}." if operation.path else "")
            shown.append(f"self.{inside}" if own else "x" if name == "input" else name)
        elif name in ("stride", "padding", "dilation") and isinstance(value, int):
            shown.append(repr((value,) * dims))
        elif isinstance(value, list):
            shown.append(repr(tuple(value)))
        else:
            shown.append(repr(value))
    return f"F.{operation.name}({', '.join(shown)})"


def unmatched(subject: Subject) -> tuple[str, ...]:
    """Look for operations without a pattern

    Names of the operations on float tensors, one for each call, that no pattern of the backend
    config has and that do more than to hand values on.
    """
    if not subject.flow.by_graph:
        raise NoEvidence("Eager mode has no backend config.")
    config = subject.options.backend_config or get_native_backend_config()
    known = {getattr(part, "__name__", str(part)) for c in config.configs for part in _parts(c)}
    modules = {part for c in config.configs for part in _parts(c) if isinstance(part, type)}
    inside = _calls_of_modules(subject)
    types = {path: type(module) for path, module in subject.base.named_modules()}
    names = []
    for operation in subject.get(float_run).operations:
        floats = [v for v in operation.inputs if v.dtype.is_floating_point]
        made = [v for v in operation.outputs if v.dtype.is_floating_point]
        name = operation.name.removesuffix("_")
        plain = name in KEEPING or name in known or name.lstrip("ir") in known
        matched = operation.path in inside and types[operation.path] in modules
        if floats and made and not plain and not matched:
            names.append(name)
    return tuple(names)


def _parts(config: BackendPatternConfig) -> Iterator[Any]:
    waiting: list[Any] = [config.pattern]
    while waiting:
        part = waiting.pop()
        if isinstance(part, (tuple, list)):
            waiting += part
        elif part is not None:
            yield part
