"""MACs agree with torch's own flop counter, times with a stopwatch of the test's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import qatexplorer as qx
from qatexplorer.errors import StoppedError
from qatexplorer.forward import costs
from qatexplorer.forward.costs import count_macs, time_modules
from tests.support.clock import Clock, Sleeper
from tests.support.models import NARROW, ConvBnRelu, image, load_timm
from tests.support.models_fx import Bottleneck, TinyViT, rgb


def flops_by_torch(model: nn.Module, x: Tensor) -> dict[str, int]:
    """FLOPs by module path, as torch's counter names them: ``"ResNet.layer1.0"``."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(x)
    root = type(model).__name__
    counts = {name: sum(ops.values()) for name, ops in counter.get_flop_counts().items()}
    found = {"": counts.get("Global", 0)}
    for name, flops in counts.items():
        if name.startswith(f"{root}."):
            found[name.removeprefix(f"{root}.")] = flops
    return found


@pytest.mark.parametrize(
    ("model", "x"),
    [
        (ConvBnRelu(), image()),
        (nn.Sequential(Bottleneck(3, 4), nn.Flatten(), nn.LazyLinear(5)), rgb()),
        (TinyViT(), rgb()),
    ],
    ids=["conv", "bottleneck", "vit"],
)
def test_macs_are_half_of_torchs_flops(model: nn.Module, x: Tensor) -> None:
    model.eval()(x)  # lazy layers get their shape
    found = count_macs(model, x)
    expected = flops_by_torch(model, x)
    assert found[""] > 0
    for path, flops in expected.items():
        assert found[path] == flops // 2, path
    assert all(n == 0 for path, n in found.items() if path not in expected)


def test_macs_of_resnet50_are_those_of_torch() -> None:
    model, x = load_timm("resnet50", batch=2, **NARROW)
    found, expected = count_macs(model, x), flops_by_torch(model, x)
    assert found[""] == expected[""] // 2 > 10**6
    assert {p: n for p, n in found.items() if n} == {p: f // 2 for p, f in expected.items() if f}


def test_what_does_not_run_has_no_macs_and_a_list_has_those_of_its_members() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(4, 6), nn.Linear(6, 2)])
            self.spare = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.layers:
                x = layer(x)
            return x

    found = count_macs(Net(), torch.randn(3, 4))
    assert found == {"": 108, "layers": 108, "layers.0": 72, "layers.1": 36}


def sleepers(clock: Clock) -> nn.Module:
    inner = nn.Sequential(Sleeper(clock, 0.004), Sleeper(clock, 0.012))
    return nn.Sequential(inner, Sleeper(clock, 0.002), nn.Dropout(0.5), inner[0])


def test_times_are_those_of_the_forwards(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock().replace(monkeypatch, costs)
    found = time_modules(sleepers(clock), torch.ones(2), repeats=5)
    assert found.repeats == 5
    # The first sleeper is called twice a forward; its second path counts at the first.
    expected = {"": 0.022, "0": 0.016, "0.0": 0.008, "0.1": 0.012, "1": 0.002, "2": 0}
    assert {path: found.seconds[path] for path in expected} == pytest.approx(expected)
    assert found.forward_s == pytest.approx(0.022)


def test_timing_leaves_the_model_as_it_was_and_its_random_state() -> None:
    model: Any = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(0.5)).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    rng = torch.get_rng_state()
    time_modules(model, torch.ones(4, 1, 8, 8), repeats=2)
    assert torch.equal(rng, torch.get_rng_state())
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())
    assert model.training
    assert model[1].training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_timing_can_be_stopped_and_says_how_far_it_is() -> None:
    told: list[float] = []
    with pytest.raises(StoppedError):
        time_modules(
            sleepers(Clock()),
            torch.ones(1),
            progress=told.append,
            should_stop=lambda: len(told) >= 2,
        )
    assert told == sorted(told)
    assert len(told) == 2


def test_a_budget_ends_it_after_one_timed_forward() -> None:
    found = time_modules(sleepers(Clock()), torch.ones(1), repeats=50, warmup=0, budget_s=0.0)
    assert found.repeats == 1


def test_a_session_counts_macs_once_and_before_anything_is_fused() -> None:
    model, x = ConvBnRelu().train(), image()
    session = qx.Session(model, x)
    found = session.macs()
    assert found[""] == flops_by_torch(model, x)[""] // 2
    session.goto(session.flow.prepared_stage)
    assert session.macs() is found
