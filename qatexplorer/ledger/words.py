"""Numbers of a redundancy as a sentence for the user."""

from __future__ import annotations

import math

from qatexplorer.ledger.records import Ledger, Redundancy, RedundancyNumbers


def percent(value: float) -> str:
    """``"+12.3 %"``; two significant digits below 1 %."""
    shown = value * 100
    return f"{shown:+.1f} %" if abs(shown) >= 1 else f"{shown:+.2g} %"


def decibel(value: float) -> str:
    """``"31.2 dB"``; "no difference" for infinity."""
    if math.isinf(value):
        return "no difference"
    return "unknown" if math.isnan(value) else f"{value:.1f} dB"


def _at_output(numbers: RedundancyNumbers) -> str:
    if numbers.output_sqnr_db is None:
        return ""
    return f"; at the model's output {decibel(numbers.output_sqnr_db)}"


def together_text(ledger: Ledger) -> str:
    """What the redundant fake quants do to the model's output together; ``""`` if there is none."""
    if ledger.together_sqnr_db is None:
        return ""
    return (
        "All of them together, against a forward that leaves every one of them out: signal to "
        f"noise at the model's output {decibel(ledger.together_sqnr_db)}."
    )


def cost_text(found: Redundancy) -> str:
    """What it does to the values, and what it takes of a step's time."""
    parts = []
    numbers = found.numbers
    if found.kind == "shared":
        return found.cost
    if numbers is not None:
        if numbers.changed:
            parts.append(
                f"The second one changes {numbers.changed:,} of {numbers.values:,} values "
                f"({numbers.changed_share:.0%}), by up to {numbers.max_steps:.1f} steps "
                f"(signal to noise {decibel(numbers.sqnr_db)}{_at_output(numbers)})."
            )
        else:
            parts.append(
                f"The second one changes none of {numbers.values:,} values: rounding twice on one "
                "grid is rounding once."
            )
        if found.kind == "double":
            parts.append(
                f"The scales are {numbers.scale_first:.4g} and {numbers.scale_second:.4g} "
                f"({percent(numbers.scale_difference)})."
            )
    if numbers is not None and numbers.observed_for_this:
        parts.append(
            "(No data had been seen: the observers were shown the example input for this, so they "
            "agree more than they will after training.)"
        )
    if found.kind == "twice":
        parts.append(
            "But its observer sees every batch once more, the last time with values that are "
            "clipped already."
        )
    if found.drift:
        (first_step, first), (last_step, last) = found.drift[0], found.drift[-1]
        parts.append(
            f"In training the difference went from {percent(first)} (step {first_step}) to "
            f"{percent(last)} (step {last_step})."
        )
    if found.step is not None:
        step = found.step
        whole = f"of a step of {step.with_s * 1e3:.2f} ms"
        if step.measurable:
            parts.append(
                f"It takes {step.taken_s * 1e3:.2f} ms {whole} ({step.share:.1%}, median of "
                f"{step.rounds} turns)."
            )
        else:
            parts.append(
                f"Its time {whole} is below what {step.rounds} turns can tell "
                f"(± {step.spread_s * 1e3:.2f} ms)."
            )
    return " ".join(parts)
