"""R6: low-bit weights oscillate, and what helps."""

from __future__ import annotations

from qatexplorer.studies.base import Reading, Row, Study
from qatexplorer.studies.low_bits import HERE, TITLES, TREATMENTS, arm

BITS = (4, 3)
_PUBLISHED = {"": "69.50", " dampened": "70.37", " frozen": "70.33"}


def _rows(bits: int) -> tuple[Row, ...]:
    names = [
        (f"{bits} bits{after}", f"{bits} bits, {TITLES[after]}", after) for after in TREATMENTS
    ]
    return (
        *(Row(name, title, _PUBLISHED[after]) for name, title, after in names),
        Row(f"{bits} bits, norms anew", f"{bits} bits, QAT, batch norms measured anew"),
        *(
            Row(f"{name}, reversing", f"{title}: weights that go back and forth")
            for name, title, _ in names
        ),
    )


def _readings(bits: int) -> tuple[Reading, ...]:
    name = f"{bits} bits"
    return (
        Reading(f"dampening helps at {bits} bits", f"{name} dampened", name, published="0.87"),
        Reading(f"freezing helps at {bits} bits", f"{name} frozen", name, published="0.83"),
        Reading(
            f"batch norms measured anew bring more than dampening at {bits} bits",
            f"{name}, norms anew",
            f"{name} dampened",
        ),
        Reading(
            f"batch norms measured anew bring more than freezing at {bits} bits",
            f"{name}, norms anew",
            f"{name} frozen",
        ),
    )


STUDY = Study(
    "R6",
    "Oscillating weights",
    "Low-bit weights oscillate; dampening or freezing them helps; measuring batch norms anew "
    "repairs most.",
    "second-hand: a reader's notes on arXiv 2203.11086 (LSQ baseline, dampening, freezing; "
    "for how many bits was not read)",
    f"{HERE}; ranges by a moving average, not LSQ; dampening 0.01, freezing at a rate of reversals "
    "that falls from 0.04 to 0.02; a weight goes back and forth if its rate is above 0.005",
    tuple(arm(bits, treatment) for bits in BITS for treatment in TREATMENTS),
    tuple(row for bits in BITS for row in _rows(bits)),
    tuple(reading for bits in BITS for reading in _readings(bits)),
    "rates of reversals and what acts on them need many steps, and our training has 160. What "
    "helps most in a large net has little left to repair in ours at 4 bits.",
)
