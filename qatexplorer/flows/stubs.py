"""Ways to get int8 tensors into a model that has no ``QuantStub``."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, cast

from torch import Tensor, nn
from torch.ao.quantization import (
    DeQuantStub,
    QuantStub,
    QuantWrapper,
    add_quant_dequant,
    propagate_qconfig_,
)
from torch.utils._pytree import tree_map_only

from qatexplorer.data import as_args
from qatexplorer.errors import InputError
from qatexplorer.flows.base import StageResult, StubMode
from qatexplorer.forward.graph import Graph, GraphEdge, GraphNode
from qatexplorer.forward.graph_module import bound_arguments
from qatexplorer.forward.scripted import ScriptedPart
from qatexplorer.forward.trace import tensors_in

NO_STUBS = (
    "The model has no QuantStub: nothing turns its float input into int8, and an int8 layer that "
    "is given a float tensor raises. Choose stubs='model' (around the whole model) or "
    "stubs='layers' (add_quant_dequant around each layer)."
)


def check_stub_mode(mode: Any) -> StubMode:
    """``mode`` itself. Raises InputError if it is none of :data:`StubMode`."""
    if mode not in ("none", "model", "layers"):
        raise InputError(
            f"stubs is {mode!r}.", fix="Use 'none', 'model' (QuantWrapper) or 'layers'."
        )
    return cast(StubMode, mode)


def has_stubs(model: nn.Module) -> bool:
    """Whether any module is a ``QuantStub`` of the user's (``QuantWrapper`` holds one)."""
    ours = {id(m) for p in model.modules() if isinstance(p, ScriptedPart) for m in p.modules()}
    return any(isinstance(m, QuantStub) and id(m) not in ours for m in model.modules())


class InputStubs(nn.Module):
    """torch's ``QuantWrapper`` for a model that takes more than one tensor: a ``QuantStub`` for
    each argument that holds float tensors, and a ``DeQuantStub`` for every tensor returned.

    Whole numbers and flags (indices, masks) pass as they are. ``names`` are the arguments of
    ``module.forward`` to quantize; the tensors of one argument share a stub.
    """

    def __init__(self, module: nn.Module, names: Collection[str]) -> None:
        super().__init__()
        self.quant = nn.ModuleDict({_free_key(name): QuantStub() for name in names})
        self.dequant = DeQuantStub()
        self.module = module
        qconfig: Any = getattr(module, "qconfig", None)
        if qconfig:
            self.qconfig = qconfig
        self.train(module.training)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        bound = inspect.signature(self.module.forward).bind(*args, **kwargs)
        for name, value in bound.arguments.items():
            if _free_key(name) in self.quant:
                stub = self.quant[_free_key(name)]
                bound.arguments[name] = tree_map_only(Tensor, partial(_quantized, stub), value)
        result = self.module(*bound.args, **bound.kwargs)
        return tree_map_only(Tensor, self.dequant, result)


def _free_key(name: str) -> str:
    """A key for a ``ModuleDict``, which has attributes of its own (``values``, ``type``)."""
    return f"{name}_" if hasattr(nn.ModuleDict, name) else name


def _quantized(stub: nn.Module, value: Tensor) -> Any:
    return stub(value) if value.is_floating_point() else value


def _float_arguments(model: nn.Module, inputs: Any) -> tuple[str, ...]:
    """Names of the arguments of ``model.forward`` that hold float tensors."""
    return tuple(
        name
        for name, value in bound_arguments(model, inputs).items()
        if any(tensor.is_floating_point() for tensor in tensors_in(value))
    )


def _wrap_model(model: nn.Module, inputs: Any) -> StageResult:
    args, kwargs = as_args(inputs)
    one_tensor = not kwargs and len(args) == 1 and isinstance(args[0], Tensor)
    names = () if one_tensor else _float_arguments(model, inputs)
    if not names:
        wrapped: nn.Module = QuantWrapper(model)
        notes: tuple[str, ...] = ()
    else:
        wrapped = InputStubs(model, names)
        note = (
            "The model takes more than one tensor, and torch's QuantWrapper only one: each of "
            f"{', '.join(names)} gets a QuantStub and a scale of its own."
        )
        notes = (note,)
    propagate_qconfig_(wrapped)
    return StageResult(wrapped, origin=_inside_module, moved=True, notes=notes)


