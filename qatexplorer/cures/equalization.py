"""Cross-layer equalization: channels of unlike range between two layers are made alike.

``torch.ao.quantization._equalize.equalize`` divides each output channel of a layer by a factor and
multiplies what the next layer takes from it by the same, so that the weights of both have the same
range there. A ReLU lets a positive factor through, so the net computes what it did. It knows no
batch norm, so these are folded first, with ``fuse_modules`` in eval mode.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.ao.nn.intrinsic.modules.fused import _FusedModule
from torch.ao.quantization import fuse_modules
from torch.ao.quantization._equalize import channel_range, equalize

from qatexplorer.cures.base import Figure, Ground, Look, NewSettings, counted, cure
from qatexplorer.flows.base import copy_sharing_parameters
from qatexplorer.flows.edits import Change, Edit, Place, edit
from qatexplorer.flows.fusion import find_fusable
from qatexplorer.forward.graph import Graph, GraphNode
from qatexplorer.forward.preserve import preserved_rng

_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Linear)  # what torch's function knows
_THROUGH = (nn.ReLU, nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d)
Paths = tuple[tuple[str, ...], ...]

THRESHOLD = 1e-4
"""Torch's own."""
_ROUNDING = 1e-6
"""Of a weight's norm: in float32 the rounds of a large net never get below torch's threshold."""


@edit("equalize")
def equalized(place: Place) -> Change:
    """Fold batch norms into the layers before them and equalize pairs of layers, for the whole
    model: ``value`` has ``"fuse"`` and ``"pairs"``, lists of lists of paths."""
    try:
        fuse = [list(group) for group in place.value["fuse"]]
        pairs = [list(pair) for pair in place.value["pairs"]]
    except (TypeError, KeyError):
        raise place.misfit("to be equalized without lists of what to fuse and of pairs") from None
    if place.path:
        raise place.misfit("the whole model, which is equalized at once")
    threshold = place.value.get("threshold", THRESHOLD)
    limit = "" if threshold == THRESHOLD else f", threshold={threshold!r}"
    code = [
        "from torch.ao.quantization import fuse_modules",
        "from torch.ao.quantization._equalize import equalize",
        *_listed("groups", fuse),
        *_listed("pairs", pairs),
        "fuse_modules(model.eval(), groups, inplace=True)" if fuse else "model.eval()",
        f"equalize(model, pairs{limit})",
        "model.train()",
    ]

    def make() -> None:
        modes = {path: module.training for path, module in place.model.named_modules()}
        _equalize(place.model, fuse, pairs, threshold)
        for path, module in place.model.named_modules():
            owner = path if path in modes else path.rpartition(".")[0]
            module.training = modes.get(owner, place.model.training)

    count = f"{len(pairs)} {'pair' if len(pairs) == 1 else 'pairs'} of layers"
    return Change("\n".join(code), make, f"{count} of unlike ranges", f"{count}, equalized")


def _listed(name: str, groups: list[list[str]]) -> list[str]:
    return [f"{name} = [", *(f"    {group!r}," for group in groups), "]"]


def _equalize(
    model: nn.Module, fuse: list[list[str]], pairs: list[list[str]], threshold: float
) -> None:
    if fuse:
        fuse_modules(model.eval(), fuse, inplace=True)
    equalize(model, [list(pair) for pair in pairs], threshold)  # it writes to the lists


@dataclass(frozen=True)
class Pairs:
    """``fuse``: groups of modules to fold first. ``pairs``: of layers to equalize. ``threshold``:
    how little all weights together must move for torch's function to end."""

    fuse: Paths = ()
    pairs: Paths = ()
    threshold: float = THRESHOLD


def pairs_of(model: nn.Module, graph: Graph | None) -> Pairs:
    """The pairs of layers that can be equalized, with what to fold first.

    A pair is two layers with nothing but their batch norm, ReLU, Identity or dropout between them,
    where nothing else takes what flows there, each called once, with parameters of their own that
    are not frozen. The second takes all channels in each of its own: torch's function knows no
    grouped one there. Each channel of both has
    values that differ: torch's factors are ratios of their ranges.
    """
    if graph is None:
        return Pairs()
    modules = dict(model.named_modules())
    fuse = tuple(g for g in find_fusable(model, graph) if type(modules[g[0]]) in _LAYERS)
    chains = _Chains(modules, graph, fuse)
    found = tuple(pair for pair in chains.pairs() if _fit(*(modules[path] for path in pair)))
    if not found:
        return Pairs()
    with preserved_rng(), torch.no_grad():
        folded = _folded(model, fuse)
        good = tuple(pair for pair in found if _have_ranges(folded, pair))
        paths = {path for pair in good for path in pair}
        norms = sum(float(_weight(folded.get_submodule(path)).norm()) for path in paths)
    return Pairs(fuse, good, max(THRESHOLD, norms * _ROUNDING))


