"""The model of a session in the other flow too, so that their fake quants can be compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qatexplorer.flows.base import StubMode
from qatexplorer.flows.stubs import has_stubs
from qatexplorer.ledger.compare import Match, match_sites

if TYPE_CHECKING:
    from qatexplorer.session.session import Session


def other_flow(session: Session) -> Session:
    """A session of the same float model, inputs and settings in the other flow, at insert.

    An eager one of a model without stubs gets ``QuantWrapper``. What was trained is not taken
    over. Raises what stepping raises, such as TraceFailedError.
    """
    from qatexplorer.session.session import Session

    name = "fx" if session.flow.name == "eager" else "eager"
    options = session.options
    base = session._bench.base
    stubs: StubMode = "model" if name == "eager" and not has_stubs(base) else "none"
    other = Session(
        base, options.example_inputs, flow=name, data=session.data, stubs=stubs
    )  # copies the model
    kept = {
        "qconfig": options.qconfig,
        "qat_mapping": options.qat_mapping,
        "custom": options.custom,
        "backend_config": options.backend_config,
    }
    other._bench.reset(other._bench.with_options(**kept))
    other._start_over()
    other.goto(other.flow.prepared_stage)
    return other


def compare_flows(session: Session) -> tuple[Match, ...]:
    """Every tensor that eager mode or FX quantizes in this model, and which of them does.

    Raises StageError where the session has no fake quants yet, and what :func:`other_flow` raises.
    """
    mine = session.ledger()
    other = other_flow(session)
    theirs = other.ledger()
    if session.flow.name == "eager":
        return match_sites(mine, theirs, session.snapshots[mine.stage], other.snapshot)
    return match_sites(theirs, mine, other.snapshot, session.snapshots[mine.stage])
