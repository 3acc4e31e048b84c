"""The ledger: who put each fake quant there, and is any of them one too many?"""

from __future__ import annotations

from qatexplorer.ledger.build import ledger_of
from qatexplorer.ledger.records import (
    Coverage,
    FloatRow,
    Ledger,
    LedgerRow,
    Redundancy,
    RedundancyNumbers,
    StepCost,
    TensorPlace,
)

__all__ = [
    "Coverage",
    "FloatRow",
    "Ledger",
    "LedgerRow",
    "Redundancy",
    "RedundancyNumbers",
    "StepCost",
    "TensorPlace",
    "ledger_of",
]
