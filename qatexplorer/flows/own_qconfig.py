"""The qconfig attributes that a model brings along, and what a given qconfig makes of them.

torch lets an attribute win over everything in eager mode, without a word. In FX it drops those of
containers, and mixes those of layers with the mapping: ``conv.qconfig = None`` takes away the fake
quant of the weight and leaves that of the output. So the attributes are read off the session's copy
once, settled with what was given, and laid on again where the flow lays on its qconfigs.
"""

from __future__ import annotations

import copy
import re
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn
from torch.ao.quantization import QConfig, QConfigMapping, get_default_qconfig
from torch.ao.quantization.observer import (
    NoopObserver,
    ObserverBase,
    PlaceholderObserver,
    ReuseInputObserver,
)
from torch.ao.quantization.qconfig import qconfig_equals

from qatexplorer.errors import QConfigError
from qatexplorer.flows.qconfig import QConfigPlan, qat_qconfig
from qatexplorer.quantizers.engine import available_engines
from qatexplorer.quantizers.engine_choice import default_backend

OwnQConfigs = Mapping[str, QConfig | None]
"""Module path -> the ``qconfig`` attribute that was found on that module."""

_WATCHES_NOTHING = (NoopObserver, PlaceholderObserver, ReuseInputObserver)
_SHOWN = 6


def take_own_qconfigs(model: nn.Module) -> dict[str, QConfig | None]:
    """Read the ``qconfig`` attributes of all modules and remove them from ``model``.

    Raises QConfigError where an attribute of that name is no qconfig of torch.
    """
    found: dict[str, QConfig | None] = {}
    for path, module in model.named_modules():
        if "qconfig" not in vars(module):
            continue
        own = vars(module)["qconfig"]
        if own is not None and not {"activation", "weight"} <= set(getattr(own, "_fields", ())):
            raise QConfigError(
                f"the attribute 'qconfig' is a {type(own).__name__}, not a qconfig of torch.",
                where=path,
                why="torch reads module.qconfig on every module and expects a QConfig or None.",
                fix="Give your attribute another name.",
            )
        found[path] = own
    for path in found:
        del model.get_submodule(path).qconfig
    return found


def settle(plan: QConfigPlan, own: OwnQConfigs, engine: str | None = None) -> QConfigPlan:
    """``plan`` with the model's own qconfigs in it, and with what there is to say about both.

    - A given qconfig for the whole model replaces the root's own, and every module's own that is
      equal to the root's or to that of the module around it.
    - A given path (or regular expression) replaces the model's own there and below.
    - An own qconfig that differs from the one around it was set on purpose: it stays, as if given
      by path, and a note names it.
    - Where none is given for the whole model, the root's own is used, else torch's default.

    ``engine`` is the quantized engine that was asked for, if any.
    """
    places = {p: q for p, q in own.items() if p and not _inherited(p, q, own)}
    replaced = {p: q for p, q in places.items() if _is_given(plan, p)}
    kept = {p: q for p, q in places.items() if p not in replaced}
    notes: list[str] = []
    if plan.gives_default:
        root = own.get("")
        if "" in own:
            if not qconfig_equals(root, plan.default):
                notes.append(
                    f"The given qconfig ({_given(plan)}) is used for the whole model, "
                    f"not the model's own attribute ({describe(root)})."
                )
            kept = {p: plan.default if qconfig_equals(q, root) else q for p, q in kept.items()}
    elif "" in own:
        plan = _with_default(plan, own[""], engine)
        notes.append(
            "No qconfig was given for the whole model, so its own attribute is used: "
            f"{describe(plan.default)}."
        )
        if plan.default is None:
            notes[-1] += " Nothing else will be quantized; pass qconfig= to change that."
    if replaced:
        notes.append(f"The given qconfig replaces the model's own at {_listed(replaced)}.")
    if kept:
        rest = "" if "" in own or plan.gives_default else f" The rest gets {_given(plan)}."
        notes.append(
            f"Kept, because the model sets them on these modules themselves: {_listed(kept)}."
            f"{rest} To replace them, name them: qconfig={{{next(iter(kept))!r}: …}}."
        )
    plan = replace(
        plan,
        by_path=(*kept.items(), *plan.by_path),
        given=None if plan.given is None else with_paths(plan.given, kept),
        notes=tuple(notes),
    )
    plan = replace(plan, watched=_only_observed(plan))
    return replace(plan, loud=_loud(plan))


def with_paths(mapping: QConfigMapping, paths: OwnQConfigs) -> QConfigMapping:
    """``mapping`` with entries for ``paths`` before its own; itself if there are none."""
    if not paths:
        return mapping
    more: QConfigMapping = copy.copy(mapping)
    more.module_name_qconfigs = OrderedDict({**paths, **mapping.module_name_qconfigs})
    return more


