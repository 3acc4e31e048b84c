"""Words that figures share for those who do not see them."""

from __future__ import annotations

import math

from qatexplorer.views.common.names import number

_SAME = 0.005


def trend(first: float, last: float) -> str:
    """``"0.1 to 0.12, up 20 %"``: how a positive number has moved."""
    if not (math.isfinite(first) and math.isfinite(last)):
        return "not known"
    text = f"{number(first)} to {number(last)}"
    if first <= 0:
        return text if first != last else f"{number(last)} throughout"
    moved = last / first - 1
    if abs(moved) < _SAME:
        return f"{text}, all but unchanged" if first != last else f"{number(last)} throughout"
    way = "up" if moved > 0 else "down"
    if moved >= 1:
        return f"{text}, {number(last / first, 3)} times as much"
    return f"{text}, {way} {100 * abs(moved):.3g} %"


def span(low: float, high: float) -> str:
    """``"−1 to 2"``; ``"not known"`` where an end is not."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return "not known"
    return f"{number(low)} to {number(high)}"
