"""Metric, latency, size and engines: measured for real, and nothing is left changed."""

from __future__ import annotations

import io
import json
from itertools import groupby
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.ao.quantization import MinMaxObserver, convert

import qatexplorer as qx
from qatexplorer.errors import InputError, NoDataError, UnknownEngineError
from qatexplorer.evaluate import measure
from qatexplorer.evaluate.evaluation import Evaluation, ModelResult
from qatexplorer.evaluate.int8 import run_int8
from qatexplorer.evaluate.measure import compare_latency, latency, size_on_disk
from qatexplorer.evaluate.metric import MetricValue, accuracy, evaluate
from qatexplorer.quantizers.engine import available_engines, quantized_engine
from tests.support.clock import Clock, Sleeper
from tests.support.training_models import batches, one_thread, prepared, same, state  # noqa: F401


class Fixed(nn.Module):
    """Gives class ``x`` the highest score."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.one_hot(x, 4).float()


def test_accuracy_weighs_batches_by_their_size() -> None:
    rows = [
        (torch.tensor([0, 1, 2]), torch.tensor([0, 1, 2])),
        (torch.tensor([3]), torch.tensor([0])),
    ]
    value = evaluate(Fixed(), rows)
    assert (value.name, value.value, value.samples) == ("accuracy", 0.75, 4)
    assert value.complete
    assert value.seconds > 0


def test_accuracy_refuses_shapes_that_would_broadcast() -> None:
    with pytest.raises(InputError, match="shape"):
        accuracy(torch.rand(4, 3), torch.zeros(4, 1, dtype=torch.long))
    with pytest.raises(InputError, match="shape"):
        accuracy(torch.rand(4), torch.zeros(4))


class TwoHeads(nn.Module):
    """Gives two maps, and its target is a list of two, as in object detection."""

    def __init__(self) -> None:
        super().__init__()
        self.coarse, self.fine = nn.Linear(6, 4), nn.Linear(6, 8)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.coarse(x), self.fine(x)]


def test_accuracy_of_targets_that_are_lists_and_the_fix_that_it_names() -> None:
    def loss(output: Any, target: Any) -> Tensor:
        return sum((o - t).square().mean() for o, t in zip(output, target, strict=True))  # type: ignore[return-value]

    batch = (torch.rand(4, 6), [torch.rand(4, 4), torch.rand(4, 8)])
    data = {"train": [batch], "eval": [batch]}
    session = qx.Session(TwoHeads().train(), batch[0], data=data, loss=loss, stubs="model")
    with pytest.raises(InputError, match=r"list of 2 \(Tensor\)") as caught:
        session.train(epochs=1)
    assert "metric=loss" in caught.value.fix
    session = qx.Session(TwoHeads().train(), batch[0], data=data, loss=loss, metric=loss)
    assert session.train(epochs=1).history.epochs[-1].metric > 0
    assert session.evaluate(latency=False)["float"].metric is not None
    for target in (None, ["cat", "dog"], {"boxes": torch.rand(2)}):
        with pytest.raises(InputError, match=r"class indices|cannot compare"):
            accuracy(torch.rand(2, 3), target)


def test_custom_metric_and_callbacks() -> None:
    def mean(output: Any, target: Any) -> Tensor:
        return output.mean()

    mean.name = "mean score"  # type: ignore[attr-defined]
    seen: list[int] = []
    rows = [(torch.tensor([0, 1]), torch.tensor([0, 1]))] * 5
    value = evaluate(Fixed(), rows, mean, lambda: len(seen) == 3, seen.append)
    assert value.name == "mean score"
    assert value.value == pytest.approx(0.25)
    assert seen == [1, 2, 3]
    assert not value.complete
    assert value.samples == 6


def test_nothing_to_evaluate_on() -> None:
    with pytest.raises(NoDataError):
        evaluate(Fixed(), [])


@pytest.mark.parametrize("fails", [False, True])
def test_evaluating_a_prepared_model_leaves_it_bit_for_bit(fails: bool) -> None:
    model = prepared()
    model(batches(1)[0][0])
    model.fc.eval()  # type: ignore[union-attr,operator]
    model.fc.weight_fake_quant.disable_observer()  # type: ignore[union-attr,operator]
    before, flags = state(model), [m.training for m in model.modules()]
    far = [(x * 100, y) for x, y in batches(2)]

    def metric(output: Any, target: Any) -> float:
        assert not model.training
        assert not output.requires_grad
        if fails:
            raise RuntimeError("a bug")
        return 1.0

    if fails:
        with pytest.raises(RuntimeError, match="a bug"):
            evaluate(model, far, metric)
    else:
        evaluate(model, far, metric)
    assert same(before, state(model))
    assert [m.training for m in model.modules()] == flags


def test_a_bare_observer_forgets_what_it_saw() -> None:
    model = nn.Sequential(MinMaxObserver(), Fixed())
    rows = [(torch.tensor([0, 3]), torch.tensor([0, 1]))]
    observer: Any = model[0]
    observer(torch.tensor([0.0, 1.0]))
    evaluate(model, rows)
    assert (observer.min_val.item(), observer.max_val.item()) == (0.0, 1.0)
    observer(torch.tensor([2.0]))
    assert observer.max_val.item() == 2.0, "it still learns afterwards"


def test_size_is_what_torch_saves_and_int8_is_a_quarter() -> None:
    class Wide(nn.Sequential):
        pass

    def wide() -> nn.Module:
        return torch.ao.quantization.QuantWrapper(nn.Sequential(nn.Linear(256, 512)))

    model = prepared(make=wide)
    model(torch.rand(2, 256))
    int8 = convert(model.eval())
    for module in (wide(), int8):
        buffer = io.BytesIO()
        torch.save(module.state_dict(), buffer)
        assert size_on_disk(module) == len(buffer.getvalue())
    assert 0.2 < size_on_disk(int8) / size_on_disk(wide()) < 0.3


def test_latency_is_the_time_of_one_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Sleeper(Clock().replace(monkeypatch, measure), 0.25)
    measured = latency(model, torch.rand(3, 2), repeats=7, warmup=2)
    assert measured.p10_s == measured.median_s == measured.p90_s == 0.25
    assert (measured.repeats, measured.batch_size, model.calls) == (7, 3, 9)
    assert model.modes == {False}
    assert model.training


def test_latency_keeps_to_its_budget_and_can_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock().replace(monkeypatch, measure)
    model = Sleeper(clock, 0.25)
    measured = latency(model, torch.rand(1), repeats=10_000, warmup=1, budget_s=2.0)
    assert (measured.repeats, model.calls, clock.now) == (7, 8, 2.0)
    stopped = latency(model, torch.rand(1), repeats=10_000, should_stop=lambda: True)
    assert stopped.repeats == 1


def test_models_are_timed_by_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "MEASUREMENT_S", 0.01)
    clock = Clock().replace(monkeypatch, measure)
    order: list[str] = []

    class Named(Sleeper):
        def __init__(self, name: str, seconds: float) -> None:
            super().__init__(clock, seconds)
            self.name = name

        def forward(self, x: Tensor) -> Tensor:
            order.append(self.name)
            return super().forward(x)

    models = {"a": Named("a", 0.0005), "b": Named("b", 0.05)}
    measured = compare_latency(models, torch.rand(1), repeats=5, warmup=3)
    assert [name for name, _ in groupby(order)] == ["a", "b"] * 8
    assert measured["a"].median_s == pytest.approx(0.0005)
    assert measured["b"].median_s == pytest.approx(0.05)
    # A short forward is timed several at once, after two that are not counted.
    assert (measured["b"].runs_each, measured["b"].repeats) == (1, 5)
    assert measured["a"].runs_each == 20
    assert order.count("a") == 3 + 5 * (2 + measured["a"].runs_each)
    assert order.count("b") == 3 + 5 * 2
    assert measured["a"].q1_s <= measured["a"].median_s <= measured["a"].q3_s
    with pytest.raises(InputError):
        compare_latency({}, torch.rand(1))


def test_threads_and_engine_are_put_back() -> None:
    threads, engine = torch.get_num_threads(), torch.backends.quantized.engine
    other = next(e for e in available_engines() if e != engine)
    seen: list[tuple[int, str]] = []

    class Looks(nn.Module):
        broken = False

        def forward(self, x: Tensor) -> Tensor:
            seen.append((torch.get_num_threads(), torch.backends.quantized.engine))
            if self.broken:
                raise RuntimeError("a bug")
            return x

    measured = latency(Looks(), torch.rand(1), repeats=1, warmup=1, threads=2, engine=other)
    assert (measured.threads, measured.engine) == (2, other)
    assert set(seen) == {(2, other)}
    Looks.broken = True
    with pytest.raises(RuntimeError, match="a bug"):
        latency(Looks(), torch.rand(1), threads=2, engine=other)
    assert (torch.get_num_threads(), torch.backends.quantized.engine) == (threads, engine)


def test_engines() -> None:
    before = torch.backends.quantized.engine
    with quantized_engine("qnnpack") as name, quantized_engine("onednn"):
        assert name == "qnnpack"
        assert torch.backends.quantized.engine == "onednn"
    assert torch.backends.quantized.engine == before
    unknown = pytest.raises(UnknownEngineError, match="no quantized engine 'cudnn'")
    with unknown as caught, quantized_engine("cudnn"):
        pass
    assert "onednn" in caught.value.why
    with pytest.raises(ZeroDivisionError), quantized_engine("qnnpack"):
        raise ZeroDivisionError
    assert torch.backends.quantized.engine == before


def test_int8_model_runs_and_is_left_alone() -> None:
    model = prepared()
    x = batches(1)[0][0]
    model(x)
    int8 = convert(model.eval()).train()
    output = run_int8(int8, x, "onednn")
    assert output.shape == (8, 4)
    assert not output.is_quantized
    assert int8.training
    assert torch.equal(output, run_int8(int8, (x,)))


def test_evaluation_reads_as_a_table_and_as_json() -> None:
    timed = latency(Sleeper(Clock(), 0.001), torch.rand(5, 2), repeats=3)
    value = MetricValue("accuracy", 0.938, 450, 0.1)
    evaluation = Evaluation(
        {
            "int8": ModelResult("int8", None, 1_234, None, "cannot run"),
            "float": ModelResult("float", value, 2_345_678, timed),
        }
    )
    assert list(evaluation) == ["float", "int8"]
    text = repr(evaluation)
    assert "93.8%" in text
    assert "2.35 MB" in text
    assert "1.2 kB" in text
    assert "cannot run" in text
    assert "median of 3 runs, batch of 5" in text
    loaded = json.loads(json.dumps(evaluation.to_dict()))
    assert loaded["float"]["metric"]["value"] == 0.938
    assert loaded["float"]["latency"]["engine"] == timed.engine
    assert loaded["int8"]["metric"] is None
