"""What a comparison found, in sentences: where int8 and fake quant part first, and what is lost."""

from __future__ import annotations

import math

from qatexplorer.accuracy.records import APART_STEPS, CompareRow, Comparison
from qatexplorer.views.accuracy.compare_table import (
    Column,
    in_form,
    is_apart,
    key_of,
    model_of,
    name_of,
    numbers_of,
)
from qatexplorer.views.common.busy import WORTH_AN_ESTIMATE_S
from qatexplorer.views.common.html import Html, ask, folded, join, tag, terms
from qatexplorer.views.common.names import count, number, share
from qatexplorer.views.training.progress import duration

_WORST_CHANNELS = 6


def progress_words(what: str, done: float, seconds: float) -> str:
    """``"Comparing, 40 %, about 12 s left: fake quant …"``, plain text.

    Args:
        done: share of the work, 0 to 1. seconds: since it began.
    """
    more = ""
    if seconds >= WORTH_AN_ESTIMATE_S:
        more = f" after {duration(seconds)}"
        if done >= 0.1:
            more = f", about {duration(seconds * (1 - done) / done)} left"
    doing = what[:1].lower() + what[1:] if what else "beginning"
    return f"Comparing, {share(round(done, 2))}{more}: {doing} …"


def headline_html(comparison: Comparison) -> Html:
    """The first place where int8 and fake quant part, with its cause, the worst place, and how
    many samples are lost. Buttons ask for ``"row:…"``."""
    sentences = [_first(comparison), _worst(comparison), _lost(comparison)]
    found = tag("p", join([s for s in sentences if s], " "), class_="qx-comparison-headline")
    notes = [tag("li", note) for note in comparison.notes]
    fold = None
    if notes:
        title = f"{count(len(notes), 'note')}: what could not be compared"
        fold = folded(title, tag("ul", *notes), open_=len(notes) <= 2)
    return tag("div", found, fold)


def _link(comparison: Comparison, row: CompareRow) -> Html:
    position = next(at for at, one in enumerate(comparison.rows) if one is row)
    return ask(key_of(position), name_of(row), "Choose this row")


def _first(comparison: Comparison) -> Html:
    first, said = comparison.first, model_of(comparison.form)
    if first is not None:
        steps = number(first.max_steps or 0.0, 3)
        cause = f" {first.cause[:1].upper()}{first.cause[1:].rstrip('.')}." if first.cause else ""
        why = cause or " The cause is not known."
        return tag(
            "span",
            tag("b", f"{said} and fake quant part first at ", _link(comparison, first)),
            f", up to {steps} steps of the grid apart.{why}",
        )
    form = f"{said[:1].upper()}{said[1:]}"
    known = [row for row in comparison.rows if row.max_steps is not None]
    if not known:
        return tag("b", f"{form} and fake quant could not be compared step by step at any place.")
    most = f"{number(APART_STEPS)} steps of the grid"
    places = count(len(known), "place")
    return tag(
        "b",
        f"{form} and fake quant are nowhere more than {most} apart, at {places} that could be "
        f"compared so.",
    )


def _worst(comparison: Comparison) -> Html | None:
    for field, form in (
        ("sqnr_int8_db", model_of(comparison.form)),
        ("sqnr_fake_quant_db", "fake quant"),
    ):
        known = [
            (value, row)
            for row in comparison.rows
            if (value := getattr(row, field)) is not None and not math.isnan(value)
        ]
        if known:
            value, row = min(known, key=lambda pair: pair[0])
            if math.isinf(value) and value > 0:
                return tag("span", f"{form.capitalize()} equals float at every place compared.")
            link = _link(comparison, row)
            return tag("span", f"The lowest SQNR of {form} is {number(value)} dB, at ", link, ".")
    return None


def _lost(comparison: Comparison) -> str:
    if not comparison.evaluated:
        return "No samples of the evaluation data were compared."
    of, wrong = count(comparison.evaluated, "evaluation sample"), in_form(comparison.form)
    if not comparison.lost_total:
        return f"Of {of}, none is right in float and wrong {wrong}."
    verb = "is" if comparison.lost_total == 1 else "are"
    return f"Of {of}, {comparison.lost_total:,} {verb} right in float and wrong {wrong}."


def cost_words(comparison: Comparison) -> str:
    """``"4 batches compared in 0.3 s; forwards: float 4, fake quant 4, int8 4."``, plain text."""
    batches = count(comparison.batches, "batch").replace("batchs", "batches")
    parts = [f"{batches} compared in {duration(comparison.seconds)}"]
    if comparison.passes:
        passes = comparison.passes.items()
        forms = ", ".join(f"{comparison.words(form)} {n:,}" for form, n in passes)
        parts.append(f"forwards: {forms}")
    return "; ".join(parts) + "."


def place_html(row: CompareRow, form: str = "int8") -> Html:
    """All numbers of one row, with what they are and why one is missing; ``form`` is that of the
    comparison."""
    about = [
        tag("span", row.kind, class_="qx-badge"),
        *([tag("span", row.type, class_="qx-badge")] if row.type else []),
    ]
    pairs = [(one.label, _cell(row, one)) for one in numbers_of(form)]
    owner = [("of", row.owner)] if row.owner and row.owner != row.path else []
    values = [("values compared", f"{row.values:,}")] if row.values else []
    cause = tag("p", row.cause, class_="qx-remark") if row.cause else None
    apart = (
        None
        if not is_apart(row) or row.cause
        else tag(
            "p",
            f"{model_of(form)} and fake quant part here; the cause is not known.",
            class_="qx-remark",
        )
    )
    return tag(
        "div",
        tag("header", tag("h3", name_of(row)), *about),
        cause,
        apart,
        terms([*owner, *values, *pairs, ("worst channels", _channels(row))]),
        class_="qx-inspect",
    )


def _cell(row: CompareRow, one: Column) -> Html:
    if one.value(row) is None:
        return tag("span", one.text(row), " ", tag("small", one.why))
    return tag("span", one.text(row), " ", tag("small", one.meaning))


def _channels(row: CompareRow) -> str:
    known = [(v, at) for at, v in enumerate(row.channels) if not math.isnan(v)]
    worst = sorted(known)[:_WORST_CHANNELS]
    return ", ".join(f"{at}: {number(value)} dB" for value, at in worst)
