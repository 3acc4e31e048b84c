"""From what a user passes to a session to the options of a flow, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from qatexplorer.flows.base import FlowOptions
from qatexplorer.flows.custom import (
    CustomConfig,
    custom_config,
    find_backend_config,
    find_qat_mapping,
)
from qatexplorer.flows.fusion import check_fusion, find_fusable
from qatexplorer.flows.own_qconfig import settle
from qatexplorer.flows.qconfig import resolve_qconfig
from qatexplorer.flows.stubs import check_stub_mode
from qatexplorer.quantizers.engine import check_engine

CUSTOM = ("prepare_custom_config", "convert_custom_config", "non_traceable")


def changed_options(base: nn.Module, options: FlowOptions, given: Mapping[str, Any]) -> FlowOptions:
    """``options`` with what is ``given`` changed; keys and values as the session takes them.

    Raises the InputError types.
    """
    changes: dict[str, Any] = {}
    engine = given.get("engine")
    if "qconfig" in given:
        plan = resolve_qconfig(given["qconfig"], engine)
        changes["qconfig"] = settle(plan, options.own_qconfigs, engine)
    elif engine is not None:
        changes["qconfig"] = replace(options.qconfig, backend=check_engine(engine), reason="")
    if given.get("stubs") is not None:
        changes["stubs"] = check_stub_mode(given["stubs"])
    if given.get("qat_mapping") is not None:
        changes["qat_mapping"] = find_qat_mapping(given["qat_mapping"])
    if given.get("fusion") is not None:
        runs = given["fusion"]
        auto = isinstance(runs, str) and runs == "auto"
        changes["fusion"] = find_fusable(base, options.graph) if auto else check_fusion(base, runs)
    if any(name in given for name in CUSTOM):
        changes["custom"] = _custom(base, options.custom, given)
    if "backend_config" in given:
        changes["backend_config"] = find_backend_config(given["backend_config"])
    return replace(options, **changes)


def _custom(base: nn.Module, now: CustomConfig, given: Mapping[str, Any]) -> CustomConfig:
    custom = custom_config(
        given.get("prepare_custom_config", now.prepare),
        given.get("convert_custom_config", now.convert),
        given.get("non_traceable", now.non_traceable),
    )
    custom.check(base)
    return custom
