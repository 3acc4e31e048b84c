"""Watching never changes the training, leaves no trace, and says what it cannot see."""

from __future__ import annotations

import copy
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.ao.quantization import (
    disable_fake_quant,
    disable_observer,
    enable_fake_quant,
    get_default_qat_qconfig_mapping,
)
from torch.ao.quantization.quantize_fx import prepare_qat_fx
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import qatexplorer as qx
from qatexplorer.errors import InputError, NotAModuleError
from qatexplorer.runs.samples import BN_MOVES, MIXED
from qatexplorer.runs.store import MAX_DETAILED, MAX_STEPS
from qatexplorer.telemetry import Telemetry, Watch
from qatexplorer.telemetry.controller import Controller
from qatexplorer.telemetry.watch import MAYBE_COMPILED, NEVER_CALLED
from tests.support.training_models import SmallNet, batches, one_thread, prepared, same, state  # noqa: F401

Ended = tuple[dict[str, Tensor], list[float], "Watch | None"]


def train(
    watched: dict[str, Any] | None,
    model: nn.Module | None = None,
    run: Callable[[Tensor], Tensor] | None = None,
    *,
    epochs: int = 2,
    accumulate: int = 1,
    autocast: bool = False,
    evaluate: bool = False,
) -> Ended:
    """Train by hand, with or without a watch: final state, losses, and the watch."""
    model = prepared() if model is None else model
    forward = model if run is None else run
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses: list[float] = []
    watch = Watch(model, **watched).start() if watched is not None else None
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(epochs):
            for index, (x, y) in enumerate(batches()):
                with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                    loss = F.cross_entropy(forward(x), y)
                loss.backward()
                losses.append(loss.item())
                if index % accumulate == accumulate - 1:
                    optimizer.step()
                    optimizer.zero_grad()
                    if watch is not None:
                        watch.step()
                if evaluate:
                    model.eval()
                    with torch.no_grad():
                        forward(5 * x)
                    model.train()
    if watch is not None:
        watch.close()
    return state(model), losses, watch


def hooks_of(model: nn.Module) -> int:
    return sum(
        len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks)
        for m in model.modules()
    )


def test_losses_and_weights_are_bit_equal_and_hooks_leave_no_trace() -> None:
    plain, losses, _ = train(None)
    for settings in ({"every": 1, "gradients": True}, {"every": 3}, {}, {"max_samples": 7}):
        model = prepared()
        before, keys = hooks_of(model), {id(m): set(m.__dict__) for m in model.modules()}
        random_state = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist())
        ended, watched_losses, watch = train(settings, model)
        assert watched_losses == losses
        assert same(plain, ended)
        assert watch is not None
        assert watch.telemetry.steps
        assert hooks_of(model) == before
        assert {id(m): set(m.__dict__) for m in model.modules()} == keys
        assert torch.equal(random_state[0], torch.get_rng_state())
        assert random_state[1] == random.getstate()
        assert random_state[2] == np.random.get_state()[1].tolist()


def test_hooks_go_when_the_training_raises() -> None:
    model = prepared()
    before = hooks_of(model)
    with pytest.raises(ZeroDivisionError), qx.watch(model, every=1, gradients=True) as w:  # noqa: PT012
        model(batches(1)[0][0])
        w.step()
        assert hooks_of(model) > before
        1 / 0  # noqa: B018
    assert hooks_of(model) == before
    w.close()


def test_hooks_are_on_only_in_steps_that_are_looked_at() -> None:
    model = prepared()
    before = hooks_of(model)
    seen = []
    with qx.watch(model, every=3) as w:
        for x, _ in batches(6):
            seen.append(hooks_of(model) > before)
            model(x)
            w.step()
    assert seen == [True, False, False] * 2
    assert w.telemetry.steps == (0, 3)


def test_gradient_accumulation_counts_one_micro_batch_per_step() -> None:
    plain, losses, _ = train(None, accumulate=3)
    ended, watched, watch = train({"every": 1}, accumulate=3)
    assert (losses, len(losses)) == (watched, 12)
    assert same(plain, ended)
    assert watch is not None
    assert watch.telemetry.steps == (0, 1, 2, 3)
    sample = watch.telemetry.sample("quant.activation_post_process")
    assert sample is not None
    assert sample.total == 8 * 64


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_does_not_count_twice(reentrant: bool) -> None:
    def run_of(model: nn.Module) -> Callable[[Tensor], Tensor]:
        def run(x: Tensor) -> Tensor:
            x = x.clone().requires_grad_()
            out: Tensor = checkpoint(model, x, use_reentrant=reentrant)
            return out

        return run

    model, other = prepared(), prepared()
    plain, losses, _ = train(None, model, run_of(model))
    ended, watched, watch = train({"every": 1, "gradients": True}, other, run_of(other))
    assert losses == watched
    assert same(plain, ended)
    assert watch is not None
    for path in watch.telemetry.paths:
        sample = watch.telemetry.sample(path)
        assert sample is not None
        histogram = watch.telemetry.histogram(path)
        assert histogram is not None
        assert sum(histogram.counts) == histogram.sampled <= histogram.total
        assert sample.grad_rms > 0
    assert watch.telemetry.histogram("quant.activation_post_process").total == 8 * 64  # type: ignore[union-attr]


