"""Where the prepared model, its fake quants off, parts from the float model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from qatexplorer.checks.evidence.float_run import FloatRun
from qatexplorer.checks.subject import Subject
from qatexplorer.evaluate.pairs import by_nodes
from qatexplorer.evaluate.parity import apart
from qatexplorer.forward.graph import Graph
from qatexplorer.forward.graph_module import source_of
from qatexplorer.forward.visit import Place, Sample

_EPSILON = float(torch.finfo(torch.float32).eps)


@dataclass(frozen=True)
class Frozen:
    """One of them: its function's name, the module in whose forward it is, and the line."""

    operation: str
    path: str
    source: str


@dataclass(frozen=True)
class FloatGap:
    """How far the prepared model is from the float one without any rounding.

    Attributes:
        output: largest difference of what they return, as a share of its range; infinite where one
            is not finite.
        tolerated: what float32 alone explains, see :func:`tolerated`.
        path, call: the first module where they part, and how many calls of it came before; both
            None where that is not known.
        there: the difference there, as ``output``.
        frozen: operations whose ``training`` was traced as True, and stays so in eval mode.
    """

    output: float
    tolerated: float
    path: str | None = None
    call: int = 0
    there: float = 0.0
    frozen: tuple[Frozen, ...] = ()

    @property
    def parted(self) -> bool:
        return self.output > self.tolerated


def tolerated(model: nn.Module) -> float:
    """The largest share of the output's range that rounding in float32 explains.

    A fused conv and batch norm computes in another order: it scales the weight and divides the
    result again, which is a few roundings more a layer. They add up like a random walk at best, in
    proportion to the depth at worst, which is what is allowed for.
    """
    layers = sum(any(p is not None and p.dim() > 1 for p in m._parameters.values())
                 for m in model.modules())  # fmt: skip
    return 32 * _EPSILON * max(1, layers)


def float_gap(
    floats: FloatRun,
    seen: Mapping[Place, Sample],
    outputs: list[Tensor],
    prepared: nn.Module,
    subject: Subject,
) -> FloatGap:
    """Compare ``seen`` and ``outputs`` of ``prepared``, run without rounding, with the float's."""
    whole, limit = apart(floats.returned, outputs), tolerated(subject.base)
    gap = FloatGap(whole, limit)
    if not gap.parted:
        return gap
    gap = replace(gap, frozen=frozen_calls(prepared))
    for path, call, found, wanted in _common(floats.outputs, seen, prepared, subject):
        if found.shape != wanted.shape:
            continue
        there = apart([wanted], [found])
        if there > limit:
            return replace(gap, path=path, call=call, there=there)
    return gap


def frozen_calls(prepared: nn.Module) -> tuple[Frozen, ...]:
    """Calls of functions that were traced with ``training=True``, in the order of the graph."""
    found = []
    for node in _frozen_nodes(prepared):
        stack = node.meta.get("nn_module_stack") or {}
        path = next((str(path) for path, _ in reversed(stack.values())), "")
        found.append(Frozen(_ASK_TRAINING[node.target][0], path, source_of(node)))
    return tuple(found)


def frozen_words(frozen: tuple[Frozen, ...]) -> str:
    """What was traced with ``training=True``, and what that does, in a sentence."""
    first = frozen[0]
    more = f" (and {len(frozen) - 1} more such calls)" if len(frozen) > 1 else ""
    what = "normalizes by each batch's own statistics"
    if "dropout" in first.operation:
        what = "drops values"
    return (
        f"{first.operation} in {first.path or 'the model itself'}{more} was traced with "
        f"training=True, so it {what} in eval mode and in int8 too."
    )


def follow_eval(prepared: fx.GraphModule) -> fx.GraphModule:
    """Write ``training=False`` into the frozen calls of ``prepared``, and return it."""
    for node in _frozen_nodes(prepared):
        position = _ASK_TRAINING[node.target][1]
        if len(node.args) > position:
            node.update_arg(position, False)
        else:
            node.update_kwarg("training", False)
    prepared.recompile()
    return prepared


def _frozen_nodes(prepared: nn.Module) -> list[fx.Node]:
    found = []
    for node in prepared.graph.nodes if isinstance(prepared, fx.GraphModule) else ():
        if node.op != "call_function" or node.target not in _ASK_TRAINING:
            continue
        position = _ASK_TRAINING[node.target][1]
        given = node.args[position] if len(node.args) > position else node.kwargs.get("training")
        if given is True and node.kwargs.get("p", node.args[1:2]) not in (0, 0.0, (0,), (0.0,)):
            found.append(node)
    return found


