"""Training at all: how long, how fast, and what stands still from when on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from torch.nn.modules.batchnorm import _BatchNorm

from qatexplorer.advice.base import recipe
from qatexplorer.advice.facts import Facts
from qatexplorer.advice.records import Action, Proposal, Published, Reason, Sureness
from qatexplorer.checks.records import Change

FIGURE = Published(
    "ResNet-50, 5 epochs of QAT after calibration alone",
    76.1,
    75.5,
    75.9,
    "ModelOpt's CNN recipe",
)
RECIPE = (
    "torchvision's recipe for MobileNetV2 (71.878 → 71.658 % in int8): SGD with lr 1e-4, batch "
    "norms still from epoch 3, observers from epoch 4, converged after about 10"
)
EPOCHS, FREEZE_BN, FREEZE_OBSERVERS = 10, 3, 4
MANY_STEPS = 1_000
"""Steps of an epoch from which on the published learning rate is taken."""
FEW_STEPS_LR, MANY_STEPS_LR = 1e-3, 1e-4
SMALL_GAIN = 0.1
"""Share of what is tolerated that an epoch has to win, for training to be said to win still."""


@dataclass(frozen=True)
class Plan:
    """Settings of a run."""

    epochs: int
    arguments: Change
    norms: int

    @property
    def code(self) -> str:
        return f"session.train({', '.join(f'{n}={v!r}' for n, v in self.arguments)})"


def plan(facts: Facts) -> Plan:
    """The published epochs; the published rate where an epoch has as many steps as to need no
    more, else ten times that."""
    norms = [m for m in (facts.quantized.modules() if facts.quantized is not None else ())
             if isinstance(m, _BatchNorm) and m.track_running_stats]  # fmt: skip
    many = facts.train_batches is None or facts.train_batches >= MANY_STEPS
    given: list[tuple[str, object]] = [
        ("epochs", EPOCHS),
        ("lr", MANY_STEPS_LR if many else FEW_STEPS_LR),
    ]
    if many:
        given.append(("optimizer", "sgd"))
    given.append(("freeze_observer_epoch", FREEZE_OBSERVERS))
    if norms:
        given.append(("freeze_bn_epoch", FREEZE_BN))
    return Plan(EPOCHS, tuple(given), len(norms))


@recipe("train")
def train(facts: Facts) -> Iterator[Proposal]:
    """Train, if calibration alone loses more than is tolerated; train on, if it still wins."""
    if not facts.loses or facts.data is None or not facts.weight_sites:
        return
    if facts.ground.trained:
        yield from _train_on(facts)
        return
    wanted = plan(facts)
    steps = facts.train_batches
    lr = dict(wanted.arguments)["lr"]
    reasons = [Reason(facts.loss_words)]
    if steps is not None:
        rate = "as published" if steps >= MANY_STEPS else "ten times the published, with Adam"
        reasons.append(
            Reason(
                f"An epoch has {steps:,} steps, so {wanted.epochs:,} epochs are "
                f"{wanted.epochs * steps:,} steps; lr {lr:g} is {rate}."
            )
        )
    if wanted.norms:
        reasons.append(
            Reason(
                f"{wanted.norms:,} batch norms would move with each batch: their statistics stand "
                f"still from epoch {FREEZE_BN} on, observers from epoch {FREEZE_OBSERVERS}."
            )
        )
    yield Proposal(
        "train",
        Action("train", "Train", wanted.code, "train", wanted.arguments),
        tuple(reasons),
        facts.cost(epochs=wanted.epochs),
        Sureness("published", f"{FIGURE}; {RECIPE}"),
        facts.gain(FIGURE.share),
    )


def _train_on(facts: Facts) -> Iterator[Proposal]:
    history, config, limit = facts.history, facts.config, facts.limit
    epochs = history.epochs if history is not None else ()
    known = [one.metric for one in epochs if one.metric is not None]
    if config is None or limit is None or len(known) < 2:
        return
    before, last = known[-2:]
    won = last - before if facts.mode == "max" else before - last
    if not (math.isfinite(won) and won > SMALL_GAIN * limit):
        return
    arguments: Change = (("epochs", config.epochs), ("lr", config.lr))
    code = f"session.train(epochs={config.epochs!r}, lr={config.lr!r})"
    yield Proposal(
        "train",
        Action("train:on", "Train on", code, "train", arguments),
        (
            Reason(
                f"The last of {len(known):,} epochs still won {facts.amount(won)} "
                f"({facts.value(before)} → {facts.value(last)})."
            ),
            Reason(facts.loss_words),
        ),
        facts.cost(epochs=config.epochs),
        Sureness("measured here", f"what epoch {epochs[-1].epoch + 1} won, and no more than that"),
        facts.won(won),
    )
