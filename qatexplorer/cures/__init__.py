"""Actions that win accuracy back. A cure is a file here, and a line below."""

from qatexplorer.cures import batch_norms, biases, equalization, ranges
from qatexplorer.cures.base import (
    CURES,
    Cost,
    Cure,
    Cured,
    Ground,
    Judged,
    LayerChange,
    Look,
    NewSettings,
    Offer,
    Work,
    WorkDone,
    cure,
    offers,
)

__all__ = [
    "CURES",
    "Cost",
    "Cure",
    "Cured",
    "Ground",
    "Judged",
    "LayerChange",
    "Look",
    "NewSettings",
    "Offer",
    "Work",
    "WorkDone",
    "batch_norms",
    "biases",
    "cure",
    "equalization",
    "offers",
    "ranges",
]
