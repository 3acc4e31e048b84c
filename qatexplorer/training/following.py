"""What a run does with the codes of all weights in each step: follow, dampen, freeze."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter
from typing import Any

from torch import Tensor
from torch.nn import Module, Parameter

from qatexplorer.errors import InputError
from qatexplorer.runs.config import TrainingConfig
from qatexplorer.telemetry.reversals import reversal_metrics
from qatexplorer.telemetry.watched import followed_paths
from qatexplorer.telemetry.weights import FollowedWeights


class Following:
    """The weights of ``model`` as ``config`` wants them followed; nothing is done if it does not.

    ``spent_s`` is what the last step took. Raises InputError where there is nothing to follow, or
    the number of steps is needed and not known.
    """

    def __init__(self, config: TrainingConfig, model: Module, total_steps: int) -> None:
        self._weights: FollowedWeights | None = None
        self._follows = config.follows_weights
        self.spent_s = 0.0
        if not (config.follows_weights or config.dampen_weights):
            return
        paths = followed_paths(model)
        if not paths:
            raise InputError(
                "the model has no fake quant of torch.ao on a weight, so none can be followed.",
                fix="Leave out dampen_weights, freeze_weights and oscillation='every step'.",
            )
        changes = config.dampen_weights or config.freeze_weights_from is not None
        if changes and not total_steps:
            raise InputError(
                "dampening, and a threshold of freezing that falls, need to know the number of "
                "steps, and the training data has no length.",
                fix="Give the data a __len__.",
            )
        self._weights = FollowedWeights(
            model,
            paths,
            momentum=config.oscillation_momentum,
            dampening=config.dampen_weights,
            freezing=config.freeze_weights,
            freezing_from=config.freeze_weights_from,
            total_steps=total_steps,
        )

    @property
    def measures(self) -> bool:
        """Whether the codes of all weights are taken in each step."""
        return self._weights is not None and self._follows

    def begin_epoch(self) -> None:
        if self._weights is not None:
            self._weights.begin_epoch()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """The forward of a step is inside."""
        if self._weights is None:
            yield
            return
        began = perf_counter()
        with self._weights.watching():
            self.spent_s = perf_counter() - began
            yield

    def added(self, loss: Tensor, step: int) -> Tensor:
        """The loss with what dampening adds to it."""
        penalty = self._weights.penalty(step) if self._weights is not None else None
        return loss if penalty is None else loss + penalty

    def update(self, step: int) -> None:
        """After the backward, before gradients are used."""
        if self._weights is not None and self._follows:
            began = perf_counter()
            self._weights.update(step)
            self.spent_s += perf_counter() - began

    def hold(self) -> list[Parameter]:
        """After the optimizer's step; returns the parameters of which parts may be held."""
        if self._weights is None:
            return []
        began = perf_counter()
        changed = self._weights.hold()
        self.spent_s += perf_counter() - began
        return changed

    def numbers(self) -> Mapping[str, Mapping[str, float]]:
        """Metrics of the telemetry by path, as they are after the step before."""
        return reversal_metrics(self._weights) if self._weights is not None else {}

    # -- checkpoints ------------------------------------------------------------------------------

    def states(self) -> dict[str, dict[str, Tensor]]:
        """What is known of each weight, by path."""
        return {w.path: w.state for w in self._weights.weights} if self._weights is not None else {}

    def load(self, states: Mapping[str, Any]) -> None:
        """Back to what :meth:`states` gave. A weight that is not in it begins anew."""
        for one in self._weights.weights if self._weights is not None else ():
            device = next(iter(one.fake_quant.buffers())).device
            saved = states.get(one.path, {})
            one.state = {name: tensor.to(device, copy=True) for name, tensor in saved.items()}
