"""Optimizer, learning rate and the switches that a run turns at the start of an epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module, Parameter
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from qatexplorer.errors import InputError, TrainingError
from qatexplorer.quantizers.facts import fake_quants_off, fake_quants_on, freeze_observers
from qatexplorer.runs.config import TrainingConfig
from qatexplorer.runs.records import MarkerKind
from qatexplorer.training.modes import train_mode

Mark = Callable[[MarkerKind, str], Any]

LR_JUMP = 1.5
MAX_LR_MARKS = 12


STEP_SIZE_LR = 0.01
"""What the learning rate of learned step sizes is multiplied with: Adam moves every parameter by
about the rate, and a step size is as small as that."""


def make_optimizer(
    config: TrainingConfig, parameters: list[Parameter], step_sizes: Collection[Parameter] = ()
) -> Optimizer:
    """The optimizer of ``config``; ``step_sizes`` are those of ``parameters`` that are learned step
    sizes. Raises TrainingError if one of the user's cannot be made."""
    make = config.optimizer
    if make is None or isinstance(make, str):
        learned = {id(one) for one in step_sizes}
        groups: list[dict[str, Any]] = [{"params": [p for p in parameters if id(p) not in learned]}]
        if learned:
            sizes = [p for p in parameters if id(p) in learned]
            rate = config.lr * STEP_SIZE_LR
            groups.append({"params": sizes, "lr": rate, "weight_decay": 0.0})
        if make == "adamw":
            return torch.optim.AdamW(groups, lr=config.lr)
        if make == "sgd":
            return torch.optim.SGD(groups, lr=config.lr, momentum=0.9)
        return torch.optim.Adam(groups, lr=config.lr)
    try:
        return make(parameters)
    except Exception as error:
        raise TrainingError(
            "The optimizer cannot be made.",
            why=f"{type(error).__name__}: {error}",
            fix="optimizer= is called with the list of parameters, for example "
            "lambda parameters: torch.optim.SGD(parameters, lr=1e-3, momentum=0.9).",
        ) from error


def lr_factor(name: str, step: int, total: int, warmup: int) -> float:
    """What scheduler ``name`` multiplies the learning rate of step ``step`` of ``total`` with."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    share = min(1.0, (step - warmup) / max(1, total - warmup))
    if name == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * share))
    if name == "linear":
        return 1.0 - share
    return 1.0 if share < 0.5 else 0.1 if share < 0.75 else 0.01


def announce(config: TrainingConfig, mark: Mark) -> None:
    """Mark what holds from the first step on."""
    if config.scheduler is not None:
        named = isinstance(config.scheduler, str)
        mark("learning rate", str(config.scheduler) if named else "your scheduler")
    if config.label_smoothing:
        mark("label smoothing", f"{config.label_smoothing:g}")
    if config.clip_grad_norm is not None:
        mark("gradient clipping", f"at {config.clip_grad_norm:g}")
    if config.ema_decay is not None:
        mark("weight averaging", f"decay {config.ema_decay:g}")
    if config.dampen_weights:
        mark("weight dampening", f"rises to {config.dampen_weights:g}")
    if config.freeze_weights is not None:
        start = config.freeze_weights_from
        begins = "" if start is None else f", from {start:g} on"
        mark("weight freezing", f"above a rate of {config.freeze_weights:g}{begins}")


class LearningRate:
    """The scheduler of a run, if it has one. Raises InputError and TrainingError."""

    def __init__(self, config: TrainingConfig, optimizer: Optimizer, total_steps: int) -> None:
        self._optimizer, self.marks = optimizer, 0
        make = config.scheduler
        self.per_step = isinstance(make, str) or config.scheduler_interval == "step"
        self.scheduler: Any = None
        if isinstance(make, str):
            if not total_steps:
                raise InputError(
                    f"scheduler={make!r} needs to know the number of steps, and the training data "
                    "has no length.",
                    fix="Give the data a __len__, or pass a scheduler of your own.",
                )
            warmup = config.warmup_steps
            self.scheduler = LambdaLR(optimizer, lambda n: lr_factor(make, n, total_steps, warmup))
        elif make is not None:
            self.scheduler = _made(make, optimizer)
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.per_step = False

    @property
    def now(self) -> float:
        """Learning rate of the first parameter group."""
        return float(self._optimizer.param_groups[0]["lr"])

    def after_step(self, mark: Mark) -> None:
        if self.scheduler is not None and self.per_step:
            self._move(mark)

    def after_epoch(self, mark: Mark, train_loss: float) -> None:
        if self.scheduler is not None and not self.per_step:
            self._move(mark, train_loss)

    def _move(self, mark: Mark, train_loss: float = 0.0) -> None:
        before = self.now
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(train_loss)
        else:
            self.scheduler.step()
        # A jump is an event on the curves; a smooth fall is seen in the steps' own lr.
        jump = max(before, self.now) > LR_JUMP * min(before, self.now) > 0
        if jump and self.marks < MAX_LR_MARKS:
            self.marks += 1
            mark("learning rate", f"{before:.3g} → {self.now:.3g}")


def _made(make: Any, optimizer: Optimizer) -> Any:
    try:
        scheduler = make(optimizer)
    except Exception as error:
        raise TrainingError(
            "The scheduler cannot be made.",
            why=f"{type(error).__name__}: {error}",
            fix="scheduler= is called with the optimizer, for example "
            "lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 100).",
        ) from error
    if not hasattr(scheduler, "step"):
        raise InputError(f"scheduler= gave a {type(scheduler).__name__}, which has no step().")
    return scheduler


class Switches:
    """Observers, batch-norm statistics and fake quants, turned at the start of an epoch."""

    def __init__(self, config: TrainingConfig, model: Module) -> None:
        self._config, self._model = config, model

    def begin_epoch(self, epoch: int, mark: Mark) -> tuple[bool, bool]:
        """Turn what is due; returns whether observers and batch norms stand still now."""
        config, model = self._config, self._model
        start = config.fake_quant_start_epoch
        if start and epoch == 0:
            fake_quants_off(model)
            mark("fake quants off", f"until epoch {start}")
        if start and epoch == start:
            fake_quants_on(model)
            mark("fake quants on", "")
        if epoch == config.freeze_observer_epoch:
            freeze_observers(model)
            mark("observers frozen", "")
        if epoch == config.freeze_bn_epoch:
            mark("batch-norm statistics frozen", "")
        return self.set_modes(epoch)

    def set_modes(self, epoch: int) -> tuple[bool, bool]:
        """Train mode as ``epoch`` needs it; buffers, and so the observers' flags, stay."""
        observers, batch_norm = self._config.freeze_observer_epoch, self._config.freeze_bn_epoch
        bn_frozen = batch_norm is not None and epoch >= batch_norm
        train_mode(self._model, bn_frozen)
        return observers is not None and epoch >= observers, bn_frozen

    def end(self) -> None:
        """A run that ends before its fake quants were due leaves them on all the same."""
        if self._config.fake_quant_start_epoch:
            fake_quants_on(self._model)


