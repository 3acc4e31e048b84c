"""The dataflow graph of an exported model, in the words of the user's own modules.

``torch.export`` writes a model down as calls of aten operations and leaves of the module tree only
what holds parameters. Where each call belongs stands in ``nn_module_stack``: the graph and the tree
here are made of that. What is computed of parameters alone (a weight scaled by a batch norm) is no
data that flows, and is no node here.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import fx, nn

from qatexplorer.forward.either_mode import KEPT_P, trains
from qatexplorer.forward.graph import Graph, GraphEdge, GraphNode, NodeOp, Placement
from qatexplorer.forward.graph_module import source_of
from qatexplorer.quantizers.facts import constant_nodes, is_quantizer
from qatexplorer.quantizers.types import SiteKind

_QDQ = ("quantize_per_tensor", "quantize_per_channel")


def is_exported(model: nn.Module) -> bool:
    """Whether ``model`` is a graph of torch's own operations, as ``torch.export`` makes it; a graph
    that FX has traced calls modules and functions."""
    if not isinstance(model, fx.GraphModule):
        return False
    modules = dict(model.named_modules(remove_duplicate=False))
    called = [n for n in model.graph.nodes if n.op == "call_module" and n.target != "_guards_fn"]
    return all(is_quantizer(modules[str(n.target)]) for n in called) and any(
        isinstance(n.target, torch._ops.OpOverload) for n in model.graph.nodes
    )


def stack_of(node: fx.Node) -> tuple[tuple[str, str], ...]:
    """(path, class) of the user's modules in whose forward the call is, from the root inwards."""
    return tuple((path, kind) for _, path, kind in _calls_around(node))


def _calls_around(node: fx.Node) -> tuple[tuple[str, str, str], ...]:
    """(key, path, class) of the calls of the user's modules that the node is made in:
    ``torch.export`` has a key of its own for each call of a module, ``"block@1"`` for the second.
    """
    return _read_stack(tuple((node.meta.get("nn_module_stack") or {}).items()))


@functools.lru_cache(maxsize=2048)  # each is read at every stage
def _read_stack(stack: tuple[tuple[Any, Any], ...]) -> tuple[tuple[str, str, str], ...]:
    named = ((str(key), _plain(str(path)), _class_name(kind)) for key, (path, kind) in stack)
    return tuple(
        (key, path, kind)
        for key, path, kind in named
        # The second are modules of torchao's, from which its patterns were traced; the third stands
        # for an operation of which torch.export does not know the module.
        if "GraphModuleImpl" not in kind
        and not kind.startswith("torchao.quantization.pt2e.")
        and path != "_empty_nn_module_stack_from_metadata_hook"
    )


def _plain(path: str) -> str:
    """Without the number that ``torch.export`` gives to a second call: ``"block@1"``."""
    return re.sub(r"@\d+", "", path)


def _class_name(kind: Any) -> str:
    return kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"


def types_of(model: fx.GraphModule) -> dict[str, str]:
    """Class of each of the user's modules by path, as it was when the model was exported."""
    return {path: kind for node in model.graph.nodes for path, kind in stack_of(node)}


def owners_of_weights(reference: fx.GraphModule) -> dict[str, fx.Node]:
    """The operation that takes the weight of each scale that ``reference`` holds, by the scale's
    name: lowering makes an operation of its own of it, and keeps the scale."""
    found = {}
    for node in reference.graph.nodes:
        if "dequantize_per_channel" in str(node.target):
            for user in node.users:
                for given in node.all_input_nodes[1:2]:
                    found[str(given.target)] = user
    return found


def name_owners(lowered: fx.GraphModule, owners: Mapping[str, fx.Node]) -> None:
    """Note on each int8 operation of ``lowered`` whose work it is, see :func:`owners_of_weights`.

    Only ``node.meta`` is written to: lowering traces the model anew, and a trace of a graph has no
    modules.
    """
    for node in lowered.graph.nodes:
        if is_int8_kernel(node):
            known = (owners.get(str(g.target)) for g in node.all_input_nodes if g.op == "get_attr")
            owner = next((one for one in known if one is not None), None)
            if owner is not None:
                node.meta["nn_module_stack"] = owner.meta.get("nn_module_stack")
                node.meta["stack_trace"] = owner.meta.get("stack_trace")


