"""The exact sensitivity has the numbers of the loop that one would write with torch's calls."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

import qatexplorer as qx
from qatexplorer.accuracy.sensitivity.exact import Exact
from qatexplorer.accuracy.sensitivity.job import Job, Judge
from qatexplorer.accuracy.sensitivity.kept import Kept
from qatexplorer.accuracy.sensitivity.sites import subject_of
from qatexplorer.quantizers.facts import fake_quants, kinds_of
from tests.accuracy.sensitivity_models import (
    MODELS,
    NO_GRAPH,
    Alternates,
    by_torch,
    session_of,
)
from tests.support.models import loader

CASES = [
    *((name, flow) for name in MODELS for flow in ("eager", "fx")),
    ("digits_cnn", "eager"),
    ("digits_cnn", "fx"),
    ("digits_mlp", "eager"),
    ("digits_depthwise", "fx"),
]
CASES = [case for case in CASES if not (case[0] in NO_GRAPH and case[1] == "fx")]


def close(one: float | None, two: float, tolerance: float = 1e-5) -> bool:
    return one is not None and math.isclose(one, two, rel_tol=tolerance, abs_tol=1e-7)


@pytest.mark.parametrize(("name", "flow"), CASES, ids=lambda x: x)
def test_the_numbers_of_a_loop_by_hand(name: str, flow: str) -> None:
    session = session_of(name, flow)
    made = session.sensitivity(batches=2)
    assert session.data is not None
    batches = list(session.data.eval)[:2]
    paths = set(fake_quants(session.copy_model()))
    kinds = kinds_of(session.copy_model())
    assert made.complete
    assert made.samples == sum(len(y) for _, y in batches)
    assert {row.path for row in made.rows} <= paths

    def agrees(mine: tuple[float | None, float | None], on: set[str]) -> None:
        metric, loss = by_torch(session, batches, on)
        assert close(mine[0], metric)
        assert close(mine[1], loss)

    agrees((made.float_metric, made.float_loss), set())
    agrees((made.quantized_metric, made.quantized_loss), paths)
    weights = {path for path in paths if kinds[path] == "weight"}
    assert close(made.weights_only, by_torch(session, batches, weights)[0])
    assert close(made.activations_only, by_torch(session, batches, paths - weights)[0])
    shown = made.rows if len(made.rows) < 14 else made.rows[:6] + made.rows[-4:]
    for row in shown:
        assert row.kind == ("weight" if row.path in weights else "activation")
        agrees((row.only, row.loss_only), {row.path})
        agrees((row.without, row.loss_without), paths - {row.path})
        assert row.score == pytest.approx((made.float_metric or 0) - (row.only or 0), abs=1e-12)
        assert close(row.loss_increase, (row.loss_only or 0) - (made.float_loss or 0))
    assert [row.score for row in made.rows] == sorted((r.score for r in made.rows), reverse=True)
    if name == "decides":  # one of its branches has not run
        assert "module.b." in made.notes[0]
    else:
        assert made.notes == ()


@pytest.mark.parametrize("flow", ["eager", "fx"])
def test_each_run_begins_at_its_fake_quant(flow: str) -> None:
    """Calls of the convs, counted from outside."""
    session = session_of("digits_cnn", flow)
    subject = subject_of(session.model, {})
    calls: list[str] = []
    for path, module in subject.model.named_modules():
        if path in ("conv1", "conv3"):
            usual = module._conv_forward  # what torch's QAT convs compute with

            def counted(*args: Any, path: str = path, usual: Any = usual) -> Any:
                calls.append(path)
                return usual(*args)

            module._conv_forward = counted  # type: ignore[assignment]
    assert session.data is not None
    job = Job(Kept({}), Judge(), 1)
    with torch.no_grad():
        Exact(subject, job).measure(session.data.eval)
    # Four baselines. conv1 runs for the input's fake quant and for that of its own weight, with
    # only it on and with all but it; conv3 for all up to its own weight's.
    assert calls.count("conv1") == 4 + 2 * 2
    assert calls.count("conv3") == 4 + 2 * 6


def test_the_cost_is_that_of_the_calls_computed() -> None:
    session = session_of("digits_cnn")
    made = session.sensitivity(batches=1)
    whole = 2 * len(made.rows) + 4
    assert 4 < made.forwards < 0.7 * whole
    again = session_of("digits_cnn").sensitivity(batches=2)
    assert again.forwards == pytest.approx(made.forwards, rel=0.05)  # of the samples, not a sum


@pytest.mark.parametrize("limit", [0, 20_000, 200_000])
@pytest.mark.parametrize("name", ["residual", "writes"])
def test_little_memory_costs_time_and_changes_nothing(name: str, limit: int) -> None:
    session = session_of(name)
    usual = session.sensitivity()
    subject = subject_of(session.model, {})
    job = Job(Kept({}), Judge(), None)
    assert session.data is not None
    with torch.no_grad():
        exact = Exact(subject, job, limit=limit)
        exact.measure(session.data.eval)
    for row in usual.rows:
        losses = [b.values[f"only {row.path}"][1] for b in job.kept.batches]
        assert row.loss_only == pytest.approx(sum(map(float, losses)) / len(losses), rel=1e-6)  # type: ignore[arg-type]
    assert limit > 100_000 or any("found no room" in note for note in job.kept.notes)


def test_a_model_that_calls_its_layers_in_another_order_each_time() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 6)
    data = {"train": loader(x, batches=2), "eval": loader(x, batches=1)}
    session = qx.Session(Alternates().train(), x, data=data, stubs="model")
    session.calibrate(2)
    made = session.sensitivity()
    assert made.complete
    assert len(made.rows) == len(fake_quants(session.copy_model()))
    assert any("in another order" in note for note in made.notes)


class RandomByPython(nn.Module):
    """Draws from Python's generator, whose state is not followed call by call."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        import random

        return self.b(self.a(x) * random.uniform(0.5, 2.0))