def test_an_evaluation_between_steps_is_not_looked_at() -> None:
    plain, losses, _ = train(None, evaluate=True)
    ended, watched, watch = train({"every": 1}, evaluate=True)
    assert losses == watched
    assert same(plain, ended)
    assert watch is not None
    # The evaluation's inputs are five times as large; its forward comes first in each step.
    histogram = watch.telemetry.histogram("quant.activation_post_process")
    assert histogram is not None
    assert histogram.max <= 2.0


def test_autocast_where_torch_allows_it() -> None:
    def head(model: nn.Module) -> Callable[[Tensor], Tensor]:
        # Torch's fake quants take float32 only: a part in low precision and a watched one.
        low = nn.Linear(64, 64).bfloat16()
        with torch.no_grad():
            low.weight.copy_(torch.eye(64))
            low.bias.zero_()

        def run(x: Tensor) -> Tensor:
            y = low(x.flatten(1).bfloat16()).float().view(-1, 1, 8, 8)
            with torch.autocast("cpu", enabled=False):
                out: Tensor = model(y)
            return out

        return run

    one, two = prepared(), prepared()
    plain, losses, _ = train(None, one, head(one), autocast=True)
    ended, watched, watch = train({"every": 1}, two, head(two), autocast=True)
    assert losses == watched
    assert same(plain, ended)
    assert watch is not None
    assert not watch.telemetry.unseen


@pytest.mark.slow
@pytest.mark.parametrize("whole", [True, False])
def test_compiled_modules_are_left_alone_and_reported(whole: bool) -> None:
    import torch._dynamo

    def run(watched: bool) -> tuple[list[float], int, Watch | None]:
        torch._dynamo.reset()
        compiled = 0

        def backend(module: Any, inputs: Any) -> Any:
            nonlocal compiled
            compiled += 1
            return module

        model = prepared()
        if whole:
            forward = torch.compile(model, backend=backend)
        else:
            model.conv = torch.compile(model.conv, backend=backend)  # type: ignore[assignment,arg-type]
            forward = model
        ended = train({"every": 2} if watched else None, model, forward)  # type: ignore[arg-type]
        return ended[1], compiled, ended[2]

    losses, compiled, _ = run(False)
    again, compiled_again, watch = run(True)
    assert losses == again
    assert compiled == compiled_again
    assert watch is not None
    unseen = watch.telemetry.unseen
    assert any("compile" in why for why in unseen.values())
    for path in watch.telemetry.paths:
        sample = watch.telemetry.sample(path)
        assert sample is not None
        assert sample.scale_median > 0  # scale and state are recorded even where values are not
        inside = whole or path.startswith("conv.")
        if path.endswith("fc.weight_fake_quant"):
            assert sample.sampled == 864  # a plain weight can be read without a hook
        else:
            assert (path in unseen) == inside


