"""Weights that jump between two codes until training ends."""

from __future__ import annotations

import math
from collections.abc import Iterator

from qatexplorer.advice.base import recipe
from qatexplorer.advice.facts import Facts
from qatexplorer.advice.records import Action, Proposal, Reason, Sureness

OSCILLATING = 0.05
"""Share of a weight from which on it is worth a word."""


def oscillating(facts: Facts) -> dict[str, float]:
    """Share of the weights that oscillated at the newest sample, by fake quant, the worst first."""
    telemetry = facts.history.telemetry if facts.history is not None else None
    found: dict[str, float] = {}
    for info in telemetry.infos if telemetry is not None else ():
        if telemetry is None or info.kind != "weight":
            continue
        _, values = telemetry.series(info.path, "oscillating")
        if values and values[-1] >= OSCILLATING and math.isfinite(values[-1]):
            found[info.path] = values[-1]
    return dict(sorted(found.items(), key=lambda one: -one[1]))


@recipe("oscillation")
def oscillation(facts: Facts) -> Iterator[Proposal]:
    """Let the weights come to rest, if something is lost."""
    if not facts.ground.trained or not facts.loses or facts.config is None:
        return
    found = oscillating(facts)
    if not found:
        return
    worst, share = next(iter(found.items()))
    epochs, lr = max(1, facts.config.epochs // 2), facts.config.lr / 10
    arguments = (("epochs", epochs), ("lr", lr), ("scheduler", "cosine"))
    written = ", ".join(f"{name}={value!r}" for name, value in arguments)
    yield Proposal(
        "oscillation",
        Action(
            "oscillation",
            "Train on, ever more slowly",
            f"session.train({written})",
            "train",
            arguments,
        ),
        (
            Reason(
                f"{100 * share:.3g} % of the weights sampled at {worst} jumped back to a code they "
                f"had left when training ended; so {len(found):,} weights do by "
                f"{100 * OSCILLATING:g} % or more.",
                worst,
            ),
            Reason(facts.loss_words),
        ),
        facts.cost(epochs=epochs),
        Sureness(
            "rule",
            f"a smaller step crosses fewer borders of codes: lr goes from {lr:g} to 0",
        ),
    )
