"""What to try with a model, in which order, at what cost and how surely. A recipe is a file here,
and a name in the import below."""

from qatexplorer.advice import (  # noqa: F401  each registers itself
    batch_norms,
    biases,
    coverage,
    engine,
    equalization,
    errors,
    low_bits,
    measure,
    oscillation,
    per_channel,
    ranges,
    sites,
    take_home,
    train,
    undo,
    warned,
)
from qatexplorer.advice.base import RECIPES, advise, recipe
from qatexplorer.advice.facts import TOLERATED, Facts
from qatexplorer.advice.records import (
    Action,
    Advice,
    Cost,
    Gain,
    Proposal,
    Published,
    Reason,
    Sureness,
)

__all__ = [
    "RECIPES",
    "TOLERATED",
    "Action",
    "Advice",
    "Cost",
    "Facts",
    "Gain",
    "Proposal",
    "Published",
    "Reason",
    "Sureness",
    "advise",
    "recipe",
]
