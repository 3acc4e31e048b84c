"""The account of an exported model: its graph says what is what, so nothing is converted for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from torch import fx, nn

from qatexplorer.flows.annotations import KEY
from qatexplorer.forward.exported import (
    beyond_kernels,
    exported_graph,
    folded_norms,
    gone_in_int8,
    quantized_operations,
)
from qatexplorer.forward.graph import Graph, GraphNode, Placement
from qatexplorer.forward.record import Recording
from qatexplorer.ledger.nodes import node_table
from qatexplorer.ledger.records import Coverage, FloatRow, LedgerRow, Reason, TensorPlace

BASIS = "exported graph"

TEXTS: dict[Reason, tuple[str, str]] = {
    "not_annotated": (
        "No pattern of the quantizer had anything of {name} rounded{source}.",
        (
            "Choose a quantizer with a pattern for it, or pass one of your own whose annotate() "
            "writes a QuantizationAnnotation on its node."
        ),
    ),
    "no_int8_kernel": (
        (
            "The tensors of {name} are rounded{source}, but lowering finds no int8 kernel for it"
            "{wide}: it computes in float between a dequantize and a quantize."
        ),
        "Nothing to do for the result; it stays float.",
    ),
}


@dataclass
class Exported:
    """What there is to know of an exported model that is prepared, beside one forward."""

    model: fx.GraphModule
    recording: Recording
    graph: Graph = field(init=False)
    placed: dict[str, Placement] = field(init=False)

    def __post_init__(self) -> None:
        self.graph, self.placed = exported_graph(self.model, {})
        self.nodes = {node.id: node for node in self.graph.nodes}
        self.int8 = quantized_operations(self.model)
        self.gone = gone_in_int8(self.model)
        norms = folded_norms(self.model)
        self.folded = {norm for norm, conv in norms.items() if conv in self.int8}
        self.wide = {node.name for node in self.model.graph.nodes if beyond_kernels(node)}
        self.rounding = {
            node.name
            for node in self.model.graph.nodes
            if _rounds(node.meta.get(KEY)) or (node.name in norms)
        }

    # -- fake quants ----------------------------------------------------------------------------

    def named(self, rows: Sequence[LedgerRow]) -> tuple[LedgerRow, ...]:
        """``rows`` with the user's modules: whose tensor each fake quant rounds."""
        return tuple(self._named(row) for row in rows)

    def _named(self, row: LedgerRow) -> LedgerRow:
        place = self.placed.get(row.part_of or row.path)
        if place is None:
            return row
        if row.kind != "weight":
            tensors = tuple(self._tensor(id, row) for id in place.nodes) or row.tensors
            row = replace(row, tensor=tensors[0] if tensors else row.tensor, tensors=tensors)
        if row.part_of:
            return row
        return replace(row, kind=place.kind, owner=place.owner, owner_type=place.owner_type)

    def _tensor(self, id: str, row: LedgerRow) -> TensorPlace:
        node = self.nodes[id]
        if node.op == "placeholder":
            return row.tensor
        if node.path:
            label, key = f"output of {node.path}", f"module:{node.path}:0"
            return TensorPlace(key, label, node.path, 0, row.tensor.shape)
        where = f" in {node.scope}" if node.scope else ""
        line = f" ({node.source})" if node.source else ""
        return replace(row.tensor, label=f"result of {node.label}{where}{line}")

    # -- what stays float -----------------------------------------------------------------------

    def float_rows(self) -> tuple[FloatRow, ...]:
        """One row for each of the user's modules, and each other operation, that stays float."""
        return tuple(self._float_row(node) for node in self._floats())

    def _floats(self) -> Iterator[GraphNode]:
        fed = self._fed_by_input()
        for node in self.graph.nodes:
            computes = node.op.startswith("call") and (node.dtype or "").startswith("torch.float")
            if computes and node.id in fed and node.id not in self.int8 | self.gone:
                yield node

    def _fed_by_input(self) -> set[str]:
        found = {node.id for node in self.graph.nodes if node.op == "placeholder"}
        sources: dict[str, list[str]] = {}
        for edge in self.graph.edges:
            sources.setdefault(edge.target, []).append(edge.source)
        for node in self.graph.nodes:
            if any(source in found for source in sources.get(node.id, ())):
                found.add(node.id)
        return found

    def _float_row(self, node: GraphNode) -> FloatRow:
        reason: Reason = "no_int8_kernel" if node.id in self.rounding else "not_annotated"
        sentence, fix = TEXTS[reason]
        source = f" ({node.source})" if node.source else ""
        words = {"name": node.path or node.label, "source": source, "wide": ""}
        if node.id in self.wide:
            words["wide"] = " (torchao 0.18: a linear layer on more than two dimensions)"
        return FloatRow(
            what="module" if node.path else "op",
            path=node.path or node.scope,
            name=node.label,
            reason=reason,
            sentence=sentence.format(**words),
            fix=fix,
            params=self._params_of(node),
            macs=self.macs.get(node.id, 0),
            source=node.source,
            selection=f"module:{node.path}" if node.path else f"node:{node.id}",
        )

    def _params_of(self, node: GraphNode) -> int:
        try:
            holder = self.model.get_submodule(node.path) if node.path else None
        except AttributeError:
            return 0
        return sum(p.numel() for p in holder.parameters(recurse=False)) if holder else 0

    # -- how much is int8 -----------------------------------------------------------------------

    @cached_property
    def macs(self) -> Mapping[str, int]:
        """Multiply-accumulates of the operations by node id."""
        table = node_table(self.model)
        return {
            table.get(f"op:{call.name}:{call.ordinal}", ""): call.macs
            for call in self.recording.calls
            if call.kind == "op" and call.macs
        }

    def coverage(self) -> Coverage:
        """Shares of parameters and multiply-accumulates that int8 kernels will compute with."""
        int8 = self._parameters_in_int8()
        sizes = {id(p): (p.numel(), name) for name, p in self.model.named_parameters()}
        return Coverage(
            params_total=sum(size for size, _ in sizes.values()),
            params_int8=sum(size for size, name in sizes.values() if name in int8),
            macs_total=sum(self.macs.values()),
            macs_int8=sum(n for node, n in self.macs.items() if node in self.int8),
            basis=BASIS,
        )

    def _parameters_in_int8(self) -> set[str]:
        """Names of the parameters that the int8 operations, and the batch norms that are folded
        into them, are given or are computed of."""
        found: set[str] = set()
        for node in self.model.graph.nodes:
            if node.name in self.int8 | self.folded:
                waiting = [one for one in node.all_input_nodes if one.name not in self.nodes]
                seen = set(waiting)
                while waiting:
                    one = waiting.pop()
                    if one.op == "get_attr":
                        found.add(str(one.target))
                    more = [n for n in one.all_input_nodes if n.name not in self.nodes]
                    waiting += [n for n in more if n not in seen]
                    seen.update(more)
        return found


def _rounds(annotation: Any) -> bool:
    if annotation is None:
        return False
    given = (*annotation.input_qspec_map.values(), annotation.output_qspec)
    return any(spec is not None for spec in given)


def as_exported(model: nn.Module, recording: Recording) -> Exported:
    """See :class:`Exported`; ``model`` must be an exported one."""
    assert isinstance(model, fx.GraphModule)
    return Exported(model, recording)
