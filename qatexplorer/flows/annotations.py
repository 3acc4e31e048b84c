"""What a quantizer of PT2E has written on the nodes of an exported graph, as records.

A quantizer inserts nothing. It *annotates*: it says of a node with which grid each of its inputs
and its output shall be rounded. ``prepare_qat_pt2e`` inserts fake quants for what is annotated, one
for each group of edges and nodes that share one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import fx

from qatexplorer.flows.imported import imported

SpecKind = Literal["own", "shared", "derived", "fixed"]
_KINDS: Mapping[str, SpecKind] = {
    "SharedQuantizationSpec": "shared",
    "DerivedQuantizationSpec": "derived",
    "FixedQParamsQuantizationSpec": "fixed",
}


@dataclass(frozen=True, slots=True)
class Spec:
    """How one edge or output shall be rounded.

    Attributes:
        kind: ``"own"``: an observer of its own finds the range. ``"shared"``: the fake quant of
            ``of`` is used. ``"derived"``: scale and zero point are computed of those of ``of``.
            ``"fixed"``: the operation fixes them.
        dtype: e.g. ``"torch.uint8"``; ``""`` where it is the shared one's.
        quant_min, quant_max: the codes that may be used, None where the dtype or the shared one
            says so.
        qscheme, ch_axis: as torch has them; ``""`` and None where not given.
        dynamic: the range is that of each batch.
        observer: class name of the fake quant or observer that is made, ``""`` for none.
        of: what it shares with or is derived from: ``"node"`` or ``"node → node"``.
    """

    kind: SpecKind
    dtype: str = ""
    quant_min: int | None = None
    quant_max: int | None = None
    qscheme: str = ""
    ch_axis: int | None = None
    dynamic: bool = False
    observer: str = ""
    of: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Annotation:
    """What a quantizer has written on one node.

    Attributes:
        node: its id in the graph. pattern: the quantizer's own function that wrote it, without
            ``_annotate_``; ``""`` where it is not a method of the quantizer.
        inputs: (id of the input node, its spec); None says that this input is left as it is.
        output: of its result, None where nothing is said of it.
    """

    node: str
    pattern: str
    inputs: tuple[tuple[str, Spec | None], ...]
    output: Spec | None

    @property
    def rounds(self) -> bool:
        """Whether anything of the node is rounded: a node can be annotated with nothing."""
        return self.output is not None or any(spec is not None for _, spec in self.inputs)


KEY = "quantization_annotation"
"""The key of ``node.meta`` that torchao writes to (its ``Q_ANNOTATION_KEY``)."""


def annotated(model: fx.GraphModule | fx.Graph) -> frozenset[str]:
    """Ids of the nodes that carry an annotation."""
    graph = model if isinstance(model, fx.Graph) else model.graph
    return frozenset([node.name for node in graph.nodes if node.meta.get(KEY) is not None])


def annotations_of(model: fx.GraphModule, patterns: Mapping[str, str]) -> tuple[Annotation, ...]:
    """Annotations in the order of the graph; ``patterns`` has who wrote each, by node id."""
    found = []
    for node in model.graph.nodes:
        written = node.meta.get(KEY)
        if written is not None:
            inputs = tuple((n.name, spec_of(s)) for n, s in written.input_qspec_map.items())
            found.append(
                Annotation(
                    node.name, patterns.get(node.name, ""), inputs, spec_of(written.output_qspec)
                )
            )
    return tuple(found)


def spec_of(spec: Any) -> Spec | None:
    """A ``QuantizationSpecBase`` of torchao as a record; None for None."""
    if spec is None:
        return None
    kinds = (_KINDS[c.__name__] for c in type(spec).__mro__ if c.__name__ in _KINDS)
    kind: SpecKind = next(kinds, "own")
    constructor = getattr(spec, "observer_or_fake_quant_ctr", None)
    function = getattr(getattr(constructor, "p", constructor), "func", constructor)
    of: tuple[Any, ...] = ()
    if kind == "shared":
        of = (spec.edge_or_node,)
    elif kind == "derived":
        of = tuple(spec.derived_from)
    dtype, qscheme = getattr(spec, "dtype", None), getattr(spec, "qscheme", None)
    return Spec(
        kind=kind,
        dtype=str(dtype or ""),
        quant_min=getattr(spec, "quant_min", None),
        quant_max=getattr(spec, "quant_max", None),
        qscheme=str(qscheme or ""),
        ch_axis=getattr(spec, "ch_axis", None),
        dynamic=bool(getattr(spec, "is_dynamic", False)),
        observer=getattr(function, "__name__", "") if function is not None else "",
        of=tuple(map(edge_name, of)),
    )


def edge_name(edge_or_node: Any) -> str:
    """``"a"`` for a node, ``"a → b"`` for the edge by which node a goes into node b."""
    if isinstance(edge_or_node, tuple):
        return " → ".join(node.name for node in edge_or_node)
    return str(edge_or_node.name)


def sharing_groups(model: fx.GraphModule) -> tuple[tuple[str, ...], ...]:
    """Edges and nodes that will have one fake quant together, groups of two and more.

    torchao's own functions say so; they read the annotations and change nothing. The edge from a
    node into its user and the node's output are one place: where nothing but those two are in a
    group it is left out.
    """
    prepare = imported("torchao.quantization.pt2e.prepare")
    groups: dict[int, list[Any]] = {}
    specs = prepare._get_edge_or_node_to_qspec(model)
    for place, group in prepare._get_edge_or_node_to_group_id(specs).items():
        groups.setdefault(group, []).append(place)
    found = []
    for places in groups.values():
        producers = {place[0] if isinstance(place, tuple) else place for place in places}
        if len(producers) > 1:
            found.append(tuple(map(edge_name, places)))
    return tuple(found)
