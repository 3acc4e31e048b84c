"""The newest check of a session, until what it looked at changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from qatexplorer.checks.records import Finding, Findings, worst_first
from qatexplorer.checks.rules import RULES
from qatexplorer.checks.run import check
from qatexplorer.checks.silence import silenced, silences
from qatexplorer.checks.subject import Subject
from qatexplorer.data import Data
from qatexplorer.session.models import Models
from qatexplorer.session.stages import Stages
from qatexplorer.training.run import TrainingRun


class Checked:
    """Makes it and keeps it. ``findings`` is None before there is one that is still true."""

    def __init__(
        self, models: Models, stages: Stages, data: Data | None, loss: Any, metric: Any
    ) -> None:
        self._models, self._stages, self._data = models, stages, data
        self._loss, self._metric = loss, metric
        self.findings: Findings | None = None
        self.found: tuple[Finding, ...] = ()

    def forget(self) -> None:
        """The model or its settings have changed."""
        self.findings, self.found = None, ()

    def make(
        self,
        known: Callable[[], tuple[Finding, ...]],
        run: TrainingRun | None,
        progress: Callable[[str, float], Any] | None,
        should_stop: Callable[[], bool] | None,
        silence: Any = (),
    ) -> Findings:
        """Check the model; what the session knows itself comes with what the rules find."""
        entries = silences(silence)
        subject = self._subject(run)
        if should_stop is not None:
            subject.should_stop = should_stop
        of_rules = check(subject, progress=progress)
        self.found = tuple(f for f in of_rules.found if not any(e.covers(f) for e in entries))
        # The session always looks for its own.
        asked = (*of_rules.checked, *(one.id for one in RULES.values() if one.ask is None))
        found = worst_first((*known(), *of_rules.found))
        every = replace(of_rules, found=found, checked=tuple(sorted(asked)))
        self.findings = silenced(every, entries)
        return self.findings

    def _subject(self, run: TrainingRun | None) -> Subject:
        models = self._models
        return Subject(
            maker=models,
            base=models.base,
            flow=models.flow,
            options=models.options,
            data=self._data,
            loss=self._loss,
            metric=self._metric,
            snapshots=dict(self._stages.snapshots),
            stage=self._stages.current,
            work=models.work,
            work_stage=models.work_stage,
            observed=models.observed and not models.never_observed,
            int8=models.int8,
            run=run,
        )
