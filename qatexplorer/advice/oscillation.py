"""Weights that jump between two codes until training ends."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from qatexplorer.advice.base import recipe
from qatexplorer.advice.facts import Facts
from qatexplorer.advice.records import Action, Gain, Proposal, Published, Reason, Sureness
from qatexplorer.checks.records import Change
from qatexplorer.runs.config import TrainingConfig

OSCILLATING = 0.05
"""Share of a weight from which on it is worth a word."""
REVERSALS = 2
"""In so many steps of the average a weight has gone back and forth when it is frozen."""
FIGURE = Published(
    "MobileNetV2 with few bits, learned steps, oscillating weights frozen",
    71.878,
    69.50,
    70.33,
    "arXiv 2203.11086; float of torchvision",
)


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
    config = facts.config
    if not facts.ground.trained or not facts.loses or config is None:
        return
    found = oscillating(facts)
    if not found:
        return
    worst, share = next(iter(found.items()))
    way = _slowing(config) if config.freeze_weights or config.ema_decay else _freezing(config)
    written = ", ".join(f"{name}={value!r}" for name, value in way.arguments)
    yield Proposal(
        "oscillation",
        Action("oscillation", way.label, f"session.train({written})", "train", way.arguments),
        (
            Reason(
                f"{100 * share:.3g} % of the weights sampled at {worst} jumped back to a code they "
                f"had left when training ended; so {len(found):,} weights do by "
                f"{100 * OSCILLATING:g} % or more.",
                worst,
            ),
            Reason(facts.loss_words),
        ),
        facts.cost(epochs=way.epochs),
        Sureness("rule", way.why),
        facts.gain(FIGURE.share) if way.freezes else Gain(),
    )


@dataclass(frozen=True)
class _Way:
    """Settings of the training that goes on, and what speaks for them."""

    label: str
    epochs: int
    arguments: Change
    why: str
    freezes: bool = False


def _freezing(config: TrainingConfig) -> _Way:
    threshold = REVERSALS * config.oscillation_momentum
    arguments = (("epochs", config.epochs), ("lr", config.lr), ("freeze_weights", threshold))
    why = f"read at second hand: {FIGURE}; arXiv 2502.00490 finds the opposite"
    return _Way("Train on, and freeze what oscillates", config.epochs, arguments, why, True)


def _slowing(config: TrainingConfig) -> _Way:
    """Where weights are frozen already, or averaged, which does not go with it."""
    epochs, lr = max(1, config.epochs // 2), config.lr / 10
    arguments = (("epochs", epochs), ("lr", lr), ("scheduler", "cosine"))
    why = f"a smaller step crosses fewer borders of codes: lr goes from {lr:g} to 0"
    return _Way("Train on, ever more slowly", epochs, arguments, why)
