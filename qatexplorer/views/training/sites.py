"""Small multiples of all watched fake quants as HTML: a line each, sorted by one of its numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from qatexplorer.views.common.html import Html, go, join, kind_badge, tag
from qatexplorer.views.common.names import count, share
from qatexplorer.views.training.telemetry import overhead_words

if TYPE_CHECKING:
    from qatexplorer.runs.samples import FakeQuantInfo, Sample
    from qatexplorer.runs.store import Telemetry

WIDTH, HEIGHT, POINTS = 120, 24, 60


def _decibels(value: float) -> str:
    return f"{value:.1f} dB"


ORDERS: dict[str, tuple[str, Callable[[Sample], float], Callable[[float], str], bool]] = {
    "clipped": ("clipped share", lambda sample: sample.clipped, share, True),
    "sqnr": ("SQNR, worst first", lambda sample: sample.sqnr_db, _decibels, False),
    "drift": ("drift of the range", lambda sample: sample.drift, share, True),
    "oscillating": ("oscillating weights", lambda sample: sample.oscillating, share, True),
    "zeros": ("share of zeros", lambda sample: sample.zero_share, share, True),
    "dead": ("dead channels", lambda sample: sample.dead_channels, lambda v: f"{v:.0f}", True),
}
"""By name: words, number of a sample, how it is written, whether the largest comes first."""


def sites_html(telemetry: Telemetry, order: str = "clipped", selected: str = "") -> Html:
    """All fake quants, the worst by ``order`` (of :data:`ORDERS`) first, each with a sparkline, its
    newest number and what is wrong with its state. ``selected`` is a path."""
    words, value, write, largest_first = ORDERS[order]
    rows: list[tuple[float, Html]] = []
    for info in telemetry.infos:
        samples = telemetry.samples(info.path, details=False, most=POINTS)
        values = [value(sample) for sample in samples]
        known = [v for v in values if not math.isnan(v)]
        newest = known[-1] if known else math.nan
        # Those without a number come last, whichever way it goes.
        key = math.inf if not known else (-newest if largest_first else newest)
        rows.append((key, _row(telemetry, info, values, newest, write, info.path == selected)))
    rows.sort(key=lambda row: row[0])
    head = tag("tr", *(tag("th", text, scope="col") for text in ("", "fake quant", words, "over the steps", "state")))  # fmt: skip  # noqa: E501
    return tag(
        "div",
        tag("p", overhead_words(telemetry), class_="qx-live-cost"),
        tag("table", tag("thead", head), tag("tbody", *(row for _, row in rows)),
            class_="qx-live-sites"),
        class_="qx-live",
    )  # fmt: skip


def _row(
    telemetry: Telemetry,
    info: FakeQuantInfo,
    values: Sequence[float],
    newest: float,
    write: Callable[[float], str],
    selected: bool,
) -> Html:
    unseen = telemetry.unseen.get(info.path, "")
    number = write(newest) if not math.isnan(newest) else "–"
    return tag(
        "tr",
        tag("td", kind_badge(info.kind)),
        tag("td", go(f"site:{info.path}", info.path)),
        tag("td", number, class_="qx-number"),
        tag("td", sparkline(values) if not unseen else tag("span", "not seen", title=unseen)),
        tag("td", _state(telemetry, info.path)),
        class_="qx-selected" if selected else None,
        aria_current="true" if selected else None,
    )


def sparkline(values: Sequence[float]) -> Html:
    """A small line of the values, from their least to their largest; hidden from screen readers,
    since the newest number stands beside it."""
    group = max(1, -(-len(values) // POINTS))
    # The newest value of each group, so that the line ends where the number says.
    thinned = list(values[::-1][::group][::-1])
    known = [v for v in thinned if not math.isnan(v)]
    if len(known) < 2:
        return Html("")
    low, high = min(known), max(known)
    width = (high - low) or 1.0
    step = (WIDTH - 4) / max(1, len(thinned) - 1)
    points = " ".join(
        f"{2 + index * step:.1f},{HEIGHT - 3 - (v - low) / width * (HEIGHT - 6):.1f}"
        for index, v in enumerate(thinned)
        if not math.isnan(v)
    )
    line = tag("polyline", points=points, fill="none", stroke="currentColor", stroke_width="1.5")
    return tag(
        "svg", line, width=WIDTH, height=HEIGHT, viewBox=f"0 0 {WIDTH} {HEIGHT}", aria_hidden="true"
    )


def _state(telemetry: Telemetry, path: str) -> Html:
    changes = telemetry.states(path)
    if not changes:
        return Html("")
    now = changes[-1]
    parts: list[Html | str] = []
    forbidden = [change for change in changes if change.forbidden]
    if forbidden:
        when = "now" if now.forbidden else f"from step {forbidden[-1].step:,}"
        parts.append(
            tag("strong", f"⚠ {forbidden[-1].mixture} ({when})", class_="qx-live-forbidden",
                title="The scale drifts away from what the weights are trained against, and "
                "convert uses the drifted one (pytorch/ao#2138).")
        )  # fmt: skip
    elif now.mixture:
        parts.append(tag("strong", f"⚠ {now.mixture}"))
    if not now.observer_enabled:
        parts.append("observer off")
    if not now.fake_quant_enabled and not forbidden:
        parts.append("fake quant off")
    if now.bn_frozen:
        parts.append("BN frozen")
    return join(parts, ", ")


def summary_words(telemetry: Telemetry) -> str:
    """One line for a status bar; what it costs stands above the table."""
    forbidden = {state.path for state in telemetry.states() if state.forbidden}
    text = f"{count(len(telemetry.infos), 'fake quant')} watched"
    if telemetry.unseen:
        text += f", {len(telemetry.unseen)} not seen"
    if forbidden:
        text += f", ⚠ forbidden state at {len(forbidden)}"
    return text
