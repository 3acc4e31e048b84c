"""The part of a session that walks: stages, snapshots, models and settings."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Literal

from torch import nn
from torch.ao.quantization import FakeQuantizeBase

from qatexplorer._tested import warn_if_untested
from qatexplorer.data import Data, as_data
from qatexplorer.errors import (
    BusyError,
    EvalModeError,
    QatExplorerError,
    StageError,
    UnknownStageError,
)
from qatexplorer.evaluate.metric import Metric
from qatexplorer.explain.blame import release_frames
from qatexplorer.flows import get_flow
from qatexplorer.flows.base import FlowOptions, StubMode
from qatexplorer.flows.own_copy import in_plain_names, in_plain_names_of
from qatexplorer.flows.own_qconfig import take_own_qconfigs, warn_of_post_training
from qatexplorer.flows.qconfig import resolve_qconfig
from qatexplorer.flows.settings import changed_options
from qatexplorer.flows.stubs import has_stubs
from qatexplorer.flows.user_hooks import HookFollower
from qatexplorer.forward.probe import Probe, calls_in_graph, probe
from qatexplorer.session.assess import Assessor
from qatexplorer.session.inputs import check_model, copy_model, example_inputs_from, graph_of
from qatexplorer.session.models import Built, Workbench
from qatexplorer.signals import Signal
from qatexplorer.snapshot.diff import Diff, diff
from qatexplorer.snapshot.follow import moved_selection
from qatexplorer.snapshot.records import Placement, Snapshot
from qatexplorer.snapshot.take import take_graph, take_snapshot
from qatexplorer.training.control import FINAL
from qatexplorer.training.run import TrainingRun

EventKind = Literal[
    "stepping", "stage", "selection", "config", "run", "progress", "trained", "error"
]


@dataclass(frozen=True)
class SessionEvent:
    """Something changed; observers read the rest from the session."""

    kind: EventKind
    detail: Any = None


class StageWalk:
    """Stages, snapshots, models and settings of a :class:`~qatexplorer.session.session.Session`."""

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
    ) -> None:
        warn_if_untested()
        self.signal: Signal[SessionEvent] = Signal()
        self.flow = get_flow(flow)
        self.data: Data | None = as_data(data)
        self.loss, self.metric = loss, metric
        copied = copy_model(check_model(model))
        base, self._names, self._copy_notes = copied.model, copied.names, copied.notes
        plan = resolve_qconfig(in_plain_names(qconfig, self._names), engine)
        own = take_own_qconfigs(base)
        inputs = example_inputs_from(example_inputs, self.data)
        graph = graph_of(base, inputs)
        self.has_stubs = has_stubs(base)
        options = FlowOptions(plan, inputs, graph=graph, own_qconfigs=own)
        settings = {
            "qconfig": qconfig,
            "engine": engine,
            "qat_mapping": qat_mapping,
            "stubs": stubs,
            "fusion": "auto" if fusion is None else fusion,
            "non_traceable": non_traceable,
            "prepare_custom_config": prepare_custom_config,
            "convert_custom_config": convert_custom_config,
            "backend_config": backend_config,
        }
        settings = in_plain_names_of(settings, self._names)
        self._bench = Workbench(base, self.flow, changed_options(base, options, settings))
        self._lock = threading.RLock()
        self._run: TrainingRun | None = None
        self._selection = ""
        self._start_over()
        self.options.qconfig.warn(stacklevel=3)
        warn_of_post_training(self.options.qconfig, stacklevel=3)

    def _start_over(self) -> None:
        first = self.flow.stage_names[0]
        self._snapshots: dict[str, Snapshot] = {}
        # One call of torch can make several stages: those not asked for yet wait here, and so does
        # the error that ended the call at a later one.
        self._ahead: dict[str, Snapshot] = {}
        self._failed: dict[str, QatExplorerError] = {}
        self._stage = first
        self._probe: Probe | None = None
        self._origin: Any = None
        self._trained = False
        self._hooks = HookFollower(self._bench.work, self.options.example_inputs)
        self._assessor = Assessor(self._bench, self.data, self.metric)
        plan = self.options.qconfig
        notes = (*self._copy_notes, *plan.loud, *plan.notes)
        notes += () if self._bench.base.training else (_EVAL_NOTE,)
        self._snapshots[first] = take_snapshot(
            self._bench.work,
            flow=self.flow.name,
            stage=first,
            call="",
            graph=self._bench.options.graph,
            notes=notes,
        )

    # -- stages ---------------------------------------------------------------------------------

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the flow's stages, in order."""
        return self.flow.stage_names

    @property
    def stage(self) -> str:
        """The stage in view."""
        return self._stage

    @property
    def reached(self) -> str:
        """The furthest stage there is a snapshot of."""
        return [s for s in self.stages if s in self._snapshots][-1]

    @property
    def snapshots(self) -> Mapping[str, Snapshot]:
        """Snapshots by stage, of all stages reached."""
        return MappingProxyType(self._snapshots)

    @property
    def snapshot(self) -> Snapshot:
        """Snapshot of the stage in view."""
        return self._snapshots[self._stage]

    @property
    def diff(self) -> Diff | None:
        """What the stage in view changed, None at the first one."""
        index = self.stages.index(self._stage)
        if index == 0:
            return None
        return diff(self._snapshots[self.stages[index - 1]], self.snapshot)

    @property
    def summaries(self) -> dict[str, str]:
        """One line a stage reached, on what it changed."""
        found = {}
        for earlier, later in pairwise(self.stages):
            if later in self._snapshots:
                found[later] = diff(self._snapshots[earlier], self._snapshots[later]).summary()
        return found

    @property
    def options(self) -> FlowOptions:
        """Qconfig plan, fusion runs, stub mode and example inputs in force."""
        return self._bench.options

    def step(self) -> Snapshot:
        """Go to the next stage, running its torch call if it has not run yet.

        Raises StageError at the last stage or if the call fails; the session then stays where it
        was. Raises BusyError while a run is going on, EvalModeError for a model in eval mode.
        """
        index = self.stages.index(self._stage)
        if index + 1 == len(self.stages):
            raise StageError(
                f"{self._stage!r} is the last stage.", remedy="Go back, or reset to start again."
            )
        return self.goto(self.stages[index + 1])

    def back(self) -> Snapshot:
        """Show the stage before; nothing is undone. At the first stage it stays there."""
        index = self.stages.index(self._stage)
        return self.goto(self.stages[max(index - 1, 0)])

    def goto(self, stage: str) -> Snapshot:
        """Show ``stage``, running every torch call up to it that has not run yet.

        Raises UnknownStageError and what :meth:`step` raises. If a call fails on the way, the
        last good stage is in view.
        """
        if stage not in self.stages:
            raise UnknownStageError(
                f"there is no stage {stage!r}.", remedy=f"Stages: {', '.join(self.stages)}."
            )
        with self._lock:
            before = self.snapshot
            try:
                for name in self.stages[1 : self.stages.index(stage) + 1]:
                    if name not in self._snapshots:
                        self._require_idle(f"go to stage {name!r}")
                        self._emit("stepping", name)
                        self._reach(name)
                    self._stage = name
                self._stage = stage
            finally:
                self._show(before)
            return self.snapshot

    def reset(self) -> Snapshot:
        """Back to the float stage as if nothing had run; the last run and its model stay in
        :attr:`run`. Raises BusyError while a run is going on."""
        with self._lock:
            self._require_idle("reset")
            before = self.snapshot
            self._bench.reset()
            self._start_over()
        self._show(before)
        return self.snapshot

    def _show(self, before: Snapshot) -> None:
        self._selection = moved_selection(self._selection, before, self.snapshot)
        self._emit("stage", self._stage)

    def _advance(self, stage: str) -> None:
        if not self._bench.base.training:
            raise EvalModeError(
                "the model is in eval mode, and prepare_qat only works in train mode.",
                why="In eval mode batch norms do not learn and dropout is off.",
                remedy="Call session.use_train_mode() (it concerns the session's copy only), or "
                "model.train() before you hand the model over.",
            )
        try:
            self._bench.advance(stage, self._record)
        except QatExplorerError as error:
            if not self._ahead:
                self._emit("error", error)
                raise
            release_frames(error)
            failed = next(name for name in self.flow.call_of(stage) if name not in self._ahead)
            self._failed[failed] = error

    def _reach(self, stage: str) -> None:
        """Show ``stage``, running the torch call that makes it if that has not run yet."""
        if stage not in self._ahead and stage not in self._failed:
            self._advance(stage)
        if stage in self._failed:
            self._emit("error", self._failed[stage])
            raise self._failed[stage]
        self._snapshots[stage] = self._ahead.pop(stage)

    def _before(self, stage: str) -> Snapshot:
        earlier = self.stages[self.stages.index(stage) - 1]
        return self._ahead[earlier] if earlier in self._ahead else self._snapshots[earlier]

    def _record(self, stage: str, built: Built) -> None:
        before = self._before(stage)
        model, result = built.result.model, built.result
        if stage == self.flow.train_stage and self._bench.untouched and not built.warnings:
            notes = (*self.options.qconfig.loud, *result.notes)
            self._ahead[stage] = replace(before, stage=stage, notes=notes)
            return
        converted = stage in self.flow.converted_stages
        silent = () if converted else self._hooks.silenced_by(stage, model)
        notes = (*result.notes, *silent)
        graph = before.graph if result.graph is None else result.graph
        if result.moved:
            graph = result.graph or take_graph(model, self.options.example_inputs)
            self._origin = result.origin
        if self.flow.snapshot_needs_probe(stage):
            self._probe = probe(model, self.options.example_inputs)
        elif self.stages.index(stage) < self.stages.index(self.flow.prepared_stage):
            self._probe = calls_in_graph(model, graph) if graph is not None else None
        if converted and not self.observed:
            notes = (*notes, _NEVER_OBSERVED)
        concern = self.options.qconfig.concern
        if stage == self.flow.int8_stage and concern is not None:
            notes = (*notes, str(concern))
            self.options.qconfig.warn(stacklevel=3)
        self._ahead[stage] = self._snapshot_of(
            model,
            stage,
            graph,
            None if converted else self._probe,
            built.warnings,
            notes,
            result.placed,
        )

    def _forget_converted(self) -> None:
        """The prepared model is about to change: what was converted from it is no longer true."""
        self._bench.converted.clear()
        for stage in self.flow.converted_stages:
            self._snapshots.pop(stage, None)

    def _snapshot_of(
        self,
        model: nn.Module,
        stage: str,
        graph: Any,
        probed: Probe | None,
        warnings: tuple[str, ...] = (),
        notes: tuple[str, ...] = (),
        placed: Mapping[str, Placement] | None = None,
    ) -> Snapshot:
        earlier = self._before(stage).site_by_path
        extra = {} if self._origin is None else {"origin": self._origin}
        return take_snapshot(
            model,
            flow=self.flow.name,
            stage=stage,
            call=self.flow.stage(stage).call,
            graph=graph,
            float_paths=frozenset(self._snapshots[self.stages[0]].by_path),
            earlier=earlier,
            probed=probed,
            placed=placed,
            warnings=warnings,
            notes=(*self.options.qconfig.loud, *notes),
            **extra,
        )

    # -- models ---------------------------------------------------------------------------------

    @property
    def model(self) -> nn.Module:
        """The torch module of the stage in view, never the user's own object.

        At the stages "insert" and "train" it is the very model that training uses. Its parameters
        are its own: change them as you like. Where one call of torch makes several stages (FX),
        the model of a stage passed on the way is made anew by that call, stopped there.
        """
        return self._bench.view(self._stage, trained=self._trained, own=True)

    @property
    def int8(self) -> nn.Module:
        """The converted int8 module. Raises StageError before the last stage is reached."""
        if self._bench.int8 is None:
            raise StageError(
                "there is no int8 model yet.",
                remedy=f"Call session.goto({self.flow.int8_stage!r}) first.",
            )
        return self._bench.int8

    @property
    def observed(self) -> bool:
        """Whether the model has been trained or calibrated: any fake quant has seen data."""
        ranges = (
            getattr(getattr(m, "activation_post_process", None), "min_val", None)
            for m in self._bench.work.modules()
            if isinstance(m, FakeQuantizeBase)
        )
        return any(
            r is not None and r.numel() > 0 and bool((r < float("inf")).any()) for r in ranges
        )

    # -- helpers --------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether a run is about to start, going on or paused."""
        return self._run is not None and self._run.state not in FINAL

    def _require_still(self, model: nn.Module) -> None:
        """A forward beside a training step would change what its backward needs. Ask with the
        lock held: a run begins with it held."""
        if self.running and model is self._bench.work:
            raise BusyError(
                "cannot run the model while it is being trained.",
                remedy="Stop the run, wait for it, or look at the 'insert' stage.",
            )

    def _require_idle(self, what: str) -> None:
        if self.running:
            raise BusyError(
                f"cannot {what} while a training run is going on.",
                remedy="Stop the run first, or wait for it; the model is kept.",
            )

    def _emit(self, kind: EventKind, detail: Any = None) -> None:
        self.signal.emit(SessionEvent(kind, detail))


_EVAL_NOTE = (
    "The model is in eval mode; quantization-aware training needs train mode. "
    "session.use_train_mode() puts the session's copy into train mode."
)
_NEVER_OBSERVED = (
    "No observer has seen data, so every activation scale is 1.0 and the int8 model's outputs "
    "mean nothing. Train, or calibrate, first."
)
