"""Which result of the float model a result of the prepared model stands for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from torch import fx, nn
from torch.ao.quantization import DeQuantStub, QuantStub, QuantWrapper

from qatexplorer.accuracy.records import RowKind
from qatexplorer.checks.evidence.float_gap import Chains
from qatexplorer.forward.exported import is_exported, main_modules, stack_of
from qatexplorer.forward.graph import Graph
from qatexplorer.forward.leaves import is_leaf_call
from qatexplorer.forward.visit import Place, Visit
from qatexplorer.quantizers.facts import is_quantizer, kinds_of


@dataclass(frozen=True)
class Source:
    """Where the float values are: result of the call at ``place`` (or what it was given, with
    ``given``), cut off at 0 with ``relu``."""

    place: Place
    relu: bool = False
    given: bool = False

    @property
    def key(self) -> tuple[Place, bool]:
        return self.place, self.given


@dataclass(frozen=True)
class Head:
    """What a row is of; fields as those of :class:`~qatexplorer.accuracy.records.CompareRow`."""

    path: str
    kind: RowKind
    type: str
    owner: str = ""
    call: int = 0


@dataclass(frozen=True)
class Match:
    """A result of the prepared model: which rows it is of, its float values, its fake quant.

    ``container``: it is of a module that only combines others.
    """

    source: Source
    heads: tuple[Head, ...]
    quantizer: nn.Module | None = None
    container: bool = False


class Matcher(Protocol):
    """Says what a visit of the prepared model is; None for what has no row."""

    wanted_given: frozenset[str]
    """Paths of the float model whose input is asked for too."""

    places: frozenset[str]
    """Paths of the prepared model (names of nodes) that may have a row."""

    asked: frozenset[str]
    """Paths of the float model (names of nodes) whose result may be asked for."""

    def of(self, visit: Visit) -> Match | None: ...


@dataclass
class ByPaths:
    """Eager mode: modules stand where they stood, but those that were fused into another.

    Args:
        base, graph: the float model and its dataflow. prepared: the model with fake quants.
        origin: path in the float model by that in ``prepared``, where they differ.
        fusion: groups that were fused.
    """

    base: nn.Module
    graph: Graph | None
    prepared: nn.Module
    origin: Mapping[str, str] = field(default_factory=dict)
    fusion: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        self._modules = dict(self.prepared.named_modules(remove_duplicate=False))
        self._chains = Chains(self.base, self.graph)
        self._weights = {path for path, kind in kinds_of(self.prepared).items() if kind == "weight"}
        # Without a graph a group of modules is all that is known of what was fused.
        self._last = {run[0]: run[-1] for run in self.fusion} if self.graph is None else {}
        self.wanted_given = frozenset(
            self._origin(path)
            for path, module in self._modules.items()
            if isinstance(module, QuantWrapper)
        )
        # What calls may be, as many as the float model makes of the module that each was.
        self._known: dict[Place, Match | None] = {
            (path, call): self._match(path, call, module)
            for path, module in self._modules.items()
            for call in range(self._calls(path, module))
        }
        known = {place: match for place, match in self._known.items() if match is not None}
        self.places = frozenset(path for path, _ in known)
        self.asked = frozenset(match.source.place[0] for match in known.values())

    def _calls(self, path: str, module: nn.Module) -> int:
        owner = path.rpartition(".")[0] if is_quantizer(module) else path
        calls = max(self._chains.calls(self._origin(one)) for one in (path, owner))
        return max(1, calls) if path else 0

    def of(self, visit: Visit) -> Match | None:
        path, call = visit.place
        if visit.module is None:
            return None
        if visit.place not in self._known:
            self._known[visit.place] = self._match(path, call, visit.module)
        return self._known[visit.place]

    def _match(self, path: str, call: int, module: nn.Module) -> Match | None:
        if path in self._weights:
            return None
        if is_quantizer(module):
            return self._of_fake_quant(path, call, module)
        if isinstance(module, DeQuantStub):
            return None
        source = self._source(path, call)
        if source is None:
            return None
        head = Head(path, "module", type(module).__name__, call=call)
        fake = getattr(module, "activation_post_process", None)
        quantizer = fake if isinstance(fake, nn.Module) and is_quantizer(fake) else None
        return Match(source, (head,), quantizer, not is_leaf_call(module))

    def _of_fake_quant(self, path: str, call: int, module: nn.Module) -> Match | None:
        owner = path.rpartition(".")[0]
        head = Head(path, "fake quant", type(module).__name__, owner, call)
        if self._origin(path) in self._chains.paths:  # of a FloatFunctional, which is not called
            function = Head(owner, "module", type(self._modules[owner]).__name__, call=call)
            return Match(Source((self._origin(path), call)), (function, head), module)
        source = self._source(owner, call)
        return Match(source, (head,), module) if source is not None else None

    def _source(self, path: str, call: int) -> Source | None:
        module = self._modules[path]
        plain = self._origin(path)
        if plain not in self._chains.paths:
            return self._of_stub(path, call, module)
        if isinstance(module, nn.Identity) and not isinstance(
            self._chains.paths[plain], nn.Identity
        ):
            return None  # fused into a module before it
        kind = type(module).__name__
        if plain in self._last and type(self._chains.paths[plain]).__name__ != kind:
            return Source((self._last[plain], call))
        end = self._chains.end(plain, call, kind)
        return Source(end.place, end.relu) if end is not None else None

    def _of_stub(self, path: str, call: int, module: nn.Module) -> Source | None:
        """Of a stub of a ``QuantWrapper`` that torch has put around a module."""
        owner = path.rpartition(".")[0]
        if isinstance(module, QuantStub) and isinstance(self._modules.get(owner), QuantWrapper):
            return Source((self._origin(owner), call), given=True)
        return None

    def _origin(self, path: str) -> str:
        return self.origin.get(path, path)


class Unrounded:
    """The float form is the prepared model itself, its fake quants off: places are the same.

    Args:
        rows: says what a visit is.
    """

    wanted_given: frozenset[str] = frozenset()

    def __init__(self, rows: Matcher) -> None:
        self._rows = rows
        self.places = self.asked = rows.places

    def of(self, visit: Visit) -> Match | None:
        match = self._rows.of(visit)
        return replace(match, source=Source(visit.place)) if match is not None else None


class ByNodes:
    """FX: nodes keep their names; those that were fused into another are gone.

    Args:
        traced: the float model as a graph. prepared: the same with fake quants.
    """

    wanted_given: frozenset[str] = frozenset()

    def __init__(self, traced: fx.GraphModule, prepared: fx.GraphModule) -> None:
        self._modules = dict(prepared.named_modules(remove_duplicate=False))
        self._floats = {node.name: node for node in traced.graph.nodes}
        self._there = {node.name for node in prepared.graph.nodes}
        self._exported = is_exported(prepared)
        self._main = main_modules(prepared) if self._exported else {}
        calls: dict[str, int] = {}
        self._heads: dict[fx.Node, Head] = {}
        self._matches: dict[str, Match] = {}
        for node in prepared.graph.nodes:
            match = self._match(node, calls)
            if match is not None:
                self._matches[node.name] = match
        self.places = frozenset(self._matches)
        self.asked = frozenset(match.source.place[0] for match in self._matches.values())

    def of(self, visit: Visit) -> Match | None:
        return self._matches.get(visit.place[0])

    def _match(self, node: fx.Node, calls: dict[str, int]) -> Match | None:
        head = self._head(node, calls)
        if head is None or (not self._is_fake(node) and self._fakes(node)):
            return None  # the values of a fake-quantized node are those behind its fake quant
        behind = self._behind(node)
        source = self._source(behind)
        if source is None or behind.op == "get_attr":
            return None
        if behind is node:
            return Match(source, (head,))
        owner = self._heads.get(behind)
        fake = replace(head, owner=owner.path if owner is not None else behind.name)
        first = owner is not None and node in self._fakes(behind)[:1]
        heads = (owner, fake) if owner is not None and first else (fake,)
        return Match(source, heads, self._modules[str(node.target)])

    def _head(self, node: fx.Node, calls: dict[str, int]) -> Head | None:
        if node.op not in ("call_module", "call_function", "call_method"):
            return None
        path, kind_of = self._main.get(node.name, ("", ""))
        if not path:
            path = str(node.target) if node.op == "call_module" else node.name
        call = calls[path] = calls.get(path, -1) + 1
        if kind_of:
            head = Head(path, "module", kind_of, call=call)
        elif node.op != "call_module":
            head = Head(path, "operation", _operation(node), call=call)
        else:
            kind: RowKind = "fake quant" if self._is_fake(node) else "module"
            head = Head(path, kind, type(self._modules[path]).__name__, call=call)
        self._heads[node] = head
        return head

    def _is_fake(self, node: fx.Node) -> bool:
        return node.op == "call_module" and is_quantizer(self._modules[str(node.target)])

    def _fakes(self, node: fx.Node) -> list[fx.Node]:
        return [user for user in node.users if self._is_fake(user)]

    def _source(self, node: fx.Node) -> Source | None:
        end = self._floats.get(node.name)
        if self._exported:
            return self._exported_source(node, end)
        if end is None:
            return None
        while True:
            fused = [user for user in end.users if user.name not in self._there]
            if not fused or node.op != "call_module":
                return Source((end.name, 0))
            end = fused[0]

    def _exported_source(self, node: fx.Node, same: fx.Node | None) -> Source | None:
        """Nodes keep their names, but those of a convolution with a batch norm behind it, which
        torchao has put in anew: only what comes out of the batch norm is there in both."""
        if "batch_norm" in str(node.target):
            norms = [one for one in self._floats.values() if one.target == node.target]
            same = next((one for one in norms if stack_of(one) == stack_of(node)), same)
        if same is None or (same.op, str(same.target)) != (node.op, str(node.target)):
            return None
        alike = node.op == "placeholder" or stack_of(same) == stack_of(node)
        return Source((same.name, 0)) if alike else None

    def _behind(self, node: fx.Node) -> fx.Node:
        while self._is_fake(node):
            node = node.all_input_nodes[0]
        return node


def _operation(node: fx.Node) -> str:
    return str(getattr(node.target, "__name__", node.target))
