"""The QAT loop: it is a real one, and it leaves everything but the weights alone."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.ao.quantization import FakeQuantizeBase
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from qatexplorer.errors import InputError, NoDataError, NotAModuleError, TrainingError
from qatexplorer.runs.records import (
    MAX_STEPS,
    History,
    Progress,
    StepRecord,
    TrainingConfig,
    thinned,
)
from qatexplorer.training.modes import all_finite
from qatexplorer.training.run import TrainingRun
from tests.support.training_models import SmallNet, batches, data, one_thread, prepared, same, state  # noqa: F401
from tests.support.waiting import PATIENCE_S, until


def trained(background: bool = False, **settings: Any) -> tuple[nn.Module, TrainingRun]:
    model = prepared()
    run = TrainingRun(model, data(), TrainingConfig(**settings))
    if background:
        run.start().wait()
    else:
        run.run()
    assert run.state == "finished", run.error
    return model, run


def test_it_learns_and_records_what_it_did() -> None:
    _model, run = trained(epochs=8, lr=3e-3)
    history = run.history
    assert [r.step for r in history.steps] == list(range(48))
    assert [r.epoch for r in history.epochs] == list(range(8))
    assert history.epochs[-1].train_loss < 0.5 * history.epochs[0].train_loss
    assert history.epochs[-1].metric is not None
    assert history.epochs[-1].metric > 0.8
    assert all(r.samples == 8 and r.seconds > 0 for r in history.steps)
    assert history.metric_name == "accuracy"
    assert run.progress == Progress(
        "finished", 48, 48, 7, 8, run.progress.elapsed_s, 0.0, history.steps[-1].loss
    )


def test_same_as_the_loop_one_writes_by_hand() -> None:
    by_hand, mine = prepared(), prepared()
    for net in (by_hand, mine):
        net.drop.p = 0.0  # type: ignore[union-attr,assignment]
    optimizer = torch.optim.Adam(by_hand.parameters(), lr=1e-3)
    for _ in range(2):
        for x, y in batches():
            optimizer.zero_grad()
            F.cross_entropy(by_hand(x), y).backward()
            optimizer.step()
    TrainingRun(mine, data(), TrainingConfig(epochs=2)).run()
    assert same(state(by_hand), state(mine))


@pytest.mark.slow
def test_same_seed_same_bits_in_front_in_background_with_and_without_telemetry() -> None:
    torch.manual_seed(1)
    reference = state(trained(epochs=2)[0])
    torch.manual_seed(2)
    assert same(reference, state(trained(epochs=2, background=True)[0]))
    assert same(reference, state(trained(epochs=2, telemetry_every=0)[0]))
    assert same(reference, state(trained(epochs=2, telemetry_every=1)[0]))
    assert not same(reference, state(trained(epochs=2, seed=1)[0]))


@pytest.mark.parametrize("own_generator", [False, True])
def test_shuffling_loader_is_reproducible(own_generator: bool) -> None:
    xs, ys = (torch.cat(part) for part in zip(*batches(), strict=True))
    generator = torch.Generator().manual_seed(9) if own_generator else None
    loader = DataLoader(TensorDataset(xs, ys), 8, shuffle=True, generator=generator)
    ends = []
    for _ in range(2):
        model = prepared()
        TrainingRun(model, (loader, batches(2)), TrainingConfig(epochs=2)).run()
        ends.append(state(model))
        torch.rand(3)
        list(loader)
    assert same(*ends)


def test_random_state_threads_and_modes_of_the_user_are_untouched() -> None:
    model = prepared()
    model.conv.eval()  # type: ignore[union-attr,operator]
    flags = [m.training for m in model.modules()]
    generator = torch.Generator().manual_seed(3)
    xs, ys = (torch.cat(part) for part in zip(*batches(), strict=True))
    loader = DataLoader(TensorDataset(xs, ys), 8, shuffle=True, generator=generator)
    before = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist())
    own, threads = generator.get_state(), torch.get_num_threads()
    config = TrainingConfig(epochs=2, freeze_bn_epoch=1, freeze_observer_epoch=1)
    run = TrainingRun(model, (loader, batches(2)), config).run()
    assert run.state == "finished", run.error
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()
    assert before[2] == np.random.get_state()[1].tolist()
    assert torch.equal(own, generator.get_state())
    assert torch.get_num_threads() == threads
    assert [m.training for m in model.modules()] == flags
    assert all(p.grad is None for p in model.parameters())
    assert not any("Sampler" in repr(h) for m in model.modules() for h in m._forward_hooks.values())


def test_freezing_observers_holds_ranges_and_weights_go_on() -> None:
    model = prepared()
    seen: list[dict[str, torch.Tensor]] = []

    class Watched(list):  # type: ignore[type-arg]
        def __iter__(self) -> Any:
            seen.append(state(model))
            return super().__iter__()

    config = TrainingConfig(epochs=3, freeze_observer_epoch=1)
    run = TrainingRun(model, (Watched(batches()), batches(2)), config).run()
    start, end = seen[1], state(model)
    scales = [k for k in start if k.endswith((".scale", "_val"))]
    assert scales
    assert all(torch.equal(start[k], end[k]) for k in scales)
    assert not torch.equal(start["fc.weight"], end["fc.weight"])
    assert [r.observers_frozen for r in run.history.epochs] == [False, True, True]
    assert [(m.kind, m.step) for m in run.history.markers] == [("observers frozen", 6)]


def test_freezing_batch_norm_fused_and_plain() -> None:
    class Net(SmallNet):
        def __init__(self) -> None:
            super().__init__()
            self.plain = nn.BatchNorm1d(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.plain(super().forward(x))

    model = prepared(make=Net)
    seen: list[dict[str, torch.Tensor]] = []

    class Watched(list):  # type: ignore[type-arg]
        def __iter__(self) -> Any:
            seen.append(state(model))
            return super().__iter__()

    config = TrainingConfig(epochs=3, freeze_bn_epoch=2)
    run = TrainingRun(model, (Watched(batches()), batches(2)), config).run()
    names = ("conv.bn.running_mean", "plain.running_mean", "plain.num_batches_tracked")
    for name in names:
        assert not torch.equal(seen[1][name], seen[2][name]), f"{name} must move before"
        assert torch.equal(seen[2][name], state(model)[name]), f"{name} must stand still after"
    assert [r.bn_frozen for r in run.history.epochs] == [False, False, True]
    assert run.history.markers[0].kind == "batch-norm statistics frozen"


def test_validation_data_does_not_move_ranges() -> None:
    far = [(x * 1000, y) for x, y in batches(2, seed=2)]
    near, shifted = prepared(), prepared()
    TrainingRun(near, (batches(), batches(2)), TrainingConfig(epochs=2)).run()
    TrainingRun(shifted, (batches(), far), TrainingConfig(epochs=2)).run()
    assert same(state(near), state(shifted))


def test_pause_resume_stop() -> None:
    model = prepared()
    run = TrainingRun(model, data(), TrainingConfig(epochs=10_000)).start()
    states: list[str] = []
    run.signal.subscribe(lambda p: states.append(p.state))
    until(lambda: run.history.steps)
    run.pause(PATIENCE_S)
    assert run.state == "paused"
    held = state(model)
    elapsed, step = run.progress.elapsed_s, run.progress.step
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    time.sleep(0.1)
    assert torch.equal(torch.rand(1), expected), "random numbers are the user's in a pause"
    assert same(held, state(model))
    assert run.progress.step == step
    assert run.progress.elapsed_s == elapsed
    run.resume()
    until(lambda: run.progress.step > step)
    run.stop(PATIENCE_S)
    assert run.state == "stopped"
    assert run.error is None
    assert [m.kind for m in run.history.markers] == ["paused", "resumed", "stopped"]
    assert {"paused", "running", "stopped"} <= set(states)
    assert run.wait().state == "stopped"
    assert not run.model.conv.weight.isnan().any()


def test_paused_run_ends_at_the_same_bits() -> None:
    reference = state(trained(epochs=20)[0])
    model = prepared()
    run = TrainingRun(model, data(), TrainingConfig(epochs=20)).start()
    for _ in range(3):
        run.pause(PATIENCE_S)
        torch.rand(7)
        run.resume()
    run.wait()
    assert run.state == "finished"
    assert same(reference, state(model))


def test_stop_while_evaluating_ends_between_two_batches() -> None:
    entered = threading.Event()

    def slow(output: Any, target: Any) -> float:
        entered.set()
        time.sleep(0.05)
        return 0.0

    run = TrainingRun(prepared(), (batches(1), batches(1000)), metric=slow).start()
    assert entered.wait(PATIENCE_S)
    run.stop(PATIENCE_S)
    assert run.state == "stopped"
    assert run.history.epochs[0].metric is None


def test_telemetry_follows_the_fake_quants() -> None:
    model, run = trained(epochs=2, telemetry_every=5)
    fake_quants = {p for p, m in model.named_modules() if isinstance(m, FakeQuantizeBase)}
    assert set(run.history.sites) == fake_quants
    samples = run.history.sites["conv.weight_fake_quant"]
    assert [s.step for s in samples] == [0, 5, 10]
    assert len(samples[0].scale) == 6
    assert samples[0].scale != samples[-1].scale
    assert samples[0].scale_min <= samples[0].scale_median <= samples[0].scale_max
    activation = run.history.samples("quant.activation_post_process")[0]
    assert activation.histogram is not None
    # The grid of this very batch: the first observation sets the range, so nothing is clipped.
    assert activation.histogram.total == 8 * 64
    assert sum(activation.histogram.counts) == activation.histogram.sampled
    assert activation.histogram.scale == pytest.approx(activation.scale[0])
    assert activation.histogram.clipped_high == 0


def test_telemetry_of_chosen_paths_only() -> None:
    run = trained(telemetry_paths=("fc.weight_fake_quant",))[1]
    assert set(run.history.sites) == {"fc.weight_fake_quant"}
    with pytest.raises(InputError, match="no fake quant") as caught:
        TrainingRun(prepared(), data(), TrainingConfig(telemetry_paths=("fc",)))
    assert caught.value.where == "fc"


def test_all_finite_sees_every_nan_and_no_large_number() -> None:
    large = torch.full((3,), 1e30)
    assert all_finite([large, torch.zeros(0), torch.tensor([7])])
    for bad in (float("nan"), float("inf"), float("-inf")):
        assert not all_finite([large, torch.tensor([1.0, bad])])
        assert not all_finite([torch.tensor([bad], dtype=torch.float16)])


def test_history_is_bounded_and_keeps_first_and_newest() -> None:
    history = History()
    for step in range(3 * MAX_STEPS):
        history.add_step(StepRecord(step, 0, 1.0, 0.1, 8))
    assert len(history.steps) <= MAX_STEPS
    assert history.steps[0].step == 0
    assert history.steps[-1].step == 3 * MAX_STEPS - 1
    assert thinned([0, 1, 2, 3, 4, 5]) == [0, 2, 3, 4, 5]


def test_signal_comes_at_every_change_and_a_bad_subscriber_is_harmless() -> None:
    run = TrainingRun(prepared(), data(), TrainingConfig(epochs=2))
    seen: list[Progress] = []

    def broken(progress: Progress) -> None:
        raise ValueError("a view has a bug")

    run.signal.subscribe(broken)
    run.signal.subscribe(seen.append)
    run.start().wait()
    assert run.state == "finished"
    assert run.error is None
    assert seen[0].state == "running"
    assert seen[-1].state == "finished"
    assert len(seen) <= 3 + 5 * (seen[-1].elapsed_s + 1)


@pytest.mark.alone
def test_estimate_is_near_the_truth() -> None:
    def slow(output: Any, target: Any) -> torch.Tensor:
        time.sleep(0.02)
        return F.cross_entropy(output, target)

    run = TrainingRun(prepared(), data(10), TrainingConfig(epochs=4), loss=slow)
    guesses: list[tuple[float, float]] = []
    run.signal.subscribe(
        lambda p: guesses.append((p.elapsed_s, p.eta_s)) if p.eta_s and p.step > 10 else None
    )
    run.run()
    total = run.progress.elapsed_s
    assert guesses
    assert all(0.5 * total < at + left < 1.6 * total for at, left in guesses)


@pytest.mark.slow
def test_custom_optimizer_loss_metric_and_inputs_as_dict() -> None:
    class Head(SmallNet):
        def forward(self, x: torch.Tensor, scale: float = 1.0) -> dict[str, torch.Tensor]:  # type: ignore[override]
            return {"score": super().forward(x)[:, 0]}

    def squares(output: Any, target: Any) -> torch.Tensor:
        return F.mse_loss(output["score"], target.float())

    rows = [({"x": x, "scale": 1.0}, y) for x, y in batches()]
    made: list[torch.optim.Optimizer] = []

    def sgd(parameters: Any) -> torch.optim.Optimizer:
        made.append(torch.optim.SGD(parameters, lr=0.02))
        return made[0]

    config = TrainingConfig(epochs=4, optimizer=sgd)
    model = prepared(make=Head)
    run = TrainingRun(model, (rows, rows), config, loss=squares, metric=squares, baseline=0.5)
    run.run()
    assert run.state == "finished", run.error
    metrics = [r.metric for r in run.history.epochs]
    assert metrics[-1] is not None
    assert metrics[0] is not None
    assert metrics[-1] < metrics[0]
    assert run.history.metric_name == "squares"
    assert run.history.baseline == 0.5
    assert run.history.epochs[0].lr == 0.02


def test_trains_when_the_caller_is_in_no_grad() -> None:
    reference = state(trained(epochs=1)[0])
    with torch.no_grad():
        assert same(reference, state(trained(epochs=1)[0]))


def test_what_cannot_be_trained_is_refused_at_once() -> None:
    with pytest.raises(NotAModuleError):
        TrainingRun("model", data())  # type: ignore[arg-type]
    with pytest.raises(NoDataError):
        TrainingRun(prepared(), None)
    with pytest.raises(TrainingError, match="no parameter"):
        TrainingRun(nn.ReLU(), data())
    for bad in ({"epochs": 0}, {"lr": float("nan")}, {"telemetry_every": -1}, {"seed": 0.5}):
        with pytest.raises(InputError):
            TrainingConfig(**bad)  # type: ignore[arg-type]


def test_a_run_starts_once_and_a_second_run_goes_on() -> None:
    model, run = trained(epochs=1)
    with pytest.raises(TrainingError, match="started before"):
        run.start()
    again = TrainingRun(model, data(), TrainingConfig(epochs=1)).run()
    assert again.state == "finished"
    assert again.history.epochs[0].train_loss < run.history.epochs[0].train_loss


def test_stopped_before_it_began_it_takes_no_step() -> None:
    model = prepared()
    before = state(model)
    run = TrainingRun(model, data())
    run.stop()
    run.start().wait()
    assert run.state == "stopped"
    assert not run.history.steps
    assert same(before, state(model))


def test_core_imports_no_widgets() -> None:
    import qatexplorer.training

    for file in Path(qatexplorer.training.__file__).parent.glob("*.py"):
        text = file.read_text()
        assert "ipywidgets" not in text
        assert "plotly" not in text
