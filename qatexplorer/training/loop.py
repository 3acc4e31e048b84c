"""The QAT loop itself: epochs, steps, freezing, evaluation, and what to do when a step fails."""

from __future__ import annotations

import math
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn import functional as F
from torch.optim import Optimizer

from qatexplorer.data import Data, call_model, main_output
from qatexplorer.deploy.blame import release_frames
from qatexplorer.deploy.evaluate import Metric, MetricValue, batch_size, evaluate
from qatexplorer.errors import InputError, NoDataError, TrainingError
from qatexplorer.telemetry.store import Telemetry
from qatexplorer.training import diagnose
from qatexplorer.training.modes import (
    BufferBackup,
    ModelBackup,
    all_finite,
    freeze_observers,
    train_mode,
)
from qatexplorer.training.records import (
    EpochRecord,
    History,
    Marker,
    MarkerKind,
    StepRecord,
    TrainingConfig,
)
from qatexplorer.training.rng import OwnRandomState
from qatexplorer.training.telemetry import Sampler

Loss = Callable[[Any, Any], Tensor]


def default_loss(output: Any, target: Any) -> Tensor:
    """Cross entropy of the main output, shape (N, classes, …), and class indices (N, …)."""
    return F.cross_entropy(main_output(output), target)


class Loop:
    """One run over ``config.epochs`` epochs, on the calling thread.

    ``should_stop`` is asked between any two steps and sleeps through pauses; ``report`` is called
    after each step and evaluation batch.
    """

    def __init__(
        self,
        model: Module,
        data: Data,
        config: TrainingConfig,
        loss: Loss | None,
        metric: Metric | None,
        history: History,
        should_stop: Callable[[], bool],
        report: Callable[[], None],
    ) -> None:
        self.model, self.data, self.config = model, data, config
        self.loss, self.metric, self.history = loss or default_loss, metric, history
        self._should_stop, self._report = should_stop, report
        self.step = self.epoch = self.batch = 0
        self.last_loss: float | None = None
        self.phase = "start"
        self._detail = ""
        self._paused_s = self._paused_since = 0.0
        self._in_hand: tuple[Any, Any] = (None, None)
        self.steps_per_epoch = _length(data.train)
        self._step_times: deque[float] = deque(maxlen=50)
        self._eval_s = 0.0
        self._evaluating_since: float | None = None
        self._sampler = Sampler(model, config.telemetry_paths, config.max_samples)
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        if not self._parameters:
            raise TrainingError(
                "The model has no parameter that can be trained.",
                why="All have requires_grad=False, or the model is converted to int8 already.",
                remedy="Train the prepared model, before convert.",
            )
        self._random = OwnRandomState(config.seed, (data.train, data.eval))

    def run(self) -> bool:
        """Train. Returns True if it was stopped. Raises TrainingError; the model stays usable."""
        self._optimizer = self._make_optimizer()
        self._buffers, self._epoch_start = BufferBackup(self.model), ModelBackup(self.model)
        try:
            with self._random.inside():
                for epoch in range(self.config.epochs):
                    self.epoch = epoch
                    if self._run_epoch():
                        return True
            return False
        except KeyboardInterrupt:
            self._undo_half_a_step()
            raise
        except Exception as error:
            failed = self._failure(error)
            release_frames(error)
            if failed is error:
                raise
            raise failed from error
        finally:
            self._in_hand = (None, None)
            self._optimizer.zero_grad(set_to_none=True)

    @property
    def telemetry(self) -> Telemetry | None:
        """What the sampler has seen of the fake quants."""
        return self._sampler.telemetry

    def eta_s(self) -> float | None:
        """Seconds left: median step time and measured evaluation time; None before any step."""
        if not self._step_times or not self.steps_per_epoch:
            return None
        left = max(0, self.steps_per_epoch * self.config.epochs - self.step)
        evaluations = self.config.epochs - len(self.history.epochs)
        spent = 0.0
        if self._evaluating_since is not None:
            spent = min(self._eval_s, time.perf_counter() - self._evaluating_since)
        seconds = left * statistics.median(self._step_times) + evaluations * self._eval_s - spent
        return max(0.0, seconds)

    def mark(self, kind: MarkerKind) -> None:
        self.history.add_marker(Marker(self.step, self.epoch, kind))

    def _make_optimizer(self) -> Optimizer:
        make = self.config.optimizer
        try:
            if make is not None:
                return make(self._parameters)
            return torch.optim.Adam(self._parameters, lr=self.config.lr)
        except Exception as error:
            raise TrainingError(
                "The optimizer cannot be made.",
                why=f"{type(error).__name__}: {error}",
                remedy="optimizer= is called with the list of parameters, for example "
                "lambda parameters: torch.optim.SGD(parameters, lr=1e-3, momentum=0.9).",
            ) from error

    def _run_epoch(self) -> bool:
        started = time.perf_counter()
        frozen = self._freeze()
        train_mode(self.model, frozen[1])
        self._epoch_start.save()
        self.batch, total, samples = 0, 0.0, 0
        self._paused_s = 0.0
        self.phase = "data"
        batches = iter(self.data.train)
        while not self._should_stop():
            record = self._next_step(batches)
            if record is None:
                break
            self.history.add_step(record)
            total += record.loss * record.samples
            samples += record.samples
            self.step += 1
            self.batch += 1
            self._report()
        else:
            return True
        self._check_length()
        value = self._evaluate()
        self.history.add_epoch(
            EpochRecord(
                epoch=self.epoch,
                train_loss=total / max(samples, 1),
                metric=value.value if value.complete else None,
                seconds=time.perf_counter() - started - self._paused_s,
                observers_frozen=frozen[0],
                bn_frozen=frozen[1],
                lr=float(self._optimizer.param_groups[0]["lr"]),
            )
        )
        return not value.complete

    def outside(self) -> AbstractContextManager[None]:
        """For what is not training (a pause, subscribers): random numbers are the user's."""
        return self._random.outside()

    def pausing(self, begins: bool) -> None:
        """A pause begins or ends; its time counts for no epoch."""
        self.mark("paused" if begins else "resumed")
        if begins:
            self._paused_since = time.perf_counter()
            self._random.leave()
        else:
            self._paused_s += time.perf_counter() - self._paused_since
            self._random.enter()

    def _freeze(self) -> tuple[bool, bool]:
        observers, batch_norm = self.config.freeze_observer_epoch, self.config.freeze_bn_epoch
        if self.epoch == observers:
            freeze_observers(self.model)
            self.mark("observers frozen")
        if self.epoch == batch_norm:
            self.mark("batch-norm statistics frozen")
        return (
            observers is not None and self.epoch >= observers,
            batch_norm is not None and self.epoch >= batch_norm,
        )

    def _next_step(self, batches: Iterator[Any]) -> StepRecord | None:
        started = time.perf_counter()
        self.phase = "data"
        try:
            batch = next(batches)
        except StopIteration:
            return None
        inputs, target = self._in_hand = _pair(batch)
        every = self.config.telemetry_every
        watched = bool(every) and self.step % every == 0
        self._buffers.save()
        self._optimizer.zero_grad(set_to_none=True)
        self.phase = "forward"
        with self._sampler.watching(self.step) if watched else nullcontext():
            output = call_model(self.model, inputs)
        self.phase = "loss"
        self._detail = f"output {diagnose.shapes(output)}; target {diagnose.shapes(target)}"
        loss = self.loss(output, target)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise self._diverged(f"the loss is {value}", inputs, target)
        self.phase = "backward"
        loss.backward()
        if not all_finite([p.grad for p in self._parameters if p.grad is not None]):
            raise self._diverged("a gradient is NaN or infinite", inputs, target)
        self.phase = "optimizer step"
        self._optimizer.step()
        self.phase = "data"
        if watched:
            self.history.add_samples(self._sampler.take())
        self.last_loss = value
        took = time.perf_counter() - started
        self._step_times.append(took)
        own = took - self._sampler.spent_s if watched else took
        return StepRecord(self.step, self.epoch, value, own, batch_size((inputs, target)))

    def _diverged(self, what: str, inputs: Any, target: Any) -> TrainingError:
        """Back to the last good state, and the error that says where the first NaN came from."""
        self._buffers.restore()
        batch_finite = diagnose.finite(inputs) and diagnose.finite(target)
        weights_finite = all_finite([p.detach() for p in self._parameters])
        guilty = diagnose.first_nonfinite(self.model, inputs)
        self._buffers.restore()
        if not weights_finite or (guilty and batch_finite):
            # The weights are what makes NaN of a good batch: this epoch has ruined them.
            self._epoch_start.restore()
        return diagnose.diverged(
            what=what,
            epoch=self.epoch,
            batch=self.batch,
            batch_finite=batch_finite,
            guilty=guilty,
        )

    def _check_length(self) -> None:
        if self.batch == 0:
            raise NoDataError(
                f"The training data gave no batch in epoch {self.epoch}.",
                why="data.train is empty, or can be iterated only once.",
                remedy="Pass a DataLoader or a list of (input, target) batches.",
            )
        self.steps_per_epoch = self.batch

    def _evaluate(self) -> MetricValue:
        self.phase = "evaluation"
        self._evaluating_since = time.perf_counter()
        paused = self._paused_s
        value = evaluate(
            self.model,
            self.data.eval,
            self.metric,
            should_stop=self._should_stop,
            on_batch=lambda count: self._report(),
        )
        if value.complete:
            self._eval_s = value.seconds - (self._paused_s - paused)
        self._evaluating_since = None
        return value

    def _undo_half_a_step(self) -> None:
        if self.phase in ("forward", "loss", "backward"):
            # Some observers have seen the batch and some have not.
            self._buffers.restore()
        elif not all_finite([p.detach() for p in self._parameters]):
            self._epoch_start.restore()

    def _failure(self, error: Exception) -> TrainingError:
        if isinstance(error, TrainingError):
            return error
        if self.phase == "forward" and diagnose.spoiled_range(error):
            return self._diverged("a range is NaN or infinite", *self._in_hand)
        self._undo_half_a_step()
        return diagnose.failure(
            error,
            self.model,
            phase=self.phase,
            epoch=self.epoch,
            batch=self.batch,
            detail=self._detail,
        )


def _length(batches: Any) -> int:
    """Batches per epoch, 0 if the data does not know."""
    try:
        return len(batches)
    except (TypeError, NotImplementedError):
        return 0


def _pair(batch: Any) -> tuple[Any, Any]:
    if isinstance(batch, (tuple, list)) and len(batch) == 2:
        return batch[0], batch[1]
    raise InputError(
        f"the training data gives a {type(batch).__name__} that is not an (input, target) pair.",
        remedy="Yield (input, target); the input may be a tensor, a tuple or a dict of arguments.",
    )
