"""The QAT loop itself: epochs, steps, freezing, evaluation, and what to do when a step fails."""

from __future__ import annotations

import math
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from torch import Tensor
from torch.nn import Module, Parameter
from torch.nn import functional as F

from qatexplorer.data import Data, call_model, device_of, main_output, on_device
from qatexplorer.errors import CheckpointError, InputError, NoDataError, TrainingError
from qatexplorer.evaluate.metric import Metric, MetricValue, batch_size, evaluate, metric_name
from qatexplorer.explain.blame import release_frames
from qatexplorer.quantizers.facts import learn_steps, learned_parameters
from qatexplorer.runs.checkpoint import Position
from qatexplorer.runs.codec import pack, unpack
from qatexplorer.runs.records import (
    EpochRecord,
    History,
    Marker,
    MarkerKind,
    StepRecord,
    TrainingConfig,
)
from qatexplorer.runs.run_writer import RunWriter, Saved
from qatexplorer.training import diagnose
from qatexplorer.training.modes import BufferBackup, ModelBackup, all_finite, read_with_finite
from qatexplorer.training.rng import OwnRandomState
from qatexplorer.training.sampler import Sampler
from qatexplorer.training.schedules import Switches, announce
from qatexplorer.training.state import Parts, Sums
from qatexplorer.training.team import Alone

Loss = Callable[[Any, Any], Tensor]
_NONE_LEFT = object()


def default_loss(output: Any, target: Any, label_smoothing: float = 0.0) -> Tensor:
    """Cross entropy of the main output, shape (N, classes, …), and class indices (N, …)."""
    return F.cross_entropy(main_output(output), target, label_smoothing=label_smoothing)


def loss_of(given: Loss | None, label_smoothing: float) -> Loss:
    """The loss of the user, or the default one. Raises InputError if smoothing is asked of the
    former."""
    if given is not None and label_smoothing:
        raise InputError(
            "label_smoothing belongs to the default loss, and a loss was given.",
            fix="Smooth in your loss: torch's cross_entropy takes label_smoothing=.",
        )
    return given or partial(default_loss, label_smoothing=label_smoothing)


