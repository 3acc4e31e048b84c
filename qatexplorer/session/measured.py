"""What was measured last of a session's model, until it changes."""

from __future__ import annotations

import threading

from qatexplorer.accuracy.records import Proposal
from qatexplorer.evaluate.benchmark_records import Benchmark
from qatexplorer.evaluate.evaluation import Evaluation


class Measured:
    """The newest evaluation, benchmark and proposal. They are made without the session's lock: what
    the model was changed under is not kept."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now = 0
        self.evaluation: Evaluation | None = None
        self.benchmark: Benchmark | None = None
        self.proposal: Proposal | None = None

    @property
    def now(self) -> int:
        """Stands for the model as it is; to be asked before it is measured."""
        return self._now

    def keep(
        self,
        of: int,
        evaluation: Evaluation | None = None,
        benchmark: Benchmark | None = None,
        proposal: Proposal | None = None,
    ) -> None:
        """What was measured, unless the model that was ``now`` then has changed since."""
        with self._lock:
            if of == self._now:
                self.evaluation = evaluation or self.evaluation
                self.benchmark = benchmark or self.benchmark
                self.proposal = proposal or self.proposal

    def forget(self) -> None:
        """The model has changed."""
        with self._lock:
            self._now += 1
            self.evaluation = self.benchmark = self.proposal = None
