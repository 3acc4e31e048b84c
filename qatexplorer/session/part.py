"""What the parts of a session's class share."""

from __future__ import annotations

import threading
from typing import Any

from torch import nn

from qatexplorer.data import Data
from qatexplorer.evaluate.metric import Metric
from qatexplorer.flows import Flow
from qatexplorer.session.assess import Assessor
from qatexplorer.session.checked import Checked
from qatexplorer.session.known import Known
from qatexplorer.session.models import Models
from qatexplorer.session.refusals import busy, in_training, measuring, needed
from qatexplorer.session.stages import EventKind, SessionEvent, Stages
from qatexplorer.shown import Shown
from qatexplorer.signals import Signal
from qatexplorer.snapshot.records import Snapshot
from qatexplorer.training.control import FINAL
from qatexplorer.training.run import TrainingRun


class Part(Shown):
    """Base of the classes that :class:`~qatexplorer.session.session.Session` is made of: one for
    what can be asked for in one room, all of one object. What is kept is in objects of their own.
    """

    signal: Signal[SessionEvent]
    data: Data | None
    loss: Any
    metric: Metric | None
    _models: Models
    _stages: Stages
    _assessor: Assessor
    _known: Known
    _checks: Checked
    _lock: threading.RLock
    _run: TrainingRun | None
    _measured: str = ""
    """What is measured on a copy that has the parameters in common, without the lock; ``""`` for
    nothing."""

    @property
    def flow(self) -> Flow:
        """The quantization system, with its stages."""
        return self._models.flow

    @property
    def stage(self) -> str:
        """The stage in view."""
        return self._stages.current

    @property
    def snapshot(self) -> Snapshot:
        """Snapshot of the stage in view."""
        return self._stages.snapshot

    def goto(self, stage: str) -> Snapshot:
        """Walk to a stage."""
        raise NotImplementedError

    @property
    def running(self) -> bool:
        """Whether a run is about to start, going on or paused."""
        return self._run is not None and self._run.state not in FINAL

    def _require_data(self, purpose: str) -> Data:
        return needed(self.data, purpose)

    def _require_still(self, model: nn.Module) -> None:
        """Ask with the lock held: a run begins with it held."""
        if self.running and model is self._models.work:
            raise in_training(self.flow.prepared_stage)

    def _require_idle(self, what: str) -> None:
        if self.running:
            raise busy(what)
        if self._measured:
            raise measuring(what, self._measured)

    def _emit(self, kind: EventKind, detail: Any = None) -> None:
        self.signal.emit(SessionEvent(kind, detail))
