"""Which qconfig each module of the float model gets, and what its factories make."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.ao.quantization import QConfig

from qatexplorer.checks.subject import Subject
from qatexplorer.flows.layer_types import WEIGHTED
from qatexplorer.flows.qconfig import QConfigPlan


@dataclass(frozen=True)
class Place:
    """Where a qconfig is set: ``path`` is that of the module named, ``""`` for the whole model and
    for a type or regular expression. ``paths`` are those of the layers with weights that get it."""

    path: str
    qconfig: QConfig
    paths: tuple[str, ...]


@dataclass(frozen=True)
class QConfigs:
    """``of`` has the qconfig of every module by path, None for those that stay float; ``places``
    those that layers with weights get."""

    of: Mapping[str, QConfig | None]
    places: tuple[Place, ...] = ()
    _made: dict[int, tuple[Any, Any]] = field(default_factory=dict, repr=False)

    def made(self, qconfig: QConfig) -> tuple[Any, Any]:
        """What its factories make: (activation, weight)."""
        if id(qconfig) not in self._made:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # reduce_range warns each time
                self._made[id(qconfig)] = (qconfig.activation(), qconfig.weight())
        return self._made[id(qconfig)]


def qconfigs(subject: Subject) -> QConfigs:
    """Which qconfig each module gets."""
    plan = subject.options.qconfig
    found: dict[str, QConfig | None] = {}
    where: dict[tuple[str, int], tuple[QConfig, list[str]]] = {}
    ruled = plan.resolver(subject.base).named() if plan.rules else {}
    for path, module in subject.base.named_modules():
        if path in ruled:
            named, qconfig = path, ruled[path]
        else:
            named, qconfig = _effective(plan, path, module)
        found[path] = qconfig
        if qconfig is not None and isinstance(module, WEIGHTED):
            where.setdefault((named, id(qconfig)), (qconfig, []))[1].append(path)
    places = tuple(Place(n, q, tuple(paths)) for (n, _), (q, paths) in where.items())
    return QConfigs(found, places)


def _effective(plan: QConfigPlan, path: str, module: nn.Module) -> tuple[str, QConfig | None]:
    """The qconfig of a module, and the path at which it was set (``""`` for no path)."""
    given = dict(plan.by_path)
    for around in _upwards(path):
        if around in given:
            return around, given[around]
        for pattern, qconfig in reversed(plan.by_regex):
            if re.match(pattern, around):
                return "", qconfig
    by_type = dict(plan.by_type)
    if type(module) in by_type:
        return "", by_type[type(module)]
    return "", plan.default


def _upwards(path: str) -> Iterator[str]:
    while path:
        yield path
        path = path.rpartition(".")[0]
