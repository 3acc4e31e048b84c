"""What was measured last of a session's model, until it changes."""

from __future__ import annotations

import threading

from qatexplorer.accuracy.records import Proposal
from qatexplorer.evaluate.benchmark_records import Benchmark
from qatexplorer.evaluate.evaluation import Evaluation
from qatexplorer.evaluate.switching import Switching


class Measured:
    """The newest evaluation, benchmark, proposal, and what switching fake quants off changed. Most
    are made without the session's lock: what the model was changed under is not kept."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now = 0
        self.evaluation: Evaluation | None = None
        self.benchmark: Benchmark | None = None
        self.proposal: Proposal | None = None
        self.switching: Switching | None = None

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
        switching: Switching | None = None,
    ) -> None:
        """What was measured, unless the model that was ``now`` then has changed since."""
        with self._lock:
            if of == self._now:
                self.evaluation = evaluation or self.evaluation
                self.benchmark = benchmark or self.benchmark
                self.proposal = proposal or self.proposal
                self.switching = switching or self.switching

    def forget(self) -> None:
        """The model has changed."""
        with self._lock:
            self._now += 1
            self.evaluation = self.benchmark = self.proposal = self.switching = None