_ASK_TRAINING: dict[Any, tuple[str, int]] = {
    F.batch_norm: ("F.batch_norm", 5),
    F.dropout: ("F.dropout", 2),
    F.dropout1d: ("F.dropout1d", 2),
    F.dropout2d: ("F.dropout2d", 2),
    F.dropout3d: ("F.dropout3d", 2),
    F.alpha_dropout: ("F.alpha_dropout", 2),
}
"""Functions with an argument ``training``, and where it stands."""


def _common(
    floats: Mapping[str, list[Tensor]],
    seen: Mapping[Place, Sample],
    prepared: nn.Module,
    subject: Subject,
) -> list[tuple[str, int, Tensor, Tensor]]:
    """(path, call, prepared, float) of all results that mean the same, in order."""
    modules = dict(prepared.named_modules(remove_duplicate=False))
    chains = Chains(subject.base, subject.options.graph)
    inside = {path for run in subject.options.fusion for path in run[1:-1]}
    found = []
    for place, path, call in _places(seen, prepared):
        plain = path if path in chains.paths else path.removeprefix("module.")
        if plain in inside or plain not in chains.paths or path not in modules:
            continue
        end = chains.end(plain, call, type(modules[path]).__name__)
        if end is None:
            continue
        calls = floats.get(end.place[0], [])
        if end.place[1] < len(calls):
            values = calls[end.place[1]]
            values = values.clamp(min=0) if end.relu else values
            found.append((plain, call, seen[place].values, values))
    return found


def _places(seen: Mapping[Place, Sample], prepared: nn.Module) -> list[tuple[Place, str, int]]:
    """(place, module's path, number of its call) of all module calls in ``seen``."""
    if not by_nodes(prepared):
        return [(place, *place) for place in seen]
    assert isinstance(prepared, fx.GraphModule)
    calls: dict[str, int] = {}
    found = []
    for node in prepared.graph.nodes:
        if node.op != "call_module":
            continue
        path = str(node.target)
        number = calls[path] = calls.get(path, -1) + 1
        if (node.name, 0) in seen:
            found.append(((node.name, 0), path, number))
    return found


@dataclass(frozen=True)
class _End:
    place: Place
    relu: bool = False


class Chains:
    """Where in the float model the result stands that a fused module gives."""

    def __init__(self, base: nn.Module, graph: Graph | None) -> None:
        self.paths = dict(base.named_modules(remove_duplicate=False))
        self._graph = graph
        nodes = graph.nodes if graph is not None else ()
        self._nodes = {node.id: node for node in nodes}
        self._calls: dict[str, list[str]] = {}
        for node in nodes:
            if node.path:
                self._calls.setdefault(node.path, []).append(node.id)
        self._after: dict[str, list[str]] = {}
        for edge in graph.edges if graph is not None else ():
            self._after.setdefault(edge.source, []).append(edge.target)

    def calls(self, path: str) -> int:
        """How often the module at ``path`` is called in one forward."""
        return len(self._calls.get(path, ()))

    def end(self, path: str, call: int, kind: str) -> _End | None:
        """Of the call of the module at ``path`` that has become one of type ``kind``: what the
        float model computes at the end of what was fused. None where that is not known."""
        norm, relu = "Bn" in kind, "ReLU" in kind
        if not (norm or relu) or type(self.paths[path]).__name__ == kind:
            return _End((path, call))
        if self._graph is None or call >= self.calls(path):
            return None
        node, place = self._calls[path][call], (path, call)
        for wanted in [self._is_norm] * norm + [self._is_relu] * relu:
            after = next((n for n in self._after.get(node, ()) if wanted(n)), None)
            if after is None:  # this call is followed by something else: it was not meant
                return _End(place)
            node = after
            if self._nodes[node].path:
                where = self._nodes[node].path
                place = where, self._calls[where].index(node)
            else:
                return _End(place, relu=True)
        return _End(place)

    def _is_norm(self, node: str) -> bool:
        module = self.paths.get(self._nodes[node].path)
        return isinstance(module, nn.modules.batchnorm._BatchNorm)

    def _is_relu(self, node: str) -> bool:
        one = self._nodes[node]
        if one.path:
            return isinstance(self.paths.get(one.path), nn.ReLU)
        return one.label in ("relu", "relu_")