def trainable(model: Module) -> list[Parameter]:
    """The parameters that training moves. Raises TrainingError if there are none."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        frozen = any(True for _ in model.parameters())
        raise TrainingError(
            "The model has no parameter that can be trained.",
            why="All have requires_grad=False."
            if frozen
            else "It has none at all: it is converted to int8 already.",
            fix="Call requires_grad_(True) on the parameters that are to learn."
            if frozen
            else "Train the prepared model, before convert.",
        )
    return parameters


def length(batches: Any) -> int:
    """Batches per epoch, 0 if the data does not know."""
    try:
        return len(batches)
    except (TypeError, NotImplementedError):
        return 0


def pair(batch: Any) -> tuple[Any, Any]:
    """Input and target of a batch. Raises InputError if it is no pair."""
    if isinstance(batch, (tuple, list)) and len(batch) == 2:
        return batch[0], batch[1]
    raise InputError(
        f"the training data gives a {type(batch).__name__} that is not an (input, target) pair.",
        fix="Yield (input, target); the input may be a tensor, a tuple or a dict of arguments.",
    )


def skip(
    batches: Iterator[Any],
    count: int,
    epoch: int,
    should_stop: Callable[[], bool],
    before: Callable[[int], object],
) -> bool:
    """Draw ``count`` batches and throw them away; False if it was stopped on the way. ``before``
    is called with the number of each.

    Raises CheckpointError if there are fewer.
    """
    for done in range(count):
        if should_stop():
            return False
        before(done)
        try:
            next(batches)
        except StopIteration:
            raise CheckpointError(
                f"The training data has {done} batches; the checkpoint was made after {count} "
                f"batches of epoch {epoch}.",
                fix="Resume with the data that the run was made with.",
            ) from None
    return True


class Pace:
    """Times of steps and of evaluations; pauses are left out of both."""

    def __init__(self) -> None:
        self._steps: deque[float] = deque(maxlen=50)
        self._evaluation_s = 0.0
        self._evaluating_since: float | None = None
        self._paused_since = 0.0
        self.paused_s = 0.0

    def step_took(self, seconds: float) -> None:
        self._steps.append(seconds)

    def pausing(self, begins: bool) -> None:
        if begins:
            self._paused_since = time.perf_counter()
        else:
            self.paused_s += time.perf_counter() - self._paused_since

    def evaluation_begins(self) -> None:
        self._evaluating_since = time.perf_counter()

    def evaluation_took(self, seconds: float | None) -> None:
        """It has ended; None if it was cut short."""
        self._evaluating_since = None
        if seconds is not None:
            self._evaluation_s = seconds

    def eta_s(self, steps_left: int, evaluations_left: int) -> float | None:
        """Seconds left by median step and last evaluation; None before any step."""
        if not self._steps:
            return None
        spent = 0.0
        if self._evaluating_since is not None:
            spent = min(self._evaluation_s, time.perf_counter() - self._evaluating_since)
        seconds = max(0, steps_left) * statistics.median(self._steps)
        return max(0.0, seconds + evaluations_left * self._evaluation_s - spent)


class Loop:
    """One run over ``config.epochs`` epochs, on the calling thread.

    ``should_stop`` is asked between any two steps and sleeps through pauses; ``report`` is called
    after each step and evaluation batch. With ``saved`` the run goes on from a checkpoint, and
    with ``writer`` it leaves checkpoints. With a ``team`` of processes this is one of theirs, and
    ``data`` its part: all call it, make the same steps and stop after the same one.
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
        writer: RunWriter | None = None,
        saved: Saved | None = None,
        team: Alone | None = None,
    ) -> None:
        self._team = team or Alone()
        self._called = model
        self.model, self.data, self.config = model, data, config
        self.loss = loss_of(loss, config.label_smoothing)
        self.metric, self.history = metric, history
        self.writer, self._saved = writer, saved
        self._asked_to_stop, self._report = should_stop, report
        self.step = self.epoch = self.batch = 0
        self.last_loss: float | None = None
        self.phase = "start"
        self._detail = ""
        self._in_hand: tuple[Any, Any] = (None, None)
        self.steps_per_epoch = length(data.train)
        self._pace, self._sums = Pace(), Sums()
        self._trained, self._whole, self._skipping = False, True, False
        before = history.telemetry
        self._sampler = Sampler(model, config.telemetry_paths, config.max_samples, before)
        history.telemetry = self._sampler.telemetry or before
        self._switches = Switches(config, model)
        self._parameters = trainable(model)
        self._learned = learned_parameters(model)
        self._steps_wait = bool(self._learned)
        self._random = OwnRandomState(config.seed, (data.train, data.eval))
        self._epoch_random: Any = None
        self._cheap_now: Any = None
        self._parts: Parts | None = None
        if saved is not None:
            self._load(saved)

    def run(self) -> bool:
        """Train. Returns True if it was stopped. Raises TrainingError; the model stays usable."""
        parts = self.parts
        if self._saved is None:
            announce(self.config, self.mark)
        else:
            self.mark("resumed from checkpoint")
        self._buffers, self._epoch_start = BufferBackup(self.model), ModelBackup(self.model)
        try:
            self._called = self._team.wrap(self.model)
            # The first process has just given the others its weights, and the average has begun
            # with theirs.
            self._team.level(parts.average.tensors)
            with self._random.inside():
                stopped = any(self._run_epoch(e) for e in range(self.epoch, self.config.epochs))
            self._team.level(self.model.buffers())
            parts.average.put()
            return stopped
        except KeyboardInterrupt:
            self._undo_half_a_step()
            self._rescue("interrupted")
            parts.average.put()
            raise
        except Exception as error:
            failed = self._failure(error)
            release_frames(error)
            self._rescue("failed")
            if failed is error:
                raise
            raise failed from error
        finally:
            self._in_hand, self._called = (None, None), self.model
            self._switches.end()
            parts.optimizer.zero_grad(set_to_none=True)

    @property
    def parts(self) -> Parts:
        if self._parts is None:
            total = self.steps_per_epoch * self.config.epochs
            self._parts = Parts(self.config, self.model, self._parameters, total)
        return self._parts

    def eta_s(self) -> float | None:
        """Seconds left: median step time and measured evaluation time; None before any step."""
        if not self.steps_per_epoch:
            return None
        epochs = self.config.epochs
        left = self.steps_per_epoch * epochs - self.step
        return self._pace.eta_s(left, epochs - len(self.history.epochs))

    def _should_stop(self) -> bool:
        return self._team.stops(self._asked_to_stop, still=self.phase == "evaluation")

    def mark(self, kind: MarkerKind, note: str = "") -> None:
        self.history.add_marker(Marker(self.step, self.epoch, kind, note))

    def _run_epoch(self, epoch: int) -> bool:
        started = time.perf_counter()
        self._pace.paused_s = 0.0
        self.epoch = epoch
        again, self._saved = self._saved is not None, None
        if again:
            frozen = self._switches.set_modes(epoch)
        else:
            self.batch, self._sums, self._trained = 0, Sums(), False
            frozen = self._switches.begin_epoch(epoch, self.mark)
            self._epoch_random = self._random.now()
        self.parts.weights.begin_epoch()
        self._epoch_start.save()
        sums, before = self._sums, self._sums.seconds

        def spent() -> float:
            return before + time.perf_counter() - started - self._pace.paused_s

        if not self._trained and self._train(self._batches(again), spent):
            return True
        value = self._evaluate()
        self.history.add_epoch(
            EpochRecord(
                epoch=epoch,
                train_loss=sums.mean,
                metric=value.value if value.complete else None,
                seconds=spent(),
                observers_frozen=frozen[0],
                bn_frozen=frozen[1],
                lr=sums.lr,
            )
        )
        if value.complete and self.writer is not None:
            self.writer.note_metric(value.value)
        return not value.complete

    def _train(self, batches: Iterator[Any], spent: Callable[[], float]) -> bool:
        """The steps of an epoch; True if it was stopped before their end."""
        sums, parts = self._sums, self.parts
        self.phase = "data"
        while not self._should_stop():
            record = self._next_step(batches)
            if record is None:
                break
            self.history.add_step(record)
            sums.loss += record.loss * record.samples
            sums.samples += record.samples
            sums.lr = record.lr
            self.step += 1
            self.batch += 1
            parts.rate.after_step(self.mark)
            self._whole = True
            sums.seconds = spent()
            self._report()
            # The last step of an epoch is followed by a checkpoint in any case.
            if self.batch != self.steps_per_epoch and self._due():
                self.save("interval")
        else:
            self.save("stopped")
            return True
        self._check_length()
        self._trained = True
        parts.rate.after_epoch(self.mark, sums.mean)
        self.save("end of epoch")
        return False

    # -- checkpoints ----------------------------------------------------------------------------

    def save(self, reason: str) -> None:
        """Leave a checkpoint of this moment between two steps, if there is a writer.

        While evaluating, and while skipping what was trained before, the last one is this moment.
        """
        if self.writer is None or self.phase == "evaluation" or self._skipping:
            return
        self._save(reason, self._random.now())

    def _due(self) -> bool:
        return self.writer is not None and self.writer.due(self.step)

    def _save(self, reason: str, random: Any) -> None:
        assert self.writer is not None
        position = Position(self.step, self.epoch, self.batch, self._trained)
        where = f"epoch {self.epoch}, batch {self.batch}"

        def state(tensors: dict[str, Tensor]) -> dict[str, Any]:
            return {
                **self.parts.save(tensors),
                "random": pack((random, self._epoch_random), "random", tensors),
                "sums": asdict(self._sums),
                "steps_per_epoch": self.steps_per_epoch,
                "processes": self._team.size,
                "last_loss": self.last_loss,
            }

        if not self.writer.save(position, reason, state, where):
            self.mark("checkpoint failed")

    def _rescue(self, reason: str) -> None:
        """A checkpoint of the last whole step, if the model still holds it."""
        between = self.phase not in ("evaluation", "start") and not self._skipping
        if self.writer is not None and self._whole and between:
            cheap_now = self._cheap_now
            self._save(reason, self._random.rewound(cheap_now) if cheap_now else self._random.now())

    def _load(self, saved: Saved) -> None:
        position, tree, tensors = saved.position, saved.tree, saved.tensors
        if position.epoch >= self.config.epochs:
            raise InputError(
                f"The checkpoint is in epoch {position.epoch}, and epochs is {self.config.epochs}.",
                fix="Pass more epochs= to train on.",
            )
        processes = tree.get("processes", 1)
        if processes != self._team.size:
            raise InputError(
                f"The run was made by {processes} process{'es' * (processes > 1)}, and here there "
                f"{'are' if self._team.size > 1 else 'is'} {self._team.size}.",
                why="Each has a part of the data: with another number no step would be the same.",
                fix="Go on with qatexplorer train --resume, started by torchrun with as many "
                "processes as the run was made by.",
            )
        now, self._epoch_random = unpack(tree["random"], tensors)
        self._random.become(now)
        self.parts.load(tree, tensors)
        self._sums = Sums(**tree["sums"])
        self.step, self.epoch, self.batch = position.step, position.epoch, position.batch
        self._trained, self.last_loss = position.trained, tree["last_loss"]
        self.steps_per_epoch = self.steps_per_epoch or tree["steps_per_epoch"]

    def _batches(self, again: bool) -> Iterator[Any]:
        """The batches of an epoch; ``again`` are those that are still to be trained on.

        The loader starts with the random state that it started the epoch with, so that a sampler
        gives the same order, and what was trained on is drawn and thrown away.
        """
        self.phase = "data"
        first = self.step - self.batch
        self._team.begin_epoch(self._random, self.epoch)
        if not again:
            self._team.begin_draw(self._random, first)
            return iter(self.data.train)
        now = self._random.now()
        self._random.become(self._epoch_random)
        self._skipping = True

        def before(done: int) -> None:
            self._team.begin_draw(self._random, first + done)

        before(0)
        batches = iter(self.data.train)
        self._skipping = not skip(batches, self.batch, self.epoch, self._should_stop, before)
        self._random.become(now)
        return batches

    def outside(self) -> AbstractContextManager[None]:
        """For what is not training (a pause, subscribers): random numbers are the user's."""
        return self._random.outside()

    def pausing(self, begins: bool) -> None:
        """A pause begins or ends; its time counts for no epoch."""
        self.mark("paused" if begins else "resumed")
        self._pace.pausing(begins)
        if begins:
            self._random.leave()
        else:
            self._random.enter()

    def _next_step(self, batches: Iterator[Any]) -> StepRecord | None:
        started = time.perf_counter()
        self.phase = "data"
        if self.writer is not None:
            self._cheap_now = self._random.cheap_now()
        self._team.begin_draw(self._random, self.step)
        batch = next(batches, _NONE_LEFT)
        if not self._team.all_have(batch is not _NONE_LEFT):
            self._cheap_now = None
            return None
        self._team.begin_step(self._random, self.step)
        inputs, target = self._in_hand = on_device(pair(batch), device_of(self.model))
        parts, every = self.parts, self.config.telemetry_every
        sampled = bool(every) and self.step % every == 0
        self._buffers.save()
        parts.optimizer.zero_grad(set_to_none=True)
        self.phase = "forward"
        weights = parts.weights
        known = weights.numbers() if sampled and weights.measures else None
        sampling = self._sampler.sampling(self.step, known) if sampled else nullcontext()
        with sampling, weights.watching():
            output = call_model(self._called, inputs)
        self.phase = "loss"
        self._detail = f"output {diagnose.shapes(output)}; target {diagnose.shapes(target)}"
        loss = self.loss(output, target)
        found = loss.detach()
        if found.numel() != 1:
            float(found)  # raises, in torch's words
        self.phase = "backward"
        weights.added(loss, self.step).backward()
        # Read after the backward: a GPU then waits for the host once in a step, and not twice.
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        value, finite = read_with_finite(found, gradients)
        value, samples = self._team.mean(value, batch_size((inputs, target)))
        if not math.isfinite(value):
            raise self._diverged(f"the loss is {value}", inputs, target)
        if not finite:
            raise self._diverged("a gradient is NaN or infinite", inputs, target)
        self.phase = "optimizer step"
        self._whole = False
        weights.update(self.step)
        parts.clip(self._parameters, self.mark)
        rate = parts.rate.now
        parts.optimizer.step()
        if self._steps_wait:  # the batch that it has just seen gives a learned step size its start
            self._steps_wait = learn_steps(self.model)
        self._team.level(self._learned)
        self._team.level(weights.hold())
        parts.average.update()
        self.phase, self._cheap_now = "data", None
        self.last_loss = value
        took = time.perf_counter() - started
        self._pace.step_took(took)
        if weights.measures:
            self._sampler.followed(weights.spent_s)
        own = took - self._sampler.spent_s if sampled else took
        return StepRecord(self.step, self.epoch, value, own, samples, rate)

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
            self._whole = False
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
                fix="Pass a DataLoader or a list of (input, target) batches.",
            )
        self.steps_per_epoch = self.batch

    def _evaluate(self) -> MetricValue:
        self.phase = "evaluation"
        if not self._team.writes:
            stopped = self._should_stop()
            return MetricValue(metric_name(self.metric), math.nan, 0, 0.0, not stopped)
        self._pace.evaluation_begins()
        paused = self._pace.paused_s
        with self.parts.average.applied():
            value = evaluate(
                self.model,
                self.data.eval,
                self.metric,
                should_stop=self._should_stop,
                on_batch=lambda count: self._report(),
            )
        took = value.seconds - (self._pace.paused_s - paused)
        self._pace.evaluation_took(took if value.complete else None)
        if value.complete and self._team.released():
            return replace(value, complete=False)
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
        if (lost := self._team.lost(error)) is not None:
            self._undo_half_a_step()
            return lost
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
