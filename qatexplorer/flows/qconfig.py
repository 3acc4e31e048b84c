"""From what a user writes as ``qconfig`` to what torch takes."""

from __future__ import annotations

import copy
import difflib
import re
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn
from torch.ao.nn.intrinsic.modules.fused import _FusedModule
from torch.ao.quantization import (
    FakeQuantize,
    FakeQuantizeBase,
    FixedQParamsFakeQuantize,
    QConfig,
    QConfigMapping,
    get_default_qat_qconfig_mapping,
)
from torch.ao.quantization import get_default_qat_qconfig as torch_qat_qconfig

from qatexplorer.errors import EngineWarning, QConfigError, warn
from qatexplorer.flows.qconfig_rules import PARTS, Below, Effective, QConfigRule, Resolver
from qatexplorer.flows.quant_spec import MOST_BITS, made_by
from qatexplorer.quantizers.engine import check_engine
from qatexplorer.quantizers.engine_choice import (
    BACKENDS,
    Backend,
    EngineConcern,
    default_backend,
    engine_concern,
)
from qatexplorer.quantizers.facts import LEARNED

_FEW_BITS = (
    "Fewer than 8 bits ({shown}) are simulated in training and in the fake-quant model: torch has "
    "no integer kernels for them, so int8 stores one byte a code and is as fast as with 8."
)


