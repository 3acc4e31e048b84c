"""What a session is, in one record: for a page that shows the model at a glance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from qatexplorer.checks.records import Finding
from qatexplorer.flows.base import Stage
from qatexplorer.ledger.records import Ledger
from qatexplorer.runs.records import Progress
from qatexplorer.session.stages import AMISS
from qatexplorer.snapshot.parts import Share, macs_share, params_at, params_share
from qatexplorer.snapshot.records import Snapshot

if TYPE_CHECKING:
    from qatexplorer.session.session import Session


@dataclass(frozen=True)
class Glance:
    """The model of a session at the stage in view.

    Attributes:
        snapshot: of the stage in view. stage: that stage, following: the next one, None at the end;
            prepared: the one with all fake quants in; train: the one to train at.
        params: in what its parameters compute. held: parameter elements by the path of the module
            that holds them, those of int8 modules as they were before they were packed.
        macs: the same for the multiply-accumulates of one forward of the example input; None while
            they are not counted. macs_error: why they cannot be.
        ledger: the stage's ledger if one has been made.
        findings: what is wrong with the model and its settings, as far as that is known.
        notes: of the stage, those left out that a finding tells.
        has_data: there are batches to train with. observed: fake quants, if any, have seen data.
        progress: of a run that is going on, else None.
    """

    snapshot: Snapshot
    stage: Stage
    following: Stage | None
    prepared: Stage
    train: Stage
    params: Share
    held: Mapping[str, int] = field(default_factory=dict)
    macs: Share | None = None
    macs_error: str = ""
    ledger: Ledger | None = None
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    has_data: bool = True
    observed: bool = False
    progress: Progress | None = None


def glance_of(session: Session, macs: Mapping[str, int] | Exception | None = None) -> Glance:
    """The session at the stage in view, from what is known: nothing is run.

    ``macs`` are :meth:`Session.macs`, None while they are not counted, or why they cannot be.
    """
    flow, snapshots = session.flow, session.snapshots
    snapshot, stage = session.snapshot, flow.stage(session.stage)
    names = flow.stage_names
    at = names.index(stage.name) + 1
    converted = stage.name in flow.converted_stages
    # What is converted comes from the prepared model; training changes none of its records' counts.
    before = snapshots.get(flow.train_stage) if converted else None
    run = session.run
    findings = session.findings(try_int8=False)
    waiting = any(site.seen == "nothing" for site in snapshot.sites) and not session.observed
    lacking = waiting or any(found.name == "never-observed" for found in findings)
    return Glance(
        snapshot=snapshot,
        stage=stage,
        following=flow.stages[at] if at < len(names) else None,
        prepared=flow.stage(flow.prepared_stage),
        train=flow.stage(flow.train_stage),
        params=params_share(snapshot, before),
        held=params_at(snapshot, before),
        macs=macs_share(snapshot, macs) if isinstance(macs, Mapping) else None,
        macs_error=str(macs) if isinstance(macs, Exception) else "",
        ledger=session.known_ledger,
        findings=findings,
        notes=tuple(n for n in snapshot.notes if n not in (AMISS if findings else ())),
        has_data=session.data is not None,
        observed=not lacking,
        progress=run.progress if run is not None and session.running else None,
    )
