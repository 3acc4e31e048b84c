"""The dataflow graph: two ways of finding it that agree, and nothing kept of the model."""

from __future__ import annotations

import dataclasses
import gc
import pickle
import weakref
from collections import Counter
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import qatexplorer as qx
from qatexplorer.forward.preserve import preserved_state
from qatexplorer.forward.record import recorded_graph
from qatexplorer.forward.trace import fx_graph
from qatexplorer.snapshot.records import Graph
from qatexplorer.snapshot.take import take_graph
from tests.support.models import (
    NARROW,
    SMALL,
    ZOO,
    Branching,
    Case,
    ConvBnRelu,
    NoStubs,
    Residual,
    Reused,
    image,
    load_timm,
)

Named = tuple[str, str, int]


def names(graph: Graph) -> dict[str, Named]:
    """Node ids to (label, path, how many such came before): what both ways must agree on."""
    seen: Counter[tuple[str, str]] = Counter()
    table = {}
    for node in graph.nodes:
        is_io = node.op in ("placeholder", "output")
        key = (node.op if is_io else node.label.strip("_"), node.path)
        table[node.id] = (*key, seen[key])
        seen[key] += 1
    return table


def edges(graph: Graph) -> set[tuple[Named, Named]]:
    table = names(graph)
    return {(table[e.source], table[e.target]) for e in graph.edges}


def both(model: nn.Module, inputs: Any) -> tuple[Graph, Graph]:
    with preserved_state(model):
        traced = fx_graph(model, inputs)
    with preserved_state(model):
        recorded = recorded_graph(model, inputs)
    return traced, recorded


class InPlace(nn.Module):
    """In-place operators and functions on a tensor that goes on being used."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 6)
        self.shift = nn.Parameter(torch.zeros(6))

    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(x)
        y += x
        y.relu_()
        y = F.relu(y, inplace=True)
        return y * 2 + self.shift


class ManyInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 4), nn.Linear(3, 4)

    def forward(self, x: Tensor, other: Tensor, gain: float = 1.0) -> Tensor:
        return self.a(x) + self.b(other)


class Outputs(NamedTuple):
    logits: Tensor
    hidden: Tensor


@dataclasses.dataclass
class OutputData:
    logits: Tensor
    extra: tuple[Tensor, ...]


class Many(nn.Module):
    """Returns whatever form it is told to."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        self.fc1, self.fc2 = nn.Linear(6, 5), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Any:
        hidden = self.fc1(x)
        logits = self.fc2(hidden)
        if self.form == "dict":
            return {"logits": logits, "nested": [hidden]}
        if self.form == "tuple":
            return logits, (hidden,)
        if self.form == "namedtuple":
            return Outputs(logits, hidden)
        return OutputData(logits, (hidden,))


AGREE = [c for c in (*SMALL, *ZOO) if c.name not in ("branching",)]


@pytest.mark.parametrize("case", AGREE, ids=lambda c: c.name)
def test_traced_and_recorded_agree(case: Case) -> None:
    model, x = case()
    traced, recorded = both(model, (x,))
    assert Counter(names(traced).values()) == Counter(names(recorded).values())
    assert edges(traced) == edges(recorded)
    shapes = {names(traced)[n.id]: (n.shape, n.dtype, n.scope) for n in traced.nodes}
    for node in recorded.nodes:
        if node.op != "output":
            name = names(recorded)[node.id]
            assert shapes[name] == (node.shape, node.dtype, node.scope), name


def test_traced_and_recorded_agree_on_a_timm_network() -> None:
    model, x = load_timm("resnet18", **NARROW)
    traced, recorded = both(model, (x,))
    modules = [sorted(n.path for n in g.nodes if n.op == "call_module") for g in (traced, recorded)]
    assert modules[0] == modules[1]
    assert len(modules[0]) > 60
    assert [e for e in edges(traced) if e[1][0] == "output"] == [
        e for e in edges(recorded) if e[1][0] == "output"
    ]


