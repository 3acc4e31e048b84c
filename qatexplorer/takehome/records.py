"""What was done to the working model of a session, in order, as a script repeats it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from qatexplorer.cures.base import WorkDone
from qatexplorer.flows.base import Flow, FlowOptions
from qatexplorer.flows.edits import Edit
from qatexplorer.runs.config import TrainingConfig


@dataclass(frozen=True)
class Calibrated:
    """The observers saw ``batches`` training batches."""

    batches: int


@dataclass(frozen=True)
class Trained:
    """A run with ``config``. ``steps`` is how many it made if it ended before its last epoch, None
    if it made all; ``weights`` are the paths of the fake quants of weights, ``processes`` how many
    trained together."""

    config: TrainingConfig
    steps: int | None = None
    weights: tuple[str, ...] = ()
    processes: int = 1


Action = Calibrated | Trained | WorkDone


@dataclass(frozen=True)
class Walk:
    """A way through a flow, as far as it went.

    Attributes:
        base: the float model, with the edits made; it is only looked at.
        reached: the furthest stage. actions: on the prepared model, in order.
        loss, metric: of the user, None for the defaults.
        handed_out: the user had the working model in hand, and may have changed it.
    """

    base: nn.Module
    flow: Flow
    options: FlowOptions
    edits: tuple[Edit, ...]
    reached: str
    actions: tuple[Action, ...] = ()
    loss: Callable[..., Any] | None = None
    metric: Callable[..., Any] | None = None
    handed_out: bool = False

    @property
    def processes(self) -> int:
        """Of the run that most of them made; 1 without a run."""
        return max((one.processes for one in self.actions if isinstance(one, Trained)), default=1)
