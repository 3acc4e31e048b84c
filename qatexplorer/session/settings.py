"""The settings of a session: a flow and its options, checked, and how a run folder keeps them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from qatexplorer.errors import RunFolderError
from qatexplorer.flows import Flow, other_kind, runnable_flow
from qatexplorer.flows.base import FlowOptions
from qatexplorer.flows.custom import (
    CustomConfig,
    custom_config,
    find_backend_config,
    find_qat_mapping,
)
from qatexplorer.flows.edits import Edit
from qatexplorer.flows.fusion import check_fusion, find_fusable
from qatexplorer.flows.own_copy import in_plain_names_of
from qatexplorer.flows.own_qconfig import settle
from qatexplorer.flows.pt2e_quantizers import DEFAULT, QUANTIZERS, check_quantizer, name_of
from qatexplorer.flows.qconfig import QConfigPlan, resolve_qconfig
from qatexplorer.flows.qconfig_rules import QConfigRule
from qatexplorer.flows.stubs import check_stub_mode, has_stubs
from qatexplorer.flows.torchao import check_base_config
from qatexplorer.quantizers.engine import check_engine
from qatexplorer.quantizers.engine_choice import BACKENDS

_NAMES = (
    "flow",
    "stubs",
    "fusion",
    "engine",
    "qat_mapping",
    "non_traceable",
    "prepare_custom_config",
    "convert_custom_config",
    "backend_config",
    "quantizer",
    "base_config",
    "edits",
)
_CUSTOM = ("prepare_custom_config", "convert_custom_config", "non_traceable")


@dataclass(frozen=True)
class Settings:
    """What a session was asked for. :meth:`change` makes another one, checked.

    ``names`` are the paths of the user's model that its copy has under another name; ``edits``
    what was asked to be changed in that copy, see :mod:`~qatexplorer.session.editing`.
    """

    flow: Flow
    options: FlowOptions
    names: Mapping[str, str] = field(default_factory=dict)
    edits: tuple[Edit, ...] = ()

    def change(self, base: nn.Module, given: Mapping[str, Any]) -> Settings:
        """These settings with what is ``given`` changed; keys and values as a session takes them.

        ``base`` is the float model that they are for. Raises the InputError types.
        """
        given = in_plain_names_of(given, self.names)
        flow = runnable_flow(given["flow"]) if given.get("flow") is not None else self.flow
        changes: dict[str, Any] = {}
        engine = given.get("engine")
        if "qconfig" in given:
            plan = qconfig_plan(given["qconfig"], engine)
            plan = settle(plan, self.options.own_qconfigs, engine)
            changes["qconfig"] = with_rules(plan, plan.rules, base)
        elif engine is not None:
            plan = self.options.qconfig
            changes["qconfig"] = replace(plan, backend=check_engine(engine), reason="")
        if "rules" in given:
            plan = changes.get("qconfig", self.options.qconfig)
            rules = in_plain_rules(given["rules"], self.names)
            changes["qconfig"] = with_rules(plan, rules, base)
        if given.get("stubs") is not None:
            changes["stubs"] = check_stub_mode(given["stubs"])
        if given.get("qat_mapping") is not None:
            changes["qat_mapping"] = find_qat_mapping(given["qat_mapping"])
        if given.get("fusion") is not None:
            groups = given["fusion"]
            found = isinstance(groups, str) and groups == "auto"
            graph = self.options.graph
            changes["fusion"] = find_fusable(base, graph) if found else check_fusion(base, groups)
        if any(name in given for name in _CUSTOM):
            changes["custom"] = _custom(base, self.options.custom, given)
        if "backend_config" in given:
            changes["backend_config"] = find_backend_config(given["backend_config"])
        if "quantizer" in given:
            changes["quantizer"] = check_quantizer(given["quantizer"])
        if "base_config" in given:
            changes["base_config"] = check_base_config(given["base_config"])
        return replace(self, flow=flow, options=replace(self.options, **changes))

    def arguments(self) -> dict[str, Any]:
        """Arguments of a session of the same model with these settings."""
        options = self.options
        return {
            "example_inputs": options.example_inputs,
            "flow": self.flow.name,
            "stubs": options.stubs,
            "fusion": [list(group) for group in options.fusion],
            "qconfig": options.qconfig,
            "qat_mapping": options.qat_mapping,
            "backend_config": options.backend_config,
            "quantizer": options.quantizer,
            "base_config": options.base_config,
            "prepare_custom_config": options.custom.prepare,
            "convert_custom_config": options.custom.convert,
            "non_traceable": options.custom.non_traceable,
            "edits": self.edits,
        }

    def in_other_flow(self, base: nn.Module) -> dict[str, Any]:
        """Arguments of a session of the same model in the other flow."""
        options, flow = self.options, other_kind(self.flow)
        wrap = flow.offers_stubs and not has_stubs(base)
        return {
            "example_inputs": options.example_inputs,
            "flow": flow.name,
            "stubs": "model" if wrap else "none",
            "qconfig": options.qconfig,
            "qat_mapping": options.qat_mapping,
            "backend_config": options.backend_config,
            "quantizer": options.quantizer,
            "base_config": options.base_config,
            "prepare_custom_config": options.custom.prepare,
            "convert_custom_config": options.custom.convert,
            "non_traceable": options.custom.non_traceable,
            "edits": self.edits,
        }

    def to_json(self) -> dict[str, Any]:
        """Stubs, fusion, edits, qconfig; a qconfig that is not one by name leaves a fingerprint."""
        return {
            "stubs": self.options.stubs,
            "fusion": [list(group) for group in self.options.fusion],
            "qconfig": self.options.qconfig.name,
            "engine": self.options.qconfig.backend,
            "fingerprint": self._fingerprint(self.options.qconfig.backend),
            "edits": [one.to_json() for one in self.edits],
            "rules": [one.to_json() for one in self.options.qconfig.rules],
            "quantizer": name_of(self.options.quantizer),
            "base_config": self._base_config_text(),
        }

    def _base_config_text(self) -> str:
        return "" if self.options.base_config is None else repr(self.options.base_config)

    def from_json(self, kept: Mapping[str, Any]) -> dict[str, Any]:
        """What to give to :meth:`change` to have again what :meth:`to_json` kept.

        The engine stays the session's: it may be another machine that the run goes on, and
        training does not use it. Raises RunFolderError if the run had a qconfig of the user's own
        that is not this one.
        """
        if not kept:
            return {}
        if kept.get("base_config", "") != self._base_config_text():
            raise RunFolderError(
                "The run was made with another base_config than the session has.",
                why=f"It was {kept.get('base_config') or 'the default of the flow'}.",
                fix="Make the session with the base_config= that the run was made with.",
            )
        changes: dict[str, Any] = {}
        if kept["fingerprint"] != self._fingerprint(kept["engine"]):
            if kept["qconfig"] not in BACKENDS:
                raise RunFolderError(
                    "The run was made with a qconfig of its own, and the session has another one.",
                    why="A qconfig holds functions, which are not kept on disk.",
                    fix="Make the session with the qconfig= that the run was made with.",
                )
            engine = self.options.qconfig.backend
            changes |= {"qconfig": kept["qconfig"], "engine": engine}
        quantizer = kept.get("quantizer", DEFAULT)
        if quantizer != name_of(self.options.quantizer):
            if quantizer not in QUANTIZERS:
                raise RunFolderError(
                    f"The run was made with a quantizer of its own, {quantizer}.",
                    why="A quantizer is an object, and objects are not kept on disk.",
                    fix="Make the session with the quantizer= that the run was made with.",
                )
            changes["quantizer"] = quantizer
        rules = tuple(QConfigRule.from_json(one) for one in kept.get("rules", ()))
        if rules != self.options.qconfig.rules or "qconfig" in changes:  # which has none of its own
            changes["rules"] = rules
        if kept["stubs"] != self.options.stubs:
            changes["stubs"] = kept["stubs"]
        if kept["fusion"] != [list(group) for group in self.options.fusion]:
            changes["fusion"] = kept["fusion"]
        edits = tuple(Edit.from_json(one) for one in kept.get("edits", ()))
        if edits != self.edits:
            changes["edits"] = edits
            changes["fusion"] = kept["fusion"]
        return changes

    def _fingerprint(self, engine: str) -> str:
        plan = self.options.qconfig
        text = repr((plan.default, plan.by_type, plan.by_regex, plan.by_path, engine))
        return hashlib.sha256(re.sub(r" at 0x[0-9a-f]+", "", text).encode()).hexdigest()[:16]


def settings_in(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Those of ``arguments``, of a session or of a change, that are settings and are given."""
    given = {name: arguments[name] for name in _NAMES if arguments[name] is not None}
    return given if arguments["qconfig"] is ... else {**given, "qconfig": arguments["qconfig"]}


