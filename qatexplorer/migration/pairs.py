"""Which fake quant of one flow stands for which of another."""

from __future__ import annotations

from qatexplorer.migration.places import FloatModel, read
from qatexplorer.session.session import Session


def paired(one: Session, other: Session) -> tuple[tuple[str, str], ...]:
    """Fake quants of two sessions of one float model that round the same tensor: path in ``one``
    and path in ``other``, in the order of ``one``. Both have put their fake quants in."""
    floats = FloatModel(one.snapshots[one.stages[0]])
    mine, theirs = (
        read(session.flow, session.snapshots, session.fusion, floats).roundings
        for session in (one, other)
    )
    return tuple((mine[key].site, theirs[key].site) for key in mine if key in theirs)
