"""Another rule for the ranges of activations, where values are clipped or a few set the scale."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from qatexplorer.advice.base import recipe
from qatexplorer.advice.facts import Facts
from qatexplorer.advice.records import Action, Gain, Proposal, Published, Reason, Sureness
from qatexplorer.cures.ranges import OBSERVERS, Range
from qatexplorer.forward.histograms import GridHistogram

CLIPPED = 0.01
"""Share of the values past the grid from which on the range is said to be too narrow."""
BULK = 0.99
NARROW = 0.25
"""Share of the codes in which that bulk lies, up to which the range is said to be too wide."""
_FEW = 256  # values of which a share of a hundredth says nothing

FIGURE = Published(
    "MobileNetV2, 4-bit weights, ranges by squared error in place of min-max",
    72.68,
    27.61,
    35.71,
    "MQBench's ImageClassification benchmark",
)


@dataclass(frozen=True)
class Misfit:
    """A range that does not fit: share of the values ``clipped``, and of the codes that hold the
    middle 99 % of the values (``used``)."""

    path: str
    clipped: float
    used: float
    codes: int


def misfits(facts: Facts) -> tuple[list[Misfit], list[Misfit]]:
    """Fake quants of activations whose range is too narrow, and those where it is too wide; the
    worst first."""
    shot = facts.snapshot
    sites = shot.site_by_path if shot is not None else {}
    found = []
    for path, histogram in facts.histograms.items():
        site = sites.get(path)
        if site is None or site.kind == "weight" or site.seen != "all":
            continue
        if histogram.sampled < _FEW or not histogram.counts:
            continue
        clipped = histogram.clipped_low_share + histogram.clipped_high_share
        codes = histogram.quant_max - histogram.quant_min + 1
        found.append(Misfit(site.owner, clipped, bulk(histogram) / codes, codes))
    narrow = sorted((m for m in found if m.clipped >= CLIPPED), key=lambda m: -m.clipped)
    wide = sorted((m for m in found if m.used <= NARROW), key=lambda m: m.used)
    return narrow, [m for m in wide if m not in narrow]


def bulk(histogram: GridHistogram) -> float:
    """How many codes hold the middle 99 % of the values."""
    total = sum(histogram.counts)
    left = (1 - BULK) / 2 * total
    low = _reached(histogram.counts, left)
    high = len(histogram.counts) - 1 - _reached(histogram.counts[::-1], left)
    return max(1.0, histogram.edges[max(low, high) + 1] - histogram.edges[low])


def _reached(counts: tuple[int, ...], share: float) -> int:
    """The first bin with which more than ``share`` values have come."""
    seen = 0
    for index, count in enumerate(counts):
        seen += count
        if seen > share:
            return index
    return len(counts) - 1


@recipe("ranges")
def ranges(facts: Facts) -> Iterator[Proposal]:
    """Change the rule by which the observers of activations make a range of what they see."""
    if (facts.form is not None and not facts.loses) or facts.why_not("ranges"):
        return
    spec = facts.ground.whole.activation
    narrow, wide = misfits(facts)
    if spec is None or facts.data is None or not (narrow or wide):
        return
    rule: Range
    now = next((name for name, kind in OBSERVERS.items() if kind == spec.observer), spec.observer)
    if narrow:
        one, place = narrow[0], narrow[0].path or "the model"
        rule = "histogram" if now == "min-max" else "min-max"
        words = (
            f"{100 * one.clipped:.3g} % of what comes to the fake quant of {place} "
            f"in {facts.seen_in} lies past its {one.codes:,} codes; the rule of "
            f"the ranges is {now}."
        )
    else:
        one, place = wide[0], wide[0].path or "the model"
        rule = "percentile" if now == "histogram" else "histogram"
        words = (
            f"99 % of what comes to the fake quant of {place} in {facts.seen_in} lies in "
            f"{max(1, round(one.used * one.codes)):,} of its {one.codes:,} codes: the rest sets "
            f"the scale; the rule of the ranges is {now}."
        )
    if rule == now:
        return
    reasons = [Reason(words, one.path)]
    if len(narrow) + len(wide) > 1:
        count = (
            f"{len(narrow):,} ranges clip {100 * CLIPPED:g} % or more, {len(wide):,} are so wide"
        )
        reasons.append(Reason(f"Of {len(facts.histograms):,} fake quants {count}."))
    reasons += [Reason(loss) for loss in (facts.loss_words,) if loss]
    reasons += facts.starts_again
    by_error = rule == "histogram" and now in ("min-max", "moving average")
    sure = Sureness("published", str(FIGURE))
    if not by_error:
        why = (
            f"no figure for {rule!r} in place of {now!r}; measured are {len(narrow):,} ranges too "
            f"narrow and {len(wide):,} too wide"
        )
        sure = Sureness("rule", why)
    yield Proposal(
        "ranges",
        Action(
            "ranges",
            f"Ranges by {rule}",
            f'session.cure("ranges", activation={rule!r})',
            "cure",
            (("name", "ranges"), ("activation", rule)),
        ),
        tuple(reasons),
        facts.judging(),
        sure,
        facts.gain(FIGURE.share) if by_error else Gain(),
    )
