"""The newest check of a session, until what it looked at changes."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from typing import Any

from qatexplorer.checks.evidence.dry_run import dry_run
from qatexplorer.checks.records import Finding, Findings, worst_first
from qatexplorer.checks.rules import RULES
from qatexplorer.checks.run import check
from qatexplorer.checks.silence import silenced, silences
from qatexplorer.checks.subject import NoEvidence, Subject
from qatexplorer.data import Data
from qatexplorer.session.known import Known
from qatexplorer.session.models import Models
from qatexplorer.session.stages import Stages
from qatexplorer.training.run import TrainingRun


class Checked:
    """Makes it and keeps it. ``findings`` is None before there is one that is still true."""

    def __init__(
        self,
        models: Models,
        stages: Stages,
        known: Known,
        data: Data | None,
        loss: Any,
        metric: Any,
    ) -> None:
        self._models, self._stages, self._known, self._data = models, stages, known, data
        self._loss, self._metric = loss, metric
        self.findings: Findings | None = None
        self.found: tuple[Finding, ...] = ()

    def forget(self) -> None:
        """The model or its settings have changed."""
        self.findings, self.found = None, ()

    @property
    def causes(self) -> tuple[Finding, ...]:
        """All that is known to be wrong, the worst first; where a rule names the cause of an error,
        it stands for the error."""
        of_rules, general = without_generals(self.found, self._known.found())
        silent = {one.key for one in self.findings.silenced} if self.findings is not None else set()
        return worst_first(tuple(f for f in (*general, *of_rules) if f.key not in silent))

    def make(
        self,
        lock: AbstractContextManager[Any],
        run: TrainingRun | None,
        progress: Callable[[str, float], Any] | None,
        should_stop: Callable[[], bool] | None,
        silence: Any = (),
        thorough: bool = False,
    ) -> Findings:
        """Check the model; what the session knows itself comes with what the rules find. The
        caller holds ``lock``."""
        entries = silences(silence)
        subject = self._subject(run, thorough)
        if should_stop is not None:
            subject.should_stop = should_stop
        of_rules = check(subject, progress=progress)
        with suppress(NoEvidence):
            self._known.learn(subject.get(dry_run))
        self._known.try_int8(lock, lambda: True)
        of_rules_found, general = without_generals(
            without_repeats(of_rules.found), self._known.found()
        )
        self.found = tuple(f for f in of_rules_found if not any(e.covers(f) for e in entries))
        # The session always looks for its own.
        asked = (*of_rules.checked, *(one.id for one in RULES.values() if one.ask is None))
        found = worst_first((*general, *of_rules_found))
        every = replace(of_rules, found=found, checked=tuple(sorted(asked)))
        self.findings = silenced(every, entries)
        return self.findings

    def _subject(self, run: TrainingRun | None, thorough: bool = False) -> Subject:
        models = self._models
        return Subject(
            maker=models,
            base=models.base,
            flow=models.flow,
            options=models.options,
            edits=models.edits,
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
            calibrated=models.calibrated,
            thorough=thorough,
        )


_CONSEQUENCES = ("no-int8-kernel", "unfused-batch-norm")
_OF_LAYERS = ("layers", "weights", "kinds")


def without_repeats(found: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """Without what follows, at the same module, from an error that a rule of layers explains."""
    named = {
        one.path for one in found if one.severity == "error" and RULES[one.id].family in _OF_LAYERS
    }
    return tuple(one for one in found if one.name not in _CONSEQUENCES or one.path not in named)


GENERAL = ("int8-fails", "cannot-prepare")
"""Findings that repeat torch's error; a rule that knows the cause says it better."""
_NO_CRASH = "float-parity"


def without_generals(
    found: tuple[Finding, ...], known: tuple[Finding, ...]
) -> tuple[tuple[Finding, ...], tuple[Finding, ...]]:
    """``found`` and ``known`` without the general errors of a place of which ``found`` names the
    cause. The calls that have been shown to help come with the cause, if it has none itself."""
    kept: list[Finding] = []
    causes = list(found)
    for general in known:
        same = [i for i, one in enumerate(causes) if _names_the_cause(one, general)]
        for index in same:
            causes[index] = replace(causes[index], fixes=causes[index].fixes or general.fixes)
        kept += [] if same else [general]
    return tuple(causes), tuple(kept)


def _names_the_cause(one: Finding, general: Finding) -> bool:
    if general.name not in GENERAL or one.severity != "error" or one.name == _NO_CRASH:
        return False
    same_line = general.source != "" and one.source == general.source
    at = general.path.removeprefix("module.")  # a QuantWrapper around the whole
    same_place = at != "" and one.path in (general.path, at)
    return same_line or same_place or (at == "" and _says_the_same(one, general))


def _says_the_same(one: Finding, general: Finding) -> bool:
    """Whether torch's error, which names no place, is one of the symptoms of the rule."""
    _, error, text = general.message.partition("Error: ")
    return bool(error) and _plain(text)[:_ENOUGH] in _plain(RULES[one.id].symptom)


_ENOUGH = 40  # characters of torch's text


def _plain(text: str) -> str:
    """Without what differs from model to model: numbers, and where lines break."""
    return re.sub(r"\d", "", " ".join(text.split())).strip(" .")
