"""Ways to get int8 tensors into a model that has no ``QuantStub``."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, cast

from torch import nn
from torch.ao.quantization import (
    QuantStub,
    QuantWrapper,
    add_quant_dequant,
    propagate_qconfig_,
)

from qatexplorer.errors import InputError
from qatexplorer.flows.base import StageResult, StubMode
from qatexplorer.forward.scripted import ScriptedPart
from qatexplorer.snapshot.records import Graph, GraphEdge, GraphNode

NO_STUBS = (
    "The model has no QuantStub: its float input will reach int8 layers and the int8 model will "
    "not run. Choose stubs='model' (QuantWrapper around the whole) or stubs='layers' "
    "(add_quant_dequant around each layer)."
)


def check_stub_mode(mode: Any) -> StubMode:
    """``mode`` itself. Raises InputError if it is none of :data:`StubMode`."""
    if mode not in ("none", "model", "layers"):
        raise InputError(
            f"stubs is {mode!r}.", remedy="Use 'none', 'model' (QuantWrapper) or 'layers'."
        )
    return cast(StubMode, mode)


def has_stubs(model: nn.Module) -> bool:
    """Whether any module is a ``QuantStub`` of the user's (``QuantWrapper`` holds one)."""
    ours = {id(m) for p in model.modules() if isinstance(p, ScriptedPart) for m in p.modules()}
    return any(isinstance(m, QuantStub) and id(m) not in ours for m in model.modules())


def add_stubs(
    model: nn.Module, mode: StubMode, mapping: Mapping[Any, Any], graph: Graph | None = None
) -> StageResult:
    """Wrap ``model`` after its qconfig is propagated (``QuantWrapper`` hands the qconfig on)."""
    if mode == "model":
        wrapped = QuantWrapper(model)
        propagate_qconfig_(wrapped)
        return StageResult(wrapped, origin=_inside_module, moved=True)
    if mode == "layers":
        paths = _wrap_layers(model, frozenset(mapping))
        if "" in paths:
            return add_stubs(model, "model", mapping, graph)
        _leave_the_rest_float(model)
        note = (
            f"{len(paths)} layers wrapped, each with its own QuantStub and DeQuantStub; all other "
            "modules get qconfig None, because the tensors between the wrappers are float."
        )
        return StageResult(
            model,
            origin=lambda path: _inside_wrapped(path, paths),
            moved=True,
            notes=(note,),
            graph=graph and wrapped_graph(graph, paths),
        )
    return StageResult(model, notes=() if has_stubs(model) else (NO_STUBS,))


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
