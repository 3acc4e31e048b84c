"""What an exported model and its quantizer say: operations, what is written on them, their modes.

The functions with a graph module read it and change nothing; they serve any model that
``torch.export`` has made. Those with a subject are evidence.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from qatexplorer.checks.evidence.prepared import prepared_model
from qatexplorer.checks.subject import NoEvidence, Subject
from qatexplorer.flows.annotations import KEY
from qatexplorer.forward.exported import stack_of
from qatexplorer.forward.graph_module import source_of
from qatexplorer.quantizers.facts import is_quantizer

LAYERS = frozenset(
    {
        *("conv1d", "conv2d", "conv3d", "convolution"),
        *("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
        *("linear", "addmm", "mm", "bmm", "matmul", "scaled_dot_product_attention"),
        *("embedding", "embedding_bag"),
    }
)
"""Operations that a quantizer is made for: they multiply, or look up weights."""
_PASSING = frozenset(
    {
        *("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"),
        *("clone", "cat", "stack", "pad", "constant_pad_nd"),
    }
)
"""Operations that hand values on."""


@dataclass(frozen=True)
class Operation:
    """An operation that computes floating-point values of data.

    Attributes:
        node: its id. name: of the aten operation, e.g. ``"conv2d"``.
        path: of the user's module in whose forward it is; kind: that module's class.
        source: ``"file.py:12"`` in the user's code, ``""`` where that is not known.
        taken: whether the quantizer has written on it. rounds: whether anything of it is rounded.
        parameters: how many values of parameters go into it.
    """

    node: str
    name: str
    path: str
    kind: str
    source: str
    taken: bool
    rounds: bool
    parameters: int

    @property
    def where(self) -> str:
        """``"linear of head"``, ``"add (net.py:12)"``."""
        place = f" of {self.path}" if self.path else f" ({self.source})" if self.source else ""
        return f"{self.name}{place}"


@dataclass(frozen=True)
class Region:
    """A part of the forward that ``torch.export`` has put into a graph of its own.

    ``name`` is the operation that calls it, e.g. ``"wrap_with_set_grad_enabled"``.
    """

    name: str
    operations: tuple[Operation, ...]

    @property
    def reason(self) -> str:
        """What in forward made it."""
        return _MAKERS.get(self.name, self.name)


_MAKERS = {
    "wrap_with_set_grad_enabled": "torch.no_grad() or set_grad_enabled()",
    "wrap_with_autocast": "torch.autocast()",
    "cond": "torch.cond()",
}


def operations_of(model: fx.GraphModule) -> tuple[Operation, ...]:
    """The operations of the model's own graph that compute, in order; regions are left out."""
    constant: set[fx.Node] = set()
    found = []
    for node in model.graph.nodes:
        given = node.all_input_nodes
        if node.op == "get_attr" or (
            node.op == "call_function" and given and all(one in constant for one in given)
        ):
            constant.add(node)
        elif node.op == "call_function" and _computes(node):
            found.append(_operation(model, node))
    return tuple(found)


def regions_of(model: fx.GraphModule) -> tuple[Region, ...]:
    """Parts that have a graph of their own, also those within one another, with what computes."""
    found = []
    for node in model.graph.nodes:
        for inner in _graphs_called(model, node):
            operations = tuple(
                _operation(inner, one)
                for one in inner.graph.nodes
                if one.op == "call_function" and _computes(one)
            )
            name = str(getattr(node.target, "__name__", node.target))
            found += [Region(name, operations)] if operations else []
            found += regions_of(inner)
    return tuple(found)


def _graphs_called(model: fx.GraphModule, node: fx.Node) -> Iterator[fx.GraphModule]:
    if node.op != "call_function":
        return
    for given in node.all_input_nodes:
        inner: Any = model
        for part in str(given.target).split(".") if given.op == "get_attr" else ():
            inner = getattr(inner, part, None)
        if isinstance(inner, fx.GraphModule) and inner is not model:
            yield inner


def _computes(node: fx.Node) -> bool:
    """Whether it makes new floating-point values: views and what passes values on do not."""
    schema = getattr(node.target, "_schema", None)
    value = node.meta.get("val")
    while isinstance(value, (tuple, list)) and value:
        value = value[0]
    if schema is None or operation_name(node) in _PASSING or not schema.returns:
        return False
    if isinstance(value, Tensor) and not value.is_floating_point():
        return False
    alias = schema.returns[0].alias_info
    return alias is None or bool(alias.is_write)


def operation_name(node: fx.Node) -> str:
    """``"conv2d"`` of ``aten.conv2d.default``."""
    packet = getattr(node.target, "overloadpacket", None)
    return str(getattr(packet, "__name__", getattr(node.target, "__name__", node.target)))


def _operation(model: fx.GraphModule, node: fx.Node) -> Operation:
    path, kind = next(iter(reversed(stack_of(node))), ("", ""))
    written = node.meta.get(KEY)
    specs = [*written.input_qspec_map.values(), written.output_qspec] if written else []
    return Operation(
        node.name,
        operation_name(node),
        path,
        kind.rpartition(".")[2],
        source_of(node),
        written is not None,
        any(spec is not None for spec in specs),
        sum(_values(model, one) for one in node.all_input_nodes),
    )


