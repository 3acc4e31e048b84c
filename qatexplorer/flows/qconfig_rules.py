"""Rules that say how parts of a model are quantized, as plain data, laid over a qconfig.

What a rule says of a place holds for all below it. Of two rules for the same module that of the
path counts before that of a pattern, a pattern before a type, a type before the whole model, as in
torch's ``QConfigMapping``; of two paths the nearer one, of two patterns the first. A rule that
speaks of activations or of weights alone leaves the other to what comes next.

torch lays patterns on the fake quants of outputs and not on those of weights, and refuses a type
whose layers it has fused with others. So rules are worked out to the paths of modules first, which
torch takes in both flows alike.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import translate
from functools import lru_cache
from typing import Any, Literal, get_args

from torch import nn
from torch.ao.nn.intrinsic.modules.fused import _FusedModule
from torch.ao.quantization import QConfig

from qatexplorer.errors import QConfigError
from qatexplorer.flows.quant_spec import QuantSpec, made_by, spec_of

By = Literal["path", "glob", "regex", "type", "model"]
"""What a rule names: a path, a glob or a regular expression on paths, a type by its name, or the
whole model."""
Part = Literal["activation", "weight"]
PARTS: tuple[Part, ...] = ("activation", "weight")


@dataclass(frozen=True)
class QConfigRule:
    """How the modules at ``where`` are quantized.

    Attributes:
        where: a path, a glob (``"layer1.*"``), a regular expression, or the name of a type
            (``"Conv2d"``, or with its module); ``""`` for the whole model.
        by: which of these. A regular expression is matched from the beginning of the path.
        activation: fake quant of outputs; None leaves it to the rule or qconfig that comes next.
        weight: that of the weight; None as before.
        to_float: leave them in float; activation and weight are None then.

    Raises QConfigError for a rule that says nothing, or two things.
    """

    where: str
    by: By = "path"
    activation: QuantSpec | None = None
    weight: QuantSpec | None = None
    to_float: bool = False

    def __post_init__(self) -> None:
        if type(self.where) is not str:
            raise QConfigError(
                f"where is {self.where!r}.", fix="Give where a path, a pattern or a type's name."
            )
        if self.by not in get_args(By):
            choices = ", ".join(map(repr, get_args(By)))
            raise QConfigError(f"by is {self.by!r}.", fix=f"Give by one of {choices}.")
        if (self.where == "") != (self.by == "model"):
            raise QConfigError(
                f"the rule names {self.where!r} by {self.by}.",
                fix="The whole model is where='' and by='model'; all else has a name.",
            )
        _check_says_one_thing(self)
        if self.by == "regex":
            _check_regex(self.where)

    @property
    def key(self) -> tuple[str, str]:
        """What it is for: of two rules with the same key only one can hold."""
        return self.by, self.where

    def of(self, part: Part) -> QuantSpec | None:
        """``activation`` or ``weight``."""
        return self.activation if part == "activation" else self.weight

    def names(self, path: str, module: nn.Module) -> bool:
        """Whether it names this very module; what is above it is not asked."""
        if self.by == "model":
            return path == ""
        if self.by == "path":
            return path == self.where
        if self.by == "type":
            return self.where in type_names(module)
        return bool(path) and _pattern(self.where, self.by).match(path) is not None

    def to_json(self) -> dict[str, Any]:
        """Plain data, for :meth:`from_json`."""
        kept: dict[str, Any] = {self.by: self.where}
        if self.to_float:
            kept["float"] = True
        for part in PARTS:
            spec = self.of(part)
            if spec is not None:
                kept[part] = spec.to_json()
        return kept

    @staticmethod
    def from_json(kept: Mapping[str, Any]) -> QConfigRule:
        """What :meth:`to_json` made. Raises QConfigError that names the key for all else."""
        named = [by for by in get_args(By) if by in kept]
        if len(named) != 1:
            raise QConfigError(
                f"a rule names {' and '.join(named) or 'nothing'}.",
                fix=f"Give each rule one of the keys {', '.join(get_args(By))}.",
            )
        for key in kept:
            if key not in (*named, *PARTS, "float"):
                raise QConfigError(
                    f"a rule has no key {key!r}.",
                    fix=f"Its keys are {named[0]}, activation, weight and float.",
                )
        to_float = kept.get("float", False)
        if type(to_float) is not bool:
            raise QConfigError(f"float is {to_float!r}.", fix="Give float true or false.")
        specs = {part: _spec(part, kept[part]) for part in PARTS if part in kept}
        return QConfigRule(kept[named[0]], named[0], to_float=to_float, **specs)

    def __str__(self) -> str:
        place = f"{self.by} {self.where}" if self.where else "the whole model"
        said = [f"{part} {self.of(part)}" for part in PARTS if self.of(part) is not None]
        return f"{place}: {'float' if self.to_float else '; '.join(said)}"


def _spec(part: str, kept: Any) -> QuantSpec:
    if not isinstance(kept, Mapping):
        raise QConfigError(f"{part} is {kept!r}.", fix=f"Give {part} a table, {{ bits = 8 }}.")
    try:
        return QuantSpec.from_json(kept)
    except QConfigError as error:
        raise QConfigError(f"{part}: {error.message}", why=error.why, fix=error.fix) from error


def _check_says_one_thing(rule: QConfigRule) -> None:
    given = [part for part in PARTS if rule.of(part) is not None]
    for part in given:
        if not isinstance(rule.of(part), QuantSpec):
            raise QConfigError(
                f"{part} is {rule.of(part)!r}.", fix=f"Give {part} a QuantSpec, or leave it out."
            )
    if rule.to_float == bool(given):
        raise QConfigError(
            f"the rule for {rule.where or 'the whole model'!r} says "
            + ("float, and a fake quant as well." if given else "nothing."),
            fix="Give it activation, weight or both, or leave it in float.",
        )


def _check_regex(text: str) -> None:
    try:
        re.compile(text)
    except re.error as error:
        raise QConfigError(
            f"{text!r} is no regular expression: {error}.",
            fix="Correct the regular expression, or name the modules by a glob.",
        ) from error


@lru_cache(maxsize=1024)
def _pattern(text: str, by: str) -> re.Pattern[str]:
    return re.compile(translate(text) if by == "glob" else text)


def type_names(module: nn.Module) -> tuple[str, ...]:
    """The names that a rule may call the type of ``module`` by. A fused module stands where its
    first layer stood, and goes by that one's name too."""
    kinds = [type(module)]
    if isinstance(module, _FusedModule) and len(module):
        kinds.append(type(module[0]))
    return tuple(name for k in kinds for name in (k.__name__, f"{k.__module__}.{k.__qualname__}"))