_REPLACED = ("dropout", "batch_norm")


@contextmanager
def names_kept(model: nn.Module) -> Iterator[None]:
    """Torchao's switches of mode replace dropouts and batch norms by others that are nobody's: what
    is noted of those before is noted of those after this."""
    before = _replaced(model)
    yield
    for kind, nodes in _replaced(model).items():
        known = before[kind]
        for (node, _), (_, meta) in zip(nodes, known, strict=False):
            if len(nodes) == len(known):
                node.meta.update(meta)


def _replaced(model: nn.Module) -> dict[str, list[tuple[fx.Node, dict[str, Any]]]]:
    found: dict[str, list[tuple[fx.Node, dict[str, Any]]]] = {kind: [] for kind in _REPLACED}
    for node in model.graph.nodes if isinstance(model, fx.GraphModule) else ():
        if node.op == "call_function" and _operation(node) in found:
            noted = ("nn_module_stack", "stack_trace", "val")
            meta = {key: node.meta[key] for key in noted if key in node.meta}
            found[_operation(node)].append((node, meta))
    return found


def is_int8_kernel(node: fx.Node) -> bool:
    """Whether ``node`` calls one of oneDNN's int8 kernels."""
    return _is_int8_kernel(node.target)


@functools.lru_cache(maxsize=4096)
def _is_int8_kernel(target: Any) -> bool:
    name = str(target)
    return name.startswith("onednn.q") and "prepack" not in name


def grid_of_node(node: fx.Node) -> tuple[float, int] | None:
    """Scale and zero point of the 8-bit codes that ``node`` of a lowered model gives, as its own
    arguments say; None where it gives no codes."""
    schema = getattr(node.target, "_schema", None)
    names = [argument.name for argument in schema.arguments] if schema is not None else []
    said = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    if "quantized_decomposed.quantize_per_tensor.default" in str(node.target):
        scale, zero = said["scale"], said["zero_point"]
    elif is_int8_kernel(node) and said.get("output_dtype") in (torch.uint8, torch.int8):
        scale, zero = said.get("output_scale"), said.get("output_zero_point")
    else:
        return None
    known = isinstance(scale, (float, int)) and isinstance(zero, int)
    return (float(scale), zero) if known else None


def packed_weights(lowered: fx.GraphModule) -> dict[str, torch.Tensor]:
    """The weight of each int8 operation as oneDNN has it, unpacked: a quantized tensor per channel,
    by the path of the user's module (:func:`name_owners`)."""
    held = {**dict(lowered.named_parameters()), **dict(lowered.named_buffers())}
    found: dict[str, torch.Tensor] = {}
    for node in lowered.graph.nodes:
        stack = stack_of(node)
        if not (is_int8_kernel(node) and stack):
            continue
        given = [held.get(str(one.target)) for one in node.all_input_nodes if one.op == "get_attr"]
        tensors = [one for one in given if one is not None]
        packed = next((k for k, one in enumerate(tensors) if one.is_mkldnn), None)
        if packed is None or len(tensors) < packed + 3:
            continue
        codes, (scales, zeros) = tensors[packed].to_dense(), tensors[packed + 1 : packed + 3]
        codes = codes.t() if codes.dim() == 2 else codes  # a linear layer's is held transposed
        if codes.dtype == torch.int8 and len(codes) == scales.numel():
            found[stack[-1][0]] = torch._make_per_channel_quantized_tensor(
                codes.contiguous(), scales.double(), zeros.long(), 0
            )
    return found


def main_modules(model: fx.GraphModule) -> dict[str, tuple[str, str]]:
    """Path and class of the module whose result each of these nodes is, by the node's name: the
    last call in the forward of a module that calls no other."""
    kinds = types_of(model)
    return {
        node.name: (path, kinds[path].rpartition(".")[2])
        for node, path in _Reader(model).main.items()
    }


_KERNELS = ("conv1d", "conv2d", "convolution", "linear", "addmm", "mm")
"""The operations that oneDNN's lowering has int8 kernels for (torch's own
``_register_qconv_weight_prepack`` and ``_register_qlinear_weight_prepack``)."""


