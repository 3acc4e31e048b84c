"""A migration as HTML: a head for the page's tab, and the sections of a file of its own."""

from __future__ import annotations

from collections.abc import Sequence

from qatexplorer.evaluate.evaluation import format_metric
from qatexplorer.evaluate.parity import percent
from qatexplorer.migration.records import FLOAT, Cell, FlowColumn, Migration
from qatexplorer.migration.words import (
    OTHER_TENSOR,
    db,
    differs_words,
    missing_words,
    stub_words,
    without_rounding_words,
)
from qatexplorer.views.common.html import Html, join, tag, terms
from qatexplorer.views.migration.table import details
from qatexplorer.views.report.pieces import Section, missing, table_html

_RULES = """\
A place is a tensor of the float model: an input, a weight, what a module or an operation returns.
An input is found by its number; a module's weight and result by its path and number of the call.
Functions and methods are found by their names: those of one name are taken in order where both \
graphs have equally many. One that is left in a line of your code is the one left of that line.
Lines of your code that are known in both graphs must be the same.
What a fused module returns is what its last part returned; what a stub or an \
nn.Identity returns is what it got.
What fits none of these is listed as found in one flow only.""".splitlines()


def summary_html(found: Migration) -> Html:
    """How many places there are, in how many the flows agree, and which flows refuse the model."""
    refused = [f"{c.flow} refuses this model." for c in found.flows if c.error]
    words = " ".join((found.summary(), *refused, *found.notes))
    return tag("p", words, class_="qx-migration-summary")


def worth_html(found: Migration) -> Html:
    """What each flow made of the model, and how far outputs are apart."""
    tables = (flows_table(found), outputs_table(found))
    return tag("div", *tables, class_="qx-migration-tables")


def flows_table(found: Migration) -> Html:
    """A row a flow: what it is worth, or why it refuses the model."""
    metric = next((c.metric.name for c in found.flows if c.metric is not None), "metric")
    heads = ("flow", "fake quants", "tensors", f"{metric}, fake quants", f"{metric}, int8",
             "int8 more than 1.5 steps off", "to be said")  # fmt: skip
    rows = [_flow_row(column) for column in found.flows]
    if found.metric is not None:
        rows.insert(0, (FLOAT, "", "", format_metric(found.metric), "", "", ""))
    return table_html("What each flow makes of the model", heads, rows, (1, 2, 3, 4, 5))


def _flow_row(column: FlowColumn) -> Sequence[str]:
    if column.error:
        where = f" (at {column.where})" if column.where else ""
        return column.flow, "", "", "", "", "", f"Refuses this model{where}: {column.error}"
    said = [stub_words(column), without_rounding_words(column), *missing_words(column)]
    said = [words for words in said if words]
    parity = percent(column.parity.far) if column.parity and column.parity.rows else ""
    if column.parity is not None and not column.parity.rows:
        said.append(f"{column.parity.summary()}.")
    return (
        column.flow,
        f"{column.fake_quants:,}",
        f"{column.places:,}",
        format_metric(column.metric),
        format_metric(column.metric_int8),
        parity or "–",
        " ".join(said),
    )


def outputs_table(found: Migration) -> Html:
    """Signal to noise of what each pair of models returns; nothing without a pair."""
    if not found.outputs:
        return Html("")
    rows = [(gap.first, gap.second, db(gap.sqnr_db)) for gap in found.outputs]
    return table_html("What the models return, with fake quants on, signal to noise",
                      ("model", "against", "SQNR"), rows, (2,))  # fmt: skip


def sections(found: Migration) -> list[Section]:
    """Of a page of its own."""
    parts = [Section("flows", "Flows", join([tag("p", found.summary()), *_shown_on(found),
                                             flows_table(found)]))]  # fmt: skip
    parts.append(Section("places", "What is rounded", _places(found)))
    parts.append(Section("why", "Why some flows do not round it", _reasons(found)))
    outputs = outputs_table(found) or missing("There is no pair of models to compare.")
    parts.append(Section("outputs", "Outputs", outputs))
    rules = tag("ul", *(tag("li", rule) for rule in _RULES))
    parts.append(Section("rules", "How places are found to be the same", rules))
    said = [(c.flow, join(tag("p", note) for note in c.notes)) for c in found.flows if c.notes]
    if said:
        parts.append(Section("notes", "What the stages said", terms(said)))
    return parts


def _shown_on(found: Migration) -> list[Html]:
    words = f"Scales are of observers that were shown {found.on}, the same in every flow."
    lines = [words] if found.taken else []
    return [tag("p", line, class_="muted") for line in (*lines, *found.notes)]


def _places(found: Migration) -> Html:
    if not found.places:
        return missing("No flow rounds anything of this model.")
    heads = ("tensor", *(column.flow for column in found.taken), "differs in")
    rows = []
    for place in found.places:
        cells = found.by_place[place.key]
        where = tag("div", place.label, tag("div", place.source, class_="muted")
                    if place.source else None)  # fmt: skip
        rows.append((where, *(_cell(cells[column.flow]) for column in found.taken),
                     differs_words(found, place.key)))  # fmt: skip
    table = table_html("Tensors of the float model, in the order of its forward", heads, rows)
    other = any(found.other_tensor_in(place.key) for place in found.places)
    return join([table, tag("p", OTHER_TENSOR, class_="muted")]) if other else table


def _cell(cell: Cell) -> Html:
    if cell.rounding is None:
        return tag("span", "not rounded", class_="muted")
    return join([tag("div", name, " ", value) for name, value in details(cell.rounding)])


def _reasons(found: Migration) -> Html:
    rows = [(cell.place.label, cell.flow, cell.why) for cell in found.cells if cell.why]
    if not rows:
        return missing("Every flow rounds all of these.")
    return table_html(
        "Tensors that some flows leave as they are", ("tensor", "not in", "why"), rows
    )