def qconfig_plan(spec: Any, engine: str | None = None) -> QConfigPlan:
    """See :func:`~qatexplorer.flows.qconfig.resolve_qconfig`; a plan is taken as it is."""
    return spec if isinstance(spec, QConfigPlan) else resolve_qconfig(spec, engine)


def with_rules(plan: QConfigPlan, rules: Iterable[QConfigRule], base: nn.Module) -> QConfigPlan:
    """``plan`` with ``rules``. Raises QConfigError for one that names nothing of ``base``."""
    plan = replace(plan, rules=tuple(rules))
    if plan.rules:
        plan.resolver(base).require_hits()
    return plan


def in_plain_rules(
    rules: Iterable[QConfigRule], names: Mapping[str, str]
) -> tuple[QConfigRule, ...]:
    """``rules`` with the paths of a wrapped model replaced by those of the copy."""
    return tuple(
        replace(one, where=names.get(one.where, one.where)) if one.by == "path" else one
        for one in rules
    )


def _custom(base: nn.Module, now: CustomConfig, given: Mapping[str, Any]) -> CustomConfig:
    custom = custom_config(
        given.get("prepare_custom_config", now.prepare),
        given.get("convert_custom_config", now.convert),
        given.get("non_traceable", now.non_traceable),
    )
    custom.check(base)
    return custom
