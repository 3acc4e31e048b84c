"""Published results, tried on the digits: ``python -m qatexplorer.studies``.

A study is a file and a line in :data:`STUDIES`.
"""

from __future__ import annotations

from qatexplorer.studies import (
    r01_equalization,
    r03_per_channel,
    r04_cost,
    r05_freezing,
    r06_oscillation,
    r07_robustness,
    r08_batch_norms,
    r09_step_sizes,
    r10_four_bits,
)
from qatexplorer.studies.base import Arm, Reading, Row, Study
from qatexplorer.studies.effort import FULL, QUICK, Effort
from qatexplorer.studies.results import Results, as_markdown
from qatexplorer.studies.run import read, run
from qatexplorer.studies.verdict import Spread, Verdict, spread, verdict

__all__ = [
    "FULL",
    "QUICK",
    "STUDIES",
    "Arm",
    "Effort",
    "Reading",
    "Results",
    "Row",
    "Spread",
    "Study",
    "Verdict",
    "as_markdown",
    "chosen",
    "read",
    "run",
    "spread",
    "verdict",
]

STUDIES: tuple[Study, ...] = (
    r01_equalization.STUDY,
    r03_per_channel.STUDY,
    r04_cost.STUDY,
    r05_freezing.STUDY,
    r06_oscillation.STUDY,
    r07_robustness.STUDY,
    r08_batch_norms.STUDY,
    r09_step_sizes.STUDY,
    r10_four_bits.STUDY,
)
"""All studies, in the order of their table."""


def chosen(ids: str | None = None) -> tuple[Study, ...]:
    """The studies of ``ids``, such as ``"R1,R3"``; None is all. Raises InputError."""
    from qatexplorer.errors import InputError

    if ids is None:
        return STUDIES
    known = {study.id: study for study in STUDIES}
    wanted = [one.strip().upper() for one in ids.split(",") if one.strip()]
    unknown = [one for one in wanted if one not in known]
    if unknown or not wanted:
        raise InputError(
            f"there is no study {', '.join(unknown) or repr(ids)}.",
            fix=f"The studies are {', '.join(known)}.",
        )
    return tuple(known[one] for one in dict.fromkeys(wanted))
