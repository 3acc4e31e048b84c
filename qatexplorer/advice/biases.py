"""Bias correction, where weights were rounded and not trained."""

from __future__ import annotations

from collections.abc import Iterator

from qatexplorer.advice.base import recipe
from qatexplorer.advice.facts import Facts
from qatexplorer.advice.measure import calibrate
from qatexplorer.advice.records import Action, Proposal, Published, Reason, Sureness
from qatexplorer.cures.batch_norms import reestimate_batch_norms
from qatexplorer.cures.biases import BATCHES, correct_biases, layers_with_bias

FIGURE = Published(
    "MobileNetV2, biases corrected after equalization",
    71.81,
    70.32,
    70.79,
    "github.com/XGZhang11/DFQ, arXiv 1906.04721",
)


@recipe("biases")
def biases(facts: Facts) -> Iterator[Proposal]:
    """Correct the biases, if something is lost and nothing has made up for it yet."""
    done = {correct_biases, reestimate_batch_norms} & set(facts.ground.worked)
    if not facts.loses or facts.ground.trained or done or facts.quantized is None:
        return
    layers = layers_with_bias(facts.quantized)
    if not layers:
        return
    reasons = [
        Reason(
            f"{len(layers):,} of {len(facts.weight_sites):,} layers with a rounded weight have a "
            f"bias, and it has not seen the error of rounding: {facts.model} was not trained with "
            "fake quants."
        )
    ]
    drift = _drift(facts)
    reasons += [drift] if drift is not None else []
    reasons.append(Reason(facts.loss_words))
    yield Proposal(
        "biases",
        Action("biases", "Correct biases", 'session.cure("biases")', "cure", (("name", "biases"),)),
        tuple(reasons),
        facts.cost(evaluations=2, batches=BATCHES * len(layers)),
        Sureness("published", str(FIGURE)),
        facts.gain(FIGURE.share),
        before=calibrate(facts),
    )


def _drift(facts: Facts) -> Reason | None:
    """The place whose values are off by most steps on the whole, as last compared."""
    rows = facts.comparison.rows if facts.comparison is not None else ()
    known = [(abs(r.mean_error_steps), r) for r in rows if r.mean_error_steps is not None]
    if not known:
        return None
    steps, row = max(known, key=lambda one: one[0])
    if not steps >= 0.01:
        return None
    return Reason(
        f"At {row.path} the values are off by {steps:.2g} steps of the grid on the mean.", row.owner
    )
