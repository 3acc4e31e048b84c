"""The stages that a session has come to: snapshots, what each changed, the way to the next."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

from torch import fx

from qatexplorer.errors import EvalModeError, QatExplorerError, UnknownStageError
from qatexplorer.explain.blame import release_frames
from qatexplorer.flows.base import Flow, Stage
from qatexplorer.flows.stubs import NO_STUBS
from qatexplorer.flows.user_hooks import HookFollower, HookPlace, silenced_note
from qatexplorer.forward.graph import Graph
from qatexplorer.forward.record import Probe, calls_in_graph, probe
from qatexplorer.session.models import Built, Models
from qatexplorer.snapshot.diff import Diff, diff
from qatexplorer.snapshot.exported import Walked
from qatexplorer.snapshot.records import Snapshot
from qatexplorer.snapshot.take import take_graph, take_snapshot

EventKind = Literal["stepping", "stage", "config", "run", "progress", "trained", "error"]


@dataclass(frozen=True)
class SessionEvent:
    """Something changed; observers read the rest from the session."""

    kind: EventKind
    detail: Any = None


class Stages:
    """Which stage is in view, the snapshots of those reached, and the calls that lead further.

    Args:
        models: whose working model is taken from stage to stage.
        notes: on the copy of the user's model, for the first stage.
        emit: called with "stepping" (with the stage's name) and "error".
        require_idle: raises BusyError if no torch call may be made now.
    """

    def __init__(
        self,
        models: Models,
        notes: tuple[str, ...],
        emit: Callable[[EventKind, Any], None],
        require_idle: Callable[[str], None],
    ) -> None:
        self._models, self._emit, self._require_idle = models, emit, require_idle
        self._copy_notes = notes
        self.start_over()

    def start_over(self) -> None:
        """Forget all snapshots but a new one of the float stage."""
        first = self.flow.stages[0]
        self._snapshots: dict[str, Snapshot] = {}
        self._diffs: dict[str, tuple[Snapshot, Snapshot, Diff]] = {}
        # One call of torch can make several stages: those not asked for yet wait here, and so does
        # the error that ended the call at a later one.
        self._ahead: dict[str, Snapshot] = {}
        self._failed: dict[str, QatExplorerError] = {}
        self._probe: Probe | None = None
        self._origin: Any = None
        self._silent: dict[str, tuple[HookPlace, ...]] = {}
        self.current = first.name
        options = self._models.options
        self._hooks = HookFollower(self._models.work, options.example_inputs)
        plan = options.qconfig
        notes = (*self._copy_notes, *plan.loud, *plan.notes, *plan.rule_notes)
        notes += () if self._models.base.training else (_EVAL_NOTE,)
        notes += tuple(_EDITED.format(code=one.code) for one in self._models.settings.edits)
        self._snapshots[first.name] = take_snapshot(
            self._models.work,
            flow=self.flow.name,
            stage=first.name,
            call=first.call,
            role=first.role,
            graph=options.graph,
            notes=notes,
        )

    @property
    def flow(self) -> Flow:
        return self._models.flow

    @property
    def names(self) -> tuple[str, ...]:
        """All stages of the flow, in order."""
        return self.flow.stage_names

    @property
    def reached(self) -> str:
        """The furthest stage there is a snapshot of."""
        return [name for name in self.names if name in self._snapshots][-1]

    @property
    def snapshots(self) -> Mapping[str, Snapshot]:
        """Snapshots by stage, of all stages reached."""
        return MappingProxyType(self._snapshots)

    @property
    def snapshot(self) -> Snapshot:
        """Snapshot of the stage in view."""
        return self._snapshots[self.current]

    @property
    def lost_hooks(self) -> Mapping[str, tuple[HookPlace, ...]]:
        """The user's hooks that the stages reached have silenced, by stage."""
        return {name: places for name, places in self._silent.items() if name in self._snapshots}

    def neighbour(self, step: int) -> str | None:
        """The stage ``step`` further (or back, if negative); None past either end."""
        index = self.names.index(self.current) + step
        return self.names[index] if 0 <= index < len(self.names) else None

    def diff_at(self, stage: str) -> Diff | None:
        """What ``stage`` changed, compared once; None at the first one and where not reached."""
        index = self.names.index(stage)
        if index == 0 or stage not in self._snapshots:
            return None
        before, after = self._snapshots[self.names[index - 1]], self._snapshots[stage]
        known = self._diffs.get(stage)
        if known is None or known[0] is not before or known[1] is not after:
            known = self._diffs[stage] = (before, after, diff(before, after))
        return known[2]

    def summaries(self) -> dict[str, str]:
        """One line a stage reached, on what it changed."""
        changes = ((name, self.diff_at(name)) for name in self.names)
        return {name: change.summary() for name, change in changes if change is not None}

    # -- going on -------------------------------------------------------------------------------

    def goto(self, stage: str) -> None:
        """Show ``stage``, running every torch call up to it that has not run yet.

        Raises UnknownStageError and what the calls raise; the last good stage is then in view.
        """
        for name in self.names[1 : self.index(stage) + 1]:
            if name not in self._snapshots:
                self._require_idle(f"go to stage {name!r}")
                self._emit("stepping", name)
                self._reach(name)
            self.current = name
        self.current = stage

    def index(self, stage: str) -> int:
        """Raises UnknownStageError if the flow has no such stage."""
        if stage not in self.names:
            raise UnknownStageError(
                f"there is no stage {stage!r}.", fix=f"Stages: {', '.join(self.names)}."
            )
        return self.names.index(stage)

    def forget_converted(self) -> None:
        """The prepared model is about to change: what was converted from it is no longer true."""
        self._models.forget_converted()
        for name in self.flow.converted_stages:
            self._snapshots.pop(name, None)

    def describe_again(self) -> None:
        """The working model, at the train stage, is not what it was: describe it anew."""
        stage = self.flow.train_stage
        built = Built(self.flow.described(self._models.work))
        self._snapshots[stage] = self._snapshot_of(stage, built, self._snapshots[stage].graph)

    def _reach(self, stage: str) -> None:
        """Show ``stage``, running the torch call that makes it if that has not run yet."""
        if stage not in self._ahead and stage not in self._failed:
            self._advance(stage)
        if stage in self._failed:
            self._emit("error", self._failed[stage])
            raise self._failed[stage]
        self._snapshots[stage] = self._ahead.pop(stage)

    def _advance(self, stage: str) -> None:
        if not self._models.base.training:
            raise EvalModeError(
                "the model is in eval mode, and prepare_qat only works in train mode.",
                why="In eval mode batch norms do not learn and dropout is off.",
                fix="Call session.use_train_mode() (it concerns the session's copy only), or "
                "model.train() before you hand the model over.",
            )
        try:
            self._models.advance(stage, self._record)
        except QatExplorerError as error:
            if not self._ahead:
                self._emit("error", error)
                raise
            release_frames(error)
            failed = next(name for name in self.flow.call_of(stage) if name not in self._ahead)
            self._failed[failed] = error

    def _before(self, stage: str) -> Snapshot:
        earlier = self.names[self.names.index(stage) - 1]
        return self._ahead[earlier] if earlier in self._ahead else self._snapshots[earlier]

    def _record(self, name: str, built: Built) -> None:
        """Take the snapshot of a stage that a torch call is passing through."""
        before, stage = self._before(name), self.flow.stage(name)
        model, result = built.result.model, built.result
        if stage.role == "trained" and self._models.untouched and not built.warnings:
            notes = (*self._models.options.qconfig.loud, *result.notes)
            self._ahead[name] = replace(
                before, stage=name, role=stage.role, call=stage.call, notes=notes
            )
            return
        converted = name in self.flow.converted_stages
        silent = () if converted else self._hooks.silenced_by(model)
        self._silent[name] = silent
        graph = before.graph if result.graph is None else result.graph
        if result.moved:
            graph = result.graph or take_graph(model, self._models.options.example_inputs)
            self._origin = result.origin
        if name == self.flow.prepared_stage:  # all fake quants are in: count one forward
            by_shapes = graph is not None and graph.by_shapes and self._models.untouched
            inputs, base = self._models.options.example_inputs, self._models.base
            self._probe = probe(model, inputs, base if by_shapes else None)
        elif self.index(name) < self.index(self.flow.prepared_stage):
            self._probe = calls_in_graph(model, graph) if graph is not None else None
        snapshot = self._snapshot_of(name, built, graph)
        traced = isinstance(model, fx.GraphModule)
        hooks = (silenced_note(name, silent, traced),) if silent else ()
        notes = (*snapshot.notes, *hooks, *self._notes(stage, snapshot))
        self._ahead[name] = replace(snapshot, notes=notes)

    def _notes(self, stage: Stage, snapshot: Snapshot) -> tuple[str, ...]:
        """What is amiss at this stage although torch says nothing; see :data:`AMISS`."""
        found = []
        if stage.name in self.flow.converted_stages and self._models.never_observed:
            found.append(NEVER_OBSERVED)
        concern = self._models.options.qconfig.concern if self.flow.runs_on_engine else None
        if stage.role == "int8" and concern is not None:
            found.append(str(concern))
        if stage.name == self.flow.prepared_stage:
            weights = any(site.kind == "weight" for site in snapshot.sites)
            found += [] if weights else [NOTHING_QUANTIZED]
        return tuple(found)

    def _snapshot_of(self, name: str, built: Built, graph: Graph | None) -> Snapshot:
        extra: dict[str, Any] = {} if self._origin is None else {"origin": self._origin}
        stage, result = self.flow.stage(name), built.result
        base = self._snapshots[self.names[0]].by_path
        if result.types:
            extra["walked"] = Walked.of(result.model, base, result.types)
        return take_snapshot(
            result.model,
            flow=self.flow.name,
            stage=name,
            call=stage.call,
            role=stage.role,
            graph=graph,
            float_paths=frozenset(base),
            earlier=self._before(name).site_by_path,
            probed=None if name in self.flow.converted_stages else self._probe,
            placed=result.placed,
            annotations=result.annotations,
            groups=result.groups,
            warnings=built.warnings,
            notes=(*self._models.options.qconfig.loud, *result.notes, *built.joins),
            settled=self.index(name) >= self.index(self.flow.prepared_stage),
            **extra,
        )


_EDITED = "Edited in the session's copy. In a script of your own: {code}"
_EVAL_NOTE = (
    "The model is in eval mode; quantization-aware training needs train mode. "
    "session.use_train_mode() puts the session's copy into train mode."
)
NEVER_OBSERVED = (
    "No observer has seen data, so no scale of an activation is a measured one and the int8 "
    "model's outputs mean nothing. Train, or calibrate, first."
)
NOTHING_QUANTIZED = (
    "No weight of this model has a fake quant, so all of them stay float. session.ledger() says "
    "why, module by module."
)
AMISS = (NO_STUBS, NOTHING_QUANTIZED, NEVER_OBSERVED)
"""Notes of a snapshot that a script must hear too, as warnings."""
