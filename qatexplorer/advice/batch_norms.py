"""Batch norms measured anew, after training in which their statistics moved until the end."""

from __future__ import annotations

from collections.abc import Iterator

from qatexplorer.advice.base import recipe
from qatexplorer.advice.facts import Facts
from qatexplorer.advice.low_bits import fewest_bits
from qatexplorer.advice.records import Action, Proposal, Reason, Sureness
from qatexplorer.cures.batch_norms import BATCHES, reestimate_batch_norms

LOW = 4
"""Bits of weights up to which AIMET recommends it."""


@recipe("batch_norms")
def batch_norms(facts: Facts) -> Iterator[Proposal]:
    """Measure them anew, if something is lost."""
    history = facts.history
    epochs = history.epochs if history is not None else ()
    if not facts.ground.trained or not facts.loses or not epochs or epochs[-1].bn_frozen:
        return
    if reestimate_batch_norms in facts.ground.worked or facts.why_not("batch_norms"):
        return
    bits = fewest_bits(facts)
    weights = f"weights here have {bits} bits" if bits else f"{facts.model} has no rounded weight"
    yield Proposal(
        "batch_norms",
        Action(
            "batch_norms",
            "Measure batch norms anew",
            'session.cure("batch_norms")',
            "cure",
            (("name", "batch_norms"),),
        ),
        (
            Reason(
                f"In the last of {len(epochs):,} epochs the statistics of batch norms were still "
                "moving averages of what training saw."
            ),
            Reason(facts.loss_words),
        ),
        facts.cost(evaluations=2, batches=BATCHES),
        Sureness("rule", f"AIMET's bn_reestimation recommends it up to {LOW} bits, and {weights}"),
    )
