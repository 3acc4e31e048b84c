"""Short names for types, settings and numbers, the same in every view."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from qatexplorer.flows import FLOWS
from qatexplorer.snapshot.records import (
    FakeQuantSite,
    GraphNode,
    Mechanism,
    ModuleRecord,
    QConfigRecord,
    SiteKind,
    Snapshot,
)


@dataclass(frozen=True)
class Kind:
    """How a kind of fake quant is written and drawn."""

    letter: str
    mark: str
    word: str


KINDS: dict[SiteKind, Kind] = {
    "weight": Kind("W", "■", "weight"),
    "input": Kind("I", "▲", "input"),
    "output": Kind("A", "●", "output"),
}

HOW_IT_RUNS: dict[Mechanism, str] = {
    "forward": "in forward",
    "hook": "by hook",
    "node": "as a node",
    "unused": "no",
}

_TYPE_PREFIXES = (
    ("torch.ao.nn.intrinsic.qat.", "qat."),
    ("torch.ao.nn.intrinsic.quantized.", "quantized."),
    ("torch.ao.nn.qat.", "qat."),
    ("torch.ao.nn.quantized.reference.", "reference."),
    ("torch.ao.nn.quantized.", "quantized."),
    ("torch.ao.nn.quantizable.", "quantizable."),
)
FUNCTIONALS = ("FloatFunctional", "FXFloatFunctional")
"""Torch keeps them beside the int8 modules, but they compute in float."""


def short_type(record: ModuleRecord) -> str:
    """``"qat.Conv2d"`` for ``torch.ao.nn.qat.modules.conv.Conv2d``, else the class name."""
    for start, short in _TYPE_PREFIXES:
        if record.type_name not in FUNCTIONALS and record.qualified_type.startswith(start):
            return short + record.type_name
    return record.type_name


def is_int8(record: ModuleRecord) -> bool:
    """Whether the module is one of torch's quantized modules (not a reference module)."""
    return record.compute in ("int8", "boundary")


def is_reference(record: ModuleRecord) -> bool:
    """Whether it is a reference module: int8 weights, dequantized to compute in float."""
    return record.compute == "reference"


def is_stored(record: ModuleRecord) -> bool:
    """Whether its weight is stored as integers by one of torchao's tensors."""
    return record.compute == "stored"


def stores_integers(snapshot: Snapshot) -> bool:
    """Whether this model comes to weights that are stored as integers, and to no int8 kernels:
    that of torchao's QAT."""
    return any(site.blocks for site in snapshot.sites) or any(map(is_stored, snapshot.modules))


def is_boundary(record: ModuleRecord) -> bool:
    """Whether it only turns float into int8 or back (``Quantize``, ``DeQuantize``)."""
    return record.compute == "boundary"


def state_words(record: ModuleRecord, snapshot: Snapshot) -> tuple[str, str]:
    """In what a module computes, or is prepared to: as a label and as a sentence; two empty texts
    before the fake quants are in, and for what computes nothing.

    ``("mixed: 3 of 5 int8", "3 of 5 layers inside are prepared for int8; 2 operations without
    parameters stay float")``
    """
    if not record.state:
        return "", ""
    now, integers = snapshot.role == "int8", stores_integers(snapshot)
    inside = record.inside
    int8, total = inside.counted
    kind = "integers" if integers else "int8"
    if inside.layers + inside.others <= 1:
        verb = "Computes in" if now else "Stays" if record.state == "float" else "Is prepared for"
        if integers and record.state == "int8":
            verb = "Its weight is stored as" if now else "Its weight is trained to be stored as"
            return kind, f"{verb} integers"
        return record.state, f"{verb} {record.state}"
    noun = "layer" if inside.layers else "operation"
    verb = "in int8" if now else "prepared for int8"
    if integers:
        verb = "stored as integers" if now else "trained to be stored as integers"
    title = f"{int8:,} of {count(total, noun)} inside {'is' if int8 == 1 else 'are'} {verb}"
    floats = inside.others - inside.others_int8
    if inside.layers and floats:
        stay = "stays" if floats == 1 else "stay"
        title += f"; {count(floats, 'operation')} without parameters {stay} float"
    text = kind if record.state == "int8" else record.state
    return f"mixed: {int8:,} of {total:,} {kind}" if record.state == "mixed" else text, title


def result_word(snapshot: Snapshot) -> str:
    """What its flow calls the model of its last stage: ``"int8"``, ``"converted"``."""
    flow = FLOWS.get(snapshot.flow)
    return "int8" if flow is None else flow.result


def has_qconfigs(snapshot: Snapshot) -> bool:
    """Whether qconfigs mean anything in its flow."""
    flow = FLOWS.get(snapshot.flow)
    return flow is None or flow.offers_qconfig


