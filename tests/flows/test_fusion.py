"""What is fused: runs that torch can fuse, of modules that are called once, one after another."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.ao.quantization import QuantStub, fuse_modules_qat

import qatexplorer as qx
from qatexplorer.flows.fusion import can_fuse, check_fusion, find_fusable
from qatexplorer.snapshot.take import take_graph
from tests.support.models import ConvBnRelu, Nested, Residual, Reused, Tied, TwoNames, image

SHAPE = (2, 2, 6, 6)


def found(model: nn.Module, x: Tensor) -> tuple[tuple[str, ...], ...]:
    return find_fusable(model.train(), take_graph(model, (x,)))


def test_runs_of_the_small_models() -> None:
    assert found(ConvBnRelu(), image()) == (("conv1", "bn1", "relu1"), ("conv2", "relu2"))
    assert found(Residual(), image()) == (("stem.0", "stem.1"), ("body.0", "body.1"))
    assert found(Nested(), image()) == (
        ("net.1.0.0", "net.1.0.1", "net.1.0.2"),
        ("net.1.1.0", "net.1.1.1"),
        ("net.3.0", "net.3.1"),
        ("net.4.0", "net.4.1"),
    )
    assert found(Tied(), torch.randn(4, 6)) == (("a", "relu"),)


def test_reused_modules_are_left_alone() -> None:
    assert found(Reused(), image()) == ()
    assert found(TwoNames(), torch.randn(4, 6)) == ()


class Branch(nn.Module):
    """The conv's output is read twice: after fusing, one reader would get something else."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.relu = nn.Conv2d(1, 4, 1), nn.BatchNorm2d(4), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.relu(self.bn(y)) + y


def test_an_output_with_two_readers_ends_the_run() -> None:
    assert found(Branch(), image()) == (("bn", "relu"),)


def test_order_of_execution_and_not_of_definition_counts() -> None:
    class Swapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.relu, self.bn, self.conv = nn.ReLU(), nn.BatchNorm2d(4), nn.Conv2d(1, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.relu(self.bn(self.conv(x)))

    model = Swapped().train()
    assert found(model, image()) == (("conv", "bn", "relu"),)
    assert find_fusable(model, None) == ()  # without a graph, definition order is all there is
    assert find_fusable(ConvBnRelu().train(), None) == (
        ("conv1", "bn1", "relu1"),
        ("conv2", "relu2"),
    )


@pytest.mark.parametrize(
    ("modules", "possible"),
    [
        ([nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1), nn.ReLU()], True),
        ([nn.Linear(1, 1), nn.ReLU()], True),
        ([nn.Conv2d(1, 1, 1)], False),
        ([nn.Conv2d(1, 1, 1), nn.ReLU6()], False),
        ([nn.ReLU(), nn.Conv2d(1, 1, 1)], False),
        ([nn.ConvTranspose2d(1, 1, 1), nn.BatchNorm2d(1)], False),
        ([nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, affine=False)], False),
        ([nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, track_running_stats=False)], False),
        ([nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1).eval()], False),
    ],
)
def test_what_can_be_fused(modules: list[nn.Module], possible: bool) -> None:
    assert can_fuse(modules) is possible
    if possible:
        names = [str(i) for i in range(len(modules))]
        fuse_modules_qat(nn.Sequential(*modules), [names])


def test_runs_given_by_the_user() -> None:
    model = ConvBnRelu().train()
    assert check_fusion(model, [["conv1", "bn1"]]) == (("conv1", "bn1"),)
    assert check_fusion(model, ["conv1, bn1, relu1"]) == (("conv1", "bn1", "relu1"),)
    for wrong, text in (
        ([["conv1", "bn"]], "bn1"),
        ([["conv1", "relu1"], ["conv1", "bn1"]], "two runs"),
        ([["bn1", "conv1"]], "BatchNorm2d + Conv2d"),
        ([[]], "cannot fuse"),
    ):
        with pytest.raises(qx.errors.FusionError, match="cannot fuse") as caught:
            check_fusion(model, wrong)
        assert text in caught.value.full_text()


# -- random networks -----------------------------------------------------------------------------

