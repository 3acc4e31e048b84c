"""Hooks of the user's: they run on the copy, write to the copy, and say when they fall silent."""

from __future__ import annotations

import functools
from collections import defaultdict
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import qatexplorer as qx
from qatexplorer import errors
from qatexplorer.flows.base import copy_sharing_parameters
from qatexplorer.flows.copying import copied

from .models import (
    Pyramid,
    assert_untouched,
    batches,
    mean_square,
    session_of,
    state_of,
    to_int8,
)


def image() -> Tensor:
    return torch.rand(4, 3, 16, 16)


def data() -> Any:
    return batches(image, lambda x: x.mean((1, 2, 3)))


def pyramid(**settings: Any) -> qx.Session:
    torch.manual_seed(0)
    settings = {"flow": "eager", "data": data(), **settings}
    return session_of(
        Pyramid().train(), (image(),), loss=mean_square, metric=mean_square, **settings
    )


def test_features_gathered_by_hooks_reach_int8() -> None:
    model = Pyramid().train()
    model(image())
    kept, before = dict(model.features), state_of(model)
    session = session_of(
        model, (image(),), "eager", data=data(), loss=mean_square, metric=mean_square
    )
    # What is read in the middle of a group keeps that group from being fused over it.
    assert ("body.1.0", "body.1.1") in session.fusion
    assert ("body.0.0", "body.0.1", "body.0.2") in session.fusion
    to_int8(session)
    assert not any("Hooks" in n for s in session.snapshots.values() for n in s.notes)
    assert_untouched(model, before)
    assert model.features.keys() == kept.keys()
    assert all(model.features[name] is kept[name] for name in kept)


def test_a_group_fused_over_a_hook_is_refused_with_the_hook() -> None:
    session = pyramid(fusion=[[f"body.{i}.{j}" for j in range(3)] for i in range(3)])
    with pytest.raises(errors.StageError) as caught:
        session.goto("train")
    error = caught.value
    assert "KeyError: 'middle'" in error.message
    assert error.where == "body.1.1"
    assert "forward hook Pyramid._keep.<locals>.<lambda> on body.1.1" in error.why
    assert "body.0.2" not in error.why
    assert "last module of the fused group" in error.fix
    # The fix, tried.
    session.configure(fusion=[["body.0.0", "body.0.1", "body.0.2"], ["body.1.0", "body.1.1"]])
    assert session.goto("insert").sites


def test_fx_names_the_hooks_that_tracing_does_not_run() -> None:
    session = pyramid(flow="fx")
    with pytest.raises(errors.TraceFailedError) as caught:
        session.step()
    assert "KeyError: 'early'" in caught.value.message
    assert "on body.0.2" in caught.value.why
    assert "Return the value from forward" in caught.value.fix