def test_in_place_operations_form_one_line() -> None:
    model = InPlace()
    for graph in both(model, (torch.randn(2, 6),)):
        table = names(graph)
        order = [table[n.id][0] for n in graph.nodes if n.op != "get_attr"]
        assert order == ["placeholder", "fc", "add", "relu", "relu", "mul", "add", "output"]
        assert (("add", "", 0), ("relu", "", 0)) in edges(graph)
        assert (("relu", "", 0), ("relu", "", 1)) in edges(graph)
        assert (("relu", "", 1), ("mul", "", 0)) in edges(graph)
        assert ("shift", "", 0) in {a for a, b in edges(graph) if b[0] == "add"}


def test_chained_in_place_operations_are_what_later_readers_read() -> None:
    class Chain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.relu = nn.Linear(6, 6), nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            y = self.fc(x)
            self.relu(y).mul_(2)
            return y.neg()

    for graph in both(Chain(), (torch.randn(2, 6),)):
        table = [(a[0], b[0]) for a, b in edges(graph)]
        assert ("mul", "neg") in table, graph.origin
        assert ("fc", "neg") not in table
        assert ("relu", "mul") in table


def test_shapes_and_source_lines() -> None:
    model = Residual().train()
    graph = take_graph(model, (image(),))
    assert graph.origin == "torch.fx"
    by_label = {n.label: n for n in graph.nodes}
    assert by_label["cat"].shape == (4, 8, 8, 8)
    assert by_label["add"].path == "add"
    assert by_label["fc"].dtype == "torch.float32"
    lines = {n.label: n.source for n in graph.nodes}
    first = Residual.forward.__code__.co_firstlineno
    assert lines["add"] == f"models.py:{first + 2}"
    assert lines["mul"] == f"models.py:{first + 3}"
    assert lines["flatten"] == f"models.py:{first + 5}"


def test_data_dependent_control_flow_is_recorded_and_says_so() -> None:
    graph = take_graph(Branching().train(), (torch.randn(2, 6),))
    assert graph.origin == "recorded forward"
    assert "TraceError" in graph.note
    labels = [n.label for n in graph.nodes]
    assert labels[0] == "input"
    assert "a" in labels
    assert "b" not in labels  # that branch was not taken
    table = names(graph)
    assert (("a", "a", 0), ("relu", "", 0)) in edges(graph)
    source = {table[n.id][0]: n.source for n in graph.nodes}
    assert source["a"] == f"models.py:{Branching.forward.__code__.co_firstlineno + 3}"


def test_module_called_twice_is_two_nodes() -> None:
    for graph in both(Reused().train(), (image(),)):
        assert sum(n.path == "relu" for n in graph.nodes) == 2
        assert sum(n.path == "twice" for n in graph.nodes) == 2
        assert (("twice", "twice", 0), ("twice", "twice", 1)) in edges(graph)
        assert len({n.id for n in graph.nodes}) == len(graph.nodes)


@pytest.mark.parametrize(
    "inputs",
    [
        (torch.randn(2, 6), torch.randn(2, 3)),
        {"x": torch.randn(2, 6), "other": torch.randn(2, 3)},
        {"other": torch.randn(2, 3), "x": torch.randn(2, 6), "gain": 2.0},
        [torch.randn(2, 6), torch.randn(2, 3), 2.0],
    ],
    ids=["tuple", "dict", "dict with a number", "list"],
)
def test_several_inputs_in_any_form(inputs: Any) -> None:
    session = qx.Session(ManyInputs().train(), inputs, stubs="layers")
    graph = session.snapshot.graph
    assert graph is not None
    modules = {n.path for n in graph.nodes if n.op == "call_module"}
    assert modules == {"a", "b"}
    tensors = [n for n in graph.nodes if n.op == "placeholder" and n.shape is not None]
    assert {n.shape for n in tensors} == {(2, 6), (2, 3)}
    ends = {n.shape[1]: n.id for n in tensors if n.shape}
    to = {e.source: e.target for e in graph.edges}
    paths = {n.id: n.path for n in graph.nodes}
    assert paths[to[ends[6]]] == "a"
    assert paths[to[ends[3]]] == "b"
    session.goto("convert")
    assert session.snapshot.by_path["a.module"].type_name == "Linear"


