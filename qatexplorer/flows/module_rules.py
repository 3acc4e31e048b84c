"""Rules that give some modules another qconfig: what they say, whom they match, what is refused."""

from __future__ import annotations

import copy
import difflib
import re
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import nn
from torch.ao.quantization import FakeQuantize, QConfig, propagate_qconfig_
from torch.ao.quantization.observer import (
    HistogramObserver,
    MinMaxObserver,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    PerChannelMinMaxObserver,
)

from qatexplorer.errors import QConfigError
from qatexplorer.flows.base import copy_sharing_parameters
from qatexplorer.flows.qconfig import QConfigPlan

ObserverName = Literal["moving_average", "min_max", "histogram"]
Side = Literal["activation", "weight"]

SIDES: tuple[Side, ...] = get_args(Side)
OBSERVERS: tuple[ObserverName, ...] = get_args(ObserverName)
LEAST_BITS, MOST_BITS = 2, 8
TYPE, PATTERN = "type:", "re:"

_CLASSES: dict[tuple[str, bool], type] = {
    ("moving_average", False): MovingAverageMinMaxObserver,
    ("moving_average", True): MovingAveragePerChannelMinMaxObserver,
    ("min_max", False): MinMaxObserver,
    ("min_max", True): PerChannelMinMaxObserver,
    ("histogram", False): HistogramObserver,
}


@dataclass(frozen=True)
class QuantSpec:
    """One fake quant in words: what observes the range, and the grid.

    Attributes:
        observer: "moving_average" and "min_max" of the values, "histogram" for the range with the
            least error.
        bits: 2 to 8; below 8 int8 kernels hold the same codes in 8 bits.
        per_channel: a scale for each output channel, of weights only.
        symmetric: the zero point is in the middle of the grid.
        reduce_range: half of the codes of 8 bits, for engines that saturate.
    """

    observer: ObserverName = "moving_average"
    bits: int = 8
    per_channel: bool = False
    symmetric: bool = False
    reduce_range: bool = False

    @property
    def words(self) -> str:
        """E.g. ``"4 bits, per channel, symmetric, moving average"``."""
        parts = [f"{self.bits} bits", "per channel" if self.per_channel else "per tensor"]
        parts.append("symmetric" if self.symmetric else "affine")
        parts.append(self.observer.replace("_", " "))
        return ", ".join(parts + (["reduce_range"] if self.reduce_range else []))

    def factory(self, side: Side) -> Any:
        """What torch's ``QConfig`` takes: makes a fake quant of unsigned codes for activations, of
        signed ones for weights."""
        levels = 2 ** (self.bits - int(self.reduce_range))
        low = 0 if side == "activation" else -levels // 2
        if self.per_channel:
            scheme = torch.per_channel_symmetric if self.symmetric else torch.per_channel_affine
        else:
            scheme = torch.per_tensor_symmetric if self.symmetric else torch.per_tensor_affine
        return FakeQuantize.with_args(
            observer=_CLASSES[self.observer, self.per_channel],
            quant_min=low,
            quant_max=low + levels - 1,
            dtype=torch.quint8 if side == "activation" else torch.qint8,
            qscheme=scheme,
            **({"ch_axis": 0} if self.per_channel else {}),
        )


