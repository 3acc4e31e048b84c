"""A training that cannot go on says why, and leaves the model at its last good state."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qatexplorer.errors import DivergedError, NoDataError, TrainingError
from qatexplorer.runs.records import TrainingConfig
from qatexplorer.training.run import TrainingRun
from tests.support.training_models import (  # noqa: F401
    SmallNet,
    batches,
    data,
    one_thread,
    prepared,
    same,
    state,
)
from tests.support.waiting import PATIENCE_S, until


def failed(run: TrainingRun) -> TrainingError:
    """Run it in the background; it must fail with a typed error and leave a model that runs."""
    run.start().wait()
    assert run.state == "failed"
    assert run.error is not None
    assert run.error.message
    assert all(p.grad is None for p in run.model.parameters())
    return run.error


def after_good_steps(rows: list[Any], steps: int) -> dict[str, Tensor]:
    """State of a model that has seen only the first ``steps`` batches."""
    model = prepared()

    class Ends(list):  # type: ignore[type-arg]
        def __iter__(self) -> Iterator[Any]:
            yield from rows[:steps]
            raise OSError("end")

    run = TrainingRun(model, (Ends(rows), batches(1)))
    failed(run)
    return state(model)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_one_bad_batch_does_not_spoil_the_model(bad: float) -> None:
    rows = batches()
    rows[3][0][2, 0, 1, 1] = bad
    model = prepared()
    run = TrainingRun(model, (rows, batches(2)), TrainingConfig(epochs=2))
    error = failed(run)
    assert isinstance(error, DivergedError)
    assert "epoch 0, batch 3" in error.message
    assert "batch itself holds NaN" in error.why
    assert len(run.history.steps) == 3
    expected = after_good_steps(rows, 3)
    # Bit for bit as if the batch had never been seen: weights, ranges, scales, BN statistics.
    assert same(expected, state(model))
    assert torch.isfinite(model(batches(1)[0][0])).all()


def test_zero_gamma_is_named() -> None:
    model = prepared()
    model.conv.bn.weight.data[2] = 0.0  # type: ignore[union-attr,index,operator]
    before = state(model)
    error = failed(TrainingRun(model, data()))
    assert isinstance(error, DivergedError)
    assert error.where == "conv"
    assert "gamma" in error.why
    assert "zero_init" in error.fix
    assert same(before, state(model))


def test_exploding_weights_go_back_to_the_start_of_the_epoch() -> None:
    model = prepared()

    def wild(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=1e30)

    before = state(model)
    error = failed(TrainingRun(model, data(), TrainingConfig(optimizer=wild)))
    assert isinstance(error, DivergedError)
    assert "lr" in error.fix
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert same(before, state(model))


def test_bad_loss_with_good_outputs_points_at_the_loss() -> None:
    def log_of_zero(output: Tensor, target: Tensor) -> Tensor:
        return output.sum() * 0 + torch.zeros(()).log()

    model = prepared()
    error = failed(TrainingRun(model, data(), loss=log_of_zero))
    assert isinstance(error, DivergedError)
    assert error.where is None
    assert "loss" in error.why


def test_infinite_gradient_never_reaches_the_weights() -> None:
    def steep(output: Tensor, target: Tensor) -> Tensor:
        # The square root's slope at 0 is infinite, its value is not.
        return F.cross_entropy(output, target) + (output * 0).abs().sum().sqrt()

    model = prepared()
    before = state(model)
    error = failed(TrainingRun(model, data(), loss=steep))
    assert isinstance(error, DivergedError)
    assert "gradient" in error.message
    assert same(before, state(model))


def test_data_that_raises_keeps_the_model_and_names_the_batch() -> None:
    class Broken:
        def __iter__(self) -> Iterator[Any]:
            yield from batches(4)
            raise OSError("the disk is gone")

    model = prepared()
    run = TrainingRun(model, (Broken(), batches(1)))
    error = failed(run)
    assert "batch 4 of epoch 0" in error.message
    assert "the disk is gone" in error.why
    assert isinstance(error.__cause__, OSError)
    assert len(run.history.steps) == 4
    assert not same(state(prepared()), state(model))


@pytest.mark.parametrize("rows", [[], "used up"])
def test_empty_data(rows: Any) -> None:
    class UsedUp:
        def __init__(self) -> None:
            self.once = iter(batches(2))

        def __iter__(self) -> Iterator[Any]:
            yield from self.once

    train = UsedUp() if rows == "used up" else rows
    error = failed(TrainingRun(prepared(), (train, batches(1))))
    assert isinstance(error, NoDataError)
    assert f"epoch {1 if rows == 'used up' else 0}" in error.message


def test_empty_eval_data() -> None:
    error = failed(TrainingRun(prepared(), (batches(1), [])))
    assert isinstance(error, NoDataError)
    assert "evaluate" in error.message


def test_target_that_does_not_fit() -> None:
    rows = [(x, y[:-1]) for x, y in batches()]
    model = prepared()
    before = state(model)
    error = failed(TrainingRun(model, (rows, batches(1))))
    assert "(8, 4) float32" in error.why
    assert "(7,) int64" in error.why
    assert same(before, state(model)), "observers must not keep half a step"
    out_of_range = [(x, y + 4) for x, y in batches()]
    assert "out of bounds" in failed(TrainingRun(prepared(), (out_of_range, batches(1)))).why


def test_batch_that_is_no_pair() -> None:
    rows = [x for x, _ in batches()]
    error = failed(TrainingRun(prepared(), (rows, batches(1))))
    assert "pair" in error.why + error.message


class RaisesInTheMiddle(SmallNet):
    def __init__(self, error: Exception, after: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(Bomb(error, after))

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(super().forward(x))


class Bomb(nn.Module):
    def __init__(self, error: Exception, after: int) -> None:
        super().__init__()
        self.error, self.left = error, after

    def forward(self, x: Tensor) -> Tensor:
        self.left -= 1
        if self.left < 0:
            raise self.error
        return x


def test_forward_that_raises_in_the_middle_names_module_and_line() -> None:
    model = prepared(make=lambda: RaisesInTheMiddle(KeyError("a bug of mine"), 2))
    run = TrainingRun(model, data())
    error = failed(run)
    assert error.where == "inner.0"
    assert "a bug of mine" in error.message
    assert "test_training_faults.py:" in error.why
    assert isinstance(error.__cause__, KeyError)
    assert len(run.history.steps) == 2
    reference = after_good_steps(batches(), 2)
    assert same(reference, state(model))


def test_out_of_memory_is_reported_as_such() -> None:
    class Greedy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.empty(2**48).sum()

    class Net(SmallNet):
        def __init__(self) -> None:
            super().__init__()
            self.greedy = Greedy()

        def forward(self, x: Tensor) -> Tensor:
            return self.greedy(super().forward(x))

    error = failed(TrainingRun(prepared(make=Net), data()))
    assert "Out of memory" in error.message
    assert error.where == "greedy"
    assert "smaller batch" in error.fix


def test_metric_that_raises_in_the_evaluation() -> None:
    def metric(output: Any, target: Any) -> float:
        raise ZeroDivisionError("no class 3")

    model = prepared()
    flags = [m.training for m in model.modules()]
    run = TrainingRun(model, data(), metric=metric)
    error = failed(run)
    assert "evaluation of epoch 0" in error.message
    assert "no class 3" in error.message
    assert [m.training for m in model.modules()] == flags
    assert all(
        bool(m.observer_enabled[0]) for m in model.modules() if hasattr(m, "observer_enabled")
    )


def test_optimizer_that_cannot_be_made() -> None:
    error = failed(TrainingRun(prepared(), data(), TrainingConfig(optimizer=lambda p: 1 / 0)))  # type: ignore[arg-type,return-value]
    assert "optimizer" in error.message
    assert "lambda parameters" in error.fix


def test_random_state_is_given_back_after_a_failure() -> None:
    model = prepared(make=lambda: RaisesInTheMiddle(ValueError("x"), 1))
    before = torch.get_rng_state()
    failed(TrainingRun(model, data()))
    assert torch.equal(before, torch.get_rng_state())


def test_ctrl_c_in_front_ends_after_the_step_and_keeps_the_model() -> None:
    model = prepared()
    before = signal.getsignal(signal.SIGINT)
    run = TrainingRun(model, data(), TrainingConfig(epochs=100_000))
    sent: list[int] = []

    def ctrl_c(p: Any) -> None:
        # Once: a second one raises KeyboardInterrupt wherever this process is, also where it is
        # swallowed, as in a callback of the garbage collector.
        if p.step > 5 and not sent:
            sent.append(p.step)
            os.kill(os.getpid(), signal.SIGINT)

    run.signal.subscribe(ctrl_c)
    run.run()
    assert run.state == "stopped"
    assert run.error is None
    assert run.history.markers[-1].kind == "stopped"
    assert signal.getsignal(signal.SIGINT) is before
    # Whole steps only: as many as were recorded.
    steps = len(run.history.steps)
    again = prepared()
    second = TrainingRun(again, data(), TrainingConfig(epochs=100_000))

    class Enough(Exception):
        pass

    def stop_there(p: Any) -> None:
        if len(second.history.steps) >= steps:
            second.stop()

    second._report = lambda: stop_there(None)  # type: ignore[method-assign]
    second._loop._report = second._report
    second.run()
    assert len(second.history.steps) == steps
    assert same(state(model), state(again))


def test_keyboard_interrupt_out_of_the_data_is_a_stop() -> None:
    class Interrupted:
        def __iter__(self) -> Iterator[Any]:
            yield from batches(2)
            raise KeyboardInterrupt

    model = prepared()
    run = TrainingRun(model, (Interrupted(), batches(1))).run()
    assert run.state == "stopped"
    assert run.error is None
    assert len(run.history.steps) == 2


def test_ctrl_c_in_wait_stops_the_run() -> None:
    # A shell starts what runs in its background with SIGINT ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        _interrupted_in_wait()
    finally:
        signal.signal(signal.SIGINT, before)


def _interrupted_in_wait() -> None:
    run = TrainingRun(prepared(), data(), TrainingConfig(epochs=100_000)).start()
    main = threading.get_ident()

    def waits() -> bool:
        frame: FrameType | None = sys._current_frames()[main]
        codes = []
        while frame is not None:
            codes.append(frame.f_code)
            frame = frame.f_back
        inside = threading.Condition.wait.__code__, TrainingRun.wait.__code__
        return codes[0] is inside[0] and inside[1] in codes

    def ctrl_c() -> None:
        until(waits)
        os.kill(os.getpid(), signal.SIGINT)

    other = threading.Thread(target=ctrl_c)
    other.start()
    run.wait()
    other.join()
    assert run.state == "stopped"


@pytest.mark.alone
def test_stop_and_failure_end_a_pause() -> None:
    run = TrainingRun(prepared(), data(), TrainingConfig(epochs=100_000)).start()
    run.pause(PATIENCE_S)
    assert run.state == "paused"
    run.stop()
    assert run.state == "stopped"
    run.resume()
    assert run.state == "stopped"


@pytest.mark.usefixtures("few_objects")
def test_error_holds_no_activations_and_can_be_pickled() -> None:
    import gc
    import weakref

    alive: list[weakref.ref[Tensor]] = []

    class Net(RaisesInTheMiddle):
        def forward(self, x: Tensor) -> Tensor:
            big = x * 2
            alive.append(weakref.ref(big))
            return super().forward(big)

    run = TrainingRun(prepared(make=lambda: Net(ValueError("x"), 0)), data())
    error = failed(run)
    gc.collect()
    assert alive
    assert all(ref() is None for ref in alive)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