def by_quantizer(snapshot: Snapshot) -> bool:
    """Whether its flow lets a quantizer annotate an exported graph: there are no qconfigs then."""
    flow = FLOWS.get(snapshot.flow)
    return flow is not None and flow.offers_quantizer


def qconfig_badge(qconfig: QConfigRecord | None) -> str:
    """``"int8 pc"``: bits of the weight, per channel or per tensor; ``""`` without a qconfig."""
    if qconfig is None:
        return ""
    text = qconfig.weight
    bits = _bits(text)
    lowered = text.lower()
    scheme = "pc" if "per_channel" in lowered or "perchannel" in lowered else "pt"
    return f"{bits} {scheme}" if bits else "custom"


def _bits(text: str) -> str:
    low, high = (re.search(rf"{name}=(-?\d+)", text) for name in ("quant_min", "quant_max"))
    if low and high:
        levels = int(high[1]) - int(low[1]) + 1
        return f"int{max(1, math.ceil(math.log2(max(levels, 2))))}"
    dtype = re.search(r"q(u?int\d+)|float16|bfloat16", text)
    if dtype:
        return (dtype[1] or dtype[0]).lstrip("u")
    return "int8" if "weight" in text.lower() else ""


@dataclass(frozen=True)
class TensorName:
    """The tensor that a fake quant rounds, for a user: ``"output of layer1.0.conv1"``.

    ``more`` is how many other results it rounds under the same name; ``source`` the line of the
    user's code that makes it, ``""`` if unknown.
    """

    text: str
    more: int = 0
    source: str = ""


class TensorNames:
    """Names for the tensors that the fake quants of one snapshot round."""

    def __init__(self, snapshot: Snapshot) -> None:
        graph = snapshot.graph
        self._nodes = {node.id: node for node in graph.nodes} if graph is not None else {}
        self._sites = snapshot.site_by_path

    def of(self, path: str) -> TensorName:
        """Of the fake quant named ``path``, which is one of the snapshot's."""
        site = self._sites[path]
        place = site.place(path)
        node = self._nodes.get(place.nodes[0]) if place.nodes else None
        if node is None:
            word = {"weight": f"{site.parameter} of", "input": "input at"}.get(
                site.kind, "output of"
            )
            return TensorName(f"{word} {place.owner or 'the model'}")
        if self._sites[path].kind == "weight" and node.op != "get_attr":
            return TensorName(f"weight of {node.label}", len(place.nodes) - 1, node.source)
        return TensorName(_result_of(node), len(place.nodes) - 1, node.source)

    def shared(self, path: str) -> tuple[str, ...]:
        """What else the same fake quant rounds, under its other names."""
        others = [p.path for p in self._sites[path].places if p.path != path]
        return tuple(dict.fromkeys(self.of(other).text for other in others))


def _result_of(node: GraphNode) -> str:
    if node.op == "placeholder":
        return f"input {node.label}"
    if node.op == "get_attr":
        return f"parameter {node.target}"
    return f"output of {node.path or node.label}"


def seen_words(site: FakeQuantSite) -> str:
    """What the observer of a fake quant has seen, as the end of "it …"."""
    if site.seen == "partly":
        known = sum(low <= high for low, high in zip(site.min_val, site.max_val, strict=True))
        return f"has seen data in {known:,} of {count(len(site.min_val), 'channel')}"
    words = {
        "nothing": "has seen no data",
        "fixed": "has a range fixed by the operation",
        "derived": "has its scale of other fake quants, and rounds nothing before convert",
        "dynamic": "takes the range of each tensor that comes",
    }
    return words.get(site.seen, "has a range")


def number(value: float, digits: int = 4) -> str:
    """A number for a user: at most ``digits`` significant digits, words for NaN and infinity."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == int(value) and abs(value) < 1e6:
        return f"{int(value):,}".replace("-", "−")
    return f"{value:.{digits}g}".replace("-", "−")


def count(value: int, noun: str) -> str:
    """``"1 module"``, ``"2 modules"``, ``"1,000 modules"``."""
    return f"{value:,} {noun}{'' if value == 1 else 's'}"


def share(value: float) -> str:
    """A share from 0 to 1 in percent; never "0 %" for something that is there."""
    percent = value * 100
    if 0 < percent < 0.01:
        return "< 0.01 %"
    return f"{percent:.3g} %" if percent < 99.95 or percent == 100 else f"{percent:.2f} %"


def shape_text(shape: Sequence[int] | None) -> str:
    """``"2 × 16 × 8 × 8"``; ``"scalar"`` for (), ``"unknown"`` for None. A size that may be any is
    -1 in ``shape``."""
    if shape is None:
        return "unknown"
    return " × ".join("any" if n < 0 else str(n) for n in shape) or "scalar"


def plain_dtype(dtype: str | None) -> str:
    """``"quint8"`` for ``"torch.quint8"``."""
    return (dtype or "unknown").removeprefix("torch.")
