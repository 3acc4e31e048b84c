"""In what each module of a prepared or converted model computes in int8 inference: int8 or float.

Found from the structure alone, without converting: which modules torch's ``convert`` will swap, and
which operations lie between int8 tensors. The ledger converts a copy and runs it, and gives the
reasons; the two agree.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from torch import fx, nn
from torch.ao.quantization.quantization_mappings import get_default_static_quant_module_mappings
from torch.ao.quantization.quantize import get_default_custom_config_dict
from torch.nn.utils.parametrize import type_before_parametrizations

from qatexplorer.forward.graph import Graph, GraphEdge, GraphNode
from qatexplorer.forward.leaves import is_leaf_call
from qatexplorer.quantizers.facts import is_quantizer
from qatexplorer.quantizers.torchao_grids import is_torchao
from qatexplorer.quantizers.types import (
    FUNCTIONAL_CLASSES,
    KEEPING,
    ON_INT8,
    STUBS,
    State,
    compute_of,
    operation_of,
)
from qatexplorer.snapshot.records import Inside

_INT8_NOW = ("int8", "reference", "boundary")
_MULTIPLYING = ("linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "einsum", "attention", "conv")


@dataclass(frozen=True, slots=True)
class ModuleState:
    """Fields as in ModuleRecord."""

    state: State = ""
    stays_float: bool = False
    inside: Inside = field(default_factory=Inside)
    own_state: State = ""


@dataclass(frozen=True, slots=True)
class States:
    """States of modules by path, and the graph's operations that give an int8 tensor."""

    by_path: Mapping[str, ModuleState]
    int8_nodes: frozenset[str]


@dataclass
class _Tally:
    """Counts for an :class:`Inside`, by whether it computes in int8."""

    layers: list[bool] = field(default_factory=list)
    others: list[bool] = field(default_factory=list)

    def inside(self) -> Inside:
        layers, others = self.layers, self.others
        return Inside(len(layers), sum(layers), len(others), sum(others))


def swapped_paths(model: nn.Module) -> frozenset[str]:
    """Paths of the modules that torch's eager ``convert`` swaps for int8 ones: those with a qconfig
    and an exact type that is in its mapping. The root is never swapped."""
    types = {
        *get_default_static_quant_module_mappings(),
        *get_default_custom_config_dict()["observed_to_quantized_custom_module_class"],
    }
    return frozenset(
        path
        for path, module in model.named_modules(remove_duplicate=False)
        if path
        and getattr(module, "qconfig", None) is not None
        and type_before_parametrizations(module) in types
    )


def unlowered_paths(model: nn.Module) -> frozenset[str]:
    """Modules of an FX graph without an int8 kernel: torch's lowering leaves them as they are, in
    float between a dequantize and a quantize, whatever fake quants stand around them."""
    if not isinstance(model, fx.GraphModule):
        return frozenset()
    from torch.ao.quantization.fx._lower_to_native_backend import is_special_pattern_node

    modules = dict(model.named_modules(remove_duplicate=False))
    return frozenset(
        str(node.target)
        for node in model.graph.nodes
        if node.op == "call_module"
        and not is_quantizer(modules[str(node.target)])
        and not hasattr(modules[str(node.target)], "weight_fake_quant")
        and compute_of(modules[str(node.target)]) in ("layer", "container")
        and not any(compute_of(m) == "reference" for m in modules[str(node.target)].children())
        and not is_special_pattern_node(node, modules)[2]
    )


