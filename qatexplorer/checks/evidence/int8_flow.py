"""Which tensors of the float model will be int8, and what the model does with them (eager mode).

A tag (int8, float, or not known) flows through the recorded forward, from stubs and modules that
become int8 to ``DeQuantStub``. What is not known leads to no finding.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn
from torch.ao.quantization import DeQuantStub, QuantStub, QuantWrapper
from torch.ao.quantization.quantization_mappings import (
    get_default_qat_module_mappings,
    get_default_static_quant_module_mappings,
)
from torch.ao.quantization.quantize import get_default_custom_config_dict
from torch.nn.utils.parametrize import type_before_parametrizations

from qatexplorer.checks.evidence.float_run import (
    JOINS,
    Entered,
    Event,
    FloatRun,
    Look,
    Operation,
    Returned,
    Value,
    float_run,
)
from qatexplorer.checks.evidence.int8_ops import Grid, on_int8
from qatexplorer.checks.subject import NoEvidence, Subject
from qatexplorer.flows.custom import OBSERVED
from qatexplorer.flows.stubs import InputStubs, has_stubs
from qatexplorer.quantizers.types import FUNCTIONAL_CLASSES

_CONVOLUTIONS = (nn.modules.conv._ConvNd,)
_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
_MANY = 16


_Kind = Literal["number", "int8", "float"]


@dataclass
class Refused:
    """An operation that int8 tensors come to and that torch cannot run on them.

    ``path`` is the module that was running, ``names`` all by which it was called; ``error`` is what
    torch says. ``others``: what else the operation was given: numbers, int8 or float tensors.
    """

    name: str
    path: str
    source: str
    error: str
    others: frozenset[_Kind]
    in_torch: str = ""
    names: list[str] = field(default_factory=list)
    count: int = 0


@dataclass
class FloatEntry:
    """A float tensor comes to a module that will be int8. ``method``: of a ``FloatFunctional``."""

    path: str
    kind: str
    method: str
    beside_int8: bool
    count: int = 0


@dataclass(frozen=True)
class Join:
    """int8 tensors of different scales in one raw cat or stack; ``looks`` are at all of them."""

    name: str
    path: str
    source: str
    looks: tuple[Look, ...]


@dataclass
class Int8Flow:
    """What was found. ``scaled``: the kind of each module that ran and has a fake quant for its
    output, by first path."""

    refused: list[Refused] = field(default_factory=list)
    entries: list[FloatEntry] = field(default_factory=list)
    joins: list[Join] = field(default_factory=list)
    scaled: dict[str, str] = field(default_factory=dict)


def int8_flow(subject: Subject) -> Int8Flow:
    """Follow int8 tensors through the float model"""
    if subject.flow.by_graph:
        raise NoEvidence("FX finds out itself where tensors are int8.")
    stage = subject.flow.stage_with("qconfig")
    if stage is None or not hasattr(subject.options, "qconfig"):
        raise NoEvidence("This flow has no qconfigs.")
    run = subject.get(float_run)
    return _Follower(subject, subject.maker.rebuild(stage.name)).follow(run)


_Role = Literal[
    "open", "same", "dropout", "quantize", "dequantize", "int8", "floats", "wrapped", "unknown"
]
_FLOAT: Literal["float"] = "float"
_UNKNOWN: Literal["unknown"] = "unknown"
_Tag = Grid | Literal["float", "unknown"]


@dataclass
class _Unit:
    """A module that is looked at as a whole."""

    event: Entered
    role: _Role
    module: nn.Module


class _Follower:
    def __init__(self, subject: Subject, marked: nn.Module) -> None:
        options = subject.options
        self._marked, self._engine = marked, options.qconfig.backend
        around = (QuantWrapper, InputStubs)
        by_us = options.stubs == "model" or not isinstance(subject.base, around)
        self._inside = isinstance(marked, around) and by_us
        self._modules = dict(marked.named_modules(remove_duplicate=False))
        self._floats = dict(subject.base.named_modules(remove_duplicate=False))
        chosen = options.qat_mapping
        self._trained = get_default_qat_module_mappings() if chosen is None else dict(chosen)
        self._int8 = get_default_static_quant_module_mappings()
        config = options.custom.for_eager()
        custom = get_default_custom_config_dict() if config is None else config
        self._custom = tuple((custom or {}).get(OBSERVED, {}))
        self._stubs = self._inside or (options.stubs == "none" and has_stubs(subject.base))
        self._tags: dict[int, _Tag] = {}
        self._unit: _Unit | None = None
        self._names = [""]  # of the modules that run and are looked into
        self._scales = 0
        self._found = Int8Flow()
        self._refused: dict[tuple[str, str, str], Refused] = {}
        self._entries: dict[tuple[str, str], FloatEntry] = {}

    def follow(self, run: FloatRun) -> Int8Flow:
        found = self._found
        if self._inside:
            for value in run.inputs:
                if value.dtype.is_floating_point:
                    self._tags[value.number] = self._grid(value)
        for event in run.events:
            self._event(event)
        found.refused, found.entries = list(self._refused.values()), list(self._entries.values())
        return found

    # -- events ----------------------------------------------------------------------------------

    def _event(self, event: Event) -> None:
        unit = self._unit
        if unit is not None:
            if isinstance(event, Returned) and event.level == unit.event.level:
                self._unit = None
                self._leave(unit, event.outputs)
                return
            if not (isinstance(event, Entered) and event.level <= unit.event.level):
                if isinstance(event, Operation):
                    self._mark(event.outputs, _UNKNOWN)
                return
            self._unit = None  # left by an exception that was caught
        if isinstance(event, Entered):
            module = self._module(event.name)
            role = self._role(module, event) if module is not None else "open"
            if module is not None and role != "open":
                self._unit = _Unit(event, role, module)
            else:
                self._names[event.level :] = [event.name]
        elif isinstance(event, Operation):
            self._operation(event)

    def _module(self, name: str) -> nn.Module | None:
        if self._inside:
            name = f"module.{name}" if name else "module"
        return self._modules.get(name)

    def _role(self, module: nn.Module, event: Entered) -> _Role:
        kind: Any = type_before_parametrizations(module)
        if isinstance(module, QuantWrapper) and not isinstance(
            self._floats.get(event.name), QuantWrapper
        ):
            return "wrapped"
        if isinstance(module, nn.Identity):
            return "same"
        if not getattr(module, "qconfig", None):
            return "same" if isinstance(module, (QuantStub, DeQuantStub)) else "open"
        if isinstance(module, QuantStub):
            return "quantize"
        if isinstance(module, DeQuantStub):
            return "dequantize"
        if kind in self._custom:
            return "unknown"
        if isinstance(module, _EMBEDDINGS):
            return "floats"
        if isinstance(module, FUNCTIONAL_CLASSES):
            return "int8" if event.method and kind in self._int8 else "open"
        if self._trained.get(kind, kind) not in self._int8:
            return "open"
        return "dropout" if isinstance(module, nn.Dropout) else "int8"

    def _leave(self, unit: _Unit, outputs: tuple[Value, ...]) -> None:
        given = [v for v in unit.event.inputs if v.dtype.is_floating_point]
        tags = [self._tag(value) for value in given]
        role, event = unit.role, unit.event
        if role in ("same", "dropout"):
            for value, tag in zip(outputs, tags or [_UNKNOWN], strict=False):
                self._tags[value.number] = tag
        elif role in ("quantize", "wrapped"):
            if any(isinstance(tag, Grid) for tag in tags):
                error = "an int8 tensor comes to a QuantStub"
                self._refuse("quantize_per_tensor", event.path, event.name, "", error, [])
            if role == "quantize":
                self._found.scaled[event.path] = type(self._floats[event.path]).__name__
            for value in outputs:
                self._tags[value.number] = self._grid(value) if role == "quantize" else _FLOAT
        elif role in ("dequantize", "floats"):
            self._mark(outputs, _FLOAT)
        elif role == "unknown":
            self._mark(outputs, _UNKNOWN)
        else:
            self._int8_unit(unit, tags, outputs)

    def _int8_unit(self, unit: _Unit, tags: list[_Tag], outputs: tuple[Value, ...]) -> None:
        event, module = unit.event, unit.module
        kind = type(self._floats.get(event.path, module)).__name__
        self._found.scaled[event.path] = kind
        floats = [tag for tag in tags if tag == _FLOAT]
        first = tags[:1] if not event.method else tags
        if floats and _FLOAT in first:
            key = (event.path, event.method)
            some = any(isinstance(tag, Grid) for tag in tags)
            entry = self._entries.setdefault(key, FloatEntry(event.path, kind, event.method, some))
            entry.count += 1
        grid = next((tag for tag in tags if isinstance(tag, Grid)), None)
        part = next(iter(module.children()), module)  # of a fused module
        for value in outputs:
            made = self._grid(value)
            if isinstance(part, _CONVOLUTIONS):
                made = Grid(value.shape, _channels_last(value.shape), made.scale)
            elif grid is not None and grid.shape == value.shape:
                made = Grid(value.shape, grid.stride, made.scale)
            self._tags[value.number] = made

    # -- operations ------------------------------------------------------------------------------

    def _operation(self, event: Operation) -> None:
        tags = [(value, self._tag(value)) for value in event.inputs]
        grids = {value.number: tag for value, tag in tags if isinstance(tag, Grid)}
        if not grids or any(tag == _UNKNOWN for _, tag in tags):
            unknown = any(tag == _UNKNOWN and v.dtype.is_floating_point for v, tag in tags)
            self._mark(event.outputs, _UNKNOWN if unknown or grids else _FLOAT)
            return
        outcome = on_int8(event, grids, self._engine)
        if not outcome.sure:
            self._mark(event.outputs, _UNKNOWN)
            return
        if outcome.error:
            called = self._called(event.path)
            others = _kinds(event, tags)
            self._refuse(event.name, event.path, called, event.source, outcome.error, others)
            # It is looked at further as if it had been put right.
            for value in event.outputs:
                floating = value.dtype.is_floating_point
                self._tags[value.number] = self._grid(value) if floating else _FLOAT
            return
        scales = {grid.scale for grid in grids.values()}
        if event.name in JOINS and len(scales) > 1:
            self._found.joins.append(Join(event.name, event.path, event.source, event.ranges))
        for value, made in zip(event.outputs, outcome.made, strict=True):
            if made is not None and made.shape != value.shape:
                made = Grid(value.shape, _contiguous(value.shape), made.scale)
            self._tags[value.number] = _FLOAT if made is None else made

    def _called(self, path: str) -> str:
        """The name that the module at ``path`` is running under."""
        module = self._floats.get(path)
        names = (n for n in reversed(self._names) if self._floats.get(n) is module)
        return next(names, path)

    def _refuse(
        self, name: str, path: str, called: str, source: str, error: str, others: Iterable[_Kind]
    ) -> None:
        found = self._refused.setdefault(
            (name, path, source), Refused(name, path, source, error, frozenset(others))
        )
        module = self._floats.get(path)
        if module is not None and type(module).__module__.startswith("torch.nn."):
            found.in_torch = type(module).__name__
        found.count += 1
        if called not in found.names and len(found.names) < _MANY:
            found.names.append(called)

    # -- tags ------------------------------------------------------------------------------------

    def _tag(self, value: Value) -> _Tag:
        return self._tags.get(value.number, _FLOAT if value.known else _UNKNOWN)

    def _mark(self, values: Iterable[Value], tag: Literal["float", "unknown"]) -> None:
        for value in values:
            self._tags[value.number] = tag

    def _grid(self, value: Value) -> Grid:
        """A grid of its own: no other has its scale."""
        self._scales += 1
        scale = 0.01 + self._scales * 2.0**-16
        return Grid(value.shape, value.stride or _contiguous(value.shape), scale)


def _kinds(event: Operation, tags: list[tuple[Value, _Tag]]) -> set[_Kind]:
    kinds: set[_Kind] = {"int8" if isinstance(tag, Grid) else "float" for _, tag in tags[1:]}
    if any(isinstance(a, (int, float)) and not isinstance(a, bool) for a in event.args):
        kinds.add("number")
    return kinds


def _contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    stride, strides = 1, []
    for size in reversed(shape):
        strides.append(stride)
        stride *= max(size, 1)
    return tuple(reversed(strides))


def _channels_last(shape: tuple[int, ...]) -> tuple[int, ...]:
    """As torch's int8 convolutions lay their result out: (N, C, …) with C innermost."""
    if len(shape) < 3:
        return _contiguous(shape)
    moved = _contiguous((shape[0], *shape[2:], shape[1]))
    return (moved[0], moved[-1], *moved[1:-1])