@dataclass(frozen=True)
class QConfigPlan:
    """Qconfigs resolved: one for the whole model and exceptions.

    Attributes:
        default: for every module without an exception; None leaves it in float.
        by_type, by_path, by_regex: exceptions, the later kind winning, as in ``QConfigMapping``.
        backend: quantized engine that the int8 model will run on.
        name: what to show; reason: why this engine, if we chose it.
        default_of: the backend whose default ``default`` is, ``""`` if it was given.
        given: the ``QConfigMapping`` as the user gave it, None if the plan was made otherwise.
        gives_default: the user gave a qconfig for the whole model (also None).
        notes: what became of the model's own qconfig attributes; loud: what must not be missed.
        watched: (path, which observer for what) where observers stand in place of fake quants.
        rules: laid over all that, see :mod:`~qatexplorer.flows.qconfig_rules`.
    """

    default: QConfig | None
    by_type: tuple[tuple[type, QConfig | None], ...]
    by_regex: tuple[tuple[str, QConfig | None], ...]
    by_path: tuple[tuple[str, QConfig | None], ...]
    backend: str
    name: str
    reason: str = ""
    default_of: str = ""
    given: QConfigMapping | None = None
    gives_default: bool = False
    notes: tuple[str, ...] = ()
    loud: tuple[str, ...] = ()
    watched: tuple[tuple[str, str], ...] = ()
    rules: tuple[QConfigRule, ...] = ()

    @property
    def better(self) -> Any:
        """What to pass as qconfig so that fake quants stand where observers do (``watched``)."""
        given = dict.fromkeys((path for path, _ in self.watched), self.backend)
        return self.backend if list(given) == [""] else given

    @cached_property
    def learns_steps(self) -> bool:
        """Whether a qconfig or a rule gives some part a learned step size."""
        specs = [rule.of(part) for rule in self.rules for part in PARTS]
        exceptions = (*self.by_type, *self.by_regex, *self.by_path)
        given = [q for q in (self.default, *(q for _, q in exceptions)) if q is not None]
        made = [made_by(getattr(qconfig, part)) for qconfig in given for part in PARTS]
        return any(spec is not None and spec.learned for spec in specs) or any(
            LEARNED.is_fake_quant(one) for one in made
        )

    @property
    def rule_notes(self) -> tuple[str, ...]:
        """What the rules ask for that int8 does not have."""
        few = [
            f"{rule.where or 'the whole model'}: {part} {spec.bits}"
            for rule in self.rules
            for part in PARTS
            if (spec := rule.of(part)) is not None and spec.bits < MOST_BITS
        ]
        if not few:
            return ()
        shown = "; ".join(few[:3]) + (f" and {len(few) - 3:,} more" if len(few) > 3 else "")
        return (_FEW_BITS.format(shown=shown),)

    @cached_property
    def concern(self) -> EngineConcern | None:
        """What is wrong with this engine for these qconfigs on this CPU, None if nothing is."""
        tops = _activation_tops(self)
        return engine_concern(self.backend, max(tops), min(tops)) if tops else None

    def warn(self) -> None:
        """Warn with :class:`~qatexplorer.errors.EngineWarning` of an engine that computes wrong on
        this CPU."""
        if self.concern is not None and self.concern.kind != "clamps":
            warn(str(self.concern), EngineWarning)

    def as_mapping(self, model: nn.Module) -> QConfigMapping:
        """What ``prepare_qat_fx`` takes: the given mapping itself, or torch's default for the
        backend (which knows sigmoid, layer norm …) with the exceptions set on it.

        Raises QConfigError for a path or type that ``model`` does not have; a mapping given whole
        may name types that are not there, as torch's own default does.
        """
        mapping = self._mapping(model)
        if not self.rules:
            return mapping
        resolver = self.resolver(model, mapping)
        resolver.require_hits()
        mapping = copy.copy(mapping)
        named = {**mapping.module_name_qconfigs, **resolver.named()}
        mapping.module_name_qconfigs = OrderedDict(named)
        return mapping.set_global(resolver.whole())

    def resolver(self, model: nn.Module, mapping: QConfigMapping | None = None) -> Resolver:
        """What :attr:`rules` make of each module of ``model``. ``mapping`` is what they are laid
        over in FX, where torch's default has types of its own; None for eager mode."""
        whole = self.default
        types: Mapping[Any, QConfig | None] = dict(self.by_type)
        if mapping is not None:
            whole, types = mapping.global_qconfig, mapping.object_type_qconfigs
        fallback = self.default or qat_qconfig(self.backend)
        below = Below(whole, types, self.by_regex, dict(self.by_path), fallback)
        return Resolver(model, self.rules, below)

    def effective(self, model: nn.Module, path: str, by_graph: bool = False) -> Effective:
        """What holds for the module at ``path``; ``by_graph`` as FX reads the qconfig."""
        return self.everywhere(model, by_graph).at(path)

    def everywhere(self, model: nn.Module, by_graph: bool = False) -> Resolver:
        """The same for many modules: ``.at(path)``."""
        return self.resolver(model, self._mapping(model) if by_graph else None)

    def _mapping(self, model: nn.Module) -> QConfigMapping:
        paths = dict(model.named_modules())
        for pattern, _ in self.by_regex:
            _require(
                [p for p in paths if re.match(pattern, p)],
                f"path matching {pattern!r}",
                list(paths),
            )
        for path, _ in self.by_path:
            _require([path] if path in paths else [], f"path {path!r}", list(paths))
        if self.given is not None:
            return self.given
        types = {type(m) for m in paths.values()}
        if self.default_of:
            mapping = get_default_qat_qconfig_mapping(self.default_of).set_global(self.default)
        else:
            mapping = QConfigMapping().set_global(self.default)
            for pattern, qconfig in self.by_regex:
                mapping.set_module_name_regex(pattern, qconfig)
        for kind, qconfig in self.by_type:
            known = sorted(t.__name__ for t in types)
            _require([kind.__name__] if kind in types else [], f"type {kind.__name__}", known)
            mapping.set_object_type(kind, qconfig)
        for path, qconfig in self.by_path:
            mapping.set_module_name(path, qconfig)
        return mapping

    def assign(self, model: nn.Module) -> None:
        """Set ``.qconfig`` on the modules concerned; ``propagate_qconfig_`` does the rest.

        A qconfig that the user has set on a module between the stages stays. Raises QConfigError
        for a path or type that the model does not have: torch would ignore it silently.
        """
        chosen: dict[str, QConfig | None] = {}
        paths = dict(model.named_modules())
        for kind, qconfig in self.by_type:
            hits = [p for p, m in paths.items() if _is_of_type(m, kind)]
            if self.given is None:  # a mapping given whole may name what is not there
                known = sorted({type(m).__name__ for m in paths.values()})
                _require(hits, f"type {kind.__name__}", known)
            chosen |= dict.fromkeys(hits, qconfig)
        for pattern, qconfig in self.by_regex:
            hits = [p for p in paths if re.match(pattern, p)]
            _require(hits, f"path matching {pattern!r}", list(paths))
            chosen |= dict.fromkeys(hits, qconfig)
        for path, _ in self.by_path:
            _require([path] if path in paths else [], f"path {path!r}", list(paths))
            _not_inside_fused(path, paths)
            # What is said of a place holds for all below it, as in QConfigMapping.
            chosen = {p: q for p, q in chosen.items() if not f"{p}.".startswith(f"{path}.")}
        chosen |= dict(self.by_path)
        chosen.setdefault("", self.default)
        if self.rules:
            resolver = self.resolver(model)
            resolver.require_hits()
            chosen |= {**resolver.named(), "": resolver.whole()}
        for path, qconfig in chosen.items():
            if not hasattr(paths[path], "qconfig"):
                paths[path].qconfig = qconfig


