"""What a prepared model computes with all of its fake quants off: it should be the float model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, fx, nn

from qatexplorer.checks.evidence.float_gap import Frozen, follow_eval, frozen_calls, frozen_words
from qatexplorer.data import call_model, cloned
from qatexplorer.evaluate.metric import evaluation_mode
from qatexplorer.evaluate.parity import apart, outputs_of, percent
from qatexplorer.flows.base import copy_sharing_parameters
from qatexplorer.forward.hooks import hooked
from qatexplorer.forward.preserve import preserved_state
from qatexplorer.forward.visit import sample_of
from qatexplorer.migration.records import Cell
from qatexplorer.quantizers.facts import fake_quants, flags_of, switch


@dataclass(frozen=True)
class Unrounded:
    """Of one flow, on one input in eval mode.

    Attributes:
        gap: largest difference of what the model returns from the float model, as a share of its
            range; NaN where they cannot be compared.
        given: samples of what each fake quant is given, by path, in the order of its runs.
        frozen: calls that were traced with ``training=True``.
        follows: ``gap`` of a copy in which these follow ``eval()``; None without such calls.
    """

    gap: float
    given: Mapping[str, Sequence[Tensor]]
    frozen: tuple[Frozen, ...] = ()
    follows: float | None = None


def unrounded(model: nn.Module, inputs: Any, wanted: Sequence[Tensor]) -> Unrounded:
    """``wanted`` is what the float model returns for ``inputs``. The model is left as it was."""
    given: dict[str, list[Tensor]] = {}

    def keep(path: str, _module: nn.Module, args: Any, _kwargs: Any) -> None:
        sample = sample_of(args)
        if sample is not None:
            given.setdefault(path, []).append(sample.values)

    quants = fake_quants(model)
    with hooked(quants.items(), running=keep):
        gap = apart(list(wanted), _returned(model, inputs))
    frozen = frozen_calls(model)
    if not frozen:
        return Unrounded(gap, given)
    copied = copy_sharing_parameters(model)
    assert isinstance(copied, fx.GraphModule)
    follows = apart(list(wanted), _returned(follow_eval(copied), inputs))
    return Unrounded(gap, given, frozen, follows)


def float_outputs(model: nn.Module, inputs: Any) -> list[Tensor]:
    """What the float model returns in eval mode."""
    with evaluation_mode(model), preserved_state(model):
        return outputs_of(call_model(model, cloned(inputs)))


def departure(found: Unrounded, tolerated: float) -> str:
    """In words how and why it is not the float model; ``""`` where it is, or nothing is known."""
    if not found.gap > tolerated:
        return ""
    words = "With all fake quants off this is not the float model: what it returns is "
    words += f"{percent(found.gap)} of its range off."
    if found.frozen:
        words += f" {frozen_words(found.frozen)}"
        if found.follows is not None and found.follows <= tolerated:
            words += " With training=False there it is the float model."
    return words


Turns = Mapping[str, Mapping[str, tuple[int, int]]]
"""By flow and key of a place, see :attr:`~qatexplorer.migration.places.Reading.turns`."""


def other_tensors(
    cells: Sequence[Cell], found: Mapping[str, Unrounded], turns: Turns, tolerated: float
) -> tuple[Cell, ...]:
    """The cells with how far the tensor that reaches the fake quant is from the one in the flow
    that is nearest to the float model, of those that round the place."""
    nearest = sorted(found, key=lambda flow: _sortable(found[flow].gap))
    given: dict[str, dict[str, Tensor]] = {}
    for cell in cells:
        tensor = _given(cell, found, turns)
        if tensor is not None:
            given.setdefault(cell.place.key, {})[cell.flow] = tensor
    return tuple(
        replace(cell, apart=_apart(cell.flow, given.get(cell.place.key, {}), nearest, tolerated))
        for cell in cells
    )


def _apart(
    flow: str, given: Mapping[str, Tensor], nearest: Sequence[str], tolerated: float
) -> float | None:
    if flow not in given or len(given) < 2:
        return None
    first = next(name for name in nearest if name in given)
    share = apart([given[first]], [given[flow]])
    return 0.0 if share <= tolerated else share


def _given(cell: Cell, found: Mapping[str, Unrounded], turns: Turns) -> Tensor | None:
    if cell.rounding is None:
        return None
    runs = found[cell.flow].given.get(cell.rounding.site, ())
    turn, count = turns[cell.flow][cell.place.key]
    return runs[turn] if len(runs) == count else None


def _sortable(gap: float) -> float:
    return gap if gap == gap else float("inf")


def _returned(model: nn.Module, inputs: Any) -> list[Tensor]:
    with evaluation_mode(model), preserved_state(model), _all_off(model):
        return outputs_of(call_model(model, cloned(inputs)))


@contextmanager
def _all_off(model: nn.Module) -> Iterator[None]:
    flags = {module: flags_of(module) for module in fake_quants(model).values()}
    try:
        for module in flags:
            switch(module, fake_quant=False)
        yield
    finally:
        for module, flag in flags.items():
            switch(module, fake_quant=flag.fake_quant)
