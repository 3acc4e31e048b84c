"""The part of a session that says what to try next."""

from __future__ import annotations

from collections.abc import Mapping

from qatexplorer.accuracy.records import ProposalPoint
from qatexplorer.accuracy.sensitivity.rank import MetricMode
from qatexplorer.advice import TOLERATED, Advice, Facts, advise
from qatexplorer.cures import Cured, Ground
from qatexplorer.errors import InputError, QConfigError
from qatexplorer.evaluate.metric import MetricValue
from qatexplorer.flows.qconfig_rules import QConfigRule
from qatexplorer.forward.histograms import GridHistogram
from qatexplorer.session.compared import Compared
from qatexplorer.session.histograms import Histograms
from qatexplorer.session.measured import Measured
from qatexplorer.session.part import Part
from qatexplorer.session.sensitivity_part import Sensitivities
from qatexplorer.takehome.records import Trained
from qatexplorer.training.run import TrainingRun


class AdvicePart(Part):
    """What to try, from what is known of the model."""

    _compared: Compared
    _histograms: Histograms
    _last: Measured
    _sensitivities: Sensitivities

    @property
    def applied(self) -> ProposalPoint | None:
        """The point of mixed precision in force."""
        raise NotImplementedError

    @property
    def cured(self) -> tuple[Cured, ...]:
        """The cures in force."""
        raise NotImplementedError

    def _ground(self) -> Ground:
        raise NotImplementedError

    def _refuse_what_has_no_kernel(self, rules: tuple[QConfigRule, ...]) -> None:
        raise NotImplementedError

    def _usual_mode(self) -> MetricMode:
        raise NotImplementedError

    def advice(self, *, tolerated: float = TOLERATED) -> Advice:
        """What to try next with this model, in which order, what each costs and how sure it is.

        It comes from what is known by now: findings, accuracies, sensitivity, comparison,
        histograms, cures in force, the engine's probe, and training. No forward of the model is
        made: what is not known is proposed to be measured. Weights are read, which takes a moment
        for a large model.

        Args:
            tolerated: share of the float model's metric that int8 may lose; where it loses no
                more, nothing is proposed to win it back.

        Raises InputError for a share below 0.
        """
        if not tolerated >= 0:
            raise InputError(f"tolerated is {tolerated!r}; it is a share of the metric, 0 or more.")
        with self._lock:
            return advise(self._facts(tolerated))

    def _facts(self, tolerated: float) -> Facts:
        models, stages, run = self._models, self._stages, self._run
        ground, flow = self._ground(), self.flow
        trained = run if any(isinstance(one, Trained) for one in models.done) else None
        histograms, seen_in = self._newest_histograms(trained)
        return Facts(
            ground=ground,
            stage=self.stage,
            prepared=flow.prepared_stage,
            model=type(models.base).__name__,
            make_prepared=lambda: models.rebuild(flow.prepared_stage),
            refused=self._why_refused,
            resolver=lambda: models.options.qconfig.everywhere(models.base, flow.by_graph),
            data=self.data,
            snapshots=dict(stages.snapshots),
            findings=self._checks.causes,
            checked=self._checks.findings,
            metrics=self._known_metrics(),
            mode=self._usual_mode(),
            tolerated=tolerated,
            sensitivities=dict(self._sensitivities.made),
            mixed=self._last.proposal,
            comparison=self._compared.last,
            histograms=histograms,
            seen_in=seen_in,
            cured=self.cured,
            history=trained.history if trained is not None else None,
            config=trained.config if trained is not None else None,
            concern=models.options.qconfig.concern,
            running=self.running,
            evaluated=self._last.evaluation is not None,
        )

    def _newest_histograms(
        self, run: TrainingRun | None
    ) -> tuple[Mapping[str, GridHistogram], str]:
        """Those of the stage in view if they were made, else those that training took last; and
        what they are of."""
        known = self._histograms.known
        if known:
            return known, "a forward of the example input"
        telemetry = run.history.telemetry if run is not None else None
        if telemetry is None:
            return {}, ""
        step, _ = telemetry.newest_counts()
        sampled = {path: telemetry.histogram(path) for path in telemetry.paths}
        found = {path: one for path, one in sampled.items() if one is not None}
        return found, f"a batch at step {step or 0:,} of training"

    def _known_metrics(self) -> dict[str, MetricValue]:
        """As the models are now; that of a cure in force is of the model that it left."""
        found = self._assessor.known
        for cured in self.cured:
            if cured.judged == "ptq":
                found.setdefault("ptq", cured.after)
        return found

    def _why_refused(self, rules: tuple[QConfigRule, ...]) -> str:
        try:
            self._refuse_what_has_no_kernel(rules)
        except QConfigError as error:
            return error.message
        return ""
