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

from qatexplorer.assess import Assessor, Preflight, StubOption
from qatexplorer.data import Data, as_data
from qatexplorer.deploy.engine import check_engine
from qatexplorer.deploy.evaluate import Metric
from qatexplorer.errors import (
    BusyError,
    EvalModeError,
    QatExplorerError,
    StageError,
    UnknownStageError,
)
from qatexplorer.flows import get_flow
from qatexplorer.flows.base import FlowOptions, StubMode
from qatexplorer.flows.fusion import FusionRuns, check_fusion, find_fusable
from qatexplorer.flows.qconfig import resolve_qconfig
from qatexplorer.flows.stubs import check_stub_mode, has_stubs
from qatexplorer.inputs import check_model, copy_model, example_inputs_from, graph_of
from qatexplorer.signals import Signal
from qatexplorer.snapshot.capture import take_graph, take_snapshot
from qatexplorer.snapshot.diff import Diff, diff
from qatexplorer.snapshot.follow import moved_selection
from qatexplorer.snapshot.probe import Probe, calls_in_graph, probe
from qatexplorer.snapshot.records import Snapshot
from qatexplorer.training.control import FINAL
from qatexplorer.training.run import TrainingRun
from qatexplorer.workbench import Built, Workbench

EventKind = Literal[
    "stepping", "stage", "selection", "config", "run", "progress", "trained", "error"
]


@dataclass(frozen=True)
class SessionEvent:
    """Something changed; observers read the rest from the session."""

    kind: EventKind
    detail: Any = None


class StageWalk:
    """Stages, snapshots, models and settings of a :class:`~qatexplorer.session.Session`."""

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
        qat_mapping: Mapping[Any, Any] | None = None,
        engine: str | None = None,
    ) -> None:
        self.signal: Signal[SessionEvent] = Signal()
        self.flow = get_flow(flow)
        self.data: Data | None = as_data(data)
        self.loss, self.metric = loss, metric
        plan = resolve_qconfig(qconfig, engine)
        base = copy_model(check_model(model))
        inputs = example_inputs_from(example_inputs, self.data)
        graph = graph_of(base, inputs)
        self.has_stubs = has_stubs(base)
        options = FlowOptions(
            plan, inputs, (), check_stub_mode(stubs), qat_mapping=qat_mapping, graph=graph
        )
        self._bench = Workbench(base, self.flow, options)
        runs = find_fusable(base, graph) if fusion is None else check_fusion(base, fusion)
        self._bench.options = self._bench.with_options(fusion=runs)
        self._lock = threading.RLock()
        self._run: TrainingRun | None = None
        self._selection = ""
        self._start_over()

    def _start_over(self) -> None:
        first = self.flow.stage_names[0]
        self._snapshots: dict[str, Snapshot] = {}
        self._stage = first
        self._probe: Probe | None = None
        self._origin: Any = None
        self._trained = False
        self._assessor = Assessor(self._bench, self.data, self.metric)
        notes = () if self._bench.base.training else (_EVAL_NOTE,)
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
                        self._advance(name)
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
            self._bench.advance(stage, lambda built: self._record(stage, built))
        except QatExplorerError as error:
            self._emit("error", error)
            raise

    def _record(self, stage: str, built: Built) -> None:
        before = self._snapshots[self.stages[self.stages.index(stage) - 1]]
        model, result = built.result.model, built.result
        if stage == self.flow.train_stage and self._bench.untouched and not built.warnings:
            self._snapshots[stage] = replace(before, stage=stage, notes=result.notes)
            return
        graph = before.graph
        if result.moved:
            graph = result.graph or take_graph(model, self.options.example_inputs)
            self._origin = result.origin
        if self.flow.snapshot_needs_probe(stage):
            self._probe = probe(model, self.options.example_inputs)
        elif self.stages.index(stage) < self.stages.index(self.flow.prepared_stage):
            self._probe = calls_in_graph(model, graph) if graph is not None else None
        is_int8 = stage == self.flow.int8_stage
        notes = result.notes
        if is_int8 and not self.observed:
            notes = (*notes, _NEVER_OBSERVED)
        self._snapshots[stage] = self._snapshot_of(
            model, stage, graph, None if is_int8 else self._probe, built.warnings, notes
        )

    def _snapshot_of(
        self,
        model: nn.Module,
        stage: str,
        graph: Any,
        probed: Probe | None,
        warnings: tuple[str, ...] = (),
        notes: tuple[str, ...] = (),
    ) -> Snapshot:
        index = self.stages.index(stage)
        earlier = self._snapshots[self.stages[index - 1]].site_by_path
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
            warnings=warnings,
            notes=notes,
            **extra,
        )

    # -- models ---------------------------------------------------------------------------------

    @property
    def model(self) -> nn.Module:
        """The torch module of the stage in view, never the user's own object.

        At the stages "insert" and "train" it is the very model that training uses. Its parameters
        are its own: change them as you like.
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

    def use_train_mode(self) -> Snapshot:
        """Put the session's copy into train mode (for a model given in eval mode)."""
        with self._lock:
            self._require_idle("change the mode")
            before = self.snapshot
            self._bench.set_training(True)
            self._start_over()
        self._show(before)
        return self.snapshot

    # -- configuration --------------------------------------------------------------------------

    def configure(
        self,
        *,
        qconfig: Any = ...,
        stubs: StubMode | None = None,
        fusion: Any = None,
        engine: str | None = None,
    ) -> Snapshot:
        """Change settings and start again from the float stage; what is not given stays.

        ``fusion`` is a list of runs of module paths, or ``"auto"``. Raises the InputError types
        (then nothing changes) and BusyError.
        """
        with self._lock:
            self._require_idle("change the settings")
            changes: dict[str, Any] = {}
            if qconfig is not ...:
                changes["qconfig"] = resolve_qconfig(qconfig, engine)
            elif engine is not None:
                plan = self.options.qconfig
                changes["qconfig"] = replace(plan, backend=check_engine(engine), reason="")
            if stubs is not None:
                changes["stubs"] = check_stub_mode(stubs)
            if fusion is not None:
                base = self._bench.base
                auto = isinstance(fusion, str) and fusion == "auto"
                runs = find_fusable(base, self.options.graph) if auto else fusion
                changes["fusion"] = check_fusion(base, runs)
            before = self.snapshot
            self._bench.reset(self._bench.with_options(**changes))
            self._start_over()
        self._emit("config")
        self._show(before)
        return self.snapshot

    @property
    def fusion(self) -> FusionRuns:
        """Runs of module paths that the fuse stage fuses."""
        return self.options.fusion

    def stub_options(self) -> tuple[StubOption, ...]:
        """Each way of getting int8 tensors into the model, tried on a copy, with its cost."""
        return self._assessor.stub_options()

    def preflight(self) -> Preflight:
        """Convert a copy and run it once in int8: will this model get there after training?"""
        return self._assessor.preflight()

    # -- helpers --------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether a run is going on or paused."""
        return self._run is not None and self._run.state not in ("ready", *FINAL)

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
