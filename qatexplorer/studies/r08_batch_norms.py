"""R8: batch norms measured anew after low-bit QAT."""

from __future__ import annotations

from qatexplorer.studies.base import Reading, Row, Study
from qatexplorer.studies.low_bits import HERE, arm

BITS = (8, 4, 3, 2)

STUDY = Study(
    "R8",
    "Batch norms measured anew",
    "Batch-norm statistics should be measured anew after QAT with 4 bits or fewer.",
    "AIMET, page on bn_reestimation (a recommendation without a figure)",
    HERE,
    tuple(arm(bits) for bits in BITS),
    tuple(
        row
        for bits in BITS
        for row in (
            Row(f"{bits} bits", f"{bits} bits, QAT"),
            Row(f"{bits} bits, norms anew", f"{bits} bits, QAT, batch norms measured anew"),
        )
    ),
    tuple(
        Reading(f"it raises accuracy at {bits} bits", f"{bits} bits, norms anew", f"{bits} bits")
        for bits in BITS
        if bits <= 4
    ),
    "torch's QAT layers scale a weight by its batch norm before they round it, so statistics that "
    "are measured anew change the rounded weights too, and training does not follow.",
)
