"""The most sensitive modules left in float: found, searched and applied, a call after another."""

from __future__ import annotations

import math
from collections.abc import Iterator

from qatexplorer.accuracy.records import Method, Sensitivity, number
from qatexplorer.advice.base import recipe
from qatexplorer.advice.facts import Facts
from qatexplorer.advice.measure import calibrate
from qatexplorer.advice.records import Action, Gain, Proposal, Reason, Sureness

_BEST_FIRST: tuple[Method, ...] = ("exact", "gradient", "shadow")
_BATCHES = 8  # of a sensitivity
_FORWARDS = 2  # of the shadow method, for each of them


@recipe("sites")
def sites(facts: Facts) -> Iterator[Proposal]:
    """What comes next of: measure the sensitivity, search a set of modules, leave it in float."""
    if not facts.loses or not facts.weight_sites:
        return
    if facts.mixed is not None:
        yield from _apply(facts)
        return
    known = [facts.sensitivities[name] for name in _BEST_FIRST if name in facts.sensitivities]
    if known and known[0].rows:
        yield _search(facts, known[0])
    elif not known:
        yield _measure(facts)


def _apply(facts: Facts) -> Iterator[Proposal]:
    mixed = facts.mixed
    chosen = mixed.chosen if mixed is not None else None
    if mixed is None or chosen is None or not chosen.modules or mixed.int8_error:
        return
    whole = next((point for point in mixed.points if not point.modules), None)
    if whole is None:
        return
    sign = 1 if mixed.metric_mode == "max" else -1
    gain = sign * (chosen.metric - whole.metric)
    if not gain > 0:
        return
    many = len(chosen.modules)
    done = "left in float" if mixed.treatment == "float" else f"with {mixed.treatment} bits"
    yield Proposal(
        "sites",
        Action(
            "sites:apply",
            f"Take the set of {many:,}",
            "session.apply(session.last_proposal.chosen)",
            "apply",
            (("point", chosen),),
        ),
        (
            Reason(
                f"With {', '.join(chosen.modules[:3])}{' …' * (many > 3)} {done} "
                f"({many:,} modules) fake quant has {facts.value(chosen.metric)}, without "
                f"{facts.value(whole.metric)} ({mixed.samples:,} samples).",
                chosen.modules[0],
            ),
            Reason(
                f"{chosen.share_int8:.1%} of the multiply-adds stay int8 of "
                f"{whole.share_int8:.1%}, and {chosen.size_bytes:,} bytes of parameters in place "
                f"of {whole.size_bytes:,}."
            ),
            *facts.starts_again,
        ),
        facts.judging(),
        Sureness(
            "measured here",
            f"{len(mixed.points):,} sets were measured on fake quants, without training",
        ),
        facts.won(gain),
    )


def _search(facts: Facts, found: Sensitivity) -> Proposal:
    worst, sets = found.rows[0], _sets(facts)
    limit = facts.limit or 0.0
    middle = found.rows[len(found.rows) // 2]
    return Proposal(
        "sites",
        Action(
            "sites:search",
            "Find the smallest set",
            f"session.propose(max_drop={limit:.4g})",
            "propose",
            (("max_drop", float(f"{limit:.4g}")),),
        ),
        (
            Reason(
                f"{worst.path} costs most of {len(found.rows):,} fake quants: score "
                f"{number(worst.score)} by the {found.method} method, that in the middle "
                f"{number(middle.score)}.",
                worst.owner,
            ),
            Reason(facts.loss_words),
        ),
        facts.cost(evaluations=sets),
        _until(facts, sets),
        _all_but_tolerated(facts),
    )


def _measure(facts: Facts) -> Proposal:
    sets = _sets(facts)
    layers = len(facts.weight_sites)
    batches = _BATCHES if facts.eval_batches is None else min(_BATCHES, facts.eval_batches)
    return Proposal(
        "sites",
        Action(
            "sites:measure",
            "Measure the sensitivity",
            'session.sensitivity("shadow")',
            "sensitivity",
            (("method", "shadow"),),
        ),
        (
            Reason(
                f"Which of the {layers:,} layers with a rounded weight cost most has not been "
                "measured."
            ),
            Reason(facts.loss_words),
            Reason(f"The search after it measures up to {sets:,} sets of modules."),
        ),
        facts.cost(batches=_FORWARDS * batches, evaluations=sets),
        _until(facts, sets),
        _all_but_tolerated(facts),
        before=calibrate(facts),
    )


def _sets(facts: Facts) -> int:
    """How many sets of modules a search measures on its way along the ranking, at most."""
    return 2 * len(facts.weight_sites) + 2


def _until(facts: Facts, sets: int) -> Sureness:
    limit = facts.amount(facts.limit or 0.0)
    return Sureness(
        "rule",
        f"a search of up to {sets:,} sets ends where no more than {limit} are lost or all is in "
        "float; how much then stays int8 is not known before",
    )


def _all_but_tolerated(facts: Facts) -> Gain:
    loss, limit = facts.loss, facts.limit
    if loss is None or limit is None or not math.isfinite(loss):
        return Gain(1.0)
    return Gain(1 - limit / loss, loss - limit)
