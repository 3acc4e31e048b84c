"""How modules are used in one forward: read off the dataflow graph, nothing is run for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import nn

from qatexplorer.checks.subject import NoEvidence, Subject
from qatexplorer.flows.base import copy_sharing_parameters
from qatexplorer.flows.edits.sharing import unshare_all
from qatexplorer.flows.fusion import can_fuse
from qatexplorer.forward.graph import GraphNode
from qatexplorer.quantizers.types import FUNCTIONAL_CLASSES
from qatexplorer.snapshot.take import take_graph

NORMS = nn.modules.batchnorm._BatchNorm
CONVS = nn.modules.conv._ConvNd
TRANSPOSED = nn.modules.conv._ConvTransposeNd
_LONGEST = 3
# FX's patterns name this function; torch.relu and Tensor.relu are others to it.
_FUSED_RELU = "torch.nn.functional.relu"
_RELUS = ("relu", "relu_", "relu6")


@dataclass(frozen=True)
class Uses:
    """Calls of modules, and what follows each.

    Attributes:
        modules: by path, each object under its first name only.
        names: all paths of a module by ``id``, those of its parents' other names included.
        nodes: of the graph, in order of execution.
        users: the nodes that take a node's result, by node id; inputs: those that give it its own.
        untraced: modules that FX leaves as one call.
    """

    modules: dict[str, nn.Module]
    names: dict[int, tuple[str, ...]]
    nodes: tuple[GraphNode, ...]
    users: dict[str, tuple[GraphNode, ...]]
    inputs: dict[str, tuple[GraphNode, ...]]
    untraced: frozenset[str]

    @cached_property
    def calls(self) -> dict[str, tuple[GraphNode, ...]]:
        """The nodes that call a module, by its path."""
        found: dict[str, list[GraphNode]] = {}
        for node in self.nodes:
            if node.op == "call_module" and node.path in self.modules:
                found.setdefault(node.path, []).append(node)
        return {path: tuple(nodes) for path, nodes in found.items()}

    def module(self, node: GraphNode) -> nn.Module | None:
        """The module that ``node`` calls, None for a function or method."""
        return self.modules.get(node.path) if node.op == "call_module" else None

    def names_of(self, path: str) -> tuple[str, ...]:
        """All names of the module at ``path``, the first one first."""
        return self.names[id(self.modules[path])]

    def follower(self, node: GraphNode) -> GraphNode | None:
        """The only user of ``node``, None where there is none or are several."""
        after = self.users.get(node.id, ())
        return after[0] if len(after) == 1 else None

    def is_relu(self, node: GraphNode) -> bool:
        """Whether ``node`` sets negative values to 0 (and, with ReLU6, cuts off at 6)."""
        module = self.module(node)
        if module is not None:
            return isinstance(module, (nn.ReLU, nn.ReLU6))
        return node.op in ("call_function", "call_method") and node.label in _RELUS

    def norm_of(self, node: GraphNode) -> tuple[str, nn.Module] | None:
        """(path, batch norm) that ``node`` computes: it calls torch's own, or is the
        ``F.batch_norm`` in the forward of a class derived from it."""
        module = self.module(node)
        if isinstance(module, NORMS):
            return node.path, module
        scope = self.modules.get(node.scope)
        if node.label == "batch_norm" and isinstance(scope, NORMS):
            return node.scope, scope
        return None

    def fx_group(self, node: GraphNode) -> tuple[GraphNode, ...]:
        """``node`` and those after it that FX fuses with it into one module; ``()`` for none.

        FX looks at each call by itself: exact types, one after the other, with no other user.
        """
        group, modules = [node], [self.module(node)]
        if modules[0] is None or isinstance(modules[0], FUNCTIONAL_CLASSES):
            return ()
        best: tuple[GraphNode, ...] = ()
        while len(group) < _LONGEST and (after := self.follower(group[-1])) is not None:
            module = self.module(after)
            if module is None and after.target == _FUSED_RELU:
                module = nn.ReLU().train(modules[0].training)
            if module is None or not self._traced(after):
                break
            group.append(after)
            modules.append(module)
            if can_fuse([m for m in modules if m is not None]):
                best = tuple(group)
        return best if self._traced(node) else ()

    def named(self, node: GraphNode) -> str:
        """A node as sentences name it: the module's path, or the function."""
        return node.path or node.label

    def _traced(self, node: GraphNode) -> bool:
        return node.path not in self.untraced

    def run_of(self, chain: Sequence[str], node: GraphNode) -> tuple[GraphNode, ...]:
        """The nodes that call the modules of ``chain``, one after the other, from ``node`` on; as
        far as they do."""
        found = [node]
        for path in chain[1:]:
            after = self.follower(found[-1])
            if after is None or after.path != path:
                break
            found.append(after)
        return tuple(found)


def uses(subject: Subject) -> Uses:
    """What each module's results are used for."""
    graph = subject.options.graph
    if graph is None:
        raise NoEvidence("the dataflow graph of the model is not known")
    names: dict[int, list[str]] = {}
    for path, module in subject.base.named_modules(remove_duplicate=False):
        names.setdefault(id(module), []).append(path)
    by_id = {node.id: node for node in graph.nodes}
    users: dict[str, list[GraphNode]] = {}
    inputs: dict[str, list[GraphNode]] = {}
    for edge in graph.edges:
        users.setdefault(edge.source, []).append(by_id[edge.target])
        inputs.setdefault(edge.target, []).append(by_id[edge.source])
    return Uses(
        modules=dict(subject.base.named_modules()),
        names={key: tuple(paths) for key, paths in names.items()},
        nodes=graph.nodes,
        users={key: tuple(nodes) for key, nodes in users.items()},
        inputs={key: tuple(nodes) for key, nodes in inputs.items()},
        untraced=frozenset(
            subject.options.custom.untraced_layers(subject.base) if subject.flow.by_graph else ()
        ),
    )


def called_names(subject: Subject) -> dict[str, int]:
    """By which of its names a module is called.

    How often each name of a module with several is called in one forward; those that are not
    called are missing. It is read off the graph of a copy in which each name has a module of its
    own; nothing is computed for it where shapes decide what the forward does.
    """
    copy = copy_sharing_parameters(subject.base)
    shared = tuple(unshare_all(copy))
    if not shared:
        return {}
    below = tuple(f"{name}." for name in shared)
    graph = take_graph(copy, subject.options.example_inputs)
    called = (node.path for node in graph.nodes if node.op == "call_module")
    return dict(Counter(path for path in called if path in shared or path.startswith(below)))