def _not_inside_fused(path: str, paths: Mapping[str, nn.Module]) -> None:
    fused = path.rpartition(".")[0]
    if fused and isinstance(paths[fused], _FusedModule):
        raise QConfigError(
            f"the qconfig names {path!r}, which is a part of a fused module.",
            where=path,
            why=f"{fused!r} ({type(paths[fused]).__name__}) is quantized as one operation.",
            fix=f"Name {fused!r} instead, or leave it out of the groups to fuse.",
        )


def _is_of_type(module: nn.Module, kind: type) -> bool:
    # A fused module stands where its first layer stood, and is what the user means by that type.
    return type(module) is kind or (isinstance(module, _FusedModule) and type(module[0]) is kind)


def _require(hits: list[str], what: str, known: list[str]) -> None:
    if hits:
        return
    wanted = what.split(" ", 1)[1].strip("'")
    near = difflib.get_close_matches(wanted, known, n=3, cutoff=0.4)
    raise QConfigError(
        f"the qconfig names the {what}, which the model does not have.",
        why="torch would ignore it without a word, and the part would get the default qconfig.",
        fix=f"Nearest: {', '.join(near)}."
        if near
        else "Take a path or a type of a module that model.named_modules() lists.",
    )


def resolve_qconfig(spec: Any, engine: str | None = None) -> QConfigPlan:
    """Understand ``spec``: None, a backend name, a ``QConfig``, a dict or a ``QConfigMapping``.

    A dict maps ``""`` (the whole model), module paths or module types to any of the first three;
    None leaves that part in float. ``engine`` runs int8; where only it is named, the qconfig is
    torch's default for it. Where neither is named, a probe of this CPU chooses both
    (:func:`~qatexplorer.quantizers.engine_choice.default_backend`), and the engine alone where the
    qconfig is not a name.

    Raises UnknownEngineError, QConfigError.
    """
    named = spec.get("", None) if isinstance(spec, Mapping) else spec
    chosen = engine if engine is not None else named if isinstance(named, str) else None
    if chosen is not None:
        best = Backend(check_engine(chosen), chosen, reason="")
    else:
        best = default_backend()
    name = spec if isinstance(spec, str) else "custom"
    default_of = ""
    by_type: list[tuple[type, QConfig | None]] = []
    by_path: list[tuple[str, QConfig | None]] = []
    by_regex: list[tuple[str, QConfig | None]] = []
    default: QConfig | None
    if spec is None:
        default, name, default_of = qat_qconfig(best.qconfig), best.qconfig, best.qconfig
    elif isinstance(spec, QConfigMapping):
        default = _one(spec.global_qconfig)
        # Not checked one by one: torch's own default has entries of every kind here.
        by_type = [(k, v) for k, v in spec.object_type_qconfigs.items() if isinstance(k, type)]
        by_regex = [(k, _one(v)) for k, v in spec.module_name_regex_qconfigs.items()]
        by_path = [(k, _one(v)) for k, v in spec.module_name_qconfigs.items()]
    elif isinstance(spec, Mapping):
        whole = spec.get("", best.qconfig)
        default = _one(whole)
        default_of = whole if isinstance(whole, str) else ""
        for key, value in spec.items():
            if isinstance(key, type) and issubclass(key, nn.Module):
                by_type.append((key, _one(value)))
            elif isinstance(key, str):
                by_path += [(key, _one(value))] if key else []
            else:
                raise QConfigError(
                    f"{key!r} is neither a module path nor a module type.",
                    fix="Keys of a qconfig dict are '', paths like 'layer1.0' or nn.Linear.",
                )
    else:
        default = _one(spec)
        default_of = spec if isinstance(spec, str) else ""
    return QConfigPlan(
        default,
        tuple(by_type),
        tuple(by_regex),
        tuple(by_path),
        backend=best.engine,
        name=name,
        reason=best.reason,
        default_of=default_of,
        given=spec if isinstance(spec, QConfigMapping) else None,
        gives_default=spec is not None and (not isinstance(spec, Mapping) or "" in spec),
    )


