"""The user's module tree at every stage of an exported model, and what is int8 in it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, fx, nn

import qatexplorer as qx
from qatexplorer.flows.pt2e import Pt2eFlow
from qatexplorer.forward.exported import Stages, is_int8_kernel
from tests.support.pt2e import branches, images, options_of

pytest.importorskip("torchao")
X = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.relu = nn.Conv2d(1, 4, 3, padding=1), nn.ReLU()
        self.blocks = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.MaxPool2d(2))
        self.unused = nn.Linear(2, 2)
        self.drop, self.fc = nn.Dropout(0.1), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.stem(x))
        y = self.blocks(self.relu(y))
        out: Tensor = self.fc(self.drop(y.mean((2, 3))))
        return out


@pytest.fixture(scope="module")
def session() -> qx.Session:
    made = qx.Session(Net().train(), X, flow="pt2e", data=([(X, torch.zeros(4).long())],) * 2)
    made.train(epochs=1)
    made.goto("lower")
    return made


def test_the_tree_is_the_users_until_it_is_converted(session: qx.Session) -> None:
    first = session.snapshots["float"]
    for stage in ("export", "transform", "annotate", "fuse", "insert", "train"):
        now = session.snapshots[stage]
        mine = [m for m in now.modules if m.origin or m.path == ""]
        assert [(m.path, m.type_name) for m in mine] == [
            (m.path, m.type_name) for m in first.modules if m.path in now.by_path
        ]
        assert {"relu", "drop", "blocks.1"} <= set(now.by_path)
        assert now.by_path["stem"].children == ()
        assert now.by_path["blocks"].children == ("blocks.0", "blocks.1")


def test_how_often_each_is_called(session: qx.Session) -> None:
    modules = session.snapshots["insert"].by_path
    assert modules["relu"].calls == 2
    assert modules["stem"].calls == 1
    if "unused" in modules:
        assert modules["unused"].calls == 0


def test_what_is_said_to_become_int8_does(session: qx.Session) -> None:
    lowered = session._models.view("lower")
    kernels = sum(is_int8_kernel(node) for node in lowered.graph.nodes)
    said = [m.path for m in session.snapshots["insert"].modules if m.stays_float]
    int8 = {
        stage: [
            m.path
            for m in session.snapshots[stage].modules
            if m.own_state == "int8" and m.path in ("stem", "blocks.0", "fc")
        ]
        for stage in ("insert", "convert", "fold", "lower")
    }
    assert all(paths == ["stem", "blocks.0", "fc"] for paths in int8.values())
    assert kernels == 3
    assert "blocks.1" in said


def test_each_int8_operation_stands_at_its_module(session: qx.Session) -> None:
    graph = session.snapshots["lower"].graph
    assert graph is not None
    at = {node.path or node.scope for node in graph.nodes if node.target.startswith("onednn.q")}
    paths = {node.path for node in graph.nodes if node.id in session.snapshots["lower"].int8_nodes}
    assert {"stem", "blocks.0", "fc"} <= at | paths


def test_annotations_are_there_before_anything_is_inserted(session: qx.Session) -> None:
    before, after = session.snapshots["annotate"], session.snapshots["insert"]
    assert not before.sites
    assert {a.node for a in before.annotations if a.rounds} >= {"conv2d", "conv2d_1", "linear"}
    assert {site.kind for site in after.sites} == {"weight", "input", "output"}
    assert [s.owner for s in after.sites if s.kind == "weight"] == ["stem", "blocks.0", "fc"]


def test_a_snapshot_survives_a_pickle(session: qx.Session) -> None:
    import pickle

    snapshot = session.snapshots["annotate"]
    assert pickle.loads(pickle.dumps(snapshot)) == snapshot


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.alone = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.alone(torch.tanh(self.bn(self.conv(x))))
        return out


def test_parameters_of_a_batch_norm_go_where_they_are_folded() -> None:
    session = qx.Session(Normed().train(), X, flow="pt2e")
    session.goto("insert")
    modules = session.snapshot.by_path
    assert [modules[path].own_state for path in ("conv", "bn", "alone")] == [
        "int8",
        "int8",
        "float",
    ]
    assert (modules["bn"].state, modules["alone"].state) == ("", "float")


def test_what_no_kernel_takes_is_float_once_it_is_lowered() -> None:
    """The weights of ExecuTorch's default are rounded as a whole, and oneDNN has no kernel."""
    from torchao.testing.pt2e._xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )

    mine = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_qat=True))
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).train()
    data = ([(X, torch.zeros(4).long())],) * 2
    session = qx.Session(model, X, flow="pt2e", quantizer=mine, data=data)
    session.train(epochs=1)
    for stage in ("insert", "lower"):
        session.goto(stage)
        assert session.snapshot.by_path["1"].state == "float"
        assert not session.snapshot.int8_nodes


def test_a_stage_is_read_again_once_a_node_has_changed() -> None:
    model = Pt2eFlow().apply("export", branches(), options_of((images(),))).model
    assert isinstance(model, fx.GraphModule)
    stages = Stages()
    first, placed, types = stages.read(model, {})
    assert stages.read(model, {})[0] is first
    placed.clear()
    types.clear()
    assert stages.read(model, {}) == Stages().read(model, {})

    def same_as_new() -> bool:
        found = stages.read(model, {})
        return found[0] is not first and found == Stages().read(model, {})

    relu = next(node for node in model.graph.nodes if "relu" in node.name)
    stack = relu.meta.pop("nn_module_stack")
    assert same_as_new()
    relu.meta["nn_module_stack"] = stack
    drop = next(node for node in model.graph.nodes if "dropout" in node.name)
    model.eval()  # writes the mode into the arguments of the dropout
    assert same_as_new()
    assert [n.trains for n in stages.read(model, {})[0].nodes if n.id == drop.name] == [False]
    relu.meta["val"] = relu.meta["val"].double()
    assert same_as_new()
    with model.graph.inserting_after(relu):
        model.graph.call_function(torch.ops.aten.neg.default, (relu,))
    assert same_as_new()