def quantized_operations(model: fx.GraphModule) -> frozenset[str]:
    """Ids of the operations that oneDNN's lowering can compute in int8: see :data:`_KERNELS`, with
    a rounded input and a weight that is rounded per channel, and what is computed along with
    them."""
    modules = dict(model.named_modules(remove_duplicate=False))

    def rounds(node: fx.Node) -> bool:
        if node.op == "call_module":
            return is_quantizer(modules[str(node.target)])
        return "dequantize_per" in str(node.target)

    def is_per_channel(node: fx.Node) -> bool:
        if node.op == "call_module":
            return bool(getattr(modules[str(node.target)], "is_per_channel", False))
        return "per_channel" in str(node.target)

    found = set()
    for node in model.graph.nodes:
        if node.op != "call_function" or _operation(node) not in _KERNELS:
            continue
        if beyond_kernels(node):
            continue
        data, weight = node.all_input_nodes[0], node.all_input_nodes[1:2]
        if rounds(data) and weight and rounds(weight[0]) and is_per_channel(weight[0]):
            found.add(node.name)
    return frozenset(found | _computed_with(model, found))


def beyond_kernels(node: fx.Node) -> bool:
    """Whether ``node`` is a linear layer on a tensor of more than two dimensions: the patterns of
    torchao 0.18's lowering look for reshapes around it, and find views."""
    value = node.meta.get("val")
    return _operation(node) == "linear" and isinstance(value, torch.Tensor) and value.dim() > 2


_AFTER = ("relu", "relu_", "hardtanh", "hardtanh_", "hardswish", "hardswish_", "silu", "silu_")
"""What oneDNN's convolutions compute together with the sum before it; linear layers: relu, gelu."""


def _computed_with(model: fx.GraphModule, kernels: set[str]) -> set[str]:
    """Ids of the operations that the int8 kernels compute along the way: an addition to the result
    and an activation, each the only user of what comes before it."""
    norms = folded_norms(model)
    found: set[str] = set()
    for node in model.graph.nodes:
        if node.name not in kernels:
            continue
        after = _only_user(node)
        while after is not None and after.name in norms:
            after = _only_user(after)
        if (
            after is not None
            and _operation(after) in ("add", "add_")
            and len(after.all_input_nodes) == 2
            and after.name not in found
        ):
            found.add(after.name)
            after = _only_user(after)
        linear = not _operation(node).startswith("conv")
        if after is not None and _operation(after) in (("relu", "gelu") if linear else _AFTER):
            found.add(after.name)
    return found


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def gone_in_int8(model: fx.GraphModule) -> frozenset[str]:
    """Ids of the operations that an int8 model does without: dropouts and :func:`folded_norms`."""
    dropouts = (node.name for node in model.graph.nodes if "dropout" in _operation(node))
    return frozenset((*folded_norms(model), *dropouts))


def folded_norms(model: fx.GraphModule) -> dict[str, str]:
    """The batch norms right behind a convolution, with what torchao puts between the two while it
    trains: id of each node and of its convolution. ``convert_pt2e`` multiplies them into the
    weights."""
    found: dict[str, str] = {}
    for node in model.graph.nodes:
        if node.op != "call_function" or "batch_norm" not in _operation(node):
            continue
        between: list[str] = [node.name]
        given = node.all_input_nodes[0]
        while _operation(given) in ("div", "add") and len(given.users) == 1:
            between.append(given.name)
            given = given.all_input_nodes[0]
        if _operation(given).startswith("conv"):
            found.update(dict.fromkeys(between, given.name))
    return found


def calls_of(model: fx.GraphModule) -> dict[str, int]:
    """How often each of the user's modules is called in one forward, by path."""
    seen: dict[str, set[str]] = {}
    for node in model.graph.nodes:
        for key, path, _ in _calls_around(node):
            seen.setdefault(path, set()).add(key)
    return {path: len(keys) for path, keys in seen.items()}


def exported_graph(
    model: fx.GraphModule, calls: Mapping[str, str]
) -> tuple[Graph, dict[str, Placement]]:
    """Graph of ``model`` and the placements of its fake quants by path.

    ``calls`` has the call that put each fake quant there. Shapes and dtypes are those that
    exporting found.
    """
    return _read(_Reader(model), calls)