def _activation_tops(plan: QConfigPlan) -> list[int]:
    """The codes at which the plan's activation fake quants clamp, counted from their lowest."""
    exceptions = (*plan.by_type, *plan.by_regex, *plan.by_path)
    tops = []
    for qconfig in (plan.default, *(qconfig for _, qconfig in exceptions)):
        fake_quant = _made(qconfig)
        # Sigmoid and its like have a fixed grid of their own in torch's default mapping.
        fixed = isinstance(fake_quant, FixedQParamsFakeQuantize)
        if isinstance(fake_quant, FakeQuantize) and not fixed and fake_quant.dtype == torch.quint8:
            tops.append(int(fake_quant.quant_max) - int(fake_quant.quant_min))
    for rule in plan.rules:
        spec = rule.activation
        # Fewer bits are a simulation, of which the engine's codes say nothing.
        if spec is not None and not spec.signed and spec.bits == MOST_BITS:
            tops.append(spec.quant_range[1] - spec.quant_range[0])
    return tops


def _made(qconfig: QConfig | None) -> Any:
    if qconfig is None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # reduce_range warns each time
        return qconfig.activation()


def qat_qconfig(backend: str) -> QConfig:
    """Torch's default QAT qconfig for ``backend``."""
    qconfig: QConfig = torch_qat_qconfig(backend)
    return qconfig


def _one(spec: Any) -> QConfig | None:
    if spec is None:
        return None
    if isinstance(spec, str):
        # A qconfig asks nothing of the engine of its name, which may be missing here.
        return qat_qconfig(spec if spec in BACKENDS else check_engine(spec))
    if not isinstance(spec, QConfig):
        raise QConfigError(
            f"{spec!r} is no qconfig.",
            fix="Pass a backend name, a torch.ao.quantization.QConfig, a dict, or None.",
        )
    try:
        weight = spec.weight()
        spec.activation()
    except Exception as error:
        raise QConfigError(
            "a factory of the qconfig cannot be called.",
            why=f"{type(error).__name__}: {error}",
            fix="Build it with .with_args(…); torch calls it without arguments.",
        ) from error
    if not isinstance(weight, (FakeQuantizeBase, nn.Identity)):
        raise QConfigError(
            f"the qconfig makes a {type(weight).__name__} for weights: it is one for post-training "
            "quantization.",
            why="prepare_qat would put an observer where the weight's fake quant belongs, and the "
            "weights would be trained in float.",
            fix="Use get_default_qat_qconfig(backend), or FakeQuantize.with_args(observer=…).",
        )
    return spec
