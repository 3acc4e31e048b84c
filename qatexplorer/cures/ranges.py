"""Range rules: how an observer makes a range of what it sees."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from qatexplorer.cures.base import Ground, Look, NewSettings, cure
from qatexplorer.errors import QConfigError
from qatexplorer.flows.qconfig_rules import PARTS, QConfigRule
from qatexplorer.flows.quant_spec import ObserverName, QuantSpec

Range = Literal["min-max", "moving average", "histogram", "percentile"]

OBSERVERS: dict[str, ObserverName] = {
    "min-max": "MinMaxObserver",
    "moving average": "MovingAverageMinMaxObserver",
    "histogram": "HistogramObserver",
    "percentile": "PercentileObserver",
}
"""The observer by the name of the rule, torch's own but for that of percentiles. That of the
histogram takes the range with the smallest squared error of rounding, which others call MSE."""


def _why_not(ground: Ground) -> str:
    if not ground.flow.offers_qconfig:
        return f"How a range is made is decided by {ground.flow.decided_by}."
    if ground.whole.to_float:
        return "The qconfig leaves the model in float."
    if ground.whole.activation is None and ground.whole.weight is None:
        return "The qconfig's fake quants are of classes of your own, which no rule can say."
    return ""


def _look(ground: Ground) -> Look:
    specs = [(part, getattr(ground.whole, part)) for part in PARTS]
    now = [f"{part}s now have {spec.observer}" for part, spec in specs if spec is not None]
    does = "Puts another observer in for the whole model, for activations, weights or both: "
    return Look(f"{does}{', '.join(now)}.")


@cure(
    "ranges",
    "Change the rule of the ranges",
    "torch.ao.quantization.observer",
    "ptq",
    _why_not,
    _look,
)
def ranges(
    ground: Ground,
    activation: Range | None = None,
    weight: Range | None = None,
    percentile: float | None = None,
) -> NewSettings:
    """Plan other observers for all activations, for all weights, or both; None leaves them.
    ``percentile`` is that of the rule of this name, 99.99 if it is not given.

    What rules and qconfigs say of single modules stays. Raises QConfigError for a rule that there
    is not, or not for a scale per channel.
    """
    wanted: dict[str, Range | None] = {"activation": activation, "weight": weight}
    if not any(wanted.values()):
        raise QConfigError(
            "the rule of which ranges is to be changed is not said.",
            fix="Pass activation='histogram', weight='min-max', or both.",
        )
    rules = ground.options.qconfig.rules
    old = next((rule for rule in rules if rule.by == "model"), None)
    changed: dict[str, Any] = {part: old.of(part) if old else None for part in PARTS}
    lines = []
    for part in PARTS:
        rule = wanted[part]
        if rule is None:
            continue
        spec = getattr(ground.whole, part)
        if spec is None:
            raise QConfigError(
                f"the {part} has a fake quant of a class of its own, which no rule can say.",
                fix="Set it with session.set_qconfig or session.configure(qconfig=…).",
            )
        changed[part] = with_range(spec, rule, percentile)
        lines.append(f"{part}s: {spec} becomes {changed[part]}")
    new = QConfigRule("", "model", **changed)
    return NewSettings(tuple(lines), rules=(new, *(r for r in rules if r.by != "model")))


def with_range(spec: QuantSpec, rule: Range, percentile: float | None = None) -> QuantSpec:
    """``spec`` with the observer of ``rule``. Raises QConfigError where torch has none."""
    if rule not in OBSERVERS:
        raise QConfigError(
            f"there is no range rule {rule!r}.",
            fix=f"Give one of {', '.join(map(repr, OBSERVERS))}.",
        )
    observer, usual = OBSERVERS[rule], QuantSpec()
    of_rule = usual.percentile if percentile is None or rule != "percentile" else percentile
    if observer == spec.observer:
        return replace(spec, percentile=of_rule)
    name = spec.fake_quant
    if name == "FusedMovingAvgObsFakeQuantize":  # its kernel averages itself
        name = "FakeQuantize"
    averaging = usual.averaging_constant
    return replace(
        spec,
        observer=observer,
        fake_quant=name,
        averaging_constant=averaging,
        percentile=of_rule,
    )
