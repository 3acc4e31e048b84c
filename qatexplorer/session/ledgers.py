"""The ledger of a session's model at a stage, made once and kept while nothing changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from torch import nn

from qatexplorer.errors import BusyError, StageError, UnknownStageError
from qatexplorer.ledger.build import ledger_of
from qatexplorer.ledger.records import Ledger
from qatexplorer.snapshot.records import Snapshot

if TYPE_CHECKING:
    from qatexplorer.session.session import Session

_KEPT: WeakKeyDictionary[Any, dict[str, tuple[Snapshot, tuple[int, bool], Ledger]]] = (
    WeakKeyDictionary()
)


def session_ledger(
    session: Session,
    stage: str | None,
    timing: int,
    effects: bool = False,
    progress: Any = None,
    should_stop: Any = None,
) -> Ledger:
    """See :meth:`qatexplorer.session.session.Session.ledger`."""
    chosen = stage_of(session, stage)
    snapshot = session.snapshots[chosen]
    kept = _KEPT.setdefault(session, {})
    known = kept.get(chosen)
    if (
        known is not None
        and known[0] is snapshot
        and known[1][0] >= timing
        and known[1][1] >= effects
    ):
        return known[2]
    if session.running and chosen == session.flow.train_stage:
        raise BusyError(
            "cannot account for a model while it is being trained.",
            remedy="Stop the run, wait for it, or look at the ledger of the 'insert' stage.",
        )
    ledger = _make(
        session,
        chosen,
        snapshot,
        timing=timing,
        effects=effects,
        progress=progress,
        should_stop=should_stop,
    )
    kept[chosen] = (snapshot, (timing, effects), ledger)
    return ledger


def kept_ledger(session: Session) -> Ledger | None:
    """The ledger of the stage in view if it has been made and is still true; makes none."""
    try:
        stage = stage_of(session, None)
    except StageError:
        return None
    known = _KEPT.get(session, {}).get(stage)
    return known[2] if known is not None and known[0] is session.snapshots[stage] else None


def stage_of(session: Session, stage: str | None) -> str:
    """The stage whose ledger is meant: a converted model has none, its prepared one has.

    Raises UnknownStageError, and StageError for a stage without fake quants or not reached yet.
    """
    flow = session.flow
    chosen = session.stage if stage is None else stage
    if chosen not in session.stages:
        raise UnknownStageError(
            f"there is no stage {chosen!r}.", remedy=f"Stages: {', '.join(session.stages)}."
        )
    if session.stages.index(chosen) > session.stages.index(flow.train_stage):
        chosen = flow.train_stage
    prepared = chosen in (flow.prepared_stage, flow.train_stage)
    reached = chosen in session.snapshots
    if not reached or not (prepared or session.snapshots[chosen].sites):
        raise StageError(
            f"there are no fake quants to account for at stage {chosen!r}.",
            why="Weight fake quants come with the swap, the others when observers are inserted.",
            remedy=f"Call session.goto({flow.prepared_stage!r}) first.",
        )
    return chosen


def _make(session: Session, stage: str, snapshot: Snapshot, **wanted: Any) -> Ledger:
    bench, options, flow = session._bench, session.options, session.flow

    def convert(model: nn.Module) -> nn.Module:
        return flow.apply(flow.int8_stage, model, options).model

    with session._lock:
        model = bench.view(stage, trained=session._trained, own=False)
        session._require_still(model)
        run = session.run if stage == flow.train_stage else None
        return ledger_of(
            model,
            options.example_inputs,
            stage=stage,
            origins={s.path: (s.stage, s.call) for s in snapshot.sites},
            graph=snapshot.graph,
            samples=run.history.sites if run is not None else None,
            **wanted,
            mapping=options.qat_mapping,
            backend_config=getattr(options, "backend_config", None),
            convert=convert,
            engine=options.qconfig.backend,
            prepared=stage in (flow.prepared_stage, flow.train_stage),
        )
