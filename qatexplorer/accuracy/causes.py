"""Why int8 and fake quant part at a place, by the probe that the checks use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor, fx, nn

from qatexplorer.accuracy.sums import InSteps
from qatexplorer.checks.evidence.causes import PARTED, Cause, Examiner
from qatexplorer.evaluate.pairs import Pair
from qatexplorer.evaluate.parity import ParityRow
from qatexplorer.forward.visit import Visit
from qatexplorer.quantizers.engine_probe import probe_engine

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


def in_words(cause: Cause, engine: str) -> str:
    """``"called 2 times, and int8 has one scale for all calls (QX504)"``"""
    words = _WORDS[cause.why].format(**cause.detail)
    if cause.why == "kernel" and probe_engine(engine).verdict == "saturates":
        words = f"{engine} saturates on this CPU: its int8 kernel cuts off sums"
    return f"{words} ({RULES[cause.why]})"


_ALWAYS = 6


class Probe:
    """Looks at the places that part, on the first sample of the batch: it costs the forward of a
    layer each. So behind the first six only at those that part more than any before: a difference
    that a place was given is not looked at again and again.
    """

    def __init__(self, prepared: nn.Module, engine: str) -> None:
        self._examiner = Examiner(prepared, engine)
        self._engine = engine
        self._looked = 0
        self._furthest = 0.0

    def look(self, pair: Pair, visit: Callable[[], Visit], found: InSteps, step: float) -> str:
        """In words why this place parts on its own, ``""`` if it does not or it is not known."""
        total = found.values
        far = found.far / total
        if far <= PARTED or (self._looked >= _ALWAYS and far <= self._furthest):
            return ""
        self._looked += 1
        self._furthest = max(self._furthest, far)
        path, call = pair.name
        row = ParityRow(
            path,
            call,
            step,
            total,
            total,
            found.half / total,
            far,
            found.largest,
            pair.trained_step,
        )
        before = len(self._examiner.causes)
        self._examiner.look(row, pair, visit())
        causes = self._examiner.causes[before:]
        return in_words(causes[0], self._engine) if causes else ""


def first_sample(visit: Visit, take: Callable[[Tensor], Any] = Tensor.clone) -> Visit:
    """``visit`` cut to the first of the batch's samples, where all it has to do with has them, with
    what ``take`` makes of each tensor: a copy that later operations do not write to."""
    size = visit.result.shape[0] if _has_batch(visit.result) else 0
    needed = {node: visit.values[node] for node in _inputs(visit) if node in visit.values}
    given = [*visit.args, *needed.values()]
    # Tensors of no dimension are numbers: a scale, a zero point.
    tensors = [one for one in given if isinstance(one, Tensor) and one.dim()]
    cut = (
        size > 1
        and len(tensors) > 0
        and all(isinstance(one, Tensor) for one in visit.args)
        and all(_has_batch(one) and one.shape[0] == size for one in tensors)
    )

    def copied(value: Any) -> Any:
        if isinstance(value, Tensor):
            return take(value[:1] if cut and value.dim() else value)
        if type(value) in (tuple, list):
            return type(value)(copied(one) for one in value)
        return value

    return replace(
        visit,
        result=copied(visit.result),
        args=copied(visit.args),
        values={node: copied(value) for node, value in needed.items()},
    )


def _has_batch(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() > 1


def _inputs(visit: Visit) -> list[fx.Node]:
    return visit.node.all_input_nodes if visit.node is not None else []
