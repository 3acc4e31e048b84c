"""Learned step sizes, where weights have fewer than 8 bits."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from qatexplorer.advice import train
from qatexplorer.advice.base import recipe
from qatexplorer.advice.facts import Facts
from qatexplorer.advice.per_channel import code_of
from qatexplorer.advice.records import Action, Proposal, Published, Reason, Sureness
from qatexplorer.cures.ranges import OBSERVERS
from qatexplorer.flows.qconfig_rules import QConfigRule
from qatexplorer.flows.quant_spec import MOST_BITS, QuantSpec
from qatexplorer.quantizers.facts import quant_range

FIGURE = Published(
    "ResNet-18 with 2 bits, learned step sizes (reproduced) in place of DoReFa's",
    69.76,
    64.1,
    67.3,
    "QTool's table, arXiv 1902.08153; float of torchvision",
)


def bits_of(fake_quant: object) -> int:
    """How many bits the codes of a fake quant take."""
    low, high = quant_range(fake_quant)  # type: ignore[arg-type]
    return math.ceil(math.log2(max(high - low + 1, 2)))


def fewest_bits(facts: Facts) -> int | None:
    """Of the weights; None where none is rounded."""
    return min((bits_of(m.weight_fake_quant) for _, m in facts.weight_sites), default=None)


def narrow(facts: Facts) -> dict[str, QuantSpec]:
    """The layers whose weight has fewer than 8 bits on a fixed rule, by path."""
    found = {}
    for path, module in facts.weight_sites:
        spec = facts.qconfigs.at(path).weight
        few = bits_of(module.weight_fake_quant) < MOST_BITS
        if few and spec is not None and not spec.learned and spec.bits < MOST_BITS:
            found[path] = spec
    return found


@recipe("low_bits")
def low_bits(facts: Facts) -> Iterator[Proposal]:
    """Learn the step sizes, if something is lost."""
    if not facts.loses or facts.data is None:
        return
    every = narrow(facts)
    if not every:
        return
    least = min(every.values(), key=lambda spec: spec.bits)
    paths = sorted(path for path, spec in every.items() if spec == least)
    spec = learned(least)
    rules = tuple(QConfigRule(path, "path" if path else "model", weight=spec) for path in paths)
    if facts.refused((*rules, *facts.ground.options.qconfig.rules)):
        return
    where = paths[0] if len(paths) == 1 else paths
    # Beside what training wins on fixed steps, its share of what that leaves.
    fixed = 0.0 if facts.ground.trained else train.FIGURE.share
    yield Proposal(
        "low_bits",
        Action(
            "low_bits",
            "Learn the step sizes",
            f"session.set_qconfig({where!r}, weight={code_of(spec)})",
            "set_qconfig",
            (("where", where), ("weight", spec)),
        ),
        (
            Reason(
                f"{len(paths):,} of {len(facts.weight_sites):,} weights have {least.bits} bits, on "
                f"steps that {least.observer} sets.",
                paths[0],
            ),
            Reason(facts.loss_words),
            Reason(f"The steps are learned in training: {train.plan(facts).code} comes after it."),
            *facts.starts_again,
        ),
        facts.cost(epochs=train.plan(facts).epochs),
        Sureness("published", str(FIGURE)),
        facts.gain(fixed + (1 - fixed) * FIGURE.share),
    )


def learned(spec: QuantSpec) -> QuantSpec:
    """The same with a step size that is a parameter, begun by a moving average."""
    observer = OBSERVERS["moving average"]
    share = QuantSpec().percentile
    return replace(spec, fake_quant="_LearnableFakeQuantize", observer=observer, percentile=share)
