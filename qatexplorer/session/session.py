"""The one state object: a model's way through a flow, its training, and what it is worth.

Everything a view shows comes from here, everything a click does goes here. No widget library is
imported, so scripts and CI use the very same object.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import nn

from qatexplorer._tested import warn_if_untested
from qatexplorer.checks.records import Finding, Findings, worst_first
from qatexplorer.data import Data, as_data
from qatexplorer.errors import StageError
from qatexplorer.evaluate.evaluation import Evaluation
from qatexplorer.evaluate.metric import Metric
from qatexplorer.evaluate.parity import Parity
from qatexplorer.flows import runnable_flow
from qatexplorer.flows.base import FlowOptions, StubMode
from qatexplorer.flows.copying import copied
from qatexplorer.flows.edits import Edit
from qatexplorer.flows.fusion import FusionRuns
from qatexplorer.flows.own_copy import in_plain_names
from qatexplorer.flows.own_qconfig import take_own_qconfigs
from qatexplorer.forward.histograms import GridHistogram
from qatexplorer.ledger.answers import Answer, answers
from qatexplorer.ledger.forwards import LedgerProgress
from qatexplorer.ledger.records import Ledger
from qatexplorer.session.advice_part import AdvicePart
from qatexplorer.session.assess import Assessor, Preflight, StubOption
from qatexplorer.session.benchmark_part import BenchmarkPart
from qatexplorer.session.checked import Checked
from qatexplorer.session.compare_part import ComparePart
from qatexplorer.session.compared import Compared
from qatexplorer.session.cures_part import CuresPart
from qatexplorer.session.editing import changed, with_edit
from qatexplorer.session.histograms import Histograms
from qatexplorer.session.inputs import check_model, copy_model, example_inputs_from, graph_of
from qatexplorer.session.int8_part import Int8Part
from qatexplorer.session.known import Known
from qatexplorer.session.ledgers import Ledgers, Wanted
from qatexplorer.session.lines import session_lines
from qatexplorer.session.measured import Measured
from qatexplorer.session.models import Models
from qatexplorer.session.overlays import Asked, Overlays
from qatexplorer.session.preview_part import PreviewPart
from qatexplorer.session.propose_part import ProposePart
from qatexplorer.session.qconfig_part import QConfigPart
from qatexplorer.session.report_part import ReportPart
from qatexplorer.session.sensitivity_part import Sensitivities, SensitivityPart
from qatexplorer.session.settings import Settings, qconfig_plan, settings_in
from qatexplorer.session.stages import EventKind, SessionEvent, Stages
from qatexplorer.session.sweep_part import SweepPart
from qatexplorer.session.switch_part import SwitchPart
from qatexplorer.session.takehome_part import TakehomePart
from qatexplorer.session.training_part import TrainingPart
from qatexplorer.session.warner import Warner
from qatexplorer.shown import at_most
from qatexplorer.signals import Signal
from qatexplorer.snapshot.diff import Diff
from qatexplorer.snapshot.overlay import Overlay
from qatexplorer.snapshot.records import Snapshot
from qatexplorer.training.run import TrainingRun

__all__ = ["Session", "SessionEvent"]


class Session(
    TrainingPart,
    TakehomePart,
    BenchmarkPart,
    ComparePart,
    Int8Part,
    SwitchPart,
    SensitivityPart,
    ProposePart,
    QConfigPart,
    PreviewPart,
    CuresPart,
    SweepPart,
    AdvicePart,
    ReportPart,
):
    """Takes a copy of a model through a quantization flow, trains it and runs it in int8.

    Args:
        model: a float ``torch.nn.Module``; it is copied, never changed and not kept.
        example_inputs: tensor, tuple of arguments or dict of keyword arguments for one forward;
            None takes the first training batch of ``data``.
        flow: name of the quantization system: ``"eager"``, ``"fx"``, ``"pt2e"`` or ``"torchao"``.
        qconfig: backend name, ``QConfig``, dict by module path or type, ``QConfigMapping``, or
            None: a probe of this CPU chooses qconfig and engine
            (:func:`quantizers.engine_choice.default_backend`). What is given wins over ``qconfig``
            attributes of the model (yours is not changed): for the whole, over the root's and those
            equal to it; by path, over those there and below. An attribute that differs (also None)
            stays, and notes name it. Without a qconfig the model's own attributes are used.
        data: train and eval iterables of (input, target), see :func:`qatexplorer.data.as_data`.
        loss: ``(output, target) -> scalar``, default cross entropy.
        metric: ``(output, target) -> float``, default top-1 accuracy.
        stubs: ``"none"``, ``"model"`` or ``"layers"``, see :data:`flows.base.StubMode`; eager only.
        fusion: groups of module paths to fuse; None finds them; eager only.
        qat_mapping: replaces torch's default QAT module mapping, or ``"attention"`` for the default
            without what breaks ``nn.MultiheadAttention``; eager only.
        engine: quantized engine for int8; default the backend that ``qconfig`` names, else the one
            that the probe chooses. One that computes wrong on this CPU is warned of
            (:class:`~qatexplorer.errors.EngineWarning`).
        non_traceable: paths or types of modules that FX leaves as one float call.
        prepare_custom_config, convert_custom_config: torch's ``PrepareCustomConfig`` and
            ``ConvertCustomConfig``, or the dicts that they are made from (eager takes dicts too).
        backend_config: what FX knows of the backend's operators: a ``BackendConfig`` or a name of
            :data:`flows.custom.BACKEND_CONFIGS`; None is torch's default.
        quantizer: of flow ``"pt2e"``: torchao's ``Quantizer`` object, or a name of
            :data:`flows.pt2e_quantizers.QUANTIZERS`; None is ``"x86"``.
        base_config: what flow ``"torchao"`` trains the layers for: a configuration of torchao's
            (linear layers), a ``QATConfig``, a dict of these two by ``nn.Linear`` and
            ``nn.Embedding``, or a name of :data:`flows.torchao.BASE_CONFIGS`; None is
            :func:`~qatexplorer.flows.torchao.default_base_config`.
        edits: changes of the session's copy to begin with, see :meth:`edit`.

    Raises the :class:`~qatexplorer.errors.InputError` types for what cannot be used. ``signal``
    emits a :class:`SessionEvent` at every change, on the thread that made it. What a script must
    hear (no stub, no weight quantized, converted before any observer has seen data, observers that
    stand where fake quants belong) is a :class:`~qatexplorer.errors.QatExplorerWarning` too.
    """

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Any = None,
        *,
        flow: str = "eager",
        qconfig: Any = None,
        data: Any = None,
        loss: Any = None,
        metric: Metric | None = None,
        stubs: StubMode = "none",
        fusion: Any = None,
        qat_mapping: Mapping[Any, Any] | str | None = None,
        engine: str | None = None,
        non_traceable: Any = None,
        prepare_custom_config: Any = None,
        convert_custom_config: Any = None,
        backend_config: Any = None,
        quantizer: Any = None,
        base_config: Any = None,
        edits: Iterable[Edit] = (),
    ) -> None:
        warn_if_untested()
        self.signal: Signal[SessionEvent] = Signal()
        self.data: Data | None = as_data(data)
        self.loss, self.metric = loss, metric
        chosen = runnable_flow(flow)
        mine = copy_model(check_model(model))
        base = mine.model
        plan = qconfig_plan(in_plain_names(qconfig, mine.names), engine)
        own = take_own_qconfigs(base)
        inputs = example_inputs_from(example_inputs, self.data)
        given = settings_in(locals())
        given |= {"qconfig": qconfig, "fusion": "auto" if fusion is None else fusion}
        options = FlowOptions(plan, inputs, graph=graph_of(base, inputs), own_qconfigs=own)
        self._models = Models(base, Settings(chosen, options, mine.names), mine.edits)
        base, settings = changed(self._models, given)
        self._models.reset(settings, base)
        self._lock = threading.RLock()
        self._run: TrainingRun | None = None
        self._next_description = 0.0
        self.warns = True  # a page shows the notes itself, and puts this to False
        self._warner = Warner()
        self._stages = Stages(self._models, mine.notes, self._emit, self._require_idle)
        self._ledgers = Ledgers(self._models, self._stages)
        self._histograms = Histograms(self._models, self._stages, self._require_still)
        self._compared = Compared(self._models, self._stages, self.data)
        self._sensitivities = Sensitivities()
        self._last = Measured()
        self._overlays = Overlays(
            self._models,
            self._stages,
            self.histograms,
            self._compared,
            lambda: self.last_sensitivity,
        )
        self._assessor = Assessor(self._models, self.data, self.metric)
        self._known = Known(self._models, self._stages, self.data)
        self._checks = Checked(self._models, self._stages, self._known, self.data, loss, metric)
        self._warner.of_settings(self.options.qconfig)

    def __repr__(self) -> str:
        edits = self._models.settings.edits
        return at_most(session_lines(self._stages, self.options, self._run, self.data, edits))

    # -- stages ---------------------------------------------------------------------------------

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the flow's stages, in order."""
        return self._stages.names

    @property
    def reached(self) -> str:
        """The furthest stage there is a snapshot of."""
        return self._stages.reached

    @property
    def snapshots(self) -> Mapping[str, Snapshot]:
        """Snapshots by stage, of all stages reached."""
        return self._stages.snapshots

    @property
    def diff(self) -> Diff | None:
        """What the stage in view changed, None at the first one."""
        return self.diff_at(self.stage)

    def diff_at(self, stage: str) -> Diff | None:
        """What ``stage`` changed, None at the first one and where it has not been reached. Two
        snapshots are compared once, whoever asks."""
        return self._stages.diff_at(stage)

    @property
    def summaries(self) -> dict[str, str]:
        """One line a stage reached, on what it changed."""
        return self._stages.summaries()

    def step(self) -> Snapshot:
        """Go to the next stage, running its torch call if it has not run yet.

        Raises StageError at the last stage or if the call fails; the session then stays where it
        was. Raises BusyError while a run is going on, EvalModeError for a model in eval mode.
        """
        following = self._stages.neighbour(+1)
        if following is None:
            raise StageError(
                f"{self.stage!r} is the last stage.", fix="Go back, or reset to start again."
            )
        return self.goto(following)

    def back(self) -> Snapshot:
        """Show the stage before; nothing is undone. At the first stage it stays there."""
        return self.goto(self._stages.neighbour(-1) or self.stage)

    def goto(self, stage: str) -> Snapshot:
        """Show ``stage``, running every torch call up to it that has not run yet.

        Raises UnknownStageError and what :meth:`step` raises. If a call fails on the way, the
        last good stage is in view.
        """
        self._stages.index(stage)
        with self._lock:
            try:
                self._stages.goto(stage)
            finally:
                self._emit("stage", self.stage)
                found = tuple(self.snapshots.values())
                self._warner.of_stages(found, self.options.qconfig, aloud=self.warns)
            return self.snapshot

    def reset(self) -> Snapshot:
        """Back to the float stage as if nothing had run; the last run and its model stay in
        :attr:`run`. Raises BusyError while a run is going on."""
        with self._lock:
            self._require_idle("reset")
            return self._start_again(None)

    def _start_again(
        self, settings: Settings | None, *events: EventKind, base: nn.Module | None = None
    ) -> Snapshot:
        self._models.reset(settings, base)
        self._stages.start_over()
        self._checks.forget()
        self._sensitivities.forget()
        self._last.forget()
        self._assessor = Assessor(self._models, self.data, self.metric)
        for event in (*events, "stage"):
            self._emit(event, self.stage if event == "stage" else None)
        return self.snapshot

    # -- settings -------------------------------------------------------------------------------

    @property
    def options(self) -> FlowOptions:
        """Qconfig plan, groups to fuse, stub mode and example inputs in force."""
        return self._models.options

    @property
    def fusion(self) -> FusionRuns:
        """Groups of module paths that the fuse stage fuses."""
        return self.options.fusion

    def use_train_mode(self) -> Snapshot:
        """Put the session's copy into train mode (for a model given in eval mode)."""
        with self._lock:
            self._require_idle("change the mode")
            self._models.set_training(True)
            return self._start_again(None, "config")

    def configure(
        self,
        *,
        qconfig: Any = ...,
        stubs: StubMode | None = None,
        fusion: Any = None,
        engine: str | None = None,
        flow: str | None = None,
        qat_mapping: Mapping[Any, Any] | str | None = None,
        non_traceable: Any = None,
        prepare_custom_config: Any = None,
        convert_custom_config: Any = None,
        backend_config: Any = None,
        quantizer: Any = None,
        base_config: Any = None,
        edits: Iterable[Edit] | None = None,
    ) -> Snapshot:
        """Change settings and start again from the float stage; what is not given stays.

        ``fusion`` is a list of groups of module paths, or ``"auto"``; ``edits`` are all that shall
        be in force, ``()`` takes them back; the others are as at the start. Raises the InputError
        types (then nothing changes) and BusyError.
        """
        given = settings_in(locals())
        with self._lock:
            self._require_idle("change the settings")
            return self._change(given)

    def _change(self, given: Mapping[str, Any]) -> Snapshot:
        base, settings = changed(self._models, given)
        snapshot = self._start_again(settings, "config", base=base)
        if {"qconfig", "engine", "rules"} & set(given):
            self._warner.of_settings(self.options.qconfig)
        return snapshot

    @property
    def edits(self) -> tuple[Edit, ...]:
        """What differs in the session's float model from yours, in order: what copying it had to
        change, then what :meth:`edit` has changed. ``code`` of each is for your own project."""
        return self._models.edits

    def edit(self, name: str, path: str | Iterable[str], value: Any = None) -> Snapshot:
        """Change the session's copy of the float model, and start again from the float stage.

        ``name`` is one of :data:`qatexplorer.flows.edits.EDITS`, ``path`` of the module (or of
        several) that it changes; ``value`` is what else it needs. Your model stays as it is.
        ``configure(edits=...)`` takes edits back. Raises EditError, ExampleInputError if the model
        does not run then (nothing changes), BusyError.
        """
        with self._lock:
            self._require_idle("edit the model")
            edits = with_edit(self._models.settings.edits, name, path, value)
            return self._change({"edits": edits})

    def take_back(self, *edits: Edit) -> Snapshot:
        """Make the float model anew without ``edits`` of :meth:`edit`; raises BusyError."""
        return self.configure(edits=[e for e in self._models.settings.edits if e not in edits])

    def stub_options(self) -> tuple[StubOption, ...]:
        """Each way of getting int8 tensors into the model, tried on a copy, with its cost.

        Empty in a flow that quantizes the input by itself.
        """
        return self._assessor.stub_options() if self.flow.offers_stubs else ()

    def findings(self, *, try_int8: bool = True) -> tuple[Finding, ...]:
        """What is known to be wrong with the model and its settings, the worst first.

        ``try_int8``: the first time after a change of settings a copy is converted and run. Where
        it fails, changes that may help are tried too, and those that do are offered as ``fixes``;
        not while a run is going on, nor for a model in eval mode. What :meth:`check` has found is
        among these until the model or its settings change.
        """
        if try_int8:
            self._known.try_int8(self._lock, lambda: not self.running)
        return worst_first((*self._known.found(), *self._checks.found))

    def check(
        self, *, progress: Callable[[str, float], Any] | None = None,
        should_stop: Callable[[], bool] | None = None, silence: Any = (), thorough: bool = False,
    ) -> Findings:  # fmt: skip
        """Ask every rule of :mod:`qatexplorer.checks` about the model at its stage, on copies.

        In at most four forwards of the example input and one convert; ``thorough``: and whatever
        more the rules can use. ``progress`` is called with what is being done and the share done,
        ``should_stop`` asked between. ``silence``: a list of :mod:`~qatexplorer.checks.silence`,
        or the path of a ``pyproject.toml`` with one. Raises BusyError while a run is going on,
        StoppedError when it was stopped, InputError for a silence that cannot be understood.
        """
        with self._lock:
            self._require_idle("check the model")
            run = self._run
            return self._checks.make(self._lock, run, progress, should_stop, silence, thorough)

    @property
    def last_check(self) -> Findings | None:
        """What :meth:`check` found last; None before the first and after a change of the model."""
        return self._checks.findings

    def preflight(self) -> Preflight:
        """Convert a copy and run it once in int8: will this model get there after training?"""
        return self._assessor.preflight()

    # -- models ---------------------------------------------------------------------------------

    @property
    def model(self) -> nn.Module:
        """The torch module of the stage in view, never the user's own object.

        At the stages with all fake quants and of training it is the very model that training uses:
        what you do to it, you do to the session. Asked for the first time at a stage, it is given
        parameters of its own, which copies them all; where one call of torch makes several stages
        (FX), or training has changed the model since, it is made anew by torch's calls as well.
        :meth:`copy_model` gives one that is yours alone.
        """
        return self._models.view(self.stage, own=True)

    def copy_model(self, stage: str | None = None) -> nn.Module:
        """A copy of the model of ``stage`` (None: the one in view), which the session forgets.

        Raises UnknownStageError, StageError for a stage not reached, BusyError while it is trained.
        """
        chosen = self.stage if stage is None else stage
        self._stages.index(chosen)
        with self._lock:
            if chosen not in self.snapshots:
                fix = f"Call session.goto({chosen!r}) first."
                raise StageError(f"stage {chosen!r} has not been reached.", fix=fix)
            model = self._models.view(chosen)
            self._require_still(model)
            return copied(model)

    @property
    def int8(self) -> nn.Module:
        """The converted int8 module. Raises StageError before the last stage is reached."""
        if self._models.int8 is None:
            fix = f"Call session.goto({self.flow.int8_stage!r}) first."
            raise StageError("there is no int8 model yet.", fix=fix)
        return self._models.int8

    @property
    def parity(self) -> Parity | None:
        """How far int8 is from fake quant on the example input; None before there is an int8."""
        return self._models.parity

    @property
    def observed(self) -> bool:
        """Whether the model has been trained or calibrated: any fake quant has seen data."""
        return self._models.observed

    # -- what was measured ----------------------------------------------------------------------

    def histogram(self, site: str) -> GridHistogram:
        """Histogram, on the quantization grid, of what fake quant ``site`` sees in one forward of
        the example input. Before it has seen data, the range of that forward is used.

        The first one at a stage makes those of all fake quants in the same forward; while a run is
        going on, its newest sample is returned. Raises StageError if the stage in view has no such
        fake quant, or if it does not run.
        """
        run = self._run if self.running else None
        return self._histograms.one(site, run, self.histograms)

    def histograms(self) -> Mapping[str, GridHistogram]:
        """Those of all fake quants of the stage in view that run, by path; one or two forwards the
        first time, then kept until the model changes."""
        known = self._histograms.known  # without the lock: a long job may hold it
        if known is not None:
            return known
        with self._lock:
            return self._histograms.all()

    def has_histogram(self, site: str) -> bool:
        """Whether :meth:`histogram` will answer without running the model."""
        return self.running or self._histograms.ready

    def macs(self) -> Mapping[str, int]:
        """Multiply-accumulates of each module of the float model and all below it, by path, in one
        forward of the example input; counted once. Raises whatever that forward raises."""
        with self._lock:
            return self._models.macs

    def overlay(
        self,
        name: str,
        stage: str | None = None,
        *,
        progress: Callable[[float], Any] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> Overlay:
        """Numbers to colour the model by, at a stage reached (None: the one in view): "clipped",
        "sqnr", "scale_drift", "macs", "parameters", "time", "precision" or "sensitivity" (as last
        measured); and of the last comparison "sqnr_fake_quant", "sqnr_int8" or "agreement". Kept
        until the model changes. ``progress`` (0 to 1) and ``should_stop`` are asked between
        forwards. Raises OverlayError, StageError, BusyError and StoppedError."""
        asked = Asked(progress, should_stop)
        with self._lock:
            return self._overlays.of(name, stage, self._run, self.running, asked)

    def ledger(
        self,
        stage: str | None = None,
        *,
        timing: int = 0,
        effects: bool = False,
        progress: Callable[[LedgerProgress], Any] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> Ledger:
        """Who put each fake quant there, what stays float and why, and what is one too many.

        Args:
            stage: a stage with fake quants; None is the one in view (for the converted stages, the
                prepared model that they are made from).
            timing: rounds in which the time of each redundant fake quant is measured, 0 for none.
            effects: measure what each redundant fake quant alone does to the model's output, with
                a forward for each.
            progress: called with a :class:`~qatexplorer.ledger.forwards.LedgerProgress`, on this
                thread. should_stop: asked at every module call; True ends it with StoppedError.

        A copy of the model runs on the example input, at most four times (without ``timing`` and
        ``effects``); nothing is trained. The result is kept until the model changes. Raises
        StageError where there are no fake quants, BusyError for the train stage while a run is
        going on.
        """
        wanted = Wanted(timing, effects, progress, should_stop)
        with self._lock:
            return self._ledgers.of(stage, wanted, self._run, self.running)

    @property
    def known_ledger(self) -> Ledger | None:
        """The ledger of the stage in view if one has been made and is still true; makes none."""
        return self._ledgers.known()

    def answers(self) -> tuple[Answer, ...]:
        """What people ask about ``prepare_qat``, answered with the numbers of this model.

        They come from :meth:`ledger`, which is made if need be; the same errors are raised.
        """
        ledger = self.ledger()
        making = self.flow.stage_with("weights")
        return answers(ledger, self.flow, self.diff_at(making.name) if making else None)

    def in_other_flow(self) -> Session:
        """A session of the same float model, inputs and settings in the other flow, prepared.

        The other of a flow that works on modules (eager) is the first that works on a graph (FX),
        and the other way round. An eager one of a model without stubs gets ``QuantWrapper``. What
        was trained is not taken over. Raises what stepping raises, such as TraceFailedError.
        """
        arguments = self._models.settings.in_other_flow(self._models.base)
        other = Session(self._models.original, data=self.data, **arguments)  # it copies the model
        other._models.own_edits = self._models.own_edits
        other.goto(other.flow.prepared_stage)
        return other

    def evaluate(
        self,
        *,
        latency: bool = True,
        should_stop: Callable[[], bool] | None = None,
        progress: Callable[[str, float], Any] | None = None,
    ) -> Evaluation:
        """Metric, size and latency of float, PTQ int8, fake-quant and int8, side by side.

        Rows that do not exist yet say why. ``should_stop()`` is asked between batches;
        ``progress(what, share)`` is called with how far it is. Raises NoDataError, BusyError.
        """
        self._require_data("evaluation")
        self._require_idle("evaluate")
        prepared, of = self.flow.prepared_stage in self.snapshots, self._last.now
        made = self._assessor.evaluate(
            prepared=prepared,
            observed=not self._models.never_observed,
            latency=latency,
            should_stop=should_stop,
            progress=progress,
        )
        self._last.keep(of, evaluation=made)
        return made

    @property
    def last_evaluation(self) -> Evaluation | None:
        """What :meth:`evaluate` measured last; None before the first and after a change of the
        model."""
        return self._last.evaluation
