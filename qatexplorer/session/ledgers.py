"""The ledger of a session's model at a stage, made once and kept while nothing changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from qatexplorer.errors import BusyError, StageError
from qatexplorer.flows.base import Flow
from qatexplorer.ledger.build import ledger_of
from qatexplorer.ledger.forwards import LedgerProgress
from qatexplorer.ledger.records import Ledger
from qatexplorer.session.models import Models
from qatexplorer.session.stages import Stages
from qatexplorer.snapshot.records import Snapshot
from qatexplorer.training.run import TrainingRun


@dataclass(frozen=True)
class Wanted:
    """What a ledger is asked for, as in :meth:`~qatexplorer.session.session.Session.ledger`."""

    timing: int
    effects: bool
    progress: Callable[[LedgerProgress], Any] | None = None
    should_stop: Callable[[], bool] | None = None

    def covers(self, other: Wanted) -> bool:
        """Whether a ledger made for this has all that ``other`` asks for."""
        return self.timing >= other.timing and self.effects >= other.effects


class Ledgers:
    """Makes the ledgers of the stages with fake quants, and keeps those that are still true."""

    def __init__(self, models: Models, stages: Stages) -> None:
        self._models, self._stages = models, stages
        self._kept: dict[str, tuple[Snapshot, Wanted, Ledger]] = {}

    def known(self) -> Ledger | None:
        """The ledger of the stage in view if it has been made and is still true; makes none."""
        try:
            stage = self.stage_of(None)
        except StageError:
            return None
        kept = self._kept.get(stage)
        return kept[2] if kept is not None and kept[0] is self._stages.snapshots[stage] else None

    def stage_of(self, stage: str | None) -> str:
        """The stage whose ledger is meant: a converted model has none, its prepared one has.

        Raises UnknownStageError, and StageError for a stage without fake quants or not reached yet.
        """
        stages, flow = self._stages, self._models.flow
        if not flow.has_ledger:
            raise StageError(
                f"there is no ledger in flow {flow.name!r}: one call makes all fake quants, in the "
                f"layers that it swaps, and the notes of stage {flow.prepared_stage!r} count what "
                "stays float."
            )
        chosen = stages.current if stage is None else stage
        if stages.index(chosen) > stages.index(flow.train_stage):
            chosen = flow.train_stage
        snapshot = stages.snapshots.get(chosen)
        if snapshot is None or not (snapshot.is_from("inserted") or snapshot.sites):
            raise StageError(
                f"there are no fake quants to account for at stage {chosen!r}.",
                why=_when(flow),
                fix=f"Call session.goto({flow.prepared_stage!r}) first.",
            )
        return chosen

    def of(
        self, stage: str | None, wanted: Wanted, run: TrainingRun | None, running: bool
    ) -> Ledger:
        """See :meth:`qatexplorer.session.session.Session.ledger`; nothing else may change the
        working model meanwhile."""
        chosen, flow = self.stage_of(stage), self._models.flow
        snapshot = self._stages.snapshots[chosen]
        kept = self._kept.get(chosen)
        if kept is not None and kept[0] is snapshot and kept[1].covers(wanted):
            return kept[2]
        model = self._models.view(chosen)
        if running and model is self._models.work:
            raise BusyError(
                "cannot account for a model while it is being trained.",
                fix="Stop the run, wait for it, or look at the ledger of stage "
                f"{flow.prepared_stage!r}.",
            )
        ledger = self._make(model, snapshot, wanted, run if chosen == flow.train_stage else None)
        self._kept[chosen] = (snapshot, wanted, ledger)
        return ledger

    def _make(
        self, model: nn.Module, snapshot: Snapshot, wanted: Wanted, run: TrainingRun | None
    ) -> Ledger:
        options, flow = self._models.options, self._models.flow

        def convert(candidate: nn.Module) -> nn.Module:
            return flow.apply(flow.int8_stage, candidate, options).model

        return ledger_of(
            model,
            options.example_inputs,
            stage=snapshot.stage,
            origins={s.path: (s.stage, s.call) for s in snapshot.sites},
            graph=snapshot.graph,
            samples=run.history.sites if run is not None else None,
            **vars(wanted),
            mapping=options.qat_mapping,
            backend_config=options.backend_config,
            convert=convert,
            engine=options.qconfig.backend,
            prepared=snapshot.is_from("inserted"),
        )


def _when(flow: Flow) -> str:
    """When fake quants come, in a sentence."""
    if flow.kind() == "modules":
        return "Weight fake quants come with the swap, the others when observers are inserted."
    return f"They come with stage {flow.prepared_stage!r}."
