"""What sampling a training costs, in words, and the weights that oscillate, as a figure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from qatexplorer.runs.samples import REVERSING
from qatexplorer.views.common.names import count, number, share
from qatexplorer.views.common.theme import Table, ThemeName, make_figure, short, theme_of

if TYPE_CHECKING:
    from qatexplorer.runs.samples import Overhead
    from qatexplorer.runs.store import Telemetry

MAX_LINES = 6
_SHORT_S = 0.05
_DASHES = ("solid", "dash", "dot", "dashdot")


def overhead_words(telemetry: Telemetry) -> str:
    """What is sampled, how often and what that costs, as measured: three sentences at most.

    Whoever chose the steps (a session, or ``watch(every=8)``) is told the cost and how to lower
    it; a ``watch`` that chooses them itself is held to its budget.
    """
    overhead = telemetry.overhead
    if overhead is None:
        return "What sampling cost is not known."
    return " ".join(
        part for part in (_sampling_words(telemetry, overhead), _following(overhead)) if part
    )


def _following(overhead: Overhead) -> str:
    """What it costs to take the codes of all weights in every step; empty if they are not."""
    if not overhead.followed_steps:
        return ""
    text = "The codes of all weights are taken in every step, in "
    text += _time(overhead.followed_s / overhead.followed_steps)
    timed = overhead.followed_share
    return f"{text}: {100 * timed:.2g} % of step time." if timed else f"{text}."


def _sampling_words(telemetry: Telemetry, overhead: Overhead) -> str:
    if not overhead.sampled_steps:
        # A session accounts for a sample when it takes the next one.
        return "Sampled once: not timed yet." if telemetry.steps else "No sample yet."
    every = f"{overhead.every:.0f}" if overhead.every >= 9.95 else f"{overhead.every:.2g}"
    often = "every step" if overhead.every < 1.05 else f"1 step in {every}"
    taken = f"{overhead.largest_sample:,} of {overhead.largest_total:,} values"
    error = "" if overhead.bound == 0 else f", shares ± {100 * overhead.bound:.1g} %"
    text = f"Sampled: {often}, of the largest tensor {taken}{error}"
    if overhead.train_s <= 0 or not overhead.steps:
        return f"{text}; not timed yet."
    step = overhead.train_s / overhead.steps
    sample = overhead.spent_s / overhead.sampled_steps
    text += f". A sample takes {_time(sample)}, a step {_time(step)}: {100 * overhead.share:.2g} %"
    text += " of step time."
    if overhead.share <= overhead.budget:
        return text
    if overhead.pace == "auto":
        return f"{text} The budget is {100 * overhead.budget:.2g} %; the next samples come later."
    wanted = math.ceil(sample / (step * overhead.budget))
    why = "On steps this short a sample weighs much. " if step < _SHORT_S else ""
    return f"{text} {why}1 step in {wanted:,} would be {100 * overhead.budget:.2g} %."


def _time(seconds: float) -> str:
    if seconds >= 1:
        return f"{number(seconds, 3)} s"
    return f"{number(seconds * 1e3, 2)} ms"


def oscillation_figure(telemetry: Telemetry, theme: ThemeName | bool = "light") -> go.Figure | None:
    """Share of the weights that go back and forth between two codes, for the worst weight fake
    quants; None where there is no weight to follow.

    Where the run has followed all weights in every step, the share with a high rate of reversals
    (the published measure) is a dashed line beside ours.
    """
    look = theme_of(theme)
    found = []
    for info in telemetry.infos:
        steps, values = telemetry.series(info.path, "oscillating")
        if len(values) > 1:
            found.append((values[-1], info.path, steps, values))
    if not found:
        return None
    found.sort(key=lambda item: -item[0])
    shown = found[:MAX_LINES]
    published = {path: telemetry.series(path, "reversing") for _, path, _, _ in shown}
    both = any(values for _, values in published.values())
    data = []
    for index, (_, path, steps, values) in enumerate(shown):
        colour = look.series[index % len(look.series)]
        dash = "solid" if both else _DASHES[index % len(_DASHES)]
        data.append(_line(path, steps, values, colour, dash, "%{y:.2%} of the weights"))
        if published[path][1]:
            words = f"rate of reversals above {REVERSING:g}: %{{y:.2%}} of the weights"
            line = _line(path, *published[path], colour, "dash", words)
            data.append({**line, "showlegend": False})
    layout = {
        "xaxis": {"title": "step", "showgrid": False},
        "yaxis": {"title": "weights", "tickformat": ".2~%", "rangemode": "tozero"},
        "showlegend": True,
        "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": -0.28, "yanchor": "top"},
        "margin": {"l": 56, "r": 18, "t": 64, "b": 96},
    }
    words = f"went back to the code before within 8 samples · worst {len(shown)} of {len(found)}"
    if both:
        words += f"<br>dashed: rate of reversals above {REVERSING:g}, of all weights in every step"
        layout["margin"] = {"l": 56, "r": 18, "t": 80, "b": 96}
    worst = found[0]
    alt = (
        f"Share of the weights that went back to the code before within 8 samples, for the worst "
        f"{len(shown)} of {count(len(found), 'weight fake quant')}, steps {worst[2][0]:,} to "
        f"{worst[2][-1]:,}. Most at {worst[1]}: {share(worst[0])} at the newest step, at most "
        f"{share(max(worst[3]))}."
    )
    table = _oscillation_table(telemetry, shown, both)
    return make_figure(look, "Oscillating weights", words, 330, data, layout, alt=alt, table=table)


def _line(
    path: str, steps: list[int], values: list[float], colour: str, dash: str, words: str
) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "x": steps,
        "y": values,
        "name": short(path, 36),
        "line": {"color": colour, "width": 2, "dash": dash},
        "hovertemplate": f"step %{{x}}<br>{words}<extra></extra>",
    }


def _oscillation_table(
    telemetry: Telemetry, shown: list[tuple[float, str, list[int], list[float]]], both: bool
) -> Table:
    heads = ["weight fake quant", "newest", "highest"]
    rows = [[path, share(now), share(max(values))] for now, path, _, values in shown]
    if both:
        heads += ["mean rate of reversals", f"rate above {REVERSING:g}", "frozen"]
        for row in rows:
            for name in ("reversal_rate", "reversing", "frozen"):
                known = telemetry.series(row[0], name)[1]
                row.append("–" if not known else _rate(known[-1], name))
    return Table(tuple(heads), tuple(tuple(row) for row in rows))


def _rate(value: float, name: str) -> str:
    return number(value, 2) if name == "reversal_rate" else share(value)
