"""Parts of a migration in words, the same for terminals and pages."""

from __future__ import annotations

import math
from collections.abc import Iterator

from qatexplorer.migration.records import FlowColumn, Migration, Rounding

_MISSING = {
    "metric": "metric with fake quants",
    "metric_int8": "metric of int8",
    "parity": "agreement of int8 and fake quants",
}


def codes(one: Rounding) -> str:
    """``"0…255"``."""
    return f"{one.quant_min}…{one.quant_max}"


def scale_words(one: Rounding) -> str:
    """One scale with its zero point, or how many there are; ``"no scale"``."""
    if not one.scale:
        return "no scale"
    if one.several_scales:
        return f"{len(one.scale):,} scales {min(one.scale):.4g}…{max(one.scale):.4g}"
    return f"scale {one.scale[0]:.4g}{zero_words(one)}"


def zero_words(one: Rounding) -> str:
    """``", zero 137"``; ``""`` where there are several, or none."""
    return f", zero {one.zero_point[0]}" if len(one.zero_point) == 1 else ""


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


OTHER_TENSOR = (
    "“tensor in …”: with all fake quants off another tensor reaches the fake quant there, so that "
    "grids differ for that reason too."
)


def differs_words(found: Migration, key: str) -> str:
    """What is not the same in the flows that round the place; where the tensor itself is another
    one, that first."""
    other = found.other_tensor_in(key)
    tensor = [f"tensor in {' and '.join(other)}"] if other else []
    return ", ".join([*tensor, *found.differences(key)])


def without_rounding_words(column: FlowColumn) -> str:
    """Whether it is the float model with its fake quants off; ``""`` where that is not known."""
    if column.departs:
        return column.departs
    if column.unrounded is None:
        return ""
    return "With all fake quants off it is the float model."


def stub_words(column: FlowColumn) -> str:
    """How the input is quantized where the model has no stub of its own; ``""`` where it has."""
    if column.without_stubs:
        return f"Without stubs, as it does not run with them: {column.without_stubs}"
    if column.stubs == "none":
        return ""
    return f"With stubs={column.stubs!r}: the model has no stub of its own."


def missing_words(column: FlowColumn) -> Iterator[str]:
    """What was not measured, and why."""
    for reason in dict.fromkeys(column.not_measured.values()):
        names = [_MISSING[n] for n, why in column.not_measured.items() if why == reason]
        yield f"Not measured ({' and '.join(names)}): {reason}"