@dataclass(frozen=True)
class QConfigRule:
    """Another qconfig for some modules.

    Attributes:
        where: path of a module (and all below it), ``"type:"`` and the name of a class, or
            ``"re:"`` and a regular expression that paths match from their begin on.
        activation, weight: None stays as it is without the rule.
        in_float: they are not quantized at all.
    """

    where: str
    activation: QuantSpec | None = None
    weight: QuantSpec | None = None
    in_float: bool = False

    @property
    def words(self) -> str:
        """The rule in a sentence, for a tooltip."""
        said = [f"{side} {spec.words}" for side, spec in self.sides]
        return f"{self.where}: {'left in float' if self.in_float else '; '.join(said)}"

    @property
    def badge(self) -> str:
        """The rule in two words."""
        bits = {side: spec.bits for side, spec in self.sides}
        if self.in_float:
            return "float"
        if len(bits) == 2:
            return f"w{bits['weight']} a{bits['activation']}"
        return "".join(f"{'w' if side == 'weight' else 'a'}{n}" for side, n in bits.items())

    @property
    def sides(self) -> tuple[tuple[Side, QuantSpec], ...]:
        """The specs that it has, by side."""
        both: tuple[tuple[Side, QuantSpec | None], ...] = (
            ("activation", self.activation),
            ("weight", self.weight),
        )
        return tuple((side, spec) for side, spec in both if spec is not None)

    def matches(self, model: nn.Module) -> tuple[str, ...]:
        """Paths of the modules of ``model`` that it names, in order. Raises QConfigError for a
        pattern that is none."""
        modules = dict(model.named_modules())
        if self.where.startswith(TYPE):
            name = self.where[len(TYPE) :]
            return tuple(p for p, m in modules.items() if name in _names_of(type(m)))
        if self.where.startswith(PATTERN):
            try:
                pattern = re.compile(self.where[len(PATTERN) :])
            except re.error as error:
                raise QConfigError(
                    f"{self.where[len(PATTERN) :]!r} is no regular expression: {error}.",
                    fix="Write one that re.match takes, such as 're:layer1.*'.",
                ) from error
            return tuple(p for p in modules if p and pattern.match(p))
        return (self.where,) if self.where in modules else ()


def _names_of(kind: type) -> tuple[str, str]:
    return kind.__name__, f"{kind.__module__}.{kind.__qualname__}"


def require_possible(rule: QConfigRule, model: nn.Module, engine: str) -> None:
    """Raises QConfigError, with the reason, for a rule that names no module or that no int8 kernel
    of torch, or of ``engine``, can follow."""
    if not rule.matches(model):
        _no_such(rule, model)
    if rule.in_float and rule.sides:
        raise _refused(
            rule,
            "is to be left in float, and to have fake quants",
            "It can be only one of both.",
            "Leave out the specs, or in_float.",
        )
    if not rule.in_float and not rule.sides:
        raise _refused(
            rule,
            "is given nothing",
            "Neither activation nor weight is named.",
            "Give a QuantSpec for one of them, or in_float=True.",
        )
    for side, spec in rule.sides:
        for wrong, what, why, fix in _conflicts(side, spec, engine):
            if wrong:
                raise _refused(rule, what, why, fix)


def _conflicts(side: Side, spec: QuantSpec, engine: str) -> Iterable[tuple[bool, str, str, str]]:
    """Whether each conflict is there, and what it is, why, and what to do."""
    yield (
        spec.observer not in OBSERVERS,
        f"is to be observed by {spec.observer!r}",
        "There is no observer of that name.",
        f"Choose one of {', '.join(OBSERVERS)}.",
    )
    yield (
        not isinstance(spec.bits, int) or not LEAST_BITS <= spec.bits <= MOST_BITS,
        f"is to have {spec.bits} bits",
        "A fake quant whose codes int8 can hold has 2 to 8 bits.",
        "Choose 2 to 8 bits.",
    )
    yield (
        side == "activation" and spec.per_channel,
        "is to have activations per channel",
        "torch's int8 kernels take one scale and one zero point for a whole activation.",
        "Quantize activations per tensor; weights may be per channel.",
    )
    yield (
        spec.per_channel and spec.observer == "histogram",
        "is to be observed by histogram per channel",
        "torch's HistogramObserver knows one range for the whole tensor.",
        "Choose moving_average or min_max, or one grid per tensor.",
    )
    yield (
        side == "weight" and not spec.symmetric and engine == "onednn",
        "is to have affine weights on onednn",
        "Its kernels take weights with zero point 0 only, and convert would fail.",
        "Choose symmetric weights.",
    )
    yield (
        spec.reduce_range and spec.bits < MOST_BITS,
        f"is to have reduce_range at {spec.bits} bits",
        "It keeps sums of 8-bit codes from saturating; fewer bits cannot reach so far.",
        "Leave out reduce_range below 8 bits.",
    )


