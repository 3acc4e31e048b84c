"""R7: the opposite of R6: oscillation makes a net robust across bit widths."""

from __future__ import annotations

from qatexplorer.studies.base import Reading, Row, Study
from qatexplorer.studies.low_bits import CALIBRATED, HERE, TITLES, TREATMENTS, arm

STUDY = Study(
    "R7",
    "Oscillation and other bit widths",
    "Oscillation makes a net robust across bit widths: with it, rounding without training matches "
    "QAT at 3 bits.",
    "arXiv 2502.00490 (no figure was read)",
    f"{HERE}; nets trained with 4 bits, then rounded to 3 and 2 bits and calibrated. The paper "
    "adds a term to the loss of a float training instead, which is not tried here",
    (*(arm(4, treatment) for treatment in TREATMENTS), arm(3), CALIBRATED),
    (
        Row("3 bits", "3 bits, QAT"),
        Row("float, then 3", "float, rounded to 3 bits"),
        *(
            Row(f"4 bits{after}, then 3", f"4 bits, {title}; rounded to 3 bits")
            for after, title in TITLES.items()
        ),
        Row("float, then 2", "float, rounded to 2 bits"),
        *(
            Row(f"4 bits{after}, then 2", f"4 bits, {title}; rounded to 2 bits")
            for after, title in TITLES.items()
        ),
    ),
    (
        Reading(
            "4 bits, QAT; rounded to 3 bits matches QAT with 3 bits",
            "3 bits",
            "4 bits, then 3",
            "at most",
            1.04,
            "the loss that R4 calls little",
        ),
        Reading(
            "it is better at 3 bits than the rounded float net", "4 bits, then 3", "float, then 3"
        ),
        *(
            Reading(
                f"oscillating weights stand rounding to {bits} bits better than {words}",
                f"4 bits, then {bits}",
                f"4 bits{after}, then {bits}",
            )
            for bits in (3, 2)
            for after, words in ((" dampened", "dampened ones"), (" frozen", "frozen ones"))
        ),
    ),
    "the paper's nets oscillate by a term of their own; ours oscillate as much as QAT makes them.",
)
