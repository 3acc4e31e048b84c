"""The part of a session that writes down all that is known of it, as one page."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qatexplorer.accuracy.records import Comparison, Method, Proposal, Sensitivity
from qatexplorer.checks.records import Finding, Findings
from qatexplorer.cures import Cured
from qatexplorer.errors import QatExplorerError
from qatexplorer.evaluate.benchmark_records import Benchmark
from qatexplorer.evaluate.evaluation import Evaluation
from qatexplorer.flows.base import Flow
from qatexplorer.flows.pt2e_quantizers import name_of
from qatexplorer.forward.histograms import GridHistogram
from qatexplorer.ledger.records import Ledger
from qatexplorer.quantizers.environment import Environment, environment
from qatexplorer.reports import check_free, write_report
from qatexplorer.runs.config import TrainingConfig
from qatexplorer.runs.opened import OpenedRun, open_run
from qatexplorer.runs.records import History
from qatexplorer.runs.run_writer import config_as_data
from qatexplorer.session.compared import Compared
from qatexplorer.session.histograms import Histograms
from qatexplorer.session.ledgers import Ledgers, Wanted
from qatexplorer.session.measured import Measured
from qatexplorer.session.part import Part
from qatexplorer.session.sensitivity_part import Sensitivities
from qatexplorer.session.stopping import unless_stopped
from qatexplorer.shown import error_line
from qatexplorer.snapshot.diff import Diff
from qatexplorer.snapshot.records import Snapshot

Progress = Callable[[str], Any]


@dataclass(frozen=True)
class ReportedTraining:
    """A run of training: its curves, its settings as data, and where it is kept (``""`` for
    nowhere). ``calibrated`` counts samples that the observers saw without training."""

    history: History | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    state: str = ""
    folder: str = ""
    calibrated: int = 0


@dataclass(frozen=True)
class Reported:
    """What is known of a session at a moment; None is what was not measured.

    Attributes:
        model: name of its class. settings: (name, value) in words.
        flow: its stages, in order. stage: the one in view.
        snapshots: of the stages reached, by name. diffs: what each changed, by name.
        histogram_stage: stage whose fake quants the ``histograms`` (by path) are of.
        proposal: of mixed precision, the last one. proposal_is_old: the model is another since.
        cured: the cures that are on.
        missing: why a part that takes no measuring could not be made, by its name.
        check: of :meth:`~qatexplorer.session.session.Session.check`. findings: all that is known.
        run: another run, kept on disk, that is shown beside.
    """

    model: str
    flow: Flow
    stage: str
    settings: tuple[tuple[str, str], ...]
    snapshots: Mapping[str, Snapshot]
    diffs: Mapping[str, Diff | None]
    environment: Environment
    training: ReportedTraining
    findings: tuple[Finding, ...] = ()
    check: Findings | None = None
    ledger: Ledger | None = None
    histograms: Mapping[str, GridHistogram] = field(default_factory=dict)
    histogram_stage: str = ""
    comparison: Comparison | None = None
    sensitivities: Mapping[Method, Sensitivity] = field(default_factory=dict)
    evaluation: Evaluation | None = None
    benchmark: Benchmark | None = None
    proposal: Proposal | None = None
    proposal_is_old: bool = False
    cured: tuple[Cured, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)
    run: OpenedRun | None = None


class ReportPart(Part):
    """What is known, as one HTML file."""

    _compared: Compared
    _histograms: Histograms
    _last: Measured
    _ledgers: Ledgers
    _sensitivities: Sensitivities

    def report(
        self,
        path: str | os.PathLike[str] = "report.html",
        *,
        overwrite: bool = False,
        run_dir: str | os.PathLike[str] | None = None,
        progress: Progress | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> Path:
        """Write all that is known to one HTML file that needs no network and no script.

        Stages with what each changed, tree and graph of each, findings, ledger, training curves,
        histograms, the cures that are on, and what was measured by :meth:`compare`,
        :meth:`sensitivity`, :meth:`propose`, :meth:`evaluate` and :meth:`benchmark`; what was not
        measured is said to be missing. Ledger, histograms and :meth:`findings` are made if need be,
        in a few forwards of the example input and one convert of a copy; nothing else is run.

        Args:
            path: of the file; its folder is made. overwrite: replace a file that is there.
            run_dir: a kept run whose curves and samples are shown too.
            progress: called with what is being done. should_stop: asked between its parts.

        Returns the absolute path. Raises ReportError and StoppedError (then what was there before
        stays), RunFolderError, and BusyError while a run is going on:
        ``open_run(folder).report()`` has its curves.
        """
        check_free(path, overwrite)
        run = None if run_dir is None else open_run(run_dir)
        say = unless_stopped("the report", progress, should_stop)
        known = self._reported(say, run)
        say("drawing the page")
        return write_report(known, path, overwrite)

    def _reported(self, say: Progress, run: OpenedRun | None = None) -> Reported:
        with self._lock:
            self._require_idle("write a report")
            stages, flow = self._stages, self.flow
            missing: dict[str, str] = {}
            say("looking at the findings")
            findings = self.findings()
            say("making the ledger")
            ledger = self._made("ledger", lambda: self._ledgers.of(
                None, Wanted(0, False), self._run, False), missing)  # fmt: skip
            stage = self._stage_of_histograms()
            say("making the histograms")
            histograms = self._made("histograms", lambda: self._histograms.of(stage), missing)
            reached = stages.snapshots
            return Reported(
                model=reached[stages.names[0]].modules[0].type_name,
                flow=flow,
                stage=self.stage,
                settings=tuple(self._settings_in_words()),
                snapshots=dict(reached),
                diffs={name: stages.diff_at(name) for name in reached},
                environment=environment(),
                training=self._reported_training(),
                findings=findings,
                check=self._checks.findings,
                ledger=ledger,
                histograms=histograms or {},
                histogram_stage=stage,
                comparison=self._compared.last,
                sensitivities=dict(self._sensitivities.made),
                evaluation=self._last.evaluation,
                benchmark=self._last.benchmark,
                proposal=self.last_proposal,
                proposal_is_old=self.last_proposal is not self._last.proposal,
                cured=self.cured,
                missing=missing,
                run=run,
            )

    def findings(self, *, try_int8: bool = True) -> tuple[Finding, ...]:
        """What is known to be wrong."""
        raise NotImplementedError

    @property
    def last_proposal(self) -> Proposal | None:
        """What was proposed."""
        raise NotImplementedError

    @property
    def cured(self) -> tuple[Cured, ...]:
        """The cures that are on."""
        raise NotImplementedError

    @staticmethod
    def _made(name: str, make: Callable[[], Any], missing: dict[str, str]) -> Any:
        """What ``make`` gives; where it cannot, why."""
        try:
            return make()
        except QatExplorerError as error:
            missing[name] = error.message
        except Exception as error:  # of the user's forward
            missing[name] = f"The model raised {error_line(error)}"
        return None

    def _stage_of_histograms(self) -> str:
        """The newest stage with fake quants that was reached."""
        with_sites = [name for name, shot in self._stages.snapshots.items() if shot.sites]
        return with_sites[-1] if with_sites else self.stage

    def _settings_in_words(self) -> list[tuple[str, str]]:
        options = self._models.options
        plan, flow = options.qconfig, self.flow
        found = [("flow", flow.title)]
        if flow.offers_quantizer:
            found.append(("quantizer", name_of(options.quantizer)))
        else:
            found += [("qconfig", plan.name), ("int8 engine", str(plan.backend))]
        if flow.offers_stubs:
            found.append(("stubs", options.stubs))
            groups = [" + ".join(group) for group in options.fusion]
            found.append(("fused", ", ".join(groups) if len(groups) <= 6 else f"{len(groups):,} "
                          "groups of modules"))  # fmt: skip
        found += [("rules of the qconfig", f"{len(plan.rules):,}")] if plan.rules else []
        found += [("edited", str(edit)) for edit in self._models.edits]
        found.append(("data", "none" if self.data is None else self.data.name))
        return found

    def _reported_training(self) -> ReportedTraining:
        run = self._run
        if run is None:
            return ReportedTraining(calibrated=self._models.calibrated)
        config: TrainingConfig = run.config
        folder = "" if run.run_dir is None else str(run.run_dir)
        return ReportedTraining(
            run.history, config_as_data(config), run.state, folder, self._models.calibrated
        )
