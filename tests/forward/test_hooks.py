"""Hooks for the time of a forward: when they are called, what they may change, that they go."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import nn

from qatexplorer.forward.hooks import hooked
from qatexplorer.forward.visit import Visit, visited
from tests.support.rooms import PACKAGE


class Named(nn.Module):
    """Takes an argument by name; writes down that its forward runs."""

    def __init__(self, seen: list[Any]) -> None:
        super().__init__()
        self.seen = seen

    def forward(self, x: torch.Tensor, *, plus: float = 0.0) -> torch.Tensor:
        self.seen.append("forward")
        return x + plus


def test_the_four_points_lie_around_the_hooks_that_a_module_has() -> None:
    seen: list[Any] = []
    module = Named(seen)
    module.register_forward_pre_hook(lambda _m, _a: seen.append("its pre-hook"))
    module.register_forward_hook(lambda _m, _a, _out: seen.append("its hook"))

    def note(what: str) -> Any:
        return lambda path, m, args, kwargs, *out: seen.append(
            (what, path, m is module, float(args[0]), kwargs["plus"], *map(float, out))
        )

    points = {name: note(name) for name in ("begun", "running", "returned", "left")}
    with hooked([("here", module)], **points):
        module(torch.tensor(1.0), plus=2.0)
    assert seen == [
        ("begun", "here", True, 1.0, 2.0),
        "its pre-hook",
        ("running", "here", True, 1.0, 2.0),
        "forward",
        ("returned", "here", True, 1.0, 2.0, 3.0),
        "its hook",
        ("left", "here", True, 1.0, 2.0, 3.0),
    ]


def test_what_is_returned_takes_the_place_of_the_result() -> None:
    module, seen = nn.ReLU(), []
    module.register_forward_hook(lambda _m, _a, out: seen.append(float(out)))
    with hooked([("", module)], returned=lambda *_call: torch.tensor(7.0)):
        assert float(module(torch.tensor(1.0))) == 7.0
    assert seen == [7.0]
    assert float(module(torch.tensor(1.0))) == 1.0


def test_no_hook_stays_also_after_an_error() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    parts = list(module.named_modules())
    see = dict.fromkeys(("begun", "running", "returned", "left"), lambda *_call: None)
    with pytest.raises(RuntimeError), hooked(parts, **see):  # type: ignore[arg-type]
        module(torch.zeros(3, 5))
    for _, part in parts:
        for name, table in vars(part).items():
            if "hooks" in name and isinstance(table, dict):
                assert not table, name


def test_a_visit_is_the_same_as_what_torch_s_own_hook_sees() -> None:
    """With a module that is called twice, one that two names share, and a hook that changes the
    result before it is seen."""
    shared = nn.Linear(3, 3)
    model = nn.Sequential(shared, nn.ReLU(), shared)
    model[1].register_forward_hook(lambda _m, _a, out: out + 1)
    x = torch.randn(2, 3)
    wanted: list[tuple[str, torch.Tensor]] = []
    handles = [
        module.register_forward_hook(lambda _m, _a, out, path=path: wanted.append((path, out)))
        for path, module in model.named_modules()
        if path
    ]
    model(x)
    for handle in handles:
        handle.remove()
    found: list[Visit] = []
    with visited(model, found.append):
        model(x)
    assert [(v.place[0]) for v in found] == [path for path, _ in wanted]
    assert [v.place[1] for v in found] == [0, 0, 1]
    assert all(torch.equal(v.result, out) for v, (_, out) in zip(found, wanted, strict=True))


ELSEWHERE = {
    # A training may take days, in which hooks come and go by their own rules.
    "telemetry/gradients.py",
    "telemetry/probe.py",
    # Copied into scripts as it stands.
    "telemetry/weights.py",
    "cures/biases.py",  # copied as it stands into scripts that need torch only
    "forward/hooks.py",
}


def test_hooks_are_hung_in_one_place() -> None:
    calls = re.compile(r"\.register_forward_(?:pre_)?hook\(")
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if calls.search(path.read_text(encoding="utf-8"))
    }
    assert found == ELSEWHERE
