"""When the observer, the fake quant and the batch norm of one place went on and off, as marks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from qatexplorer.views.common.theme import Theme, label

if TYPE_CHECKING:
    from qatexplorer.runs.records import Marker, MarkerKind
    from qatexplorer.runs.samples import StateChange
    from qatexplorer.runs.store import Telemetry

MAX_NAMED = 6
_NEAR = 0.22
_LEVELS = 3


@dataclass(frozen=True)
class Event:
    """From step ``step`` on it is so. ``symbol`` is plotly's name of a shape."""

    step: int
    words: str
    symbol: str


_EVENTS: dict[str, tuple[str, str, str, MarkerKind]] = {
    "observer_enabled": ("observer frozen", "observer on", "square", "observers frozen"),
    "fake_quant_enabled": ("fake quant off", "fake quant on", "circle", "fake quants off"),
    "bn_frozen": ("BN moves", "BN frozen", "diamond", "batch-norm statistics frozen"),
}
"""By field of a state: words and shape when it becomes false and true, and the run's own marker."""


def events_of(telemetry: Telemetry, path: str, markers: Sequence[Marker] = ()) -> tuple[Event, ...]:
    """What changed at a fake quant after its first state, oldest first.

    A session looks at the states in the steps it samples. Where one of the run's ``markers`` says
    when in between the change was made, its step is taken.
    """
    states, steps = telemetry.states(path), telemetry.steps
    found = []
    for before, now in pairwise(states):
        looked = max((s for s in steps if s < now.step), default=-1)
        for name, (off, on, symbol, kind) in _EVENTS.items():
            was, is_on = getattr(before, name), getattr(now, name)
            if is_on is None or bool(was) == bool(is_on):
                continue
            step = _exact(markers, kind, looked, now.step)
            stopped = is_on if name == "bn_frozen" else not is_on
            shape = symbol if stopped else f"{symbol}-open"
            found.append(Event(step, on if is_on else off, shape))
    return tuple(sorted(found, key=lambda event: event.step))


def _exact(markers: Sequence[Marker], kind: MarkerKind, looked: int, seen: int) -> int:
    kinds = {kind, "fake quants on"} if kind == "fake quants off" else {kind}
    steps = [m.step for m in markers if m.kind in kinds and looked < m.step <= seen]
    return steps[-1] if steps else seen


def draw_mixtures(
    telemetry: Telemetry, path: str, look: Theme
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Bands where the state is a mixture that costs something, words at the newest of a kind."""
    bands, words = [], {}
    style = {"fillcolor": look.clipped, "opacity": 0.18, "line": {"width": 0}}
    place = {"yref": "paper", "y0": 0, "y1": 1}
    for first, last, state in _mixtures(telemetry, path):
        bands.append({"type": "rect", "x0": first, "x1": last, **place, **style})
        text = ("⚠ " if state.forbidden else "") + state.mixture
        late = first > sum(telemetry.steps[:: max(1, len(telemetry.steps) - 1)]) / 2
        words[text] = label(look, text, x=last if late else first, y=0.5, yref="paper",
                            yanchor="middle", xanchor="right" if late else "left")  # fmt: skip
    return bands, list(words.values())


def _mixtures(telemetry: Telemetry, path: str) -> tuple[tuple[int, int, StateChange], ...]:
    """(first step, last step, state) of each."""
    states, steps = telemetry.states(path), telemetry.steps
    end = steps[-1] if steps else 0
    found = []
    for index, now in enumerate(states):
        if now.mixture:
            until = states[index + 1].step if index + 1 < len(states) else end
            found.append((now.step, max(until, now.step + 1), now))
    return tuple(found)


def draw_events(
    events: Sequence[Event], steps: tuple[int, int], axis: str, look: Theme
) -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
    """A trace of shapes on the y axis ``axis`` (0 to 1), dotted lines through the figure, and words
    beside the newest six places, so that they do not run into each other."""
    by_step: dict[int, list[Event]] = {}
    for event in events:
        by_step.setdefault(event.step, []).append(event)
    width, levels = max(1, steps[1] - steps[0]), _levels(list(by_step), steps)
    heights = [(0.85, 0.5, 0.15)[levels[event.step]] for event in events]
    trace = {
        "type": "scatter",
        "mode": "markers",
        "name": "events",
        "x": [event.step for event in events],
        "y": heights,
        "yaxis": axis,
        "text": [event.words for event in events],
        "hovertemplate": "step %{x}<br>%{text}<extra></extra>",
        "marker": {
            "symbol": [event.symbol for event in events],
            "size": 9,
            "color": look.fg,
            "line": {"width": 1.5, "color": look.fg},
        },
        "cliponaxis": False,
    }
    lines = [
        {"type": "line", "x0": step, "x1": step, "yref": "paper", "y0": 0, "y1": 1,
         "line": {"color": look.fg, "width": 1, "dash": "dot"}}
        for step in by_step
    ]  # fmt: skip
    words = []
    for step in list(by_step)[-MAX_NAMED:]:
        # A pane may be 200 px wide: each goes into the larger half, one event a line.
        early = (step - steps[0]) / width < 0.5
        text = ",<br>".join(event.words for event in by_step[step])
        words.append(
            label(
                look,
                text,
                x=step,
                y=(0.85, 0.5, 0.15)[levels[step]],
                yref=axis,
                xanchor="left" if early else "right",
                xshift=8 if early else -8,
                yanchor="middle",
                align="left" if early else "right",
            )
        )
    return trace, lines, words


def _levels(places: Sequence[int], steps: tuple[int, int]) -> dict[int, int]:
    """In which of three rows the words of each step stand: neighbours in different ones."""
    width, found, level = max(1, steps[1] - steps[0]), {}, 0
    for index, step in enumerate(places):
        near = index > 0 and (step - places[index - 1]) / width < _NEAR
        level = (level + 1) % _LEVELS if near else 0
        found[step] = level
    return found