def test_shared_and_unused_fake_quants_and_fx() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.pool = nn.Conv2d(1, 4, 3), nn.MaxPool2d(2)
            self.fc = nn.Linear(36, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(torch.flatten(self.pool(self.conv(x)), 1))  # type: ignore[no-any-return]

    example = (batches(1)[0][0],)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = prepare_qat_fx(Net().train(), get_default_qat_qconfig_mapping("onednn"), example)
    twin = copy.deepcopy(model)
    plain, losses, _ = train(None, model)
    ended, watched, watch = train({"every": 1}, twin)
    assert losses == watched
    assert same(plain, ended)
    assert watch is not None
    assert len(watch.telemetry.paths) < len(
        [n for n in twin.graph.nodes if "activation_post_process" in str(n.target)]  # type: ignore[union-attr]
    ) + len([p for p in watch.telemetry.paths if "weight" in p])
    lonely = nn.Sequential(prepared(), nn.ModuleDict({"unused": prepared()}))
    with qx.watch(lonely, every=1) as w:
        for x, _ in batches(4):
            lonely[0](x)
            w.step()
    assert w.telemetry.unseen["1.unused.fc.weight_fake_quant"] in (NEVER_CALLED, MAYBE_COMPILED)
    assert not any(path.startswith("0.") for path in w.telemetry.unseen)


def test_state_timeline_marks_the_forbidden_mixture() -> None:
    model = prepared()
    path = "fc.activation_post_process"
    with qx.watch(model, every=100) as w:
        for step, (x, _) in enumerate(batches(6)):
            if step == 2:
                model.apply(disable_fake_quant)  # the observer still moves: pytorch/ao#2138
            if step == 3:
                model.apply(enable_fake_quant)
            if step == 4:
                model.apply(disable_observer)
            if step == 5:
                model.apply(torch.ao.nn.intrinsic.qat.freeze_bn_stats)
            model(x)
            w.step()
    states = [(s.step, s.observer_enabled, s.fake_quant_enabled) for s in w.telemetry.states(path)]
    assert states == [(0, True, True), (2, True, False), (3, True, True), (4, False, True)]
    mixed = [s for s in w.telemetry.states() if s.forbidden]
    assert {s.step for s in mixed} == {2}
    assert {s.path for s in mixed} == set(w.telemetry.paths)
    assert mixed[0].mixture == MIXED
    conv = w.telemetry.states("conv.weight_fake_quant")
    assert [(s.step, s.bn_frozen) for s in conv] == [(0, False), (2, False), (3, False),
                                                     (4, False), (5, True)]  # fmt: skip
    assert [s.mixture for s in conv[-2:]] == [BN_MOVES, ""]
    assert not conv[-2].forbidden


def test_a_copy_of_the_model_made_in_a_step_has_no_live_hooks() -> None:
    model = prepared()
    with qx.watch(model, every=1, gradients=True) as w:
        average = torch.optim.swa_utils.AveragedModel(model)
        for x, _ in batches(2):
            average(x).sum().backward()
            model(x).sum().backward()
            w.step()
    assert w.telemetry.steps == (0, 1)
    assert not w.telemetry.unseen
    average(batches(1)[0][0])


def test_a_sample_that_fails_never_ends_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    import qatexplorer.telemetry.collect as collect
    import qatexplorer.telemetry.probe as probes

    plain, losses, _ = train(None)

    def broken(*args: Any) -> Any:
        raise RuntimeError("a bug of ours")

    with monkeypatch.context() as patch:
        patch.setattr(probes.Draw, "prepare", broken)
        ended, watched, watch = train({"every": 1, "gradients": True})
    assert (losses, same(plain, ended)) == (watched, True)
    assert watch is not None
    assert set(watch.telemetry.unseen) == set(watch.telemetry.paths)
    assert "a bug of ours" in next(iter(watch.telemetry.unseen.values()))
    with monkeypatch.context() as patch:
        patch.setattr(collect.Collector, "count", broken)
        ended, watched, _ = train({"every": 1})
    assert (losses, same(plain, ended)) == (watched, True)
    ended, watched, _ = train({"every": 1, "on_sample": broken})
    assert (losses, same(plain, ended)) == (watched, True)


@pytest.mark.slow
def test_memory_is_bounded_first_and_last_are_kept_and_reading_is_safe() -> None:
    model = prepared()
    x = batches(1)[0][0]
    w = qx.watch(model, every=1).start()
    errors: list[Exception] = []
    stop = threading.Event()

    def read() -> None:
        try:
            while not stop.is_set():
                for path in w.telemetry.paths:
                    w.telemetry.samples(path)
                    w.telemetry.histogram(path)
                time.sleep(0.01)
        except Exception as error:
            errors.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    with torch.no_grad():
        for _ in range(MAX_STEPS + 40):
            model(x)
            w.step()
    stop.set()
    reader.join()
    w.close()
    assert not errors
    steps = w.telemetry.steps
    assert len(steps) <= MAX_STEPS
    assert (steps[0], steps[-1]) == (0, MAX_STEPS + 39)
    few = w.telemetry.samples("fc.weight_fake_quant", details=False, most=50)
    assert 40 < len(few) <= 50
    assert few[-1].step == steps[-1]
    assert few[-1].histogram is None
    kept = [step for step, _ in w.telemetry.histograms("fc.weight_fake_quant")]
    assert len(kept) <= MAX_DETAILED
    assert (kept[0], kept[-1]) == (0, MAX_STEPS + 39)


def test_the_controller_holds_the_budget() -> None:
    for sampling_s, step_s in ((0.002, 0.01), (0.0001, 0.01), (0.05, 0.001)):
        controller = Controller("auto", 0.02, 65_536)
        samples = []
        armed = controller.wants(0)
        for _ in range(20_000):
            # Half of a sample does not depend on the number of elements.
            cost = sampling_s * (0.5 + 0.5 * controller.samples / 4096) if armed else 1e-6
            controller.step_done(step_s, cost, armed)
            samples.append(controller.samples)
            armed = controller.wants(controller.steps)
        share = controller.spent_s / controller.train_s
        assert share <= 0.02
        assert controller.sampled_steps >= 2
        if sampling_s * 20 < step_s:
            assert share > 0.004
            assert samples[-1] > samples[0]
        if sampling_s >= 0.002:
            assert samples[-1] < samples[0]
    fixed = Controller(5, 0.02, 1000)
    assert [fixed.wants(step) for step in range(6)] == [True, False, False, False, False, True]


@pytest.mark.parametrize("hidden_s", [0.0, 0.0004, 0.003])
def test_what_no_clock_of_ours_sees_is_found_by_difference(hidden_s: float) -> None:
    noise = random.Random(0)
    controller = Controller("auto", 0.02, 65_536)
    bare = real = 0.0
    after = False
    for _ in range(4000):
        sampled = controller.wants(controller.steps)
        timed = 1e-4 + 2e-8 * controller.samples if sampled else 0.0
        # Two thirds in the sampled step, a third in the next; the clock is off by five percent.
        late = hidden_s * (2 / 3 * sampled + after / 3)
        step = 0.01 * (1 + noise.gauss(0, 0.05))
        controller.step_done(step + late, timed, sampled)
        bare, real, after = bare + step, real + timed + late, sampled
    share = controller.spent_s / controller.train_s
    assert share == pytest.approx(real / bare, abs=0.002)
    assert real / bare < 0.02


def test_a_pause_between_steps_earns_nothing() -> None:
    controller = Controller("auto", 0.02, 1000)
    for _ in range(10):
        controller.step_done(0.01, 0.0, False)
    controller.step_done(600.0, 0.0, False)
    assert controller.train_s < 0.2


def test_what_cannot_be_watched_says_why() -> None:
    with pytest.raises(InputError, match="no fake quant"):
        qx.watch(nn.Linear(2, 2))
    with pytest.raises(NotAModuleError):
        qx.watch("model")  # type: ignore[arg-type]
    model = prepared()
    with pytest.raises(InputError, match="no fake quant") as caught:
        qx.watch(model, paths=["fc"])
    assert caught.value.where == "fc"
    for bad in (
        {"every": 0},
        {"every": "often"},
        {"bins": 1},
        {"budget": 0},
        {"budget": 2.0},
        {"max_samples": 0},
    ):
        with pytest.raises(InputError):
            qx.watch(model, **bad)  # type: ignore[arg-type]
    w = qx.watch(model, paths=["fc.weight_fake_quant"])
    assert w.telemetry.paths == ("fc.weight_fake_quant",)
    with pytest.raises(InputError):
        w.telemetry.series("fc.weight_fake_quant", "sqnr")
    with pytest.raises(InputError):
        w.telemetry.samples("conv.weight_fake_quant")


def test_a_pause_takes_the_hooks_off_until_it_goes_on(tmp_path: Path) -> None:
    model = prepared()
    before = hooks_of(model)
    x = batches(1)[0][0]
    with qx.watch(model, every=1, folder=tmp_path) as w:
        model(x)
        w.step()
        w.pause()
        assert hooks_of(model) == before
        model(5 * x)
        w.start()
        model(x)
        w.step()
    assert w.telemetry.steps == (0, 1)
    assert w.telemetry.overhead.steps == 2  # type: ignore[union-attr]
    assert qx.open_run(tmp_path).state == "finished"


def test_an_on_sample_is_reported_and_the_watch_is_a_callback() -> None:
    model = prepared()
    reported: list[Telemetry] = []
    w = qx.watch(model, every=2, on_sample=reported.append)
    w.start()
    for x, _ in batches(4):
        model(x)
        w("whatever", a=1)
    w.close()
    assert reported == [w.telemetry] * 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_nothing_waits_for_the_device() -> None:
    model = SmallNetOnDevice("cuda")
    with qx.watch(model, every=1, gradients=True) as w:
        for x, y in batches(6):
            x, y = x.cuda(), y.cuda()
            torch.cuda.set_sync_debug_mode("error")
            try:
                F.cross_entropy(model(x), y).backward()
                w.step()
            finally:
                torch.cuda.set_sync_debug_mode("default")
    assert w.telemetry.steps[-1] == 5
    sample = w.telemetry.sample("net.fc.weight_fake_quant")
    assert sample is not None
    assert sample.sampled == 864


class SmallNetOnDevice(nn.Module):
    def __init__(self, device: str) -> None:
        super().__init__()
        self.net = prepared(make=SmallNet).to(device)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)  # type: ignore[no-any-return]