def computing_modules(model: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Modules that compute something of their own: leaves, and modules of the user's that hold
    parameters themselves. Not fake quants, stubs and what only holds an operation."""
    seen: set[int] = set()
    # An explicit stack: a model nested a thousand deep is legal.
    stack = [(prefix, model)]
    while stack:
        path, module = stack.pop()
        if id(module) in seen or is_quantizer(module) or isinstance(module, (*STUBS, nn.Identity)):
            continue
        seen.add(id(module))
        leaf = is_leaf_call(module)
        own = any(p is not None for p in module._parameters.values())
        if (leaf and not isinstance(module, FUNCTIONAL_CLASSES)) or own:
            yield path, module
        if not leaf:
            stack += [
                (f"{path}.{name}" if path else name, child)
                for name, child in reversed(module._modules.items())
                if child is not None
            ]


def module_states(model: nn.Module, graph: Graph | None, reference: bool = False) -> States:
    """State of every module by path, of a model that is prepared or converted.

    ``graph`` is its dataflow; None leaves what lies between int8 layers unsaid (float).
    ``reference``: the model describes int8 and is not lowered yet.
    """
    found = _ModuleStates(model, graph or Graph((), ()), reference)
    return States(found.all(), frozenset(found.on_int8))


def operations_state(nodes: Sequence[GraphNode], int8_nodes: frozenset[str]) -> State:
    """In what those of ``nodes`` compute that multiply matrices and are no module's; ``""`` if
    there is none."""
    found = {
        node.id in int8_nodes
        for node in nodes
        if node.op in ("call_function", "call_method")
        and any(word in _operation(node) for word in _MULTIPLYING)
    }
    return in_one_word(found)


class _ModuleStates:
    def __init__(self, model: nn.Module, graph: Graph, reference: bool) -> None:
        self.model, self.graph = model, graph
        self.in_fx = isinstance(model, fx.GraphModule)
        self.modules = dict(model.named_modules(remove_duplicate=False))
        self.into: dict[str, list[GraphEdge]] = {}
        self.out_of: dict[str, list[GraphEdge]] = {}
        for edge in graph.edges:
            self.into.setdefault(edge.target, []).append(edge)
            self.out_of.setdefault(edge.source, []).append(edge)
        self.nodes = {node.id: node for node in graph.nodes}
        self.at: dict[str, list[GraphNode]] = {}
        self.parameters_at: dict[str, list[GraphNode]] = {}
        parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
        for node in graph.nodes:
            if node.path:
                self.at.setdefault(node.path, []).append(node)
            if node.op == "get_attr" and node.target in parameters:
                holder = node.target.rpartition(".")[0]
                self.parameters_at.setdefault(holder, []).append(node)
        swapped = frozenset[str]() if self.in_fx else swapped_paths(model)
        now = {p for p, m in self.modules.items() if p and compute_of(m) in _INT8_NOW}
        self.int8_paths = swapped | now
        self.stored = {
            path
            for path, module in self.modules.items()
            if compute_of(module) == "stored" or is_torchao(_weight_fake_quant(module))
        }
        self.unlowered = unlowered_paths(model)
        self.by_reference = reference or any(
            compute_of(m) == "reference" for m in self.modules.values()
        )
        self.on_int8: set[str] = set()
        self.from_input: set[str] = set()
        for node in graph.nodes:
            self._follow(node)

    # -- dataflow -------------------------------------------------------------------------------

    def _follow(self, node: GraphNode) -> None:
        data = [e for e in self.into.get(node.id, ()) if self.nodes[e.source].op != "get_attr"]
        if node.op == "placeholder" or any(e.source in self.from_input for e in data):
            self.from_input.add(node.id)
        fed = bool(data) and all(e.sites or e.source in self.on_int8 for e in data)
        if self._gives_int8(node, fed):
            self.on_int8.add(node.id)

    def _gives_int8(self, node: GraphNode, fed: bool) -> bool:
        """Whether the result is an int8 tensor; ``fed``: everything that it works on is one."""
        if (node.dtype or "").startswith("torch.q") or "quantize_per" in node.target:
            return True
        if self.by_reference and node.target.endswith("dequantize"):
            return fed  # lowering takes it away, with the operation between it and a quantize
        module = self.modules.get(node.path) if node.path else None
        if module is not None and compute_of(module) in ("int8", "boundary", "stub"):
            leaves = "Dequant" in type(module).__name__.replace("DeQuant", "Dequant")
            return not leaves and (compute_of(module) != "stub" or node.path in self.int8_paths)
        if not self.in_fx and node.path in self.int8_paths:
            return True
        name = _operation(node) if module is None else operation_of(module)
        if self.in_fx:
            if node.path in self.unlowered:
                return False
            return fed and (name in KEEPING or self._watched(node))
        return fed and name in ON_INT8

    def _watched(self, node: GraphNode) -> bool:
        """Whether a fake quant looks at the result, or at that of the ReLU computed with it; in a
        reference model a quantize stands where it stood."""
        takers = self.out_of.get(node.id, ())
        if any(e.sites or "quantize_per" in self.nodes[e.target].target for e in takers):
            return True
        if len(takers) != 1:
            return False
        after = self.nodes[takers[0].target]
        module = self.modules.get(after.path) if after.path else None
        name = _operation(after) if module is None else operation_of(module)
        return name == "relu" and any(
            e.sites or "quantize_per" in self.nodes[e.target].target
            for e in self.out_of.get(after.id, ())
        )

    # -- modules --------------------------------------------------------------------------------

    def all(self) -> dict[str, ModuleState]:
        leaves: dict[int, ModuleState] = {}
        tallies: dict[str, _Tally] = {}
        for path, module in computing_modules(self.model):
            state = self._state(path, module)
            if state:
                leaves[id(module)] = ModuleState(state, state == "float")
            elif _own_parameters(module):
                state = self._state_of_own_parameters(path)
            if state and compute_of(module) != "boundary":
                _count(tallies, path, state == "int8", _holds_weights(module))
        for node in self.graph.nodes:
            if self._is_operation(node):
                _count(tallies, node.scope, node.id in self.on_int8, False)
        inherited: dict[str, State] = {}  # parents come before their children
        found: dict[str, ModuleState] = {}
        for path, module in self.modules.items():
            leaf = leaves.get(id(module), ModuleState())
            above = inherited.get(path.rpartition(".")[0], "") if path else ""
            inherited[path] = leaf.state if is_leaf_call(module) and leaf.state else above
            own = leaf.state or above
            if not own and _own_parameters(module):
                own = self._state_of_own_parameters(path)
            inside = tallies[path].inside() if path in tallies else Inside()
            found[path] = ModuleState(leaf.state or inside.state, leaf.stays_float, inside, own)
        return found

    def _state_of_own_parameters(self, path: str) -> State:
        """Of a module that is no layer, whose own parameters feed operations: that of these
        operations. Eager mode rounds none of them."""
        if not self.in_fx:
            return "float"
        found: set[bool] = set()
        for node in self.parameters_at.get(path, ()):
            for edge in self.out_of.get(node.id, ()):
                found.add(edge.target in self.on_int8)
        return in_one_word(found)

    def _state(self, path: str, module: nn.Module) -> State:
        if self._in_int8(path):
            return "int8"
        nodes = self.at.get(path, ())
        leaf = is_leaf_call(module)
        if self.in_fx and not nodes and not self._untraced(path):
            return ""  # FX has traced through it: its operations stand for it
        if isinstance(module, fx.GraphModule) or (path == "" and not leaf):
            return ""  # its own parameters feed operations
        if not leaf and not nodes:
            nodes = [n for n in self.graph.nodes if n.scope == path and n.id in self.from_input]
        on = [node.id in self.on_int8 for node in nodes]
        return "int8" if on and all(on) else "float"

    def _in_int8(self, path: str) -> bool:
        """Whether the module at ``path``, or one around it, computes in int8."""
        parts = path.split(".")
        paths = self.int8_paths | self.stored
        return any(".".join(parts[:end]) in paths for end in range(len(parts), 0, -1))

    def _untraced(self, path: str) -> bool:
        parts = path.split(".")
        return any(".".join(parts[:end]) in self.at for end in range(len(parts) - 1, 0, -1))

    def _is_operation(self, node: GraphNode) -> bool:
        called = node.op in ("call_function", "call_method")
        real = (node.dtype or "").startswith(("torch.float", "torch.q"))
        return called and real and node.id in self.from_input and "quantize" not in node.target


def _count(tallies: dict[str, _Tally], path: str, int8: bool, layer: bool) -> None:
    """Count what computes at ``path`` for the module there and for all around it."""
    for here in around(path):
        tally = tallies.setdefault(here, _Tally())
        (tally.layers if layer else tally.others).append(int8)


def around(path: str) -> Iterator[str]:
    """``path`` and those of the modules around it, the model itself last."""
    here: str | None = path
    while here is not None:
        yield here
        here = here.rpartition(".")[0] if here else None


def _weight_fake_quant(module: nn.Module) -> nn.Module:
    # Of a scripted part the table of modules is no dict.
    named = (child for name, child in module._modules.items() if name == "weight_fake_quantizer")
    found = next(named, None)
    return module if found is None else found


def _own_parameters(module: nn.Module) -> bool:
    return any(parameter is not None for parameter in module._parameters.values())


def _holds_weights(module: nn.Module) -> bool:
    """Whether it is a layer with parameters; torch's int8 layers have packed theirs."""
    if compute_of(module) in ("int8", "reference"):
        return hasattr(module, "weight") or hasattr(module, "_packed_params")
    if is_leaf_call(module):
        return any(True for _ in module.parameters())
    return _own_parameters(module)


def in_one_word(int8: set[bool]) -> State:
    """Of which of both there are."""
    if not int8:
        return ""
    return "mixed" if len(int8) > 1 else "int8" if int8.pop() else "float"


def _operation(node: GraphNode) -> str:
    return node.target.rpartition(".")[2].strip("_")