def ranges_of(model: nn.Module, found: Pairs) -> dict[tuple[str, ...], tuple[Tensor, Tensor]]:
    """The range of each channel between the two layers of a pair, as torch's function measures it:
    in the weight of the first and in that of the second, with batch norms folded."""
    with preserved_rng(), torch.no_grad():
        folded = _folded(model, found.fuse)
        return {pair: _spans(folded, pair) for pair in found.pairs}


def _folded(model: nn.Module, fuse: Paths) -> nn.Module:
    folded = copy_sharing_parameters(model).eval()
    if fuse:
        folded = fuse_modules(folded, [list(group) for group in fuse], inplace=True)
    return folded


class _Chains:
    """Straight lines in a graph that a positive factor per channel goes through."""

    def __init__(self, modules: dict[str, nn.Module], graph: Graph, fuse: Paths) -> None:
        self._modules, self._graph = modules, graph
        self._nodes = {node.id: node for node in graph.nodes}
        self._after: dict[str, list[str]] = {}
        self._before: Counter[str] = Counter()
        for edge in graph.edges:
            self._after.setdefault(edge.source, []).append(edge.target)
            self._before[edge.target] += 1
        self._calls = Counter(id(modules[n.path]) for n in graph.nodes if n.path in modules)
        self._owners = Counter(
            id(parameter)
            for module in set(modules.values())
            for parameter in module._parameters.values()
            if parameter is not None
        )
        self._norm_of = {group[0]: group[1] for group in fuse}

    def pairs(self) -> list[tuple[str, str]]:
        found = []
        for node in self._graph.nodes:
            if self._is_layer(node):
                following = self._next_layer(node)
                if following is not None:
                    found.append((node.path, following.path))
        return found

    def _next_layer(self, layer: GraphNode) -> GraphNode | None:
        node = layer
        while True:
            after = self._after.get(node.id, [])
            if len(after) != 1 or self._before[after[0]] != 1:
                return None
            node = self._nodes[after[0]]
            if self._is_layer(node):
                return node
            if not self._passes(node, layer.path):
                return None

    def _is_layer(self, node: GraphNode) -> bool:
        module = self._module(node)
        return type(module) in _LAYERS and self._is_single(module)

    def _passes(self, node: GraphNode, layer: str) -> bool:
        module = self._module(node)
        if module is None:
            return node.op in ("call_function", "call_method") and (
                node.target.rpartition(".")[2] in ("relu", "relu_")
            )
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            return node.path == self._norm_of.get(layer)
        return type(module) in _THROUGH

    def _module(self, node: GraphNode) -> nn.Module | None:
        return self._modules.get(node.path) if node.op == "call_module" else None

    def _is_single(self, module: Any) -> bool:
        own = [p for p in module._parameters.values() if p is not None]
        return self._calls[id(module)] == 1 and all(
            self._owners[id(p)] == 1 and p.requires_grad for p in own
        )


def _fit(one: Any, other: Any) -> bool:
    return getattr(other, "groups", 1) == 1 and one.weight.shape[0] == other.weight.shape[1]


def _have_ranges(model: nn.Module, pair: tuple[str, ...]) -> bool:
    spans = _spans(model, pair)
    return all(bool((span > 0).all() and torch.isfinite(span).all()) for span in spans)


