"""What a ranking of fake quants costs and says, in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from qatexplorer.accuracy.records import Method, Proposal, ProposalPoint, Sensitivity
from qatexplorer.evaluate.evaluation import format_size
from qatexplorer.views.common.html import Html, code, join, tag, terms
from qatexplorer.views.common.names import count, number, share
from qatexplorer.views.training.progress import duration

METHODS: Mapping[Method, str] = {
    "shadow": "Shadow: one forward a batch",
    "gradient": "Gradient: one forward and backward a batch",
    "exact": "Exact: each fake quant alone, and all but each",
}
"""Titles by method, the cheapest first."""

SCORES: Mapping[Method, str] = {
    "exact": "loss of the metric with only this one on",
    "shadow": "noise over signal at the module's output",
    "gradient": "sum of (gradient × error)²",
}
"""What the score of each method is."""

STALE = "Of the model as it was before: measure again for that of now."
_HIGH, _LOW = 0.8, 0.5


@dataclass(frozen=True)
class Size:
    """Of what is to be measured: fake quants that run in a forward, batches to use."""

    fake_quants: int
    batches: int


def method_words(method: Method, size: Size, known: Mapping[Method, Sensitivity]) -> Html:
    """What ``method`` does and costs, by the numbers of this model."""
    n, batches = size.fake_quants, size.batches
    if not n:
        return tag("span", "There are no fake quants yet: prepare the model first.")
    runs = 2 * n + 4
    said = {
        "shadow": (
            "Float and quantized of each module on the same inputs, in one forward a batch that "
            f"costs less than three: less than {3 * batches:,}, and {3 * batches:,} more for the "
            "totals. What an error does to the modules after it is not seen."
        ),
        "gradient": (
            "The error of each fake quant weighed by the gradient of the loss there, from one "
            f"forward and one backward a batch, and {3 * batches:,} forwards more for the totals. "
            "It is the first term of a series only."
        ),
        "exact": (
            f"The metric with only each of the {count(n, 'fake quant')} on, and with all but each: "
            f"{runs:,} runs a batch, each from its fake quant on. The other methods are held "
            "against it."
        ),
    }[method]
    return tag("span", said, _cost(method, size, known))


def _cost(method: Method, size: Size, known: Mapping[Method, Sensitivity]) -> str:
    made = known.get(method)
    if made is not None and made.complete:
        return f" It took {_spent(made)}."
    timed = next((s for s in known.values() if s.complete and s.forwards and s.seconds), None)
    if timed is None or method != "exact":
        return ""
    a_batch = timed.seconds / max(timed.batches, 1)
    most = (2 * size.fake_quants + 4) * size.batches * a_batch / timed.forwards
    return f" At most about {duration(most)}, by what the forwards of {timed.method} took."


def summary_html(found: Sensitivity) -> Html:
    """Totals, cost and rank correlation."""
    metric = found.metric_name
    pairs = [
        (f"{metric}, float", _number(found.float_metric)),
        (f"{metric}, all fake quants on", _number(found.quantized_metric)),
        ("only those of weights", _number(found.weights_only)),
        ("only those of activations", _number(found.activations_only)),
        ("cost", _spent(found)),
        ("Spearman with exact", spearman_words(found)),
    ]
    parts: list[Html] = [terms(pairs)]
    if not found.complete:
        done = count(len(found.rows), "fake quant")
        parts.append(
            tag("p", f"Stopped before the end: {done} so far. “Go on” goes on from there.")
        )
    parts += [tag("p", note, class_="qx-muted") for note in found.notes]
    return tag("div", *parts, class_="qx-sens-summary")


def _spent(found: Sensitivity) -> str:
    forwards = f"{found.forwards:,.1f} forwards of the model a batch"
    return f"{forwards}, {count(found.samples, 'sample')}, {duration(found.seconds)}"


def spearman_words(found: Sensitivity) -> str:
    """The rank correlation with what it is worth; ``""`` where exact was not run."""
    if found.method == "exact":
        return ""
    if found.spearman is None and found.spearman_loss is None:
        return "not known: exact was not run"
    parts = []
    for value, of in ((found.spearman, "metric"), (found.spearman_loss, "loss")):
        if value is not None:
            parts.append(f"{number(value, 2)} ({_worth(value)}) by the {of}")
    return ", ".join(parts)


def _worth(value: float) -> str:
    if value >= _HIGH:
        return "much the same order"
    return "partly the same order" if value >= _LOW else "low: do not go by this order"


def proposal_html(found: Proposal, chosen: ProposalPoint | None, wished: float) -> Html:
    """Which modules, what it gives, how it was found, and what could not be."""
    metric = found.metric_name
    if chosen is None:
        best = max(found.points, key=lambda p: _better(p, found), default=None)
        words = f"No set that was measured reaches {metric} {number(wished)}."
        if best is not None:
            words += f" The best has {number(best.metric)}, {_with(best)}."
        head = tag("p", words)
    elif not chosen.modules:
        head = tag(
            "p",
            f"{metric} {number(chosen.metric)} with everything quantized: it reaches "
            f"{number(wished)}, and nothing needs to be changed.",
        )
    else:
        modules = count(len(chosen.modules), "module")
        first = found.first_that_reaches(wished) is chosen
        head = tag(
            "p",
            tag("b", f"{'Smallest set found' if first else 'This point'}: {modules}"),
            f" {_treated(chosen)}: ",
            join((code(path) for path in chosen.modules), ", "),
            f". That gives {metric} {number(chosen.metric)} with "
            f"{format_size(chosen.size_bytes)} of parameters, and "
            f"{share(chosen.share_int8)} of the multiply-adds with quantized weights.",
        )
    parts = [head]
    if found.int8_error and chosen is found.chosen:
        words = f"Its int8 model does not run as the model is now: {found.int8_error}"
        parts.append(tag("p", f"▲ {words}"))
    parts += [tag("p", note, class_="qx-muted") for note in (_how(found), *found.notes)]
    return tag("div", *parts, class_="qx-sens-summary")


def _how(found: Proposal) -> str:
    text = (
        "Each point was measured on the fake-quant model as it is, not trained again. The search "
        "takes modules in the order of the ranking and takes back those that are not needed; a "
        "smaller set that it did not try may exist."
    )
    if found.evaluations:
        runs = count(found.evaluations, "evaluation")
        text += f" {runs} of {count(found.samples, 'sample')} in {duration(found.seconds)}."
    if not found.complete:
        text += " It was stopped: not all points were measured."
    return text


def _better(point: ProposalPoint, found: Proposal) -> float:
    return point.metric if found.metric_mode == "max" else -point.metric


def _treated(point: ProposalPoint) -> str:
    if point.treatment == "float":
        return "left in float"
    return f"with {point.treatment} bits for the weight"


def _with(point: ProposalPoint) -> str:
    if not point.modules:
        return "with everything quantized"
    return f"with {count(len(point.modules), 'module')} {_treated(point)}"


def _number(value: float | None) -> str:
    return "" if value is None else number(value)


def applied_words(point: ProposalPoint) -> Html:
    """Which point is in force."""
    names = join((code(path) for path in point.modules), ", ")
    return tag("span", f"In force: {_treated(point)}: ", names, ".")
