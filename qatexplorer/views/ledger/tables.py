"""The ledger as table rows, cards and answers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from qatexplorer.ledger.records import FloatRow, Ledger, LedgerRow, Redundancy
from qatexplorer.ledger.words import percent, together_text
from qatexplorer.views.common.html import Html, code, go, join, tag
from qatexplorer.views.common.names import KINDS, count, number, share

if TYPE_CHECKING:
    from qatexplorer.ledger.answers import Answer

KIND_WORDS = {"double": "two on the same values", "twice": "runs twice", "shared": "shared"}

SITE_COLUMNS = (
    {"label": "Fake quant", "width": "minmax(190px, 2fr)", "mono": True},
    {"label": "Quantizes", "width": "minmax(150px, 1.6fr)"},
    {"label": "Kind", "width": "98px"},
    {"label": "Stage", "width": "66px"},
    {"label": "Put there by", "width": "minmax(150px, 1.4fr)", "mono": True},
    {"label": "Runs", "width": "104px"},
    {"label": "Times", "width": "58px", "number": True},
    {"label": "Scale", "width": "112px", "number": True},
    {"label": "Recomputed", "width": "106px", "number": True},
    {"label": "Remarks", "width": "minmax(240px, 2.2fr)"},
)
SITE_FILTERS = (
    {"flag": "weight", "label": "Weights"},
    {"flag": "inner", "label": "Inner observers"},
    {"flag": "redundant", "label": "Redundant"},
    {"flag": "shared", "label": "Shared"},
    {"flag": "ghost", "label": "Ghosts"},
)
FLOAT_COLUMNS = (
    {"label": "Module or operation", "width": "minmax(150px, 1.4fr)", "mono": True},
    {"label": "What", "width": "minmax(110px, 0.8fr)"},
    {"label": "Reason", "width": "minmax(150px, 1fr)", "mono": True},
    {"label": "Why", "width": "minmax(220px, 2.4fr)"},
    {"label": "What to do", "width": "minmax(220px, 2.4fr)"},
    {"label": "Parameters", "width": "104px", "number": True},
    {"label": "MACs", "width": "90px", "number": True},
)
FLOAT_FILTERS = (
    {"flag": "module", "label": "Modules"},
    {"flag": "op", "label": "Operations"},
    {"flag": "heavy", "label": "With parameters or MACs"},
)


def site_table(ledger: Ledger) -> list[dict[str, Any]]:
    """Rows for the table widget: ``id``, ``sel``, ``flags``, ``cells`` (text) and ``sort``.

    ``sort`` has a number or text for each cell, None sorts last; ``tips`` what a cell has no room
    for.
    """
    return [_site_row(row) for row in ledger.rows]


def _site_row(row: LedgerRow) -> dict[str, Any]:
    scale = row.scale[0] if row.scale else None
    several = f" ×{len(row.scale)}" if len(row.scale) > 1 else ""
    difference = row.scale_difference
    look = KINDS.get(row.kind)  # type: ignore[call-overload]
    kind = f"{look.mark} {look.letter} {row.kind}" if look is not None else row.kind
    cells = [
        row.path,
        row.tensor.label or "nothing",
        f"in {row.kind}" if row.part_of else kind,
        row.stage,
        _short_call(row.call),
        row.mechanism,
        str(row.calls_per_forward),
        "" if scale is None else f"{number(scale)}{several}",
        "" if difference is None else ("same" if abs(difference) < 1e-6 else percent(difference)),
        _remarks(row),
    ]
    return {
        "id": row.path,
        "sel": row.selection,
        "kind": row.kind if not row.part_of else "",
        "flags": _flags(row),
        "cells": cells,
        "sort": [
            *cells[:6],
            row.calls_per_forward,
            scale,
            None if difference is None else abs(difference),
            cells[9],
        ],
        "tips": {"4": row.call, "8": row.cause_text, "0": row.class_name},
    }


def _short_call(call: str) -> str:
    """``"prepare"`` for ``"prepare(model, …)"``; the inner function where the call names one."""
    return call.rpartition(": ")[2].partition("(")[0]


def _flags(row: LedgerRow) -> list[str]:
    flags = [row.kind, "inner" if row.part_of else "site"]
    flags += ["redundant"] * bool(row.redundant_with) + ["ghost"] * row.ghost
    return flags + ["shared"] * bool(row.shared_with)


def _remarks(row: LedgerRow) -> str:
    lines = []
    if row.part_of:
        by = {"fused kernel": "the fused kernel writes its range", "unused": "never runs"}
        return f"inside {row.part_of}: {by.get(row.mechanism, 'runs as a module')}"
    if row.redundant_with:
        lines.append(f"⚠ same values as {', '.join(row.redundant_with)}")
    if row.ghost:
        lines.append(f"ghost: {row.ghost_text}")
    if row.shared_with:
        lines.append(f"shared with {', '.join(row.shared_with)}")
    if row.cause not in ("none", "fixed"):
        lines.append({"never_observed": "no data seen yet"}.get(row.cause, row.cause_text))
    if row.fresh_cause in ("moving_average", "stale") and row.fresh_difference is not None:
        word = "holds earlier data" if row.fresh_cause == "moving_average" else "is frozen"
        lines.append(f"range {word}: this input alone asks for {percent(row.fresh_difference)}")
    if not row.fake_quant_enabled and row.role == "fake quant":
        lines.append("fake quant is off")
    return "; ".join(lines)


def float_table(ledger: Ledger) -> list[dict[str, Any]]:
    """The same for what stays float."""
    return [_float_row(row, index) for index, row in enumerate(ledger.floats)]


def _float_row(row: FloatRow, index: int) -> dict[str, Any]:
    cells = [
        (row.path or "the model") if row.what == "module" else f"{row.path} {row.source}".strip(),
        row.name if row.what == "module" else f"{row.name}()",
        row.reason,
        row.sentence,
        row.fix,
        f"{row.params:,}" if row.params else "",
        f"{row.macs:,}" if row.macs else "",
    ]
    heavy = ["heavy"] if row.params or row.macs else []
    selection = "" if row.selection == "node:" else row.selection
    return {
        "id": f"{index}",
        "sel": selection or f"module:{row.path}",
        "kind": "",
        "flags": [row.what, *heavy],
        "cells": cells,
        "sort": [*cells[:5], row.params, row.macs],
        "tips": {},
    }


def summary_html(ledger: Ledger) -> str:
    """Warnings, what becomes int8, and counts."""
    cover = ledger.coverage
    running = sum(1 for row in ledger.rows if row.calls_per_forward)
    parts = [
        tag("p", tag("strong", text), class_="qx-ledger-warning", role="alert")
        for text in ledger.warnings
    ]
    parts.append(
        tag(
            "p",
            f"{count(len(ledger.sites), 'fake quant')}, {count(len(ledger.rows), 'module')} by "
            f"name, {running} of them run in one forward. "
            f"{len(ledger.faults)} redundant, "
            f"{count(len(ledger.ghosts), 'ghost')}.",
        )
    )
    parts.append(_bar("Parameters in int8", cover.params_share, cover.params_int8))
    parts.append(_bar("Multiply-accumulates in int8", cover.macs_share, cover.macs_int8))
    parts += [tag("p", note, class_="qx-muted") for note in ledger.notes]
    return tag("div", *parts, class_="qx-ledger-summary")


def _bar(label: str, value: float, amount: int) -> Html:
    words = f"{label}: {share(value)} ({amount:,})"
    fill = Html(f'<i style="width:{value * 100:.2f}%"></i>')
    bar = tag("span", fill, class_="qx-ledger-bar", role="img", aria_label=words)
    return tag("p", words, bar, class_="qx-ledger-share")


def redundancies_html(ledger: Ledger) -> str:
    """A card for each redundancy, faults first."""
    ordered = sorted(ledger.redundancies, key=lambda found: not found.fault)
    if not ordered:
        text = "No value of this model is fake-quantized twice, and no fake quant is shared."
        return tag("p", text, class_="qx-muted")
    together = tag("p", together_text(ledger)) if ledger.together_sqnr_db is not None else None
    return join([together, *(_card(found) for found in ordered)])


def _card(found: Redundancy) -> Html:
    title = KIND_WORDS[found.kind]
    mark = "⚠ " if found.fault else "↔ "
    places = join(tag("li", place.label) for place in found.places if place.label)
    edges = join(go(edge, "show on the graph") for edge in found.edges[:1])
    rows = [
        ("Which", join((go(f"site:{path}", code(path)) for path in found.paths), " and ")),
        ("Quantizes", tag("ul", places) if places else ""),
        ("Seen", found.evidence),
        ("Costs", found.cost),
        ("To do", found.fix),
        ("Where", edges),
    ]
    body = [tag("div", tag("dt", name), tag("dd", text)) for name, text in rows if text]
    return tag(
        "section",
        tag("h4", f"{mark}{title}"),
        tag("dl", *body, class_="qx-terms"),
        class_="qx-ledger-card" + (" qx-is-fault" if found.fault else ""),
    )


def answers_html(answers: Iterable[Answer]) -> str:
    """Questions and answers, each with a link to the place that shows it."""
    items = []
    for answer in answers:
        shown = go(answer.selection, "show it") if answer.selection else None
        items.append(
            tag("section", tag("h4", answer.question), tag("p", answer.text, " ", shown),
                class_="qx-ledger-answer")
        )  # fmt: skip
    return join(items)
