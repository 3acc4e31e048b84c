"""What a recipe is: a function, registered by a name with :func:`recipe`, that looks at what is
known of a model and yields what it would try.

It yields nothing where its facts are not true of this model, and each of its sentences carries
numbers or paths of it. It runs no model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from qatexplorer.advice.facts import Facts
from qatexplorer.advice.records import PHASES, Action, Advice, Proposal
from qatexplorer.errors import InputError

Recipe = Callable[[Facts], Iterable[Proposal]]

RECIPES: dict[str, Recipe] = {}
"""Every recipe by name."""


def recipe(name: str) -> Callable[[Recipe], Recipe]:
    """Register a function that proposes."""

    def register(ask: Recipe) -> Recipe:
        if name in RECIPES:
            raise InputError(f"there is a recipe {name!r} already.")
        RECIPES[name] = ask
        return ask

    return register


def advise(facts: Facts) -> Advice:
    """What all recipes propose, in the order in which to try it: by phase, and within a phase by
    the gain that is sure for what it costs; those of which no gain is known come after, the
    cheapest first. What takes code of the user's comes after what a call does."""
    found = sorted(_proposals(facts), key=_order)
    return Advice(facts.model, facts.stage, tuple(found), facts.state, facts.limit)


def _proposals(facts: Facts) -> Iterator[Proposal]:
    waits = tuple(_waits(facts))
    for ask in RECIPES.values():
        for one in ask(facts):
            # What is measured or taken home of a model with errors says nothing of it.
            first = waits if facts.running or one.phase in ("win", "take home") else ()
            yield replace(one, before=(*first, *one.before)) if first else one


def _waits(facts: Facts) -> Iterator[Action]:
    if facts.running:
        yield Action("stop", "Stop the run", "session.run.stop(), or wait for it to end")
    errors = len(facts.errors)
    if errors:
        word = "error" if errors == 1 else "errors"
        yield Action("errors", f"{errors:,} {word}", f"put the {errors:,} {word} right")


def _order(one: Proposal) -> tuple[int, bool, float, float]:
    passes = float("inf") if one.cost.passes is None else one.cost.passes
    return PHASES.index(one.phase), not one.action.call, -one.score, passes
