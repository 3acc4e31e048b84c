"""All that a training stands on, besides the data: what a checkpoint saves and puts back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import Module, Parameter
from torch.optim import Optimizer

from qatexplorer.errors import CheckpointError, InputError
from qatexplorer.quantizers.facts import learned_parameters
from qatexplorer.runs.codec import pack, unpack
from qatexplorer.runs.config import TrainingConfig
from qatexplorer.runs.model_state import check_model, load_model, save_model
from qatexplorer.training.following import Following
from qatexplorer.training.schedules import Average, Clip, LearningRate, make_optimizer


@dataclass
class Sums:
    """What the record of an epoch is made of, as far as the epoch has come."""

    loss: float = 0.0
    samples: int = 0
    seconds: float = 0.0
    lr: float = 0.0

    @property
    def mean(self) -> float:
        return self.loss / max(self.samples, 1)


class Parts:
    """Model, optimizer, learning rate and average of one run."""

    def __init__(
        self, config: TrainingConfig, model: Module, parameters: list[Parameter], total_steps: int
    ) -> None:
        self.model = model
        self.optimizer: Optimizer = make_optimizer(config, parameters, learned_parameters(model))
        self.rate = LearningRate(config, self.optimizer, total_steps)
        self.average = Average(config.ema_decay, parameters)
        self.clip = Clip(config.clip_grad_norm)
        self.weights = Following(config, model, total_steps)

    def save(self, tensors: dict[str, Tensor]) -> dict[str, Any]:
        """Everything as a tree for JSON; its tensors, copied, go into ``tensors``.

        Raises CheckpointError if optimizer or scheduler keep what cannot be saved as data.
        """
        scheduler = self.rate.scheduler
        return {
            "model": save_model(self.model, tensors),
            "optimizer": _named(self.optimizer, "optimizer", tensors),
            "scheduler": None if scheduler is None else _named(scheduler, "scheduler", tensors),
            "average": pack(self.average.tensors, "average", tensors),
            "averaged": self.average.updates,
            "marks": [self.rate.marks, self.clip.acted],
            "weights": pack(self.weights.states(), "weights", tensors),
        }

    def load(self, tree: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Back to what :meth:`save` saw. Raises CheckpointError and InputError; the model has
        then not been touched."""
        check_model(self.model, tensors)
        _load(self.optimizer, tree["optimizer"], "optimizer", tensors)
        scheduler = self.rate.scheduler
        if (scheduler is None) != (tree["scheduler"] is None):
            raise InputError(
                "The run was made "
                + ("with a scheduler" if scheduler is None else "without a scheduler")
                + ", and this is the other way round.",
                fix="Pass scheduler= as it was, or begin a new run.",
            )
        if scheduler is not None:
            _load(scheduler, tree["scheduler"], "scheduler", tensors)
        saved = unpack(tree["average"], tensors)
        load_model(self.model, tree["model"], tensors)
        if saved:
            self.average.load(saved, int(tree["averaged"]))
        else:
            self.average.restart()
        self.rate.marks, self.clip.acted = tree["marks"]
        self.weights.load(unpack(tree.get("weights", {}), tensors))


def _named(thing: Any, place: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    return {"class": type(thing).__name__, "state": pack(thing.state_dict(), place, tensors)}


def _load(thing: Any, saved: dict[str, Any], place: str, tensors: dict[str, Tensor]) -> None:
    name = type(thing).__name__
    if saved["class"] != name:
        raise InputError(
            f"The run was made with the {place} {saved['class']}, and {name} was given.",
            fix=f"Pass {place}= as it was, or begin a new run from this model.",
        )
    state = unpack(saved["state"], tensors)
    try:
        thing.load_state_dict(state)
    except Exception as error:
        raise CheckpointError(
            f"The state of the {place} in the checkpoint does not fit.",
            why=f"{type(error).__name__}: {error}",
            fix=f"Pass the model and {place}= that the run was made with.",
        ) from error
