"""What is told of a whole session, and of two sessions of one model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qatexplorer.ledger.compare import Match, match_sites
from qatexplorer.shown import columns

if TYPE_CHECKING:
    from qatexplorer.session.session import Session


def session_lines(session: Session) -> list[str]:
    """A session as lines of text: flow, settings, and a line for each stage."""
    stages, run = session.stages, session.run
    name = session.snapshots[stages[0]].modules[0].type_name
    words = f"run {run.state}" if run is not None else "no run"
    options = session.options
    data = "none" if session.data is None else session.data.name
    lines = [
        f"Session of {name}: flow {session.flow.name}, at stage {session.stage!r}, {words}",
        f"qconfig {options.qconfig.name}, engine {options.qconfig.backend}, data {data}",
    ]
    changes = session.summaries
    rows = [
        (
            ">" if stage == session.stage else " ",
            stage,
            changes.get(stage, "your model" if stage in session.snapshots else "not reached yet"),
        )
        for stage in stages
    ]
    return [*lines, *columns(rows)]


def matches_of(mine: Session, other: Session) -> tuple[Match, ...]:
    """Every tensor that either of two sessions of one model, in two flows, quantizes."""
    own, theirs = mine.ledger(), other.ledger()
    snapshots = mine.snapshots[own.stage], other.snapshots[theirs.stage]
    if mine.flow.by_graph:
        return match_sites(theirs, own, snapshots[1], snapshots[0])
    return match_sites(own, theirs, *snapshots)