def test_random_numbers_of_python_take_whole_forwards() -> None:
    import random

    torch.manual_seed(0)
    x = torch.randn(4, 6)
    data = {"train": loader(x, batches=2), "eval": loader(x, batches=1)}
    session = qx.Session(RandomByPython().train(), x, data=data, stubs="model")
    session.calibrate(2)
    random.seed(5)
    before = random.getstate()
    made = session.sensitivity()
    assert random.getstate() == before
    assert any("draws random numbers" in note for note in made.notes)
    paths = set(fake_quants(session.copy_model()))
    for row in made.rows:
        random.seed(0)
        assert close(row.loss_only, by_torch(session, data["eval"], {row.path})[1])
        random.seed(0)
        assert close(row.loss_without, by_torch(session, data["eval"], paths - {row.path})[1])


def test_a_low_metric_that_is_good() -> None:
    def error(output: Any, target: Any) -> float:
        return 1 - float((output.argmax(1) == target).float().mean())

    session = session_of("conv_bn_relu", metric=error, loss=nn.CrossEntropyLoss())
    made = session.sensitivity(metric_mode="min")
    assert made.metric_name == "error"
    assert made.loss_name == "CrossEntropyLoss"
    for row in made.rows:
        assert row.score == pytest.approx((row.only or 0) - (made.float_metric or 0))


def test_a_target_that_is_no_class_has_no_loss() -> None:
    def near(output: Any, target: Any) -> float:
        return -float((output - target[0]).abs().mean())

    session = session_of("conv_bn_relu", metric=near)
    session.data = qx.Data([(x, [torch.zeros(4, 4)]) for x, _ in session.data.train],  # type: ignore[union-attr]
                           [(x, [torch.zeros(4, 4)]) for x, _ in session.data.eval])  # type: ignore[union-attr]  # fmt: skip
    made = session.sensitivity()
    assert made.loss_name == "none"
    assert made.float_loss is None
    assert all(row.loss_only is None and row.only is not None for row in made.rows)