def _values(model: fx.GraphModule, node: fx.Node) -> int:
    """How many values of a parameter the node stands for."""
    held = _attribute(model, node)
    return held.numel() if isinstance(held, torch.nn.Parameter) else 0


def _attribute(model: fx.GraphModule, node: fx.Node) -> Any:
    held: Any = model if node.op == "get_attr" else None
    for part in str(node.target).split(".") if node.op == "get_attr" else ():
        held = getattr(held, part, None)
    return held


# -- modes -----------------------------------------------------------------------------------------

_FLAGS = ("training", "train", "use_input_stats")


@dataclass(frozen=True)
class Mode:
    """An operation that computes something else in training, with what it is set to.

    Attributes:
        node, name, path, source: as of an :class:`Operation`.
        training: its own argument; ``.training`` of an exported model says nothing of it.
        numbers: its further constants by name, e.g. ``p`` or ``eps`` and ``momentum``.
        inside: whether it is in a region (see :class:`Region`).
    """

    node: str
    name: str
    path: str
    source: str
    training: bool
    numbers: tuple[tuple[str, float], ...]
    inside: bool = False

    def number(self, name: str) -> float | None:
        return dict(self.numbers).get(name)


def modes_of(model: fx.GraphModule, inside: bool = False) -> tuple[Mode, ...]:
    """Every operation of ``model`` that has a mode, those in regions too."""
    found: list[Mode] = []
    for node in model.graph.nodes:
        arguments = _arguments(node)
        flag = next((arguments[n] for n in _FLAGS if isinstance(arguments.get(n), bool)), None)
        if flag is not None:
            numbers = tuple(
                (name, float(value))
                for name, value in arguments.items()
                if isinstance(value, (int, float)) and not isinstance(value, bool)
            )
            path = _norm_path(node) or next((p for p, _ in reversed(stack_of(node))), "")
            name = operation_name(node)
            found.append(Mode(node.name, name, path, source_of(node), flag, numbers, inside))
        for inner in _graphs_called(model, node):
            found += modes_of(inner, inside=True)
    return tuple(found)


def _arguments(node: fx.Node) -> dict[str, Any]:
    """The arguments of an aten operation by name."""
    schema = getattr(node.target, "_schema", None)
    if node.op != "call_function" or schema is None:
        return {}
    names = [argument.name for argument in schema.arguments]
    return {**dict(zip(names, node.args, strict=False)), **node.kwargs}


def _norm_path(node: fx.Node) -> str:
    """Path of the batch norm whose running mean the operation takes: torchao puts operations of
    its own in place of those of the model, and these know no module."""
    held = _arguments(node).get("running_mean")
    if not isinstance(held, fx.Node) or held.op != "get_attr":
        return ""
    return str(held.target).rpartition(".")[0]


# -- of a session ----------------------------------------------------------------------------------


def _graph(model: Any) -> fx.GraphModule:
    if not isinstance(model, fx.GraphModule):
        raise NoEvidence("The model is no exported graph.")
    return model


def exported(subject: Subject) -> fx.GraphModule:
    """The exported graph, before a quantizer has seen it"""
    names = [stage.name for stage in subject.flow.stages if stage.role == "traced"]
    if not names:
        raise NoEvidence("This flow exports nothing.")
    return _graph(subject.maker.rebuild(names[0]))


def annotated(subject: Subject) -> fx.GraphModule:
    """The exported graph, with what the quantizer has written on it"""
    stage = subject.flow.stage_with("qconfig")
    if stage is None:
        raise NoEvidence("In this flow nothing is written on a graph.")
    return _graph(subject.maker.rebuild(stage.name))


def prepared_graph(subject: Subject) -> fx.GraphModule:
    """The graph with its fake quants in"""
    return _graph(subject.get(prepared_model))


# -- fake quants of weights ------------------------------------------------------------------------


@torch.no_grad()
def weights_rounded(model: fx.GraphModule) -> dict[str, tuple[str, Tensor]]:
    """Of each fake quant that rounds what is made of parameters alone, by path: the path of the
    layer that takes it, and the tensor that comes to it as the model is now."""
    modules = dict(model.named_modules(remove_duplicate=False))
    known: dict[fx.Node, Any] = {}
    found: dict[str, tuple[str, Tensor]] = {}
    for node in model.graph.nodes:
        given = node.all_input_nodes
        if node.op == "get_attr":
            known[node] = _attribute(model, node)
        elif not given or not all(one in known for one in given):
            continue
        elif node.op == "call_module" and is_quantizer(modules[str(node.target)]):
            value = known[given[0]]
            known[node] = value
            if isinstance(value, Tensor):
                owner = next((p for user in node.users for p, _ in reversed(stack_of(user))), "")
                found[str(node.target)] = (owner, value.detach())
        elif node.op == "call_function" and not _writes(node):
            known[node] = node.target(*_filled(node.args, known), **_filled(node.kwargs, known))
    return found


def _writes(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is None or bool(schema.is_mutable)


def _filled(arguments: Any, known: dict[fx.Node, Any]) -> Any:
    return fx.map_arg(arguments, lambda node: known[node])
