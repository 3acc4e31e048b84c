"""Tensors that will share one fake quant, numbered, with the specs that made them share it."""

from __future__ import annotations

from dataclasses import dataclass

from qatexplorer.flows.annotations import Annotation
from qatexplorer.snapshot.records import Snapshot

_ARROW = " → "


@dataclass(frozen=True)
class Group:
    """Places with one fake quant together.

    Attributes:
        number: from 1. places: ``"node"`` or ``"node → node"``, ids of the graph.
        nodes: ids of those whose results they are.
        made_by: the SharedQuantizationSpecs that joined them: (place, place that it shares with).
    """

    number: int
    places: tuple[str, ...]
    nodes: tuple[str, ...]
    made_by: tuple[tuple[str, str], ...]


def groups_of(annotated: Snapshot) -> tuple[Group, ...]:
    """Groups of the stage at which the quantizer has annotated, in torchao's order."""
    shared = [pair for one in annotated.annotations for pair in _shared_by(one)]
    return tuple(
        Group(
            number,
            places,
            tuple(dict.fromkeys(place.partition(_ARROW)[0] for place in places)),
            tuple((place, of) for place, of in shared if place in places),
        )
        for number, places in enumerate(annotated.groups, 1)
    )


def _shared_by(annotation: Annotation) -> list[tuple[str, str]]:
    """(place, place that it shares with) of the shared specs of one node."""
    places = [(f"{given}{_ARROW}{annotation.node}", spec) for given, spec in annotation.inputs]
    places.append((annotation.node, annotation.output))
    return [
        (place, of)
        for place, spec in places
        if spec is not None and spec.kind == "shared"
        for of in spec.of
    ]