def _spans(model: nn.Module, pair: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    one, other = (_weight(model.get_submodule(path)) for path in pair)
    return channel_range(one, 0), channel_range(other, 1)


def _weight(layer: Any) -> Tensor:
    inner: Any = layer[0] if isinstance(layer, _FusedModule) else layer
    weight: Tensor = inner.weight
    return weight


def _why_not(ground: Ground) -> str:
    if any(one.name == "equalize" for one in ground.edits):
        return "The model has been equalized already."
    if ground.options.graph is None:
        return "The float model has no graph, in which layers that follow each other are found."
    found = find_fusable(ground.base, ground.options.graph)
    if ground.flow.offers_fusion and ground.options.fusion != found:
        return "The session has a fuse list of yours, and folding batch norms would go against it."
    if not pairs_of(ground.base, ground.options.graph).pairs:
        return (
            "No two layers follow each other with nothing but a batch norm or ReLU between them, "
            "each called once, not frozen, the second not grouped, with a range in every channel."
        )
    return ""


_SHOWN = 3
_NARROW = 16
"""A channel is narrow whose range times this is less than that of the whole weight."""


def _look(ground: Ground) -> Look:
    found = pairs_of(ground.base, ground.options.graph)
    pairs = [f"{one} and {other}" for one, other in found.pairs]
    shown = "; ".join(pairs[:_SHOWN])
    if len(pairs) > _SHOWN:
        shown += f"; {len(pairs) - _SHOWN:,} more"
    does = f"Equalizes {counted(len(pairs), 'pair')} of layers ({shown})"
    norms = _norms(ground.base, found.fuse)
    if norms:
        which = "the layer before it" if norms == 1 else "the layers before them"
        does += f" and folds {counted(norms, 'batch norm')} into {which}"
    return Look(f"{does}.", _signs(ground, found))


def _signs(ground: Ground, found: Pairs) -> str:
    """Which of the first layers have one scale for channels of very unlike ranges."""
    plan, said = ground.options.qconfig, []
    with preserved_rng(), torch.no_grad():
        folded = _folded(ground.base, found.fuse)
        for path, _ in found.pairs:
            spec = plan.effective(ground.base, path, ground.flow.by_graph).weight
            weight = _weight(folded.get_submodule(path))
            whole = weight.max() - weight.min()
            narrow = int((channel_range(weight, 0) * _NARROW < whole).sum())
            if narrow and spec is not None and not spec.per_channel:
                said.append(f"{narrow:,} of the {counted(len(weight), 'channel')} of {path}")
    if not said:
        return ""
    more = len(said) - _SHOWN
    which = "; ".join(said[:_SHOWN]) + (f"; and channels of {more:,} more" if more > 0 else "")
    weights = (
        "the whole weight, which has one scale"
        if len(said) == 1
        else ("the whole weight, each of which has one scale")
    )
    return f"Narrower than 1/{_NARROW} of the range of {weights}: {which}."


def _norms(model: nn.Module, fuse: Paths) -> int:
    return sum(_is_norm(model, path) for group in fuse for path in group[1:])


def _unequal(pairs: Paths, fuse: Paths) -> Figure:
    """By how much the channels of a layer differ that another one shares."""

    def of(model: nn.Module) -> dict[str, float]:
        norms = [group for group in fuse if not _is_folded(model, group)]
        with preserved_rng(), torch.no_grad():
            folded = _folded(model, tuple(norms))
            found = {}
            for pair in pairs:
                for axis, path in enumerate(pair):
                    span = channel_range(_weight(folded.get_submodule(path)), axis)
                    side = ("output", "input")[axis]
                    found[f"{path} ({side} channels)"] = float(span.max() / span.min())
        return found

    return Figure("widest channel over narrowest", of)


def _is_folded(model: nn.Module, group: tuple[str, ...]) -> bool:
    return all(isinstance(model.get_submodule(path), nn.Identity) for path in group[1:])


@cure(
    "equalization",
    "Equalize layers",
    "arXiv 1906.04721, section 4.1; torch.ao.quantization._equalize.equalize",
    "ptq",
    _why_not,
    _look,
)
def equalization(ground: Ground) -> NewSettings:
    """Plan it for all pairs that :func:`pairs_of` finds. Batch norms are gone from the model then:
    training goes on with the statistics that were folded in."""
    found = pairs_of(ground.base, ground.options.graph)
    value = {
        "fuse": [list(one) for one in found.fuse],
        "pairs": [list(one) for one in found.pairs],
        "threshold": found.threshold,
    }
    lines = [f"{a} and {b} share the range of their channels" for a, b in found.pairs]
    norms = _norms(ground.base, found.fuse)
    if norms:
        lines.append(f"{counted(norms, 'batch norm')} folded into the layers before")
    return NewSettings(
        tuple(lines),
        edits=(*ground.edits, Edit("equalize", "", value)),
        figure=_unequal(found.pairs, found.fuse),
    )


def _is_norm(model: nn.Module, path: str) -> bool:
    return isinstance(model.get_submodule(path), nn.modules.batchnorm._BatchNorm)
