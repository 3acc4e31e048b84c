"""Which result of the fake-quant model an int8 result is to be compared with."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from typing import Any, Protocol

import torch
from torch import Tensor, fx, nn

from qatexplorer.forward.exported import grid_of_node, is_exported, main_modules
from qatexplorer.forward.visit import Place, Visit
from qatexplorer.quantizers.facts import constant_nodes, is_fake_quant, is_quantizer

_PASSING = (torch.quantize_per_tensor, torch.dequantize)


@dataclass(frozen=True)
class Pair:
    """What belongs to an int8 result.

    Attributes:
        name: path of the module (name of the node for an operation of a graph) and number of the
            call. fake: place of the fake-quant result.
        quantizer: the fake quant whose result that is, None where it is not known.
        nodes: of the prepared graph, that the int8 operation stands for, in order.
        sources: int8 nodes that the operation takes, by the prepared node that each stands for.
        grid: scale and zero point of what the operation gives, where that is codes without them.
    """

    name: Place
    fake: Place
    quantizer: nn.Module | None = None
    nodes: tuple[fx.Node, ...] = ()
    sources: tuple[tuple[fx.Node, fx.Node], ...] = ()
    grid: tuple[float, int] | None = None

    @property
    def trained_step(self) -> float:
        """Step of the fake quant's grid as it is, 0.0 where there is none for the whole tensor."""
        scale = getattr(self.quantizer, "scale", None)
        return float(scale) if isinstance(scale, Tensor) and scale.numel() == 1 else 0.0


class Pairs(Protocol):
    """Finds the pair of a call of the int8 model, None where there is none.

    Attributes:
        same_names: what has no pair is called in the int8 model as it is in the prepared one.
    """

    same_names: bool

    def of(self, visit: Visit) -> Pair | None: ...


def pairs_of(prepared: nn.Module, int8: nn.Module) -> Pairs:
    """For an int8 model made of a copy of ``prepared``."""
    if by_nodes(prepared) and isinstance(int8, fx.GraphModule):
        assert isinstance(prepared, fx.GraphModule)
        lowered = is_exported(int8)
        return _ByGrids(prepared, int8) if lowered else _ByNodes(prepared, int8)
    return _ByPaths(prepared)


def on_grid(visit: Visit, pair: Pair | None) -> Visit:
    """``visit`` with its result as a quantized tensor, where the pair has its grid."""
    if pair is None or pair.grid is None or not isinstance(visit.result, Tensor):
        return visit
    codes = visit.result.contiguous()
    made = torch._make_per_tensor_quantized_tensor(codes, *pair.grid)
    return replace(visit, result=made)


def by_nodes(prepared: nn.Module) -> bool:
    """Whether its fake quants are nodes of a graph; in eager mode hooks call them, also where the
    user's model is a graph."""
    if not isinstance(prepared, fx.GraphModule):
        return False
    modules = dict(prepared.named_modules(remove_duplicate=False))
    calls = (n for n in prepared.graph.nodes if n.op == "call_module")
    return any(is_quantizer(modules[str(node.target)]) for node in calls)


class _ByPaths:
    """Eager mode: every module stands where it stood."""

    same_names = True

    def __init__(self, prepared: nn.Module) -> None:
        self._modules = dict(prepared.named_modules(remove_duplicate=False))

    def of(self, visit: Visit) -> Pair | None:
        path = visit.place[0]
        there: Any = self._modules.get(path)
        if there is None:
            return None
        if is_quantizer(there):  # of a FloatFunctional, which calls it in its methods
            owner = path.rpartition(".")[0]
            return Pair((owner, visit.place[1]), visit.place, there)
        fake = getattr(there, "activation_post_process", None)
        return Pair(visit.place, visit.place, fake if isinstance(fake, nn.Module) else None)


