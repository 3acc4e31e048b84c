"""The benchmark: its numbers against independent ones, and nothing is left changed."""

from __future__ import annotations

import copy
import io
import random
import time
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.benchmark import Timer

import qatexplorer as qx
from qatexplorer.errors import BusyError, InputError
from qatexplorer.evaluate import benchmark as benchmarks
from qatexplorer.evaluate import measure
from qatexplorer.evaluate.benchmark import benchmark, with_batch
from qatexplorer.evaluate.benchmark_records import Benchmark, BenchmarkRow
from qatexplorer.evaluate.compiled import compile_forward
from qatexplorer.evaluate.measure import Latency
from qatexplorer.evaluate.profiled import OUTSIDE, operator_times, peak_memory
from qatexplorer.forward import costs
from tests.support.clock import Clock, Sleeper
from tests.support.models import ConvBnRelu
from tests.support.training_models import one_thread, state  # noqa: F401
from tests.support.waiting import until


def images(batch: int = 4) -> Tensor:
    return torch.rand(batch, 1, 8, 8)


@pytest.fixture
def session() -> qx.Session:
    torch.manual_seed(0)
    made = qx.Session(ConvBnRelu().train(), (images(),))
    made.warns = False
    return made


@pytest.fixture
def working_compiler() -> None:
    forward, why = compile_forward(nn.Linear(2, 2).eval(), torch.rand(1, 2))
    if forward is None:
        pytest.skip(why)


def latency_of(median: float, low: float, high: float) -> Latency:
    return Latency(median, low, high, 9, 1, "onednn", 4, low, high, 3)


# -- what it measures ------------------------------------------------------------------------------


@pytest.mark.usefixtures("working_compiler")
def test_each_form_has_a_row_at_each_batch(session: qx.Session) -> None:
    seen: list[tuple[str, float]] = []
    made = session.benchmark(
        (4, 1), seconds=0.5, threads=1, progress=lambda what, share: seen.append((what, share))
    )
    assert [(row.form, row.batch_size) for row in made.rows] == [
        (form, size) for form in ("float", "compiled", "int8") for size in (1, 4)
    ]
    for row in made.rows:
        assert row.latency is not None, row.note
        assert 0 < row.latency.q1_s <= row.latency.median_s <= row.latency.q3_s
        assert row.per_second == row.batch_size / row.latency.median_s
        assert (row.latency.batch_size, row.latency.threads) == (row.batch_size, 1)
        assert row.peak_bytes is not None
    assert made.complete
    assert (made.threads, made.engine) == (1, session.options.qconfig.backend)
    assert made.cpu in made.conditions
    assert made.notes == ()
    assert [share for _, share in seen] == sorted(share for _, share in seen)
    assert seen[-1][1] == 1.0
    assert len(repr(made).splitlines()) <= 20
    int8 = made.row("int8", 4)
    assert int8 is not None
    assert "example input only" in int8.note


def test_sizes_are_those_of_the_files(session: qx.Session) -> None:
    session.goto("convert")
    made = session.benchmark((4,), seconds=0.1, compiled=False)
    for form, model in (("float", session.copy_model("float")), ("int8", session.int8)):
        buffer, row = io.BytesIO(), made.row(form, 4)
        torch.save(model.state_dict(), buffer)
        assert row is not None
        assert row.size_bytes == len(buffer.getvalue())
        assert row.note == ""


def test_modules_and_operators_are_those_of_each_form(session: qx.Session) -> None:
    made = session.benchmark((1, 4), seconds=0.5, compiled=False)
    types = {(m.form, m.path): m.type for m in made.modules}
    assert types["float", "conv1"] == "Conv2d"
    assert types["int8", "conv1"] == "ConvReLU2d"
    for form in ("float", "int8"):
        mine = [m for m in made.modules if m.form == form]
        assert sum(m.own_s for m in mine) == pytest.approx(mine[0].seconds, rel=0.25)
        assert sum(o.share for o in made.operators if o.form == form) == pytest.approx(1)
    convs = {o.form: o for o in made.operators if o.path == "conv1" and "conv2d" in o.name}
    assert convs["int8"].name == "quantized::conv2d_relu"
    assert convs["int8"].calls == 1
    assert [o.seconds for o in made.operators] == sorted(
        (o.seconds for o in made.operators), reverse=True
    )


