"""Cross-layer equalization, where the channels between two layers differ in range."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from qatexplorer.advice.base import recipe
from qatexplorer.advice.facts import Facts
from qatexplorer.advice.records import Action, Proposal, Published, Reason, Sureness
from qatexplorer.checks.evidence.weights import largest_by_median
from qatexplorer.checks.families.ranges import UNBALANCED
from qatexplorer.cures.equalization import pairs_of, ranges_of

FIGURE = Published(
    "MobileNetV2, one scale a weight, equalized and not trained",
    71.81,
    0.10,
    70.32,
    "github.com/XGZhang11/DFQ, arXiv 1906.04721",
)


@dataclass(frozen=True)
class Unlike:
    """A pair of layers: largest by median range of the channels between them, in the weight of the
    first and of the second, and what would be left in both."""

    pair: tuple[str, ...]
    first: float
    second: float
    after: float

    @property
    def worse(self) -> float:
        return max(self.first, self.second)


def unlike(facts: Facts) -> tuple[int, list[Unlike]]:
    """How many pairs there are, and those that equalization would make less than half as unlike,
    the worst first."""
    base, graph = facts.ground.base, facts.ground.options.graph
    found = pairs_of(base, graph)
    if not found.pairs:
        return 0, []
    measured = []
    for pair, (one, other) in ranges_of(base, found).items():
        both = torch.sqrt(one * other)  # what torch's function makes of both
        measured.append(Unlike(pair, *map(largest_by_median, (one, other, both))))
    bad = [u for u in measured if u.worse >= UNBALANCED and 2 * u.after <= u.worse]
    return len(measured), sorted(bad, key=lambda u: -u.worse)


@recipe("equalization")
def equalization(facts: Facts) -> Iterator[Proposal]:
    """Equalize, unless nothing is lost."""
    if (facts.form is not None and not facts.loses) or facts.data is None:
        return
    if facts.why_not("equalization"):
        return
    pairs, bad = unlike(facts)
    if not bad:
        return
    worst = bad[0]
    one, other = worst.pair
    reasons = [
        Reason(
            f"{one} → {other}: the widest channel has {worst.first:.3g} times the range of the "
            f"median one in the first weight, {worst.second:.3g} times in the second; equalized "
            f"{worst.after:.3g} times.",
            one,
        ),
        Reason(
            f"{len(bad):,} of {pairs:,} pairs of layers differ by {UNBALANCED:g} times or more."
        ),
    ]
    reasons += [Reason(words) for words in (facts.loss_words,) if words]
    reasons += facts.starts_again
    per_channel = {
        path: bool(getattr(module.weight_fake_quant, "is_per_channel", False))
        for path, module in facts.weight_sites
    }
    sure = Sureness("published", str(FIGURE))
    if per_channel.get(one, False):
        why = f"{one} has a scale for each channel, and the figure is of one for all: {FIGURE}"
        sure = Sureness("rule", why)
    yield Proposal(
        "equalization",
        Action(
            "equalization",
            "Equalize layers",
            'session.cure("equalization")',
            "cure",
            (("name", "equalization"),),
        ),
        tuple(reasons),
        facts.judging(),
        sure,
        facts.gain(FIGURE.share),
    )
