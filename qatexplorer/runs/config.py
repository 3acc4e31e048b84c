"""Settings of a training run: epochs, optimizer, schedules, telemetry, checkpoints."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from qatexplorer.errors import InputError

if TYPE_CHECKING:
    from torch.nn import Parameter
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

OPTIMIZERS = ("adam", "adamw", "sgd")
SCHEDULERS = ("cosine", "linear", "step")


class _Unset:
    """The default of a keyword that stands for a field of TrainingConfig: it is left as it is."""

    def __repr__(self) -> str:
        return "default"


UNSET: Any = _Unset()


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of a run.

    Attributes:
        epochs: passes over the training data.
        lr: learning rate of an optimizer by name (ignored when one of your own is given).
        optimizer: ``"adam"``, ``"adamw"``, ``"sgd"`` (momentum 0.9), or called with the model's
            parameters, returns the optimizer. The default is Adam: fake-quantized channels can
            differ in range by orders of magnitude, and Adam's step does not depend on the size of
            a parameter's gradient, so one ``lr`` fits all of them.
        scheduler: ``"cosine"`` or ``"linear"`` (to 0 over the run), ``"step"`` (a tenth at half
            and at three quarters of the run), or called with the optimizer, returns a scheduler.
        scheduler_interval: a scheduler of your own moves on after each ``"step"`` or ``"epoch"``
            (``ReduceLROnPlateau``: always after an epoch, by its mean training loss).
        warmup_steps: steps over which a scheduler by name rises from near 0 to ``lr``.
        freeze_observer_epoch: 0-based epoch from whose start on the observers stand still (ranges
            are fixed, weights still train). None is never.
        freeze_bn_epoch: the same for batch-norm running statistics.
        fake_quant_start_epoch: fake quants are off before this epoch, their observers on: ranges
            settle on float training first. 0 leaves them as they are.
        label_smoothing: of the default loss, 0 to 1.
        clip_grad_norm: the 2-norm of all gradients together is at most this; None is no limit.
        ema_decay: the weights that evaluation and the end of the run see are an exponential moving
            average with this decay (rising to it over the first steps); buffers, ranges of fake
            quants among them, are copied, not averaged. None is no average.
        dampen_weights: the squared distance of each weight to the value of its code, summed over
            all weights, is added to the loss with this factor, which rises to it from 0 along a
            cosine after a quarter of the run: weights then oscillate less. 0 adds nothing.
        freeze_weights: a weight whose integer code goes back and forth is frozen, at the rounded
            average of its code, once its rate of reversals is above this (see ``oscillation``).
            None freezes none.
        freeze_weights_from: with it the threshold falls along a cosine from here to
            ``freeze_weights``, and no weight is frozen in the first quarter of the run. None is the
            same threshold in all steps.
        oscillation: ``"sampled"`` follows some of the weights in the steps that are sampled;
            ``"every step"`` also has the rate of reversals of every weight, an average over all
            steps, which costs time in each of them (the telemetry says how much).
        oscillation_momentum: share of the newest step in the rate of reversals and in the average
            code.
        checkpoint_every: with a run folder, a checkpoint after every so many steps, besides those
            at the end of each epoch, at a pause, a stop and a failure. 0 is those only.
        keep_checkpoints: the newest so many are kept, and the one with the best metric.
        metric_mode: whether a high (``"max"``) or a low (``"min"``) metric is the best.
        seed: of the run's own torch, Python and NumPy random state.
        telemetry_every: fake quants are sampled on every so many steps; 0 is never.
        max_samples: elements that are taken of a tensor, at most. Where it has more, they lie at
            random positions, drawn independently and evenly: the error bound that each histogram
            states holds for such draws, whatever the order of the values.
        telemetry_paths: fake quants to sample, by path; None is all of them.

    Raises InputError for values that cannot work.
    """

    epochs: int = 3
    lr: float = 1e-3
    optimizer: str | Callable[[Iterable[Parameter]], Optimizer] | None = None
    scheduler: str | Callable[[Optimizer], LRScheduler] | None = None
    scheduler_interval: Literal["step", "epoch"] = "step"
    warmup_steps: int = 0
    freeze_observer_epoch: int | None = None
    freeze_bn_epoch: int | None = None
    fake_quant_start_epoch: int = 0
    label_smoothing: float = 0.0
    clip_grad_norm: float | None = None
    ema_decay: float | None = None
    dampen_weights: float = 0.0
    freeze_weights: float | None = None
    freeze_weights_from: float | None = None
    oscillation: Literal["sampled", "every step"] = "sampled"
    oscillation_momentum: float = 0.01
    checkpoint_every: int = 0
    keep_checkpoints: int = 3
    metric_mode: Literal["max", "min"] = "max"
    seed: int = 0
    telemetry_every: int = 10
    max_samples: int = 65_536
    telemetry_paths: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        _whole("epochs", self.epochs, 1)
        _whole("telemetry_every", self.telemetry_every, 0)
        _whole("max_samples", self.max_samples, 1)
        _whole("seed", self.seed, 0)
        for name, least in (
            ("warmup_steps", 0),
            ("fake_quant_start_epoch", 0),
            ("checkpoint_every", 0),
            ("keep_checkpoints", 1),
        ):
            _whole(name, getattr(self, name), least)
        for name in ("freeze_observer_epoch", "freeze_bn_epoch"):
            if getattr(self, name) is not None:
                _whole(name, getattr(self, name), 0)
        if not (isinstance(self.lr, (int, float)) and math.isfinite(self.lr) and self.lr > 0):
            raise InputError(
                f"lr is {self.lr!r}; it must be a positive number.",
                fix="For fine-tuning with fake quants 1e-4 to 1e-3 is usual.",
            )
        self._check_schedules()
        self._check_weights()

    def but(self, **changes: Any) -> TrainingConfig:
        """The same settings with some changed."""
        return replace(self, **changes)

    def _check_schedules(self) -> None:
        _one_of("optimizer", self.optimizer, OPTIMIZERS)
        _one_of("scheduler", self.scheduler, SCHEDULERS)
        for name, known in (
            ("scheduler_interval", ("step", "epoch")),
            ("metric_mode", ("max", "min")),
            ("oscillation", ("sampled", "every step")),
        ):
            if getattr(self, name) not in known:
                raise InputError(f"{name} is {getattr(self, name)!r}; it is one of {known}.")
        _between("label_smoothing", self.label_smoothing, 0.0, 1.0, low_too=True)
        if self.ema_decay is not None:
            _between("ema_decay", self.ema_decay, 0.0, 1.0)
        if self.clip_grad_norm is not None:
            _between("clip_grad_norm", self.clip_grad_norm, 0.0, math.inf)
        if self.warmup_steps and not isinstance(self.scheduler, str):
            raise InputError(
                "warmup_steps goes with a scheduler by name only.",
                fix=f"Use scheduler= one of {', '.join(SCHEDULERS)}, or warm up in your own.",
            )
        if self.fake_quant_start_epoch >= self.epochs:
            raise InputError(
                f"fake_quant_start_epoch is {self.fake_quant_start_epoch} and the run has "
                f"{self.epochs} epochs: the fake quants would never be on.",
                fix="Start them earlier, or train longer.",
            )

    @property
    def follows_weights(self) -> bool:
        """Whether the codes of all weights are taken in every step."""
        return self.oscillation == "every step" or self.freeze_weights is not None

    def _check_weights(self) -> None:
        _between("oscillation_momentum", self.oscillation_momentum, 0.0, 1.0)
        _between("dampen_weights", self.dampen_weights, 0.0, math.inf, low_too=True)
        for name in ("freeze_weights", "freeze_weights_from"):
            value = getattr(self, name)
            if value is None:
                continue
            _between(name, value, 0.0, 1.0)
            if value <= self.oscillation_momentum:
                raise InputError(
                    f"{name} is {value:g}, and oscillation_momentum is "
                    f"{self.oscillation_momentum:g}.",
                    why="One reversal would be enough: it gives a rate of oscillation_momentum.",
                    fix=f"Use {name}= two or three times oscillation_momentum= at least.",
                )
        if self.freeze_weights is None:
            if self.freeze_weights_from is not None:
                raise InputError(
                    "freeze_weights_from is where the threshold begins, and freeze_weights, where "
                    "it ends, is not given.",
                    fix="Give freeze_weights= too.",
                )
        elif self.ema_decay is not None:
            raise InputError(
                "freeze_weights and ema_decay do not go together.",
                why="The average of a weight's values over the steps is not the value of its code.",
                fix="Leave one of them out.",
            )


def _whole(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{name} is {value!r}; it must be a whole number of at least {least}.")


def _between(name: str, value: Any, low: float, high: float, *, low_too: bool = False) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not (low < value < high or (low_too and value == low)):
        kind = "positive number" if high == math.inf else f"number from {low:g} to below {high:g}"
        raise InputError(f"{name} is {value!r}; it must be a {kind}.")


def _one_of(name: str, value: Any, known: tuple[str, ...]) -> None:
    if value is not None and not callable(value) and value not in known:
        raise InputError(
            f"{name} is {value!r}; it is one of {', '.join(known)}, or a function.",
        )


def given_settings(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of :class:`TrainingConfig` among ``arguments`` that are not :data:`UNSET`."""
    names = [field.name for field in fields(TrainingConfig)]
    return {name: arguments[name] for name in names if arguments.get(name, UNSET) is not UNSET}