class _ByNodes:
    """FX: lowering keeps modules' names and gives operations new ones, so these are found by what
    they take: nodes of both graphs are gone through in order, and an operation is the first one of
    the prepared graph, not taken yet, that takes the same."""

    same_names = True

    def __init__(self, prepared: fx.GraphModule, int8: fx.GraphModule) -> None:
        self._modules = dict(prepared.named_modules(remove_duplicate=False))
        self._prepared = list(prepared.graph.nodes)
        self._by_name = {node.name: node for node in self._prepared}
        self._taken: set[fx.Node] = set()
        self._stands_for: dict[fx.Node, fx.Node] = {}
        self._pairs: dict[str, Pair] = {}
        calls: dict[str, int] = {}
        for node in int8.graph.nodes:
            self._match(node, calls)

    def of(self, visit: Visit) -> Pair | None:
        return self._pairs.get(visit.place[0])

    def _match(self, node: fx.Node, calls: dict[str, int]) -> None:
        if (node.op == "call_function" and node.target in _PASSING) or _dequantizes(node):
            source = node.all_input_nodes[0] if node.all_input_nodes else None
            if source in self._stands_for:
                op = self._stands_for[node] = self._stands_for[source]
                if node.target is torch.quantize_per_tensor:
                    self._pair(node, (op.name, 0), op, (op,))
            return
        if node.op in ("placeholder", "get_attr"):
            same = self._by_name.get(node.name)
            if same is not None and same.op == node.op:
                self._stands_for[node] = same
            return
        found = self._module(node) if node.op == "call_module" else self._operation(node)
        if found is None:
            return
        chain = self._chain(found)
        self._taken.update(chain)
        self._stands_for[node] = chain[-1]
        name = str(node.target) if node.op == "call_module" else node.name
        number = calls[name] = calls.get(name, -1) + 1
        self._pair(node, (name, number), chain[-1], chain)

    def _pair(self, node: fx.Node, name: Place, op: fx.Node, chain: tuple[fx.Node, ...]) -> None:
        fake = self._fake_of(op)
        if fake is not None:
            sources = tuple(
                (self._stands_for[given], given)
                for given in node.all_input_nodes
                if given in self._stands_for
            )
            where = fake.name, 0
            self._pairs[node.name] = Pair(
                name, where, self._modules[str(fake.target)], chain, sources
            )

    def _module(self, node: fx.Node) -> fx.Node | None:
        same = self._by_name.get(node.name)
        return same if same is not None and same.target == node.target else None

    def _operation(self, node: fx.Node) -> fx.Node | None:
        takes = [
            self._stands_for.get(given) for given in node.all_input_nodes if given.op != "get_attr"
        ]
        if None in takes or not takes:
            return None
        for one in self._prepared:
            if one.op not in ("call_function", "call_method") or one in self._taken:
                continue
            behind = [self._behind(given) for given in one.all_input_nodes]
            # A functional layer's weight and bias are packed into one attribute of the int8 model.
            if [given for given in behind if given.op != "get_attr"] == takes:
                return one  # type: ignore[no-any-return]
        return None

    def _chain(self, node: fx.Node) -> tuple[fx.Node, ...]:
        """``node`` and those after it up to the one that is fake-quantized: one int8 operation."""
        chain = [node]
        while self._fake_of(chain[-1]) is None and len(chain[-1].users) == 1:
            following = next(iter(chain[-1].users))
            if following.op == "output" or len(following.all_input_nodes) != 1:
                break
            chain.append(following)
        return tuple(chain) if self._fake_of(chain[-1]) is not None else (node,)

    def _is_fake(self, node: fx.Node) -> bool:
        return node.op == "call_module" and is_quantizer(self._modules[str(node.target)])

    def _fake_of(self, node: fx.Node) -> fx.Node | None:
        return next((user for user in node.users if self._is_fake(user)), None)

    def _behind(self, node: fx.Node) -> fx.Node:
        while self._is_fake(node) and node.all_input_nodes:
            node = node.all_input_nodes[0]
        return node


class _ByGrids:
    """PT2E: lowering traces the model anew, and no node keeps its name. But what gives codes has
    the scale and zero point that converting has found for a fake quant, in the order of the graph:
    the longest runs that are the same in both belong together."""

    same_names = False

    def __init__(self, prepared: fx.GraphModule, lowered: fx.GraphModule) -> None:
        modules = dict(prepared.named_modules(remove_duplicate=False))
        constant, owners = constant_nodes(prepared.graph), main_modules(prepared)
        fakes = [
            node
            for node in prepared.graph.nodes
            if node.op == "call_module"
            and is_fake_quant(modules[str(node.target)])
            and node not in constant
        ]
        grids = {node: grid_of_node(node) for node in lowered.graph.nodes}
        coded = [(node, grid) for node, grid in grids.items() if grid is not None]
        wanted = [_converted(modules[str(node.target)]) for node in fakes]
        matcher = SequenceMatcher(None, wanted, [_key(*grid) for _, grid in coded], False)
        self._pairs: dict[str, Pair] = {}
        for begin, there, size in matcher.get_matching_blocks():
            for offset in range(size):
                fake, (node, grid) = fakes[begin + offset], coded[there + offset]
                behind = fake.all_input_nodes[0]
                name = owners.get(behind.name, (behind.name, ""))[0]
                self._pairs[node.name] = Pair(
                    (name, 0), (fake.name, 0), modules[str(fake.target)], grid=grid
                )

    def of(self, visit: Visit) -> Pair | None:
        return self._pairs.get(visit.place[0])


def _converted(quantizer: Any) -> tuple[str, int] | None:
    """The grid that ``convert_pt2e`` gives to what it makes of a fake quant."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchao warns when the observer has seen nothing yet
        scale, zero = quantizer.calculate_qparams()
    return _key(float(scale), int(zero)) if scale.numel() == 1 else None


def _key(scale: float, zero: int) -> tuple[str, int]:
    return f"{scale:.6g}", zero


def _dequantizes(node: fx.Node) -> bool:
    return node.op == "call_method" and node.target == "dequantize"
