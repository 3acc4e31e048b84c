"""A forward without values: the same facts as one that computes, and none where a value decides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import qatexplorer as qx
from qatexplorer.errors import ExampleInputError
from qatexplorer.forward import record, shapes, trace
from tests.support.models import NARROW, SMALL, Case, ConvBnRelu, image, load_timm


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which forwards ran without values, to their end."""
    found: list[str] = []
    for module in (trace, record):
        without = module.without_values

        @shapes.contextmanager
        def noted(model: nn.Module, module: Any = module, without: Any = without) -> Any:
            with without(model) as device:
                yield device
            found.append(module.__name__.rpartition(".")[2])

        monkeypatch.setattr(module, "without_values", noted)
    return found


def stepped(model: nn.Module, inputs: Any, **settings: Any) -> qx.Session:
    session = qx.Session(model, inputs, qconfig="onednn", **settings)
    session.goto("train")
    return session


def assert_same_facts(model: nn.Module, inputs: Any, **settings: Any) -> None:
    mine = stepped(model, inputs, **settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trace, "decided_by_shapes", lambda *_: False)
        theirs = stepped(model, inputs, **settings)
    for stage, snapshot in theirs.snapshots.items():
        found = mine.snapshots[stage]
        assert found.modules == snapshot.modules, stage
        assert found.sites == snapshot.sites, stage
        assert found.graph is not None
        assert snapshot.graph is not None
        assert found.graph.nodes == snapshot.graph.nodes, stage
        assert found.graph.edges == snapshot.graph.edges, stage
        assert found.notes == snapshot.notes, stage


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
def test_the_facts_are_those_of_a_forward_with_values(case: Case) -> None:
    model, x = case()
    assert_same_facts(model, (x,), stubs="layers")


def test_a_resnet_runs_without_values_twice(ran: list[str]) -> None:
    model, x = load_timm("resnet10t", 64, batch=2, **NARROW)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert_same_facts(model.train(), (x,), stubs="layers")
    assert ran == ["trace", "record"]
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert not any(value.is_meta for value in model.state_dict().values())


class Net(nn.Module):
    """Traced by FX; what it does with the result of its layer is up to a test."""

    def __init__(self, after: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.seen: list[Any] = []
        self.after = after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self, self.fc(x))


@torch.fx.wrap
def looks_at_values(x: Tensor) -> Tensor:
    return x[: 1 + int(x.sum().isfinite())]


def kept(model: Any, x: Tensor) -> Tensor:
    model.seen.append(x)
    return x


@pytest.mark.parametrize(
    "after",
    [
        lambda _, x: looks_at_values(x),
        lambda _, x: x[torch.argsort(x[:, 0])],
        lambda _, x: torch.linalg.inv(x),
        lambda _, x: x.double().float(),
    ],
    ids=["wrapped", "index", "inverse", "dtype"],
)
def test_what_may_look_at_values_gets_them(after: Any, ran: list[str]) -> None:
    session = stepped(Net(after).train(), (torch.randn(4, 4),), stubs="model")
    assert ran == []
    assert session.snapshots["float"].graph is not None
    assert session.snapshots["float"].graph.nodes[-1].shape is not None


@pytest.mark.parametrize("what", ["hook", "forward", "autocast", "integers"])
def test_what_is_not_torchs_own_gets_values(what: str, ran: list[str]) -> None:
    model, given = Net(lambda _, x: F.relu(x)).train(), []
    inputs = (torch.randn(2, 4),)
    if what == "hook":
        model.fc.register_forward_hook(lambda _m, _args, out: given.append(out.is_meta))
    elif what == "forward":
        plain = model.fc.forward
        model.fc.forward = lambda x: plain(x)  # type: ignore[method-assign]
    elif what == "integers":
        model.register_buffer("table", torch.arange(3))
    with torch.autocast("cpu", enabled=what == "autocast"):
        qx.Session(model, inputs, qconfig="onednn")
    assert ran == []
    assert not any(given)


