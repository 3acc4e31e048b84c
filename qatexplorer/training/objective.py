"""What training makes small, and what it moves for that."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor
from torch.nn import Module, Parameter
from torch.nn import functional as F

from qatexplorer.data import main_output
from qatexplorer.errors import InputError, TrainingError

Loss = Callable[[Any, Any], Tensor]


def default_loss(output: Any, target: Any, label_smoothing: float = 0.0) -> Tensor:
    """Cross entropy of the main output, shape (N, classes, …), and class indices (N, …)."""
    return F.cross_entropy(main_output(output), target, label_smoothing=label_smoothing)


def loss_of(given: Loss | None, label_smoothing: float) -> Loss:
    """The loss of the user, or the default one. Raises InputError if smoothing is asked of the
    former."""
    if given is not None and label_smoothing:
        raise InputError(
            "label_smoothing belongs to the default loss, and a loss was given.",
            remedy="Smooth in your loss: torch's cross_entropy takes label_smoothing=.",
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
            remedy="Call requires_grad_(True) on the parameters that are to learn."
            if frozen
            else "Train the prepared model, before convert.",
        )
    return parameters