@pytest.mark.parametrize("form", ["dict", "tuple", "namedtuple", "dataclass"])
def test_nested_outputs(form: str) -> None:
    x = torch.randn(2, 6)
    model = Many(form).train()
    graphs = [take_graph(model, (x,))]
    with preserved_state(model):
        graphs.append(recorded_graph(model, (x,)))
    for graph in graphs:
        into_output = {a[0] for a, b in edges(graph) if b[0] in ("output", "Outputs", "OutputData")}
        into_output -= {"Outputs", "OutputData"}
        assert into_output == {"fc1", "fc2"}, graph.origin
    session = qx.Session(model, (x,), stubs="layers")
    assert session.goto("convert").sites == ()


def test_taking_the_graph_leaves_no_trace() -> None:
    model = ConvBnRelu().train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    keys = [set(vars(m)) for m in model.modules()]
    torch.manual_seed(9)
    state = torch.get_rng_state()
    take_graph(model, (torch.ones(4, 1, 8, 8),))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert keys == [set(vars(m)) for m in model.modules()]
    assert all(p.grad is None for p in model.parameters())


def walk_fields(value: Any, seen: set[int]) -> None:
    """Fails at anything that is not text, a number, or made of those."""
    if id(value) in seen or isinstance(value, (str, int, float, bool, type(None))):
        return
    seen.add(id(value))
    assert not isinstance(value, (Tensor, nn.Module)), type(value)
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            walk_fields(getattr(value, field.name), seen)
    elif isinstance(value, (tuple, list, frozenset)):
        for item in value:
            walk_fields(item, seen)
    elif hasattr(value, "items"):
        for key, item in value.items():
            walk_fields(key, seen)
            walk_fields(item, seen)
    else:
        raise AssertionError(f"{type(value)} in a snapshot")


@pytest.mark.parametrize("model", [Residual, NoStubs], ids=lambda m: m.__name__)
def test_snapshot_holds_text_and_numbers_only(model: Any) -> None:
    session = qx.Session(model().train(), (image(),), stubs="none")
    session.goto("train")
    for snapshot in session.snapshots.values():
        walk_fields(snapshot, set())
        copied = pickle.loads(pickle.dumps(snapshot))
        assert copied == snapshot
        assert qx.diff(copied, snapshot).summary() == "nothing changed"


@pytest.mark.usefixtures("few_objects")
def test_nothing_of_the_model_is_kept_alive() -> None:
    for kind, x in ((Residual, image()), (Branching, torch.randn(4, 6))):
        made = kind()
        watched = [weakref.ref(m) for m in made.modules()]
        watched += [weakref.ref(p) for p in made.parameters()]
        graph = take_graph(made.train(), (x,))
        del made
        gc.collect()
        assert [w for w in watched if w() is not None] == []
        assert graph.nodes


@pytest.mark.usefixtures("few_objects")
@pytest.mark.parametrize("flow", ["eager", "fx"])
def test_session_does_not_keep_the_users_model_nor_its_own_when_it_goes(flow: str) -> None:
    user = Residual().train()
    theirs = [weakref.ref(m) for m in user.modules()]
    session = qx.Session(user, (image(),), flow=flow)
    ours = []
    for stage in session.stages:
        session.goto(stage)
        ours += [weakref.ref(m) for m in session.model.modules()]
        if stage == session.flow.prepared_stage:
            session.ledger()
    snapshots = dict(session.snapshots)
    del user
    gc.collect()
    assert [w for w in theirs if w() is not None] == []
    del session
    gc.collect()
    assert [w for w in ours if w() is not None] == []
    assert len(snapshots) == {"eager": 7, "fx": 9}[flow]