def test_the_time_of_a_module_is_what_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock().replace(monkeypatch, measure, costs, benchmarks)
    model = Sleeper(clock, 0.004, Sleeper(clock, 0.008), nn.Identity()).eval()
    made = benchmark({"float": model}, torch.rand(2, 3), seconds=1.0, compiled=False)
    row = made.row("float", 2)
    assert row is not None
    assert row.latency is not None
    assert row.latency.median_s == pytest.approx(0.012)
    times = {m.path: m for m in made.modules}
    assert times["inner.0"].own_s == pytest.approx(0.008)
    assert times[""].own_s == pytest.approx(0.004)
    assert times[""].seconds == pytest.approx(0.012)
    assert times["inner"].own_s == pytest.approx(0)
    assert times["inner.0"].share == pytest.approx(8 / 12)


def test_a_budget_that_is_over_still_gives_a_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock().replace(monkeypatch, measure, costs, benchmarks)
    model = Sleeper(clock, 0.03).eval()
    made = benchmark({"float": model}, torch.rand(2, 3), seconds=0.01, compiled=False)
    assert [row.latency.repeats for row in made.rows if row.latency] == [3, 3]


def test_operators_belong_to_the_module_that_calls_them() -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.Sequential(nn.ReLU(), nn.Linear(64, 8))).eval()
    x = torch.rand(16, 64)
    with torch.no_grad():
        rows = operator_times("float", model, lambda: model(x), 3)
    found = {(row.path, row.name): row.calls for row in rows}
    assert found["0", "aten::addmm"] == found["1.1", "aten::addmm"] == 1
    assert found["1.0", "aten::relu"] == 1
    assert found["", OUTSIDE] == 0
    assert sum(row.share for row in rows) == pytest.approx(1)
    assert all(not module._forward_hooks for module in model.modules())


def test_peak_memory_is_what_is_held_at_once() -> None:
    x = torch.rand(1000)  # 4,000 bytes each

    def chain() -> Tensor:
        a = x * 2
        b = a + 1  # a and b
        del a
        return b * b  # b and the result

    def three() -> Tensor:
        return torch.cat([x * 2, x * 3])  # 4,000 + 4,000 + 8,000

    few = 64  # the numbers 2, 1 and 3 are tensors for a moment
    assert 8_000 <= peak_memory(chain) <= 8_000 + few
    assert 16_000 <= peak_memory(three) <= 16_000 + few
    assert peak_memory(lambda: x.view(10, 100)) == 0


