"""The graph of a model with wrapped layers is derived; it must be what a trace would find."""

from __future__ import annotations

import pytest
import torch

import qatexplorer as qx
from qatexplorer.snapshot.records import Graph
from qatexplorer.snapshot.take import take_graph


def shape_of(graph: Graph) -> tuple[list[tuple[object, ...]], set[tuple[object, ...]]]:
    """Nodes and edges without ids and source lines, which a trace names by itself."""
    names = {n.id: (n.op, n.path or n.target, n.scope) for n in graph.nodes}
    nodes = [(n.op, n.path or n.target, n.label, n.scope, n.shape) for n in graph.nodes]
    return nodes, {(names[e.source], names[e.target]) for e in graph.edges}


@pytest.mark.parametrize("name", ["digits_cnn", "digits_depthwise", "digits_mlp"])
def test_derived_graph_equals_the_traced_one(name: str) -> None:
    example = qx.zoo.load(name)
    session = qx.Session(example.model, example.example_inputs, stubs="layers")
    derived = session.goto("propagate").graph
    assert derived is not None
    traced = take_graph(session.model, example.example_inputs)
    assert shape_of(derived) == shape_of(traced)


def test_a_layer_called_twice_gets_its_wrapper_twice() -> None:
    class Twice(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = torch.nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(self.fc(x))

    session = qx.Session(Twice(), torch.randn(2, 4), stubs="layers")
    derived = session.goto("propagate").graph
    assert derived is not None
    assert sum(n.path == "fc.module" for n in derived.nodes) == 2
    assert shape_of(derived) == shape_of(take_graph(session.model, torch.randn(2, 4)))


def test_swap_counts_agree_with_the_forward_measured_at_insert() -> None:
    example = qx.zoo.load("digits_depthwise")
    session = qx.Session(example.model, example.example_inputs)
    swap = {s.path: s for s in session.goto("swap").sites}
    insert = session.goto("insert").site_by_path
    assert swap
    for path, site in swap.items():
        measured = insert[path]
        assert site.calls_per_forward == measured.calls_per_forward
        assert site.mechanism == measured.mechanism
        assert site.tensor_shape == measured.tensor_shape