class Stages:
    """:func:`exported_graph` and :func:`types_of` of one model at one stage after the other, of one
    look at its nodes; where no node has changed since the last stage, of none."""

    def __init__(self) -> None:
        self._seen: list[Any] | None = None
        self._found: tuple[Graph, dict[str, Placement], dict[str, str]]

    def read(
        self, model: fx.GraphModule, calls: Mapping[str, str]
    ) -> tuple[Graph, dict[str, Placement], dict[str, str]]:
        """Both, as the model is now."""
        seen = _all_that_is_read(model)
        if seen is None or self._seen is None or list(map(id, seen)) != list(map(id, self._seen)):
            reader = _Reader(model)
            types = {path: kind for stack in reader.calls.values() for _, path, kind in stack}
            self._found = *_read(reader, calls), types
        self._seen = seen
        graph, placed, types = self._found
        return graph, dict(placed), dict(types)


def _all_that_is_read(model: fx.GraphModule) -> list[Any] | None:
    """The objects that a reader looks at, kept so that no other takes the place of one of them in
    memory; None for a graph that calls fake quants, of which more is read."""
    seen: list[Any] = []
    for node in model.graph.nodes:
        if node.op == "call_module" and node.target != "_guards_fn":
            return None
        meta = node.meta
        seen += (node, node.name, node.target, node.args, node.kwargs, meta.get("val"))
        seen += (meta.get("nn_module_stack"), node.stack_trace, meta.get(KEPT_P))
    return seen


def _read(reader: _Reader, calls: Mapping[str, str]) -> tuple[Graph, dict[str, Placement]]:
    placed = reader.placements()
    return reader.graph(), {
        path: replace(place, call=calls.get(path, "")) for path, place in placed.items()
    }