def _inherited(path: str, qconfig: QConfig | None, own: OwnQConfigs) -> bool:
    """Whether the nearest module around ``path`` that has a qconfig of its own has the same."""
    while path:
        path = path.rpartition(".")[0]
        if path in own:
            return bool(qconfig_equals(qconfig, own[path]))
    return False


def _is_given(plan: QConfigPlan, path: str) -> bool:
    below = any(f"{path}.".startswith(f"{given}.") for given, _ in plan.by_path)
    return below or any(re.match(pattern, path) for pattern, _ in plan.by_regex)


def _with_default(plan: QConfigPlan, own: QConfig | None, engine: str | None) -> QConfigPlan:
    """``plan`` with the root's own qconfig, on the engine that it is the default of, unless that
    one computes something else on this CPU."""
    of = next(iter(_defaults(own, qat_qconfig)), "")
    backend = of or next(iter(_defaults(own, get_default_qconfig)), "")
    changes: dict[str, Any] = {"default": own, "default_of": of, "name": "the model's own"}
    ours = replace(plan, **changes)
    if not backend or engine is not None:
        return ours
    named = replace(ours, backend=backend, reason="")
    wrong = named.concern is not None and named.concern.kind != "clamps"
    return ours if wrong else named


def _defaults(qconfig: QConfig | None, default: Callable[[str], QConfig]) -> list[str]:
    """The backends whose default ``qconfig`` is, the best one first."""
    names = dict.fromkeys((default_backend().qconfig, *available_engines()))
    return [name for name in names if qconfig_equals(qconfig, default(name))]


def _given(plan: QConfigPlan) -> str:
    of = plan.default_of
    return f"the QAT default of {of!r}" if of else describe(plan.default)


def describe(qconfig: QConfig | None) -> str:
    """A qconfig in a few words, e.g. ``"the QAT default of 'qnnpack'"``."""
    if qconfig is None:
        return "None: stays float"
    for kind, default in (("QAT", qat_qconfig), ("post-training", get_default_qconfig)):
        names = _defaults(qconfig, default)
        if names:
            return f"the {kind} default of {' and '.join(map(repr, names))}"
    activation, weight = (type(made).__name__ for made in _made(qconfig))
    return f"activation {activation}, weight {weight}"


def _made(qconfig: QConfig) -> tuple[Any, Any]:
    made: list[Any] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, about reduce_range
        for factory in (qconfig.activation, qconfig.weight):
            try:
                made.append(factory())
            except Exception:  # torch will say itself what is wrong
                made.append(None)
    return made[0], made[1]


def with_fake_quants(plan: QConfigPlan) -> QConfigPlan:
    """``plan`` with torch's QAT default of its engine wherever it has observers in place of fake
    quants; all else stays as it is."""
    better = {path: qat_qconfig(plan.backend) for path, _ in plan.watched}
    mapping = plan.given
    if mapping is not None:
        mapping = copy.copy(mapping)
        mapping.module_name_qconfigs = OrderedDict(
            {**mapping.module_name_qconfigs, **{p: q for p, q in better.items() if p}}
        )
        if "" in better:
            mapping.global_qconfig = better[""]
    changes: dict[str, Any] = {}
    if "" in better:
        changes = {"default": better[""], "default_of": plan.backend, "gives_default": True}
        changes["name"] = plan.backend
    paths = {**dict(plan.by_path), **{p: q for p, q in better.items() if p}}
    return replace(
        plan, by_path=tuple(paths.items()), given=mapping, loud=(), watched=(), **changes
    )


def _only_observed(plan: QConfigPlan) -> tuple[tuple[str, str], ...]:
    """(path, what) of each qconfig that has observers in place of fake quants."""
    where: dict[str, str] = {}
    for path, qconfig in (("", plan.default), *plan.by_path):
        if qconfig is None:
            where.pop(path, None)
            continue
        parts = zip(("activation", "weight"), _made(qconfig), strict=True)
        watching = [
            f"{part}: {type(made).__name__}"
            for part, made in parts
            if isinstance(made, ObserverBase) and not isinstance(made, _WATCHES_NOTHING)
        ]
        where.pop(path, None)  # of two entries for a path the later one counts
        if watching:
            where[path] = ", ".join(watching)
    return tuple(where.items())


def _loud(plan: QConfigPlan) -> tuple[str, ...]:
    """A loud sentence if any qconfig has observers in place of fake quants, else nothing."""
    if not plan.watched:
        return ()
    places = _names([f"{path or 'the whole model'} ({what})" for path, what in plan.watched])
    text = (
        f"POST-TRAINING QCONFIG: observers stand where fake quants belong: {places}. Nothing is "
        f"simulated there: training will not feel the rounding. Fix: pass qconfig={plan.better!r}; "
        "what is given wins over attributes of the model."
    )
    return (text,)


def _names(places: Sequence[str]) -> str:
    more = len(places) - _SHOWN
    return ", ".join(places[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _listed(places: OwnQConfigs) -> str:
    return _names([f"{path} ({describe(q)})" for path, q in places.items()])
