"""A qconfig plan with other qconfigs for some modules: left in float, or with more bits."""

from __future__ import annotations

import copy
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch.ao.quantization import QConfig

from qatexplorer.flows.qconfig import QConfigPlan
from qatexplorer.quantizers.facts import quant_range


def with_exceptions(plan: QConfigPlan, paths: Mapping[str, QConfig | None]) -> QConfigPlan:
    """``plan`` with these qconfigs for the modules at ``paths`` of the float model, which win over
    what the plan says of them; None leaves a module in float. Itself if there are none."""
    if not paths:
        return plan
    by_path = {path: qconfig for path, qconfig in plan.by_path if path not in paths}
    rules = tuple(one for one in plan.rules if one.by != "path" or one.where not in paths)
    mapping = plan.given
    if mapping is not None:
        mapping = copy.copy(mapping)
        mapping.module_name_qconfigs = OrderedDict({**mapping.module_name_qconfigs, **paths})
    # No name of a backend stands for it any more: a run folder must not take it for that one's.
    by_path |= paths
    return replace(plan, by_path=(*by_path.items(),), given=mapping, name="custom", rules=rules)


def with_weight_bits(qconfig: QConfig, bits: int) -> QConfig | None:
    """``qconfig`` with a weight fake quant of ``bits`` bits; None if its factory takes no range."""
    factory: Any = qconfig.weight
    if not hasattr(factory, "with_args"):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, about reduce_range
            low, high = quant_range(factory())
            wanted = range_of_bits(bits, low, high)
            wider = factory.with_args(quant_min=wanted[0], quant_max=wanted[1])
            made = quant_range(wider())
    except Exception:  # a factory of the user's own that cannot take these arguments
        return None
    return QConfig(activation=qconfig.activation, weight=wider) if made == wanted else None


def range_of_bits(bits: int, low: int, high: int) -> tuple[int, int]:
    """Codes of ``bits`` bits, of the kind that ``low`` to ``high`` is: from 0, or around 0, with
    as many codes below it as above or one more."""
    if low >= 0:
        return 0, 2**bits - 1
    top = 2 ** (bits - 1) - 1
    return (-top if low == -high else -top - 1), top


def bits_of(low: int, high: int) -> int:
    """Bits that the codes ``low`` to ``high`` need."""
    return max(1, (high - low).bit_length())
