"""Results of one int8 forward, kept until the fake-quant model gets to the same place."""

from __future__ import annotations

import weakref
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from qatexplorer.accuracy.causes import first_sample
from qatexplorer.accuracy.kept import Kept, unwatched
from qatexplorer.accuracy.structure import numbers_in
from qatexplorer.evaluate.pairs import Pair, Pairs, on_grid
from qatexplorer.forward.leaves import is_leaf_call
from qatexplorer.forward.visit import Place, Visit


@dataclass(frozen=True)
class _Held:
    """Stands for a tensor that is kept under this number."""

    number: int


@dataclass(frozen=True)
class Looked:
    """What the probe needs to look at a place: its pair, the call on one sample, the step."""

    pair: Pair
    visit: Visit
    step: float


@dataclass(frozen=True)
class Int8Result:
    """One, the ``number``-th of the forward. ``looked`` is None where the probe has no use."""

    number: int
    quantized: bool
    looked: Looked | None = None


class Int8Results:
    """By the place of the fake-quant model that each belongs to.

    Args:
        pairs: says which place that is. places: paths (names of nodes) of those that have a row.
        looked: keep what the probe needs, too.
    """

    def __init__(self, pairs: Pairs, places: Collection[str], *, looked: bool) -> None:
        self.kept: Kept[int | _Held] = Kept()
        self._samples = 0
        self._pairs, self._places, self._looked = pairs, places, looked
        self._found: dict[Place, list[Int8Result]] = {}
        self._had: dict[int, weakref.ref[Tensor]] = {}
        self._number = 0

    def see(self, visit: Visit) -> None:
        pair = self._pairs.of(visit)
        if pair is None and not self._pairs.same_names:
            return
        visit = on_grid(visit, pair)
        tensor = numbers_in(visit.result)
        if tensor is None:
            return
        self._number += 1
        if isinstance(visit.module, torch.ao.nn.quantized.DeQuantize):
            given = visit.args[0] if visit.args else None
            if isinstance(given, Tensor) and self._has(given):
                self._had[id(tensor)] = weakref.ref(tensor)  # the same values, as the fake quant's
        place = pair.fake if pair is not None else visit.place
        if place[0] not in self._places:
            return
        container = visit.module is not None and not is_leaf_call(visit.module)
        found = self._found.setdefault(place, [])
        if (container and self._has(tensor)) or any(
            one.quantized or not tensor.is_quantized for one in found
        ):
            return
        self._had[id(tensor)] = weakref.ref(tensor)
        looked = None
        self.kept.keep(self._number, tensor)
        if self._looked and pair is not None and _has_one_scale(tensor):
            with unwatched():
                sample = first_sample(visit, self._take)
            looked = Looked(pair, sample, float(tensor.q_scale()))
        found.append(Int8Result(self._number, tensor.is_quantized, looked))

    def _take(self, tensor: Tensor) -> Any:
        """A copy of it; nothing but its place where its memory is kept as it was anyhow."""
        if not self.kept.holds(tensor):
            return tensor.clone()
        self._samples += 1
        held = _Held(self._samples)
        self.kept.keep(held, tensor)
        return held

    def visit_of(self, looked: Looked) -> Visit:
        """The call, with tensors of its own."""

        def tensor(value: Any) -> Any:
            if isinstance(value, _Held):
                kept = self.kept.get(value)
                assert kept is not None
                return kept.clone()
            if type(value) in (tuple, list):
                return type(value)(tensor(one) for one in value)
            return value

        visit = looked.visit
        values = {node: tensor(value) for node, value in visit.values.items()}
        return replace(visit, result=tensor(visit.result), args=tensor(visit.args), values=values)

    def _has(self, tensor: Tensor) -> bool:
        known = self._had.get(id(tensor))
        return known is not None and known() is tensor

    def at(self, place: Place, *, quantized: bool) -> Int8Result | None:
        """The first one there, or the first that is quantized."""
        found = self._found.get(place, ())
        return next((one for one in found if one.quantized or not quantized), None)

    def tensor(self, found: Int8Result) -> Tensor:
        """As it was when the call returned."""
        tensor = self.kept.get(found.number)
        assert tensor is not None
        return tensor


def _has_one_scale(tensor: Tensor) -> bool:
    return tensor.is_quantized and tensor.qscheme() in (
        torch.per_tensor_affine,
        torch.per_tensor_symmetric,
    )
