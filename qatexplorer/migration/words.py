"""Parts of a migration in words, the same for terminals and pages."""

from __future__ import annotations

import math
from collections.abc import Iterator

from qatexplorer.migration.records import FlowColumn, Rounding

_MISSING = {
    "metric": "metric with fake quants",
    "metric_int8": "metric of int8",
    "parity": "agreement of int8 and fake quants",
}


def codes(one: Rounding) -> str:
    """``"0…255"``."""
    return f"{one.quant_min}…{one.quant_max}"


def scale_words(one: Rounding) -> str:
    """One scale with its zero point, or how many there are."""
    if not one.scale:
        return "no scale"
    if one.per_channel:
        low, high = min(one.scale), max(one.scale)
        return f"{len(one.scale):,} scales {low:.4g}…{high:.4g}"
    zero = f", zero {one.zero_point[0]}" if one.zero_point else ""
    return f"scale {one.scale[0]:.4g}{zero}"


def grid_range(one: Rounding) -> str:
    """The lowest and highest number of the grid; ``""`` without a scale."""
    if math.isnan(one.lowest) or one.seen == "nothing":
        return "(has seen nothing)" if one.seen == "nothing" else ""
    return f"[{one.lowest:.4g}, {one.highest:.4g}]"


def db(value: float | None) -> str:
    """``"41.1 dB"``."""
    if value is None or math.isnan(value):
        return "cannot be compared"
    return "the same" if math.isinf(value) else f"{value:.1f} dB"


def missing_words(column: FlowColumn) -> Iterator[str]:
    """What was not measured, and why."""
    for reason in dict.fromkeys(column.not_measured.values()):
        names = [_MISSING[n] for n, why in column.not_measured.items() if why == reason]
        yield f"Not measured ({' and '.join(names)}): {reason}"