# -- what holds for a module -----------------------------------------------------------------------


@dataclass(frozen=True)
class Below:
    """The qconfig that rules are laid over: whole, by type, by pattern and by path. ``fallback`` is
    for a part of which a rule leaves the choice to a qconfig that says float."""

    default: QConfig | None
    by_type: Mapping[Any, QConfig | None]
    by_regex: tuple[tuple[str, QConfig | None], ...]
    by_path: Mapping[str, QConfig | None]
    fallback: QConfig


@dataclass(frozen=True)
class Effective:
    """What holds for one module.

    Attributes:
        path: of the module. to_float: it is left in float.
        activation, weight: as a spec, None where torch's object is not one that a spec can say,
            and in float.
        source: what says so, ``"path fc"``, ``"default"``; both parts' where they differ.
        ruled: whether a rule says any of it.
        qconfig: torch's own.
    """

    path: str
    to_float: bool
    activation: QuantSpec | None
    weight: QuantSpec | None
    source: str
    ruled: bool
    qconfig: QConfig | None = field(compare=False, repr=False)


_Said = tuple[str, "QConfigRule | None", "QConfig | None"]
"""Words for it, and the rule that says it or the qconfig that does."""


class Resolver:
    """Works out what holds where in ``model``, for ``rules`` laid over ``below``."""

    def __init__(self, model: nn.Module, rules: Iterable[QConfigRule], below: Below) -> None:
        self._modules = dict(model.named_modules())
        self._rules, self._below = tuple(rules), below
        self._made: dict[tuple[Any, ...], QConfig] = {}
        self._factories: dict[tuple[QuantSpec, int | None], Callable[[], nn.Module]] = {}

    def require_hits(self) -> None:
        """Raise QConfigError for a rule that names nothing of the model."""
        for rule in self._rules:
            if not any(rule.names(path, module) for path, module in self._modules.items()):
                near = _near(rule, self._modules)
                raise QConfigError(
                    f"a rule names the {rule.by} {rule.where!r}, which the model does not have.",
                    why="torch would ignore it without a word.",
                    fix=f"Nearest: {', '.join(near)}."
                    if near
                    else "Take a path or a type of a module that model.named_modules() lists.",
                )

    def at(self, path: str) -> Effective:
        """What holds for the module at ``path``."""
        module = self._modules[path]
        said = {part: self._first(path, module, part) for part in PARTS}
        words, _, qconfig = said["activation"]
        if said["weight"][0] != words:
            words = f"activation: {words}; weight: {said['weight'][0]}"
        ruled = any(one[1] is not None for one in said.values())
        made = self._qconfig(said, module) if ruled else qconfig
        if made is None:
            return Effective(path, True, None, None, words, ruled, None)
        specs = [
            one[1].of(part) if one[1] is not None else _spec_from(one[2], part)
            for part, one in said.items()
        ]
        return Effective(path, False, specs[0], specs[1], words, ruled, made)

    def named(self) -> dict[str, QConfig | None]:
        """Qconfig by path of each module that a rule speaks of, except by one for the whole model
        alone: that one is :meth:`whole`."""
        found: dict[str, QConfig | None] = {}
        for path, module in self._modules.items():
            said = [self._first(path, module, part) for part in PARTS]
            ruling = [one[1] for one in said if one[1] is not None]
            own = any(rule.by != "model" for rule in ruling)
            # A step size per channel makes a qconfig of its own for each layer with weights.
            weight = said[1][1].weight if said[1][1] is not None else None
            sized = weight is not None and weight.by_size and _channels(module) is not None
            if path and (own or sized):
                found[path] = self.at(path).qconfig
        return found

    def ruling(self) -> dict[str, dict[Part, QConfigRule]]:
        """The rule that says what each part of a module is, by path; without those that none does.
        A rule for float is one only where it speaks of both parts."""
        found: dict[str, dict[Part, QConfigRule]] = {}
        for path, module in self._modules.items():
            said = {part: self._first(path, module, part)[1] for part in PARTS}
            ruling = {part: rule for part, rule in said.items() if rule is not None}
            left = sum(rule.to_float for rule in ruling.values())
            if left < len(PARTS):
                ruling = {part: rule for part, rule in ruling.items() if not rule.to_float}
            if ruling:
                found[path] = ruling
        return found

    def whole(self) -> QConfig | None:
        """The qconfig of the whole model."""
        return self.at("").qconfig

    def _first(self, path: str, module: nn.Module, part: Part) -> _Said:
        """The first that says something of ``part``."""
        for said in self._said(path, module):
            _, rule, _ = said
            if rule is None or rule.to_float or rule.of(part) is not None:
                return said
        raise AssertionError("the qconfig of the whole model says something")

    def _said(self, path: str, module: nn.Module) -> Iterator[_Said]:
        """All that is said of a module, in the order in which it counts."""
        rules, below = self._rules, self._below
        around = list(_upwards(path))
        for place in around:
            yield from ((str_of(r), r, None) for r in rules if r.by == "path" and r.where == place)
            if place in below.by_path:
                yield f"path {place}", None, below.by_path[place]
        for place in around:
            inside = self._modules[place]
            for rule in rules:
                if rule.by in ("glob", "regex") and rule.names(place, inside):
                    yield str_of(rule), rule, None
        for pattern, qconfig in below.by_regex:
            if re.match(pattern, path):
                yield f"regex {pattern}", None, qconfig
        for place in around or [path]:
            inside = self._modules[place]
            for rule in rules:
                if rule.by == "type" and rule.names(place, inside):
                    yield str_of(rule), rule, None
        kind = _kind_below(module, below.by_type)
        if kind is not None:
            yield f"type {kind.__name__}", None, below.by_type[kind]
        yield from (("the whole model", r, None) for r in rules if r.by == "model")
        yield "default", None, below.default

    def _qconfig(self, said: Mapping[Part, _Said], module: nn.Module) -> QConfig | None:
        # A float rule speaks of both parts, unless one before it spoke of one of them.
        if all(one[1] is not None and one[1].to_float for one in said.values()):
            return None
        parts = [self._part(part, one, module) for part, one in said.items()]
        key = (*parts,)
        if key not in self._made:
            self._made[key] = QConfig(activation=parts[0], weight=parts[1])
        return self._made[key]

    def _part(self, part: Part, said: _Said, module: nn.Module) -> Any:
        rule, qconfig = said[1:]
        spec = rule.of(part) if rule is not None else None
        if spec is not None:
            channels = _channels(module) if spec.by_size and part == "weight" else None
            key = (spec, channels)
            if key not in self._factories:
                self._factories[key] = spec.factory(channels)
            return self._factories[key]
        return getattr(qconfig or self._below.fallback, part)


