"""The part of a session that proposes what to leave in float, and does it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from torch import nn

from qatexplorer.accuracy.propose import Ground, Treatment, Trials, Wish, propose, widened
from qatexplorer.accuracy.records import Method, Proposal, ProposalPoint, Sensitivity
from qatexplorer.accuracy.sensitivity.rank import MetricMode
from qatexplorer.accuracy.sensitivity.sites import Subject
from qatexplorer.errors import InputError, QConfigError
from qatexplorer.flows.exceptions import with_exceptions
from qatexplorer.flows.qconfig import QConfigPlan
from qatexplorer.session.measured import Measured
from qatexplorer.session.part import Part
from qatexplorer.session.settings import Settings
from qatexplorer.session.stages import EventKind
from qatexplorer.snapshot.records import Snapshot


@dataclass(frozen=True)
class _Applied:
    point: ProposalPoint
    before: QConfigPlan
    after: QConfigPlan


class ProposePart(Part):
    """Mixed precision from a ranking of fake quants."""

    _last: Measured
    _trials: tuple[tuple[Any, ...], Trials] | None = None
    _proposal: Proposal | None = None
    _applied: tuple[_Applied, ...] = ()

    @property
    def last_sensitivity(self) -> Mapping[Method, Sensitivity]:
        """What was ranked."""
        raise NotImplementedError

    def _sensitivity_subject(self) -> Subject:
        raise NotImplementedError

    def _usual_mode(self) -> MetricMode:
        raise NotImplementedError

    def _start_again(
        self, settings: Settings | None, *events: EventKind, base: nn.Module | None = None
    ) -> Snapshot:
        raise NotImplementedError

    def propose(
        self,
        *,
        wished_metric: float | None = None,
        max_drop: float | None = None,
        treatment: Treatment = "float",
        ranking: Sensitivity | None = None,
        metric_mode: MetricMode | None = None,
        batches: int | None = None,
        progress: Callable[[str, float], Any] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> Proposal:
        """Which modules to leave in float, so that the fake-quant model reaches a wished metric.

        The metric of every point is measured on the model as it is (trained or calibrated) with
        the fake quants off that torch does not make where these modules have no qconfig. The
        search is greedy along the ranking, see :mod:`qatexplorer.accuracy.propose`: it gives the
        smallest set found. Sets that were measured before are not measured again while the model
        stays as it is, so another wish costs little.

        Args:
            wished_metric: metric to reach, in the metric's own unit; or
            max_drop: how much worse than the float model it may be at the most.
            treatment: ``"float"``, or a number of bits, 3 to 8: weights with fewer get as many.
            ranking: what :meth:`sensitivity` gave; None takes that of the exact method, if it was
                made, else of the gradient, else of the shadow method.
            metric_mode: ``"min"`` for a metric of which less is better, such as a loss; None is
                what the newest run has, or ``"max"``.
            batches: of the evaluation data, the first ones; None takes all.
            progress: called with what is measured and the share of the work done, 0 to 1.
            should_stop: asked between batches; True ends it, with the points measured by then.

        A copy of the model runs; nothing in the session changes. Raises NoDataError, BusyError,
        StageError (no fake quants, or they have seen no data), InputError.
        """
        wish = _wish(wished_metric, max_drop, metric_mode or self._usual_mode())
        _check_treatment(treatment)
        self._require_treatment(treatment)
        self._require_data("a proposal")
        with self._lock:
            self._require_idle("measure mixed precision")
            trials = self._trials_of(treatment, batches)
            ranking = self._best_ranking() if ranking is None else ranking
            self._measured, of = "mixed precision", self._last.now
        try:
            found = propose(trials, ranking, wish, progress, should_stop)
            self._proposal = found = self._with_int8(found)
            self._last.keep(of, proposal=found)
        finally:
            self._measured = ""
        return found

    @property
    def last_proposal(self) -> Proposal | None:
        """What :meth:`propose` gave last."""
        return self._proposal

    def apply(self, point: ProposalPoint) -> Snapshot:
        """Leave the modules of ``point`` in float (or give their weights more bits), and start
        again from the float stage, as :meth:`configure` does; :meth:`take_back_point` undoes it.

        Raises BusyError, InputError (QConfigError for a module that the model does not have).
        """
        with self._lock:
            self._require_idle("change the settings")
            before = self._models.options.qconfig
            after = with_exceptions(before, self._exceptions(point))
            after.as_mapping(self._models.base)  # raises for a path that is not there
            snapshot = self._use_plan(after)
            self._applied = (*self._applied, _Applied(point, before, after))
        return snapshot

    @property
    def applied(self) -> ProposalPoint | None:
        """The point of :meth:`apply` that is in force; None where the qconfig is another."""
        last = self._applied[-1] if self._applied else None
        in_force = last is not None and last.after is self._models.options.qconfig
        return last.point if in_force and last is not None else None

    def take_back_point(self) -> Snapshot:
        """Have the qconfig again that was in force before the last :meth:`apply`, and start again
        from the float stage. Raises BusyError, InputError where none is in force."""
        with self._lock:
            self._require_idle("change the settings")
            if self.applied is None:
                raise InputError(
                    "there is no applied point to take back.",
                    why="None was applied, or the qconfig has been changed since.",
                    fix="Set the qconfig that you want with session.configure(qconfig=…).",
                )
            *rest, last = self._applied
            self._applied = tuple(rest)
            return self._use_plan(last.before)

    # -- inside ---------------------------------------------------------------------------------

    def _require_treatment(self, treatment: Treatment) -> None:
        flow = self.flow
        if treatment != "float" and not flow.offers_qconfig:
            raise InputError(
                f"in flow {flow.name!r} no proposal can give weights {treatment} bits.",
                why="How many bits a weight has is decided for all of them, not by a qconfig.",
                fix="Use treatment='float'.",
            )
        why = flow.cannot_leave_float(self._models.options)
        if why:
            raise InputError(
                "no module can be left in float on its own.",
                why=why,
                fix="Use a session with quantizer='x86'.",
            )

    def _best_ranking(self) -> Sensitivity:
        made = self.last_sensitivity
        methods: tuple[Method, ...] = ("exact", "gradient", "shadow")
        known = [made[method] for method in methods if method in made]
        if not known:
            raise InputError(
                "there is no ranking of the fake quants yet.",
                fix='Call session.sensitivity("shadow") first, or pass ranking=.',
            )
        return known[0]

    def _use_plan(self, plan: QConfigPlan) -> Snapshot:
        settings = self._models.settings
        options = replace(settings.options, qconfig=plan)
        return self._start_again(replace(settings, options=options), "config")

    def _exceptions(self, point: ProposalPoint) -> dict[str, Any]:
        if point.treatment == "float":
            return dict.fromkeys(point.modules)
        stage = self.flow.prepared_stage
        if stage not in self._stages.snapshots:
            self.goto(stage)
        model, snapshot = self._models.rebuild(stage), self._stages.snapshots[stage]
        bits = int(point.treatment)
        found = {path: widened(path, model, snapshot, bits) for path in point.modules}
        for path, qconfig in found.items():
            if qconfig is None:
                raise QConfigError(
                    f"the weight at {path!r} cannot be given {bits} bits.",
                    where=path,
                    why="It has no fake quant, or a factory that takes no quant_min and quant_max.",
                    fix="Pass session.configure(qconfig={path: …}) a qconfig of your own for it.",
                )
        return found

    def _trials_of(self, treatment: Treatment, batches: int | None) -> Trials:
        models, stage = self._models, self.flow.prepared_stage
        data, subject = self._require_data("a proposal"), self._sensitivity_subject()
        key = (models.options, subject.fingerprint, treatment, batches)
        if self._trials is not None and _same(self._trials[0], key):
            return self._trials[1]

        def prepare(plan: QConfigPlan) -> nn.Module:
            return models.rebuild(stage, options=replace(models.options, qconfig=plan))

        chosen = data.eval if batches is None else list(islice(iter(data.eval), batches))
        ground = Ground(
            subject.model,
            self._stages.snapshots[stage],
            models.base,
            models.options.qconfig,
            prepare,
            chosen,
            self.metric,
            models.macs,
        )
        self._trials = (key, Trials(ground, treatment))
        return self._trials[1]

    def _with_int8(self, found: Proposal) -> Proposal:
        """With the reason, where the int8 model of the chosen point does not run."""
        if found.chosen is None or not found.chosen.modules or not found.complete:
            return found
        plan = with_exceptions(self._models.options.qconfig, self._exceptions(found.chosen))
        tried = self._assessor.preflight_of(replace(self._models.options, qconfig=plan))
        if tried.ok or tried.error is None:
            return found
        return replace(found, int8_error=tried.error.message)


def _same(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    return one[0] is other[0] and one[1:] == other[1:]


def _wish(metric: float | None, drop: float | None, mode: MetricMode) -> Wish:
    if (metric is None) == (drop is None):
        raise InputError(
            "a proposal needs one goal, wished_metric or max_drop.",
            fix="Pass wished_metric=0.95, or max_drop=0.01 for at most 0.01 below float.",
        )
    if mode not in ("max", "min"):
        raise InputError(f"metric_mode is {mode!r}.", fix="Use metric_mode='max' or 'min'.")
    return Wish(metric, drop or 0.0, mode)


def _check_treatment(treatment: Any) -> None:
    bits = isinstance(treatment, int) and not isinstance(treatment, bool) and 3 <= treatment <= 8
    if treatment != "float" and not bits:
        raise InputError(
            f"treatment is {treatment!r}.",
            fix="Use treatment='float', or a number of bits, 3 to 8.",
        )