LAYERS = ("conv", "bn", "relu", "relu6", "pool", "again", "branch")


class Drawn(nn.Module):
    """A network from a list of layer names; "again" calls an earlier layer, "branch" adds the
    input of the last layer to its output."""

    def __init__(self, plan: list[str]) -> None:
        super().__init__()
        self.quant = QuantStub()
        self.calls: list[str] = []
        for number, kind in enumerate(plan):
            name = f"{kind}{number}"
            made: Any = {
                "conv": lambda: nn.Conv2d(2, 2, 3, padding=1),
                "bn": lambda: nn.BatchNorm2d(2),
                "relu": nn.ReLU,
                "relu6": nn.ReLU6,
                "pool": lambda: nn.MaxPool2d(3, stride=1, padding=1),
            }.get(kind)
            if made is not None:
                setattr(self, name, made())
                self.calls.append(name)
            elif kind == "branch":
                self.calls.append("+")
            elif self.calls:
                self.calls.append(self.calls[number // 2 % len(self.calls)])
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(72, 4), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        x = before = self.quant(x)
        for name in self.calls:
            if name == "+":
                x = x + before
            else:
                before, x = x, getattr(self, name)(x)
        return self.head(x)


def draw(plan: list[str]) -> Drawn:
    torch.manual_seed(0)
    return Drawn(plan).train()


PLANS = st.lists(st.sampled_from(LAYERS), min_size=0, max_size=8)
FEW = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)


@pytest.mark.slow
@FEW
@given(PLANS)
def test_random_networks_fuse_safely(plan: list[str]) -> None:
    model, x = draw(plan), torch.randn(SHAPE)
    runs = found(model, x)
    used = [path for run in runs for path in run]
    assert len(used) == len(set(used))
    calls = Counter(model.calls)
    order = [*model.calls, "head.0", "head.1", "head.2"]
    for run in runs:
        assert all(calls.get(path, 1) == 1 for path in run)
        assert all(order.index(b) == order.index(a) + 1 for a, b in pairwise(run))
    if runs:
        # In eval mode a fused module computes what its parts did.
        fused = fuse_modules_qat(model, [list(run) for run in runs]).eval()
        with torch.no_grad():
            assert torch.allclose(fused(x), model.eval()(x), atol=1e-5)


@FEW
@given(PLANS, st.lists(st.sampled_from(("step", "back", "insert", "float", "reset")), max_size=8))
def test_random_walks_show_the_same_snapshot_for_a_stage(plan: list[str], moves: list[str]) -> None:
    session = qx.Session(draw(plan), (torch.ones(SHAPE),))
    first: dict[str, Any] = {"float": session.snapshot}
    for move in moves:
        if move == "step" and session.stage != "train":
            session.step()
        elif move == "back":
            session.back()
        elif move == "reset":
            session.reset()
        elif move != "step":
            session.goto(move)
        assert session.snapshot == first.setdefault(session.stage, session.snapshot)
        assert session.snapshot.stage == session.stage


@FEW
@given(PLANS)
def test_diff_adds_up(plan: list[str]) -> None:
    session = qx.Session(draw(plan), (torch.ones(SHAPE),))
    session.goto("insert")
    shots = [session.snapshots[s] for s in ("float", "fuse", "propagate", "swap", "insert")]
    for snapshot in shots:
        same = qx.diff(snapshot, snapshot)
        assert same.summary() == "nothing changed"
        assert not same.paths
    for before, after in pairwise(shots):
        there, back = qx.diff(before, after), qx.diff(after, before)
        modules = [
            {m.path for m in s.modules if m.path not in s.site_by_path} for s in (before, after)
        ]
        assert {m.path for m in there.added} == modules[1] - modules[0]
        assert {m.path for m in there.removed} == modules[0] - modules[1]
        assert {m.path for m in back.added} == {m.path for m in there.removed}
        assert {c.after.path for c in there.changed} <= modules[0] & modules[1]
        assert {c.after.path for c in there.changed} == {c.after.path for c in back.changed}
        assert len(after.sites) == (
            len(before.sites) + len(there.sites_added) - len(there.sites_removed)
        )