def str_of(rule: QConfigRule) -> str:
    """What a rule names, in words: ``"glob layer1.*"``."""
    return f"{rule.by} {rule.where}" if rule.where else "the whole model"


def _spec_from(qconfig: QConfig | None, part: Part) -> QuantSpec | None:
    return None if qconfig is None else spec_of(made_by(getattr(qconfig, part)))


def _kind_below(module: nn.Module, by_type: Mapping[Any, QConfig | None]) -> Any:
    kinds: list[Any] = [type(module)]
    if isinstance(module, _FusedModule) and len(module):
        kinds.append(type(module[0]))
    return next((kind for kind in kinds if kind in by_type), None)


def _channels(module: nn.Module) -> int | None:
    """Length of axis 0 of its weight, or of its first layer's if it is fused."""
    inner: Any = module[0] if isinstance(module, _FusedModule) and len(module) else module
    weight = getattr(inner, "weight", None)
    return int(weight.shape[0]) if weight is not None and weight.dim() > 1 else None


def _upwards(path: str) -> Iterator[str]:
    while path:
        yield path
        path = path.rpartition(".")[0]


def _near(rule: QConfigRule, modules: Mapping[str, nn.Module]) -> list[str]:
    known = list(modules)
    if rule.by == "type":
        known = sorted({type(module).__name__ for module in modules.values()})
    return difflib.get_close_matches(rule.where, known, n=3, cutoff=0.4)