def test_a_fake_quant_of_which_values_say_what_it_does_gets_them(ran: list[str]) -> None:
    from torch.ao.quantization import FakeQuantize, MovingAverageMinMaxObserver, QConfig

    plain = FakeQuantize.with_args(observer=MovingAverageMinMaxObserver)
    weight = qx.Session(ConvBnRelu(), (image(),), qconfig="onednn").options.qconfig.default
    assert weight is not None
    ran.clear()
    session = qx.Session(
        ConvBnRelu().train(), (image(),), qconfig=QConfig(activation=plain, weight=weight.weight)
    )
    session.goto("insert")
    assert ran == ["trace"]
    assert any(site.observer_runs for site in session.snapshot.sites if site.kind != "weight")


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(3, 4, 3), (2, 4, 8, 8)),
        (nn.Conv2d(3, 4, 3), (2, 3, 2, 2)),
        (nn.BatchNorm2d(3), (2, 4, 8, 8)),
        (nn.BatchNorm1d(3), (1, 3)),
        (nn.BatchNorm2d(3), (2, 3)),
        (nn.Linear(3, 4), (2, 4)),
        (nn.AvgPool2d(4), (2, 3, 2, 2)),
        (nn.MaxPool2d(4), (2, 3, 2, 2)),
        (nn.AdaptiveAvgPool2d(2), (2, 3)),
        (nn.Conv1d(3, 4, 3), (2, 4, 8)),
        (nn.Conv3d(3, 4, 3), (2, 4, 8, 8, 8)),
        (nn.ConvTranspose2d(3, 4, 3), (2, 4, 8, 8)),
        (nn.Conv2d(3, 4, 3), (2, 3)),
        (nn.GroupNorm(1, 3), (2, 4, 8, 8)),
        (nn.LayerNorm(3), (2, 4)),
        (nn.InstanceNorm2d(3, affine=True), (2, 4, 8, 8)),
        (nn.PReLU(3), (2, 4, 8, 8)),
        (nn.GLU(), (2, 3)),
        (nn.Softmax(dim=3), (2, 3)),
        (nn.PixelShuffle(2), (2, 3, 4, 4)),
        (nn.ReflectionPad2d(9), (2, 3, 8, 8)),
        (nn.ConstantPad2d(-5, 0.0), (2, 3, 8, 8)),
        (nn.Upsample(scale_factor=2, mode="bilinear"), (2, 3, 8)),
        (nn.Unflatten(1, (2, 2)), (2, 3)),
        (nn.Flatten(3), (2, 3)),
    ],
    ids=lambda value: str(value),
)
def test_what_does_not_fit_is_reported_as_torch_says_it(layer: Any, shape: Any) -> None:
    # A layer that fits comes first, so that there is a parameter.
    model, x = nn.Sequential(nn.PReLU(), layer).train(), torch.randn(shape)
    with pytest.raises((RuntimeError, ValueError, IndexError)) as torchs:
        model(x)
    with pytest.raises(ExampleInputError) as caught:
        qx.Session(model, (x,))
    assert str(torchs.value).splitlines()[0] in (caught.value.why or "")


@pytest.mark.parametrize(
    "after",
    [
        lambda _, x: torch.cat([x, x[:, :1]]),
        lambda _, x: torch.stack([x, x[:, :1]]),
        lambda _, x: x @ x,
        lambda _, x: torch.matmul(x, x),
        lambda _, x: x + x[:, :3],
        lambda _, x: x[:, :3] * x,
        lambda _, x: torch.div(x, x[:, :3]),
        lambda _, x: x.view(5),
        lambda _, x: x.reshape(7),
        lambda _, x: x.permute(0),
        lambda _, x: x.transpose(0, 5),
        lambda _, x: x.expand(5, 7),
        lambda _, x: x.unflatten(1, (3, 2)),
        lambda _, x: x.split(-1, 1),
        lambda _, x: x.chunk(0),
        lambda _, x: x.mean(4),
        lambda _, x: x.squeeze(6),
        lambda _, x: x[:, 9],
        lambda _, x: F.layer_norm(x, (3,)),
        lambda _, x: F.group_norm(x, 3),
        lambda _, x: F.linear(x, x[:, :3]),
        lambda _, x: F.pad(x, (9, 9), mode="reflect"),
        lambda _, x: F.interpolate(x, scale_factor=2),
        lambda _, x: F.max_pool2d(x, 3),
        lambda _, x: F.avg_pool2d(x, 3),
        lambda _, x: F.adaptive_avg_pool2d(x, (2, 2, 2)),
        lambda _, x: F.batch_norm(x, None, None, x[0, :3], training=True),
        lambda _, x: F.scaled_dot_product_attention(x, x[:, :3], x),
    ],
)
def test_a_function_that_does_not_fit_is_reported_as_torch_says_it(after: Any) -> None:
    model, x = Net(after).train(), torch.randn(2, 4)
    with pytest.raises(Exception) as torchs:
        model(x)
    with pytest.raises(ExampleInputError) as caught:
        qx.Session(model, (x,))
    assert str(torchs.value).splitlines()[0] in (caught.value.why or "")


def test_what_a_forward_keeps_is_never_a_tensor_without_values(ran: list[str]) -> None:
    model = Net(kept).train()
    with pytest.raises(RuntimeError, match="keeps something"), shapes.without_values(model):
        model(torch.empty(2, 4, device="meta"))
    assert model.seen == []
    assert not model.fc.weight.is_meta