class Watched(nn.Module):
    """Nothing in forward reads what its hooks keep, so that nothing raises when they stop."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.net(x).mean((2, 3)))


SEEN: dict[str, Any] = {}


def keep_globally(module: nn.Module, args: Any, out: Tensor) -> None:
    SEEN[type(module).__name__] = out


class Collector:
    def __init__(self) -> None:
        self.kept: list[Any] = []

    def method(self, module: nn.Module, args: Any, out: Tensor) -> None:
        self.kept.append(out)

    def __call__(self, module: nn.Module, args: Any, out: Tensor) -> None:
        self.kept.append(out)


def test_dicts_and_lists_of_the_users_stay_as_they_are() -> None:
    outside: dict[str, Any] = {}
    many: defaultdict[str, list[Tensor]] = defaultdict(list)
    collectors = [Collector(), Collector()]

    def into(name: str, where: dict[str, Any], module: Any, args: Any, out: Any) -> None:
        where[name] = out

    model = Watched().train()
    model.head.register_forward_hook(keep_globally)
    model.head.register_forward_hook(lambda m, a, out: outside.update(x=out))
    model.head.register_forward_hook(lambda m, a, out: many["head"].append(out))
    model.head.register_forward_hook(functools.partial(into, "head", outside))
    model.head.register_forward_hook(lambda m, a, out, sink=outside: sink.update(y=out))
    model.head.register_forward_hook(collectors[0].method)
    model.head.register_forward_hook(collectors[1])
    session = qx.Session(model, (image(),), stubs="layers")
    session.goto("insert")
    session.model(image())
    assert SEEN == {}
    assert outside == {}
    assert many == {}
    assert [c.kept for c in collectors] == [[], []]
    # And they do run on the copy.
    hooks = list(session.model.head._forward_hooks.values()) or list(
        session.model.head.module._forward_hooks.values()
    )
    assert sum(bool(getattr(h, "calls", 0)) for h in hooks) == 7


def test_functions_kept_on_the_model_use_the_copys_weights() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(2.0))
            self.fc = nn.Linear(3, 3)
            self.act = lambda x: x * self.scale
            self.acts = [lambda x: self.fc(x), functools.partial(torch.add, other=1.0)]

        def forward(self, x: Tensor) -> Tensor:
            return self.acts[1](self.acts[0](self.act(x)))

    model = Scaled()
    for twin in (copied(model), copied(copied(model)), copied(copy_sharing_parameters(model))):
        with torch.no_grad():
            twin.scale.zero_()
            twin.fc.bias.zero_()
        assert float(model.scale) == (0.0 if twin.scale is model.scale else 2.0)
        assert torch.equal(twin(torch.ones(1, 3)), torch.ones(1, 3))


def test_a_function_that_closes_over_itself_is_copied_once() -> None:
    model = nn.Linear(2, 2)

    def count(n: int) -> int:
        return 0 if n == 0 else model.in_features + count(n - 1)

    model.count = count
    twin = copied(model)
    twin.in_features = 5
    assert twin.count(3) in (15, 5 + 2 * 2)
    assert model.count(3) == 6


@pytest.mark.parametrize(
    ("path", "kind"),
    [("net.0", "forward"), ("net.1", "forward"), ("net.1", "pre"), ("net.2", "pre")],
)
def test_a_hook_that_fusing_silences_is_named(path: str, kind: str) -> None:
    seen: list[int] = []
    model = Watched().train()
    module = model.get_submodule(path)
    if kind == "forward":
        module.register_forward_hook(lambda m, a, out: seen.append(1))
    else:
        module.register_forward_pre_hook(lambda m, a: seen.append(1))
    session = qx.Session(model, (image(),), stubs="model")
    session.goto("train")
    notes = [n for s in session.snapshots.values() for n in s.notes if "Hooks of yours" in n]
    assert len(notes) == 1
    assert f"on {path}" in notes[0]
    assert "since 'swap'" in notes[0] or "since 'fuse'" in notes[0]
    assert seen == []
    # And it is true: the prepared model does not run it.
    session.model(image())
    found = [h for m in session.model.modules() for h in m._forward_hooks.values()]
    assert not any(getattr(h, "calls", 0) for h in found)


@pytest.mark.parametrize(
    ("path", "kind"), [("net.2", "forward"), ("net.0", "pre"), ("net", "forward"), ("", "pre")]
)
def test_a_hook_that_goes_on_is_not_named(path: str, kind: str) -> None:
    model = Watched().train()
    module = model.get_submodule(path)
    if kind == "forward":
        module.register_forward_hook(lambda m, a, out: None)
    else:
        module.register_forward_pre_hook(lambda m, a: None)
    session = qx.Session(model, (image(),), stubs="model")
    session.goto("train")
    assert not [n for s in session.snapshots.values() for n in s.notes if "Hooks of yours" in n]


def test_backward_hooks_are_dropped_at_the_swap() -> None:
    model = Watched().train()
    model.head.register_full_backward_hook(lambda m, i, o: None)
    session = qx.Session(model, (image(),), stubs="model")
    session.goto("train")
    assert "backward hook" in " ".join(session.snapshots["swap"].notes)


@pytest.mark.parametrize(
    ("path", "stage"),
    [("", "trace"), ("net", "trace"), ("net.0", "swap"), ("net.2", "swap"), ("head", None)],
)
def test_hooks_in_a_traced_graph(path: str, stage: str | None) -> None:
    calls: list[Any] = []
    model = Watched().train()
    model.get_submodule(path).register_forward_hook(Counts(calls))
    session = qx.Session(model, (image(),), flow="fx")
    session.goto("train")
    text = [k for k, s in session.snapshots.items() if "Hooks of yours" in " ".join(s.notes)]
    assert text == ([] if stage is None else [stage])
    calls.clear()
    session.model(image())
    assert bool(calls) == (stage is None)


class Counts:
    """Counts calls outside of the model, where no copy reaches."""

    def __init__(self, calls: list[Any]) -> None:
        self.calls = calls

    def __deepcopy__(self, memo: Any) -> Counts:
        return self

    def __call__(self, module: nn.Module, args: Any, out: Tensor) -> None:
        self.calls.append(1)


def test_a_hook_with_kwargs_is_refused_where_torch_forgets_the_flag() -> None:
    model = Watched().train()
    model.head.register_forward_hook(lambda m, a, kw, out: None, with_kwargs=True)
    session = qx.Session(model, (image(),), stubs="model")
    session.goto("propagate")
    with pytest.raises(errors.StageError) as caught:
        session.step()
    assert "with_kwargs=True" in caught.value.message
    assert caught.value.where == "head"
