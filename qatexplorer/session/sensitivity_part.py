"""The part of a session that ranks the fake quants by what they cost."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal, get_args

from qatexplorer.accuracy.records import Method, Sensitivity
from qatexplorer.accuracy.sensitivity.job import Job, Judge
from qatexplorer.accuracy.sensitivity.kept import Folder, Kept
from qatexplorer.accuracy.sensitivity.rank import MetricMode, compared, measure
from qatexplorer.accuracy.sensitivity.sites import Subject, subject_of
from qatexplorer.errors import InputError, StageError
from qatexplorer.session.part import Part

BATCHES = 8
_WHAT = "the sensitivity"


class Sensitivities:
    """The newest one of each method, and what was measured for it, until the model
    changes."""

    def __init__(self) -> None:
        self._made: dict[Method, Sensitivity] = {}
        self._kept: dict[Method, Kept] = {}

    def forget(self) -> None:
        """The model has changed."""
        self._made.clear()
        self._kept.clear()

    @property
    def made(self) -> Mapping[Method, Sensitivity]:
        return MappingProxyType(self._made)

    def kept(self, method: Method, key: dict[str, str], folder: Folder | None) -> Kept:
        """What is known for ``key`` already, here or in ``folder``; whichever is more."""
        here, there = self._kept.get(method), folder.read(key) if folder is not None else None
        known = [one for one in (here, there) if one is not None and one.key == key]
        kept = max(known, key=lambda one: one.seconds, default=None) or Kept(key)
        self._kept[method] = kept
        return kept

    def add(self, made: Sensitivity) -> Sensitivity:
        """Keep it; all that there are get their correlation with the exact one."""
        self._made[made.method] = made
        exact = self._made.get("exact")
        for method, one in list(self._made.items()):
            self._made[method] = compared(one, exact)
        return self._made[made.method]


class SensitivityPart(Part):
    """What each fake quant costs."""

    _sensitivities: Sensitivities

    def sensitivity(
        self,
        method: Method = "exact",
        *,
        batches: int | None = BATCHES,
        progress: Callable[[str, float], Any] | None = None,
        should_stop: Callable[[], bool] | None = None,
        folder: str | os.PathLike[str] | None = None,
        metric_mode: MetricMode | None = None,
        totals: bool = False,
        memory_mb: int = 1024,
    ) -> Sensitivity:
        """Rank the fake quants of the prepared model by what they cost, on the evaluation data.

        Args:
            method: ``"exact"`` measures metric and loss with only each fake quant on, and with all
                but each; ``"shadow"`` compares what each module gives with and without it on the
                same inputs; ``"gradient"`` weighs that error by the loss's gradient.
            batches: of ``data.eval`` to use, from its first; None for all.
            progress: called with what is being done, with an estimate of the time left, and the
                share done (0 to 1), on this thread.
            should_stop: asked between forwards; True ends it with what there is by then
                (``complete`` is False). Asked again, it goes on from there.
            folder: to keep what is measured in too, as JSON, and to go on from.
            metric_mode: whether a high (``"max"``) or a low metric is good; None is what the
                newest run has, or ``"max"``.
            totals: measure the metric of the quantized model and of weights and activations alone
                with the other two methods too, in three more forwards a batch.
            memory_mb: for the results of modules that the exact method remembers, of one batch.

        A copy of the model runs, in eval mode, on the grids that it has: nothing in the session
        changes, and what was measured is kept until its model does. Raises NoDataError, StageError
        (no fake quants, or they have seen no data), BusyError, InputError (RunFolderError), and
        what model, loss and metric raise.
        """
        _check_arguments(method, batches, metric_mode, memory_mb)
        data = self._require_data("the sensitivity")
        with self._lock:
            self._require_idle("measure the sensitivity")
            subject = self._sensitivity_subject()
            judge = Judge(self.metric, self.loss)
            key = {
                "model": subject.fingerprint,
                "method": method,
                "metric": judge.name,
                "loss": judge.loss_name,
            }
            kept_in = Folder(folder, method) if folder is not None else None
            kept = self._sensitivities.kept(method, key, kept_in)
            self._measured = _WHAT
        try:
            job = Job(kept, judge, batches, kept_in, progress, should_stop)
            mode = metric_mode or self._usual_mode()
            made = measure(
                subject, data.eval, job, method, limit=memory_mb << 20, totals=totals, mode=mode
            )
        finally:
            self._measured = ""
        return self._sensitivities.add(made)

    @property
    def last_sensitivity(self) -> Mapping[Method, Sensitivity]:
        """What :meth:`sensitivity` gave last, by method; empty after a change of the model."""
        return self._sensitivities.made

    def _sensitivity_subject(self) -> Subject:
        stages, flow = self._stages, self.flow
        if flow.prepared_stage not in stages.snapshots:
            raise StageError(
                "there are no fake quants yet.",
                why=f"They are all there from stage {flow.prepared_stage!r} on.",
                fix=f"Call session.goto({flow.prepared_stage!r}) first.",
            )
        snapshot = stages.snapshots[flow.prepared_stage]
        owners = {path: site.owner for path, site in snapshot.site_by_path.items()}
        return subject_of(self._models.work, owners)

    def _usual_mode(self) -> Literal["max", "min"]:
        return self._run.config.metric_mode if self._run is not None else "max"


def _check_arguments(
    method: Method, batches: int | None, mode: MetricMode | None, memory_mb: int
) -> None:
    if method not in get_args(Method):
        names = ", ".join(map(repr, get_args(Method)))
        raise InputError(f"there is no method {method!r}.", fix=f"The methods are: {names}.")
    if batches is not None and batches < 1:
        raise InputError(
            f"batches is {batches}, and a sensitivity needs one at least.",
            fix="Pass a number of batches, or batches=None for all.",
        )
    if mode not in (None, "max", "min"):
        raise InputError(
            f"metric_mode is {mode!r}.",
            fix="Use 'max' where a high metric is good, 'min' where a low one is.",
        )
    if memory_mb < 0:
        raise InputError(f"memory_mb is {memory_mb}.", fix="Pass 0 to remember nothing, or more.")