def add_stubs(
    model: nn.Module,
    mode: StubMode,
    mapping: Mapping[Any, Any],
    inputs: Any,
    graph: Graph | None = None,
) -> StageResult:
    """Wrap ``model`` after its qconfig is propagated (``QuantWrapper`` hands the qconfig on)."""
    if mode == "model":
        return _wrap_model(model, inputs)
    if mode == "layers":
        paths = _wrap_layers(model, frozenset(mapping))
        if "" in paths:
            return add_stubs(model, "model", mapping, inputs, graph)
        _leave_the_rest_float(model)
        wrappers = len({id(model.get_submodule(path)) for path in paths})
        note = (
            f"{wrappers} {'layer' if wrappers == 1 else 'layers'} wrapped, each with a QuantStub "
            "and a DeQuantStub of its own; what is outside of wrappers gets the qconfig None, "
            "because tensors between them are float."
        )
        return StageResult(
            model,
            origin=lambda path: _inside_wrapped(path, paths),
            moved=True,
            notes=(note,),
            graph=graph and wrapped_graph(graph, paths),
        )
    lacking = not has_stubs(model) and _asks_for_int8(model, frozenset(mapping))
    return StageResult(model, notes=(NO_STUBS,) if lacking else ())


def _asks_for_int8(model: nn.Module, types: Collection[Any]) -> bool:
    """Whether any layer will be swapped for one that takes int8 tensors: not the root, which torch
    never swaps, and not an embedding, which takes indices."""
    return any(
        type(module) in types
        and getattr(module, "qconfig", None) is not None
        and not isinstance(module, (nn.Embedding, nn.EmbeddingBag))
        for path, module in model.named_modules()
        if path
    )


def _wrap_layers(model: nn.Module, types: Collection[Any]) -> frozenset[str]:
    """Wrap each module of one of ``types`` that has a qconfig; returns their paths.

    Not one ``add_quant_dequant(model)``: that descends into fused modules and wraps the conv
    inside, which torch can then no longer swap. A module under two names gets one wrapper.
    """
    if type(model) in types:
        return frozenset({""})
    wrappers: dict[int, nn.Module] = {}
    paths = set()

    def visit(parent: nn.Module, prefix: str) -> None:
        for name, child in list(parent._modules.items()):
            if child is None or isinstance(child, QuantWrapper):
                continue
            if type(child) in types and getattr(child, "qconfig", None) is not None:
                if id(child) not in wrappers:
                    wrappers[id(child)] = _wrap_one(child)
                parent._modules[name] = wrappers[id(child)]
                paths.add(prefix + name)
            else:
                visit(child, f"{prefix}{name}.")

    visit(model, "")
    return frozenset(paths)


def _wrap_one(layer: nn.Module) -> nn.Module:
    if any(True for _ in layer.children()):
        return QuantWrapper(layer)  # add_quant_dequant would descend into a fused module
    wrapped: nn.Module = add_quant_dequant(layer)
    return wrapped


def _leave_the_rest_float(model: nn.Module) -> None:
    """Outside of wrappers all tensors are float, so nothing there may be converted.

    A wrapper hands its layer's qconfig to its stubs; it has none of its own.
    """
    model.qconfig = None  # type: ignore[assignment]
    if isinstance(model, QuantWrapper):
        return
    for child in model.children():
        _leave_the_rest_float(child)


def wrapped_graph(graph: Graph, wrapped: Collection[str]) -> Graph:
    """``graph`` with quant, module, dequant in place of each call of a module at ``wrapped``.

    That is what ``QuantWrapper.forward`` calls, so that no forward is needed to find it.
    """
    nodes: list[GraphNode] = []
    first: dict[str, str] = {}
    last: dict[str, str] = {}
    sources = {edge.target: edge.source for edge in reversed(graph.edges)}
    shapes = {node.id: node.shape for node in graph.nodes}
    edges: list[GraphEdge] = []
    for node in graph.nodes:
        if node.op != "call_module" or node.path not in wrapped:
            nodes.append(node)
            continue
        path = node.path
        before, after = f"{node.id}.quant", f"{node.id}.dequant"
        first[node.id], last[node.id] = before, after
        shape = shapes.get(sources.get(node.id, ""))
        parts = (("quant", before, shape), ("module", node.id, node.shape))
        for name, key, size in (*parts, ("dequant", after, node.shape)):
            at = f"{path}.{name}"
            nodes.append(
                replace(node, id=key, target=at, label=name, path=at, scope=path, shape=size)
            )
        edges += [GraphEdge(before, node.id), GraphEdge(node.id, after)]
    edges += [
        GraphEdge(last.get(e.source, e.source), first.get(e.target, e.target)) for e in graph.edges
    ]
    return replace(graph, nodes=tuple(nodes), edges=tuple(edges))


def _inside_module(path: str) -> str:
    """Origin of a path under one ``QuantWrapper`` around the whole model."""
    if path == "" or path == "module":
        return ""
    return path.removeprefix("module.") if path.startswith("module.") else path


def _inside_wrapped(path: str, wrapped: frozenset[str]) -> str:
    """Origin of a path where the layers at ``wrapped`` have been wrapped one by one."""
    parts = path.split(".")
    for end in range(len(parts), 0, -1):
        head = ".".join(parts[:end])
        if head in wrapped:
            rest = parts[end:]
            if rest[:1] == ["module"]:
                return ".".join([head, *rest[1:]])
            # The wrapper itself and its stubs have no place in the float model.
            return f"{path} (wrapper)" if not rest else path
    return path