def test_latency_is_that_of_a_bare_timer(
    session: qx.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By turns with torch's own timer, both by a clock that stands still while others compute: one
    by the wall is in tests/benchmarks."""
    session.goto("convert")
    forms = {"float": session.copy_model("float").eval(), "int8": session.int8.eval()}
    clock = time.thread_time
    monkeypatch.setattr(measure, "time", SimpleNamespace(perf_counter=clock))
    x = images(64)
    for form, model in forms.items():
        ratios = []
        for _ in range(3):
            with torch.no_grad(), session._models.engine():
                given = {"model": model, "x": x}
                timer = Timer("model(x)", globals=given, num_threads=1, timer=clock)
                bare = timer.blocked_autorange(min_run_time=0.2).median
                made = session.benchmark((64,), seconds=0.4, threads=1, compiled=False)
            row = made.row(form, 64)
            assert row is not None
            assert row.latency is not None
            ratios.append(row.latency.median_s / bare)
        middle = sorted(ratios)[1]
        print(f"{form}: {middle - 1:+.1%} of a bare timer's, {[f'{r:.3f}' for r in ratios]}")
        assert middle == pytest.approx(1, abs=0.15)


# -- in words --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("int8", "words"),
    [
        (latency_of(0.001, 0.0009, 0.0011), "int8 is faster than float at a batch of 4: 1.00 ms "),
        (latency_of(0.004, 0.0039, 0.0041), "int8 is slower than float at a batch of 4: 4.00 ms "),
        (latency_of(0.0021, 0.0019, 0.0022), "cannot be told apart at a batch of 4"),
        (replace(latency_of(0.1, 0.1, 0.1), repeats=2), "were measured too few times to compare"),
    ],
)
def test_faster_and_slower_in_words(int8: Latency, words: str) -> None:
    mine = latency_of(0.002, 0.00195, 0.00205)
    made = Benchmark((BenchmarkRow("float", 4, mine), BenchmarkRow("int8", 4, int8)))
    assert words in made.compared(4)
    assert made.sentences == (made.compared(4),)
    assert words in repr(made)
    if "er than float" in words:
        factor = "2 times as fast" if "faster" in words else "2 times as long"
        assert made.compared(4).endswith(f"and 2.00 ms, {factor}.")
    assert made.compared(1) == ""
    assert made.compared(4, "compiled") == ""


# -- what cannot be had ----------------------------------------------------------------------------


class Breaks(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1 if x.sum() > 0 else x - 1


class FourOnly(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(64, 2)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.fc(x.reshape(4, 64))
        return result


def test_without_a_compiler_a_row_says_why(session: qx.Session) -> None:
    from torch._inductor import config

    no_compiler = {"cpp.cxx": ("no-such-compiler",), "force_disable_caches": True}
    with config.patch(no_compiler):
        made = session.benchmark((4,), seconds=0.1)
    row = made.row("compiled", 4)
    assert row is not None
    assert row.latency is None
    assert "torch.compile" in row.note
    assert "compiler" in row.note
    assert made.row("float", 4).latency is not None  # type: ignore[union-attr]


def test_a_graph_break_and_a_compile_that_is_off_are_said() -> None:
    forward, why = compile_forward(Breaks(), torch.rand(3))
    assert forward is None
    assert "cannot make one graph" in why
    with torch.compiler.set_stance("force_eager"):
        forward, why = compile_forward(nn.Linear(3, 3), torch.rand(2, 3))
    assert forward is None
    assert "switched off" in why


def test_a_batch_that_the_model_does_not_take_is_said() -> None:
    made = benchmark({"float": FourOnly().eval()}, images(), seconds=0.1, compiled=False)
    assert [row.latency is None for row in made.rows] == [True, False]
    assert "Does not run with a batch of 1: RuntimeError" in made.rows[0].note
    assert {m.path for m in made.modules} == {"", "fc"}


def test_int8_that_cannot_be_made_is_said() -> None:
    class NoStub(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 3)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.conv(x)
            return result

    session = qx.Session(NoStub().train(), (images(),))
    session.warns = False
    made = session.benchmark(seconds=0.1, compiled=False)
    assert [(row.form, row.batch_size) for row in made.rows] == [
        ("float", 1), ("float", 4), ("int8", 1), ("int8", 4)
    ]  # fmt: skip
    int8 = made.row("int8", 1)
    assert int8 is not None
    assert int8.latency is None
    assert "conv" in int8.note
    assert made.sentences == ()


def test_a_stop_keeps_what_was_measured(session: qx.Session) -> None:
    calls = 0

    def after(number: int) -> Callable[[], bool]:
        def ask() -> bool:
            nonlocal calls
            calls += 1
            return calls > number

        return ask

    at_once = session.benchmark(seconds=5, compiled=False, should_stop=after(0))
    assert not at_once.complete
    assert [row.latency for row in at_once.rows] == [None] * 4
    assert "Stopped" in repr(at_once)
    calls = 0
    begun = time.perf_counter()
    later = session.benchmark((4,), seconds=60, compiled=False, should_stop=after(60))
    assert time.perf_counter() - begun < 20
    assert not later.complete
    assert all(row.latency is not None and row.latency.repeats < 60 for row in later.rows)
    assert later.operators == ()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"batch_sizes": (0,)}, "batch_sizes are whole numbers"),
        ({"batch_sizes": ()}, "batch_sizes are whole numbers"),
        ({"seconds": 0}, "seconds must be more than 0"),
        ({"threads": 0}, "threads must be more than 0"),
    ],
)
def test_arguments_that_cannot_be(session: qx.Session, given: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        session.benchmark(**given)


def test_not_while_a_run_is_going_on() -> None:
    example = qx.zoo.load("digits_mlp")
    session = qx.Session(example.model, example.example_inputs, data=example.data)
    run = session.start_training(epochs=50)
    try:
        until(lambda: run.state == "running")
        with pytest.raises(BusyError, match="measure latency"):
            session.benchmark()
    finally:
        run.stop()


# -- nothing is left changed -----------------------------------------------------------------------


def test_batches_repeat_the_samples() -> None:
    x, mask = torch.arange(6).reshape(3, 2), torch.tensor(7)
    assert with_batch(x, 3) is x
    assert with_batch(x, 1).tolist() == [[0, 1]]
    more = with_batch({"x": x, "mask": mask, "n": 3}, 5)
    assert more["x"].tolist() == [[0, 1], [2, 3], [4, 5], [0, 1], [2, 3]]
    assert (more["mask"], more["n"]) == (mask, 3)


class Moving(nn.Module):
    """Changes itself at every forward, and draws random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))
        self.fc, self.count = nn.Linear(3, 3), 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        self.count += 1
        result: Tensor = self.fc(x) + torch.rand(1) + random.random()
        return result


