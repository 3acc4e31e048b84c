"""Edits of modules that have several names: each gets one of its own. See
:mod:`~qatexplorer.flows.edits.plan`."""

from __future__ import annotations

import copy
from collections.abc import Iterator

from torch import nn

from qatexplorer.flows.edits.plan import Change, Place, code_of, edit


@edit("unshare")
def unshare(place: Place) -> Change:
    """A copy of a module for each further name that it has, with the same parameters.

    The parameters stay shared, so that they train as before; buffers, such as the statistics of a
    batch norm, are each copy's own from then on.
    """
    others = list(slots_of(place.model, place.module))[1:]
    if not others:
        raise place.misfit(
            "a module with several names",
            "Where one name is called several times, forward has to be changed.",
        )
    first = place.code
    memo = f", {{id(p): p for p in {first}.parameters()}}" if _has_parameters(place) else ""
    names = [f"{parent}.{name}" if parent else name for parent, _, name in others]
    targets = [code_of(place.model, name) for name in names]
    code = "\n".join(f"{target} = copy.deepcopy({first}{memo})" for target in targets)

    def make() -> None:
        for _, parent, name in others:
            parent._modules[name] = twin_of(place.module)

    count = len(others) + 1
    kind = type(place.module).__name__
    before = f"one {kind} under {count} names"
    return Change(f"import copy\n{code}", make, before, f"a {kind} for each of {count} names")


def _has_parameters(place: Place) -> bool:
    return next(place.module.parameters(), None) is not None


def twin_of(module: nn.Module) -> nn.Module:
    """A copy that shares the parameters."""
    twin: nn.Module = copy.deepcopy(module, {id(p): p for p in module.parameters()})
    return twin


def slots_of(model: nn.Module, module: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """(path of the parent, parent, name) of each place at which ``module`` is registered; a parent
    with several names is looked at once."""
    for path, parent in model.named_modules():
        for name, child in parent._modules.items():
            if child is module:
                yield path, parent, name


def unshare_all(model: nn.Module) -> list[str]:
    """Give each name in ``model`` a module of its own, in place. Returns the names concerned, the
    first of each module among them."""
    seen: dict[int, str] = {}
    found: list[str] = []
    stack = [("", model)]
    while stack:
        path, parent = stack.pop()
        for name, child in list(parent._modules.items()):
            if child is None:
                continue
            here = f"{path}.{name}" if path else name
            if id(child) in seen:
                found += [seen[id(child)], here]
                child = parent._modules[name] = twin_of(child)
            seen[id(child)] = here
            stack.append((here, child))
    return list(dict.fromkeys(found))
