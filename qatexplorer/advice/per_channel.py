"""One scale for each output channel, where one for the whole weight is too coarse."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from qatexplorer.advice.base import recipe
from qatexplorer.advice.facts import Facts
from qatexplorer.advice.records import Action, Proposal, Published, Reason, Sureness
from qatexplorer.checks.evidence.weights import channel_ratio
from qatexplorer.checks.families.ranges import UNBALANCED
from qatexplorer.cures.ranges import OBSERVERS
from qatexplorer.flows.layer_types import TRANSPOSED
from qatexplorer.flows.qconfig_rules import QConfigRule
from qatexplorer.flows.quant_spec import QuantSpec

FIGURE = Published(
    "MobileNetV3, a scale per channel in place of one a weight",
    76.3,
    14.3,
    69.0,
    "github.com/Edgecortix-Inc/pytorch_quantization/issues/5",
)


@dataclass(frozen=True)
class Coarse:
    """A layer whose weight has one scale: largest by median range of its output channels."""

    path: str
    ratio: float
    spec: QuantSpec


def coarse(facts: Facts) -> list[Coarse]:
    """Those of 8 times or more, the worst first."""
    found = []
    for path, module in facts.weight_sites:
        if getattr(module.weight_fake_quant, "is_per_channel", False):
            continue
        if isinstance(module, TRANSPOSED) or module.weight.dim() < 2:
            continue
        ratio = channel_ratio(module, module.weight)
        spec = facts.qconfigs.at(path).weight
        if ratio >= UNBALANCED and spec is not None and not spec.per_channel:
            found.append(Coarse(path, ratio, spec))
    return sorted(found, key=lambda one: -one.ratio)


@recipe("per_channel")
def per_channel(facts: Facts) -> Iterator[Proposal]:
    """A scale per channel for these layers, if the engine takes them and something is lost."""
    if facts.form is not None and not facts.loses:
        return
    every = coarse(facts)
    if not every:
        return
    worst = every[0]
    same = [one for one in every if one.spec == worst.spec]
    spec = finer(worst.spec)
    paths = sorted(one.path for one in same)
    rules = tuple(QConfigRule(path, "path" if path else "model", weight=spec) for path in paths)
    if facts.refused((*rules, *facts.ground.options.qconfig.rules)):
        return
    backend = facts.ground.options.qconfig.backend
    reasons = [
        Reason(
            f"The weight of {worst.path or 'the model'} has one scale, and its widest channel has "
            f"{worst.ratio:.3g} times the range of the median one.",
            worst.path,
        ),
        Reason(
            f"So it is by {UNBALANCED:g} times or more in {len(same):,} of "
            f"{len(facts.weight_sites):,} weights; {backend} takes a scale per channel there "
            "(copies of the layers were run)."
        ),
    ]
    reasons += [Reason(words) for words in (facts.loss_words,) if words]
    reasons += facts.starts_again
    where = paths[0] if len(paths) == 1 else paths
    yield Proposal(
        "per_channel",
        Action(
            "per_channel",
            "A scale per channel",
            f"session.set_qconfig({where!r}, weight={code_of(spec)})",
            "set_qconfig",
            (("where", where), ("weight", spec)),
        ),
        tuple(reasons),
        facts.judging(),
        Sureness("published", str(FIGURE)),
        facts.gain(FIGURE.share),
    )


def code_of(spec: QuantSpec) -> str:
    """How a script writes it: what differs from the defaults."""
    return f"QuantSpec({', '.join(f'{k}={v!r}' for k, v in spec.to_json().items())})"


def finer(spec: QuantSpec) -> QuantSpec:
    """The same with a scale per channel, for which torch has no histogram."""
    usual = OBSERVERS["moving average"]
    known = (OBSERVERS["min-max"], usual)
    observer = spec.observer if spec.observer in known else usual
    return replace(spec, per_channel=True, observer=observer, percentile=QuantSpec().percentile)