def test_models_and_process_are_as_before() -> None:
    model = Moving().train()
    model.fc.eval()
    hook = model.fc.register_forward_hook(lambda *_: None)
    before, threads = state(model), torch.get_num_threads()
    x = torch.rand(2, 3)
    given = x.clone()
    engine = torch.backends.quantized.engine
    rng, python = torch.get_rng_state(), random.getstate()
    benchmark({"float": model}, x, seconds=0.2, threads=2, engine="qnnpack")
    assert all(torch.equal(a, b) for a, b in zip(before.values(), state(model).values()))  # noqa: B905
    assert (model.training, model.fc.training, model.count) == (True, False, 0)
    assert list(model.fc._forward_hooks) == [hook.id]
    assert not model._forward_pre_hooks
    assert torch.equal(x, given)
    assert (torch.get_num_threads(), torch.backends.quantized.engine) == (threads, engine)
    assert torch.equal(torch.get_rng_state(), rng)
    assert random.getstate() == python


@pytest.fixture
def counted() -> tuple[Any, list[Any]]:
    graphs: list[Any] = []

    def backend(graph: Any, _given: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    model = ConvBnRelu().eval()
    return (model, torch.compile(model, backend=backend)), graphs


@pytest.mark.usefixtures("working_compiler")
def test_what_the_user_has_compiled_stays(
    counted: tuple[Any, list[Any]],
) -> None:
    (model, compiled), graphs = counted
    x = images()
    # Not by monkeypatch: it deletes what it has set, and torch then hides the setting for good.
    with torch.no_grad(), torch._dynamo.config.patch(recompile_limit=2):
        compiled(x)
        assert len(graphs) == 1
        benchmark({"float": copy.deepcopy(model)}, x, seconds=0.2)
        compiled(x)
        assert len(graphs) == 1, "not compiled again: it was not thrown away"
        for _ in range(3):  # as many as would use up the places of a forward
            forward, why = compile_forward(copy.deepcopy(model), x)
            assert forward is not None, why
        other = images(2)
        compiled(other)
        assert len(graphs) == 2, "there is room for another shape of the user's"
