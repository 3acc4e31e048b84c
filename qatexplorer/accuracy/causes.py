"""Why int8 and fake quant part at a place, by the probe that the checks use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, fx, nn

from qatexplorer.accuracy.sums import InSteps
from qatexplorer.checks.evidence.causes import Cause, Examiner
from qatexplorer.evaluate.pairs import Pair
from qatexplorer.evaluate.parity import ParityRow
from qatexplorer.forward.visit import Visit

_WORDS = {
    "kernel": "the int8 kernel does not give what its own integers do",
    "batch norm": "the batch norm was folded over the wrong dimension",
    "one scale": "called {calls:.0f} times, and int8 has one scale for all calls",
    "stale scale": "int8 has step {step:.3g}, the fake quant {trained:.3g}",
    "clamp": "the fake quant clamps at code {high:.0f}, int8 goes on",
    "weight": "the int8 weight has {ratio:.3g} times the fake quant's scale",
    "kernel scale": "training rounds the weight with another scale than convert",
    "unknown": "it differs on the same input",
}
RULES = {
    "kernel": "QX502",
    "batch norm": "QX503",
    "one scale": "QX504",
    "kernel scale": "QX505",
    "clamp": "QX506",
    "weight": "QX507",
    "stale scale": "QX507",
    "unknown": "QX508",
}
"""The rule of the checks that says more, by what the probe found."""


def in_words(cause: Cause) -> str:
    """``"called 2 times, and int8 has one scale for all calls (QX504)"``"""
    return f"{_WORDS[cause.why].format(**cause.detail)} ({RULES[cause.why]})"


class Probe:
    """Looks at the places that part, on the first sample of the batch: it costs the forward of a
    layer each."""

    def __init__(self, prepared: nn.Module, engine: str) -> None:
        self._examiner = Examiner(prepared, engine)

    def look(self, pair: Pair, visit: Visit, found: InSteps, step: float) -> str:
        """In words why this place parts on its own, ``""`` if it does not or it is not known."""
        total = found.values
        path, call = pair.name
        row = ParityRow(
            path,
            call,
            step,
            total,
            total,
            found.half / total,
            found.far / total,
            found.largest,
            pair.trained_step,
        )
        before = len(self._examiner.causes)
        self._examiner.look(row, pair, _first_sample(visit))
        causes = self._examiner.causes[before:]
        return in_words(causes[0]) if causes else ""


def _first_sample(visit: Visit) -> Visit:
    """``visit`` cut to the first of the batch's samples, where all it has to do with has them."""
    result = visit.result
    if not isinstance(result, Tensor) or result.dim() < 2 or result.shape[0] < 2:
        return visit
    size = result.shape[0]
    values = _OfFirst(visit.values, size)
    given = [*visit.args, *(values.given(node) for node in _inputs(visit))]
    tensors = [one for one in given if isinstance(one, Tensor)]
    if not all(isinstance(one, Tensor) for one in visit.args):
        return visit
    if not tensors or any(one.dim() < 2 or one.shape[0] != size for one in tensors):
        return visit
    args = tuple(one[:1] for one in visit.args)
    return replace(visit, result=result[:1], args=args, values=values)


def _inputs(visit: Visit) -> list[fx.Node]:
    return visit.node.all_input_nodes if visit.node is not None else []


class _OfFirst(Mapping[fx.Node, Any]):
    def __init__(self, values: Mapping[fx.Node, Any], size: int) -> None:
        self._values, self._size = values, size

    def given(self, node: fx.Node) -> Any:
        return self._values.get(node)

    def __getitem__(self, node: fx.Node) -> Any:
        value = self._values[node]
        batch = isinstance(value, Tensor) and value.dim() > 1 and value.shape[0] == self._size
        return value[:1] if batch else value

    def __iter__(self) -> Iterator[fx.Node]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)