class Clip:
    """The limit of the gradients' norm; the first time that it acts is marked."""

    def __init__(self, limit: float | None) -> None:
        self._limit, self.acted = limit, False

    def __call__(self, parameters: list[Parameter], mark: Mark) -> None:
        if self._limit is None:
            return
        total = torch.nn.utils.clip_grad_norm_(parameters, self._limit)
        # Reading it makes a GPU wait for the host, so that is done up to the mark only.
        if not self.acted and (norm := float(total)) > self._limit:
            self.acted = True
            mark("gradient clipping", f"first acts: norm {norm:.3g} → {self._limit:.3g}")


class Average:
    """Exponential moving average of the parameters; buffers are those of the model itself.

    Averaging the ranges of fake quants would give a grid that no weight was ever rounded to.
    """

    def __init__(self, decay: float | None, parameters: list[Parameter]) -> None:
        self._decay, self._parameters, self.updates = decay, list[Tensor](parameters), 0
        self.tensors = [] if decay is None else [p.detach().clone() for p in parameters]

    @torch.no_grad()
    def update(self) -> None:
        if self._decay is not None:
            self.updates += 1
            # Rising, so that the first steps do not hold the average at the initial weights.
            decay = min(self._decay, (1 + self.updates) / (10 + self.updates))
            torch._foreach_lerp_(self.tensors, self._parameters, 1.0 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model holds the average inside, and its own weights again after."""
        if not self.tensors:
            yield
            return
        own = [p.detach().clone() for p in self._parameters]
        self.put()
        try:
            yield
        finally:
            _copy(self._parameters, own)

    def put(self) -> None:
        """The model holds the average from now on."""
        if self.tensors:
            _copy(self._parameters, self.tensors)

    def restart(self) -> None:
        """From the present weights on."""
        _copy(self.tensors, [p.detach() for p in self._parameters])
        self.updates = 0

    def load(self, tensors: list[Tensor], updates: int) -> None:
        if self.tensors:
            _copy(self.tensors, tensors)
            self.updates = updates


@torch.no_grad()
def _copy(to: list[Tensor], source: list[Tensor]) -> None:
    if to:
        torch._foreach_copy_(to, source)
