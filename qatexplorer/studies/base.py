"""What a study is: a published claim, the arms that are trained for it, and how they are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from qatexplorer.studies.bench import Bench

Values = Mapping[str, float]
"""What an arm measured, by the name of the value. All are in per cent."""

Work = Callable[[int, Bench], Values]
"""Makes and measures the nets of an arm with a seed. The same seed gives the same values."""


@dataclass(frozen=True)
class Arm:
    """One way of treating the nets. Studies can share an arm, which runs once.

    Attributes:
        name: unique among all arms; results are kept by it.
        work: what is done.
    """

    name: str
    work: Work


@dataclass(frozen=True)
class Row:
    """A value of an arm in the table of a study.

    ``published`` is the figure of the large net that stands beside it, as the source prints it;
    ``""`` where the source has none.
    """

    value: str
    title: str
    published: str = ""


@dataclass(frozen=True)
class Reading:
    """Whether a part of the claim comes out: two values of one seed are compared, seed by seed.

    Attributes:
        text: what should come out.
        of, against: names of values; the difference is ``of`` minus ``against``, in points.
        claim: ``"above"``: it is above zero; ``"at most"``: it is at most ``limit``.
        limit: in points. why: where the limit comes from.
        published: the same difference in the source.
    """

    text: str
    of: str
    against: str
    claim: Literal["above", "at most"] = "above"
    limit: float = 0.0
    why: str = ""
    published: str = ""


@dataclass(frozen=True)
class Study:
    """A published claim, tried on the digits.

    Attributes:
        id: such as ``"R1"``. title: a few words. claim: the claim in one sentence.
        source: where the published figures were read.
        nets: which nets of ours, with which settings.
        arms, rows, readings: what is run, shown and concluded.
        sizes: why ours and the published figures differ in size.
    """

    id: str
    title: str
    claim: str
    source: str
    nets: str
    arms: tuple[Arm, ...]
    rows: tuple[Row, ...]
    readings: tuple[Reading, ...]
    sizes: str