def _refused(rule: QConfigRule, what: str, why: str, fix: str) -> QConfigError:
    return QConfigError(f"{rule.where or 'the model'} {what}.", where=rule.where, why=why, fix=fix)


def _no_such(rule: QConfigRule, model: nn.Module) -> None:
    by_type = rule.where.startswith(TYPE)
    known = [path for path, _ in model.named_modules() if path]
    if by_type:
        known = sorted({type(module).__name__ for module in model.modules()})
    wanted = rule.where[len(TYPE) :] if by_type else rule.where
    near = difflib.get_close_matches(wanted, known, n=3, cutoff=0.4)
    near = [f"{TYPE}{name}" for name in near] if by_type else near
    raise QConfigError(
        f"the rule for {rule.where!r} matches no module of the model.",
        why="It would change nothing.",
        fix=f"Nearest: {', '.join(near)}."
        if near
        else "Take a path or a type of a module that model.named_modules() lists.",
    )


def named_paths(rules: Sequence[QConfigRule], model: nn.Module) -> dict[str, QConfigRule]:
    """The rule in force of each module of ``model`` that one names, by path; the later rule wins,
    also over rules for what lies inside."""
    named: dict[str, QConfigRule] = {}
    for rule in rules:
        for path in rule.matches(model):
            named = {p: r for p, r in named.items() if not _within(p, path)}
            named[path] = rule
    return named


def ruled_paths(rules: Sequence[QConfigRule], model: nn.Module) -> dict[str, QConfigRule]:
    """As :func:`named_paths`, with all modules that lie in one that is named."""
    named = named_paths(rules, model)
    found = {}
    for path, _ in model.named_modules():
        around = path
        while around not in named and around:
            around = around.rpartition(".")[0]
        if around in named:
            found[path] = named[around]
    return found


def _within(path: str, around: str) -> bool:
    return not around or path == around or path.startswith(f"{around}.")


def with_rules(plan: QConfigPlan, rules: Sequence[QConfigRule], model: nn.Module) -> QConfigPlan:
    """``plan`` with the rules in it, as exceptions by path; ``model`` is the float model. Raises
    QConfigError for a rule that leaves a module with half a qconfig."""
    if not rules:
        return plan
    own = _without_rules(plan, model)
    exceptions = {
        path: None if rule.in_float else _qconfig(rule, own.get(path))
        for path, rule in named_paths(rules, model).items()
    }
    default = plan.default
    if "" in exceptions:
        default = exceptions.pop("")
    around = list(exceptions)
    kept = tuple((p, q) for p, q in plan.by_path if not any(_within(p, a) for a in around))
    given = plan.given
    if given is not None:
        given = copy.copy(given)
        given.module_name_qconfigs = OrderedDict((*kept, *exceptions.items()))
        given.set_global(default)
    return replace(
        plan,
        default=default,
        by_path=(*kept, *exceptions.items()),
        given=given,
        name=f"{plan.name} with rules",
    )


def _without_rules(plan: QConfigPlan, model: nn.Module) -> dict[str, QConfig | None]:
    """The qconfig that each module gets by the plan alone, as torch hands it down, by path."""
    shell = copy_sharing_parameters(model)
    plan.assign(shell)
    propagate_qconfig_(shell)
    return {path: getattr(module, "qconfig", None) for path, module in shell.named_modules()}


def _qconfig(rule: QConfigRule, own: QConfig | None) -> QConfig:
    made: dict[Side, Any] = {side: spec.factory(side) for side, spec in rule.sides}
    for side in SIDES:
        if side not in made:
            if own is None:
                raise _refused(
                    rule,
                    f"is left in float, and the rule has no {side}",
                    "An int8 layer needs both, activation and weight.",
                    f"Give a QuantSpec for the {side} too.",
                )
            made[side] = getattr(own, side)
    return QConfig(activation=made["activation"], weight=made["weight"])
