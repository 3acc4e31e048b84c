"""What cures would do to a model, what one of them has done, and which are on, in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from qatexplorer.cures import CURES, Cost, Cured, LayerChange, Offer
from qatexplorer.evaluate.evaluation import LABELS
from qatexplorer.evaluate.metric import MetricValue
from qatexplorer.views.common.html import Html, folded, tag
from qatexplorer.views.common.names import count, number, share
from qatexplorer.views.training.progress import duration

STOPPED = "Stopped: the model is as it was."
_MOST_LAYERS, _MOST_LINES = 40, 40


def offer_html(offer: Offer) -> Html:
    """What the cure would do to this model and what that costs, or why it does not apply now."""
    source = tag("p", f"From: {offer.source}", class_="qx-muted")
    if not offer.applies:
        return tag("div", tag("p", tag("b", "Not now: "), offer.why_not), source)
    return tag(
        "div",
        tag("p", offer.does),
        tag("p", tag("b", "Measured: "), offer.signs) if offer.signs else None,
        tag("p", cost_words(offer.cost)),
        source,
    )


def cost_words(cost: Cost | None) -> str:
    """What it costs, by the batches that have to run."""
    if cost is None:
        return "The session has no data, and before and after are measured on it: pass data=."
    known = "an unknown number" if cost.evaluation is None else f"{cost.evaluation:,}"
    return (
        f"Forwards until before and after are known: {cost.training:,} of training batches, "
        f"{known} of evaluation batches."
    )


def outcome_html(found: Cured, taken_back: bool = False) -> Html:
    """Before and after on the same data, and what has changed layer by layer."""
    head = tag(
        "p",
        tag(
            "b",
            title_of(found.name),
            settings_words(found.settings),
            ", taken back:" if taken_back else ":",
        ),
        " ",
        *_gain(found),
    )
    return tag(
        "div",
        head,
        _before_and_after(found),
        folded(f"By layer: {found.layers[0].figure}", _layers(found.layers))
        if found.layers
        else None,
        folded(f"What has changed: {count(len(found.changes), 'line')}", _lines(found.changes))
        if found.changes
        else None,
        class_="qx-cures-outcome",
    )


def _gain(found: Cured) -> list[Any]:
    words = f"{found.form} has {_of(found.after)}, and had {number(found.before.value)} before."
    won = found.won_back
    if won is not None:
        part = "none" if won <= 0 else share(min(won, 1.0))
        words += f" Of what it was behind the float model, it has won back {part}."
    return [words, f" The change took {duration(found.seconds)}."]


def _of(value: MetricValue) -> str:
    return f"{value.name} {number(value.value)}"


def _before_and_after(found: Cured) -> Html:
    rows = []
    if found.float_model is not None:
        whole = number(found.float_model.value)
        rows.append(_row(LABELS["float"], whole, "", ""))
    gain = found.gain
    sign = "+" if gain > 0 else ""
    before, after = number(found.before.value), number(found.after.value)
    rows.append(_row(found.form, before, after, f"{sign}{number(gain)}"))
    head = tag(
        "tr",
        *(tag("th", t, scope="col") for t in (found.after.name, "before", "after", "change")),
    )
    caption = tag("caption", f"Measured on the same {count(found.after.samples, 'sample')}.")
    return tag(
        "table",
        caption,
        tag("thead", head),
        tag("tbody", *rows),
        class_="qx-results qx-cures-table",
    )


def _row(name: str, *cells: str) -> Html:
    numbers = (tag("td", cell, class_="qx-number") for cell in cells)
    return tag("tr", tag("th", name, scope="row"), *numbers)


def _layers(layers: tuple[LayerChange, ...]) -> Html:
    rows = [_row(one.path, number(one.before), number(one.after)) for one in layers[:_MOST_LAYERS]]
    heads = ("layer", "before", "after")
    head = tag("thead", tag("tr", *(tag("th", text, scope="col") for text in heads)))
    caption = tag("caption", layers[0].figure, class_="qx-sr")
    table = tag("table", caption, head, tag("tbody", *rows), class_="qx-results qx-cures-table")
    more = len(layers) - len(rows)
    return tag("div", table, tag("p", f"… and {more:,} more") if more > 0 else None)


def _lines(lines: tuple[str, ...]) -> Html:
    shown = [tag("li", line) for line in lines[:_MOST_LINES]]
    more = len(lines) - len(shown)
    return tag("ul", *shown, tag("li", f"… and {more:,} more") if more > 0 else None)


def on_html(cured: Iterable[Cured]) -> Html:
    """The cures that are on, in the order in which they were made."""
    rows = [
        tag(
            "li",
            tag("b", title_of(one.name), settings_words(one.settings), ":"),
            f" {one.form} {number(one.before.value)} → {_of(one.after)}",
        )
        for one in cured
    ]
    if not rows:
        return tag("p", "No cure is on.", class_="qx-muted")
    return tag("div", tag("p", "These are on; Undo takes the last one back:"), tag("ol", *rows))


def settings_words(settings: Mapping[str, Any]) -> str:
    """``" (activation histogram)"``; ``""`` for none."""
    said = ", ".join(f"{name} {value}" for name, value in settings.items() if value is not None)
    return f" ({said})" if said else ""


def title_of(name: str) -> str:
    """The title of a cure; its name, where there is no such cure (any more)."""
    return CURES[name].title if name in CURES else name


def before_training_html(found: Cured | Offer | None) -> Html:
    """What was measured of this model that speaks for something else than training first."""
    if found is None:
        return Html("")
    if isinstance(found, Offer):
        return tag(
            "p",
            tag("b", "Before you train: "),
            f"{found.signs} “{found.title}” in the tab Cures works on that without training; what "
            "it brings here is not measured yet.",
            class_="qx-cures-before",
        )
    whole = found.float_model
    return tag(
        "p",
        tag("b", "Training is not the first thing to try here: "),
        f"“{title_of(found.name)}” by itself has brought {found.form} from "
        f"{number(found.before.value)} to {_of(found.after)}",
        f" (float model: {number(whole.value)})" if whole is not None else "",
        f", measured on {count(found.after.samples, 'sample')}.",
        class_="qx-cures-before",
    )