class _Reader:
    """Reads one exported GraphModule into records."""

    def __init__(self, model: fx.GraphModule) -> None:
        self.model = model
        self.modules = dict(model.named_modules(remove_duplicate=False))
        self.constant = constant_nodes(model.graph)
        self.calls = {node: _calls_around(node) for node in model.graph.nodes}
        self.nodes: dict[str, GraphNode] = {}
        self.main = self._main_operations()
        self.lowered = any(
            _is_int8_kernel(target) for target in {node.target for node in model.graph.nodes}
        )
        for node in model.graph.nodes:
            known = node in self.constant or self._is_quantizer(node)
            if not known and node.target != "_guards_fn":
                self.nodes[node.name] = self._record(node)
        self._give_scopes()

    def _is_quantizer(self, node: fx.Node) -> bool:
        return node.op == "call_module" and is_quantizer(self.modules[str(node.target)])

    def _main_operations(self) -> dict[fx.Node, str]:
        """Path of the user's module that a call is the work of: the last call made in one forward
        of a module that calls no other."""
        calling = {key for stack in self.calls.values() for key, *_ in stack[:-1]}
        last: dict[str, fx.Node] = {}
        for node, stack in self.calls.items():
            if node.op == "call_function" and stack and stack[-1][0] not in calling:
                last[stack[-1][0]] = node
        return {node: self.calls[node][-1][1] for node in last.values()}

    def _give_scopes(self) -> None:
        """What torchao has put between two operations is in the innermost forward that both are
        made in: in the root it would tear the modules around it apart."""
        known = {record.scope for record in self.nodes.values()}
        for node in self.model.graph.nodes:
            record = self.nodes.get(node.name)
            if record is None or node.op != "call_function" or stack_of(node):
                continue
            sources = (self._behind(one)[0].name for one in node.all_input_nodes)
            around = [self.nodes[name].scope for name in sources if name in self.nodes]
            around += [self.nodes[one.name].scope for one in self._takers(node) if stack_of(one)]
            scope = _common(around)
            while scope and scope not in known:
                scope = scope.rpartition(".")[0]
            self.nodes[node.name] = replace(record, scope=scope)

    def _record(self, node: fx.Node) -> GraphNode:
        stack = self.calls[node]
        shape, dtype = None, None
        # What a pattern of torchao has put there has the shape that it had in the pattern.
        if node.op != "call_function" or self.lowered or stack:
            shape, dtype = _info(node)
        if node.op in ("placeholder", "output"):
            op: NodeOp = "placeholder" if node.op == "placeholder" else "output"
            name = str(node.target)
            return GraphNode(node.name, op, name, name, shape=shape, dtype=dtype)
        path = self.main.get(node, "")
        scopes = [one for _, one, _ in stack if one != path]
        label = stack[-1][2].rpartition(".")[2] if path else _operation(node)
        return GraphNode(
            node.name,
            "call_module" if path else "call_function",
            path or _name_of(node.target),
            label,
            path,
            scopes[-1] if scopes else "",
            shape,
            dtype,
            source_of(node),
            trains(node),
        )

    def _behind(self, node: fx.Node) -> tuple[fx.Node, tuple[str, ...]]:
        """The operation whose result ``node`` is, and the fake quants it went through."""
        sites: list[str] = []
        while self._is_quantizer(node) and node.all_input_nodes:
            sites.append(str(node.target))
            node = node.all_input_nodes[0]
        return node, tuple(reversed(sites))

    def graph(self) -> Graph:
        edges: dict[tuple[str, str], GraphEdge] = {}
        for node in self.model.graph.nodes:
            if node.name not in self.nodes:
                continue
            for given in node.all_input_nodes:
                source, sites = self._behind(given)
                if source.name in self.nodes:
                    key = (source.name, node.name)
                    edges.setdefault(key, GraphEdge(*key, sites))
        return Graph(tuple(self.nodes.values()), tuple(edges.values()), "torch.export")

    def placements(self) -> dict[str, Placement]:
        found: dict[str, Placement] = {}
        for node in self.model.graph.nodes:
            if not self._is_quantizer(node):
                continue
            source, _ = self._behind(node)
            path = str(node.target)
            place = self._weight(node, source) if source in self.constant else self._data(source)
            if path in found:  # one fake quant called at several places
                place = replace(found[path], nodes=(*found[path].nodes, *place.nodes))
            found[path] = place
        return found

    def _data(self, source: fx.Node) -> Placement:
        kind: SiteKind = "input" if source.op == "placeholder" else "output"
        record = self.nodes[source.name]
        return Placement(kind, record.path or record.scope, record.label, (record.id,))

    def _weight(self, node: fx.Node, source: fx.Node) -> Placement:
        """Of the module whose operation takes it; of an operation that is no module's work, that
        operation stands for it."""
        record = next((self.nodes[n.name] for n in self._takers(node)), None)
        if record is not None:
            nodes = () if record.path else (record.id,)
            path, _, name = str(source.target).rpartition(".")
            own = source.op == "get_attr" and path == record.path
            return Placement(
                "weight", record.path or record.scope, record.label, nodes,
                parameter=name if own else "weight",
            )  # fmt: skip
        owner = str(source.target).rpartition(".")[0] if source.op == "get_attr" else ""
        return Placement("weight", owner, type(self.modules.get(owner, nn.Module())).__name__, ())

    def _takers(self, node: fx.Node) -> Iterator[fx.Node]:
        waiting = list(node.users)
        while waiting:
            user = waiting.pop(0)
            if user.name in self.nodes:
                yield user
            else:
                waiting += list(user.users)


def _common(paths: Sequence[str]) -> str:
    """The path that all of these are at or below."""
    parts = [path.split(".") if path else [] for path in paths]
    shared = []
    for step in zip(*parts, strict=False):
        if len(set(step)) > 1:
            break
        shared.append(step[0])
    return ".".join(shared)


_name_of = functools.lru_cache(maxsize=4096)(str)
"""``"aten.conv2d.default"``, of the few operations that the many nodes call."""


def _operation(node: fx.Node) -> str:
    """``"conv2d"`` of ``aten.conv2d.default``."""
    return _packet_of(node.target)


@functools.lru_cache(maxsize=4096)
def _packet_of(target: Any) -> str:
    packet = getattr(target, "overloadpacket", None)
    return getattr(packet, "__name__", getattr(target, "__name__", str(target)))


def _info(node: fx.Node) -> tuple[tuple[int, ...] | None, str | None]:
    """Shape and dtype of its first tensor, from exporting; a batch of any size is -1."""
    value = node.meta.get("val")
    while isinstance(value, (tuple, list)) and value:
        value = value[0]
    if not isinstance(value, torch.Tensor):
        return None, None
    shape = tuple(n if isinstance(n, int) else -1 for n in value.shape)
    return shape, str(value.dtype)
