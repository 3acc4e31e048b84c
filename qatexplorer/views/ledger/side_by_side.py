"""Eager and FX sites of one model in two columns, matched by the tensor that they quantize."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qatexplorer.ledger.compare import Match
from qatexplorer.ledger.records import LedgerRow
from qatexplorer.views.common.html import tag
from qatexplorer.views.common.names import count, number

COLUMNS = (
    {"label": "Tensor", "width": "minmax(160px, 1.4fr)"},
    {"label": "Eager", "width": "minmax(170px, 1.5fr)", "mono": True},
    {"label": "FX", "width": "minmax(170px, 1.5fr)", "mono": True},
    {"label": "Eager scale", "width": "106px", "number": True},
    {"label": "FX scale", "width": "96px", "number": True},
    {"label": "Why only one has it", "width": "minmax(220px, 2.4fr)"},
)
FILTERS = (
    {"flag": "both", "label": "In both"},
    {"flag": "eager", "label": "Only eager"},
    {"flag": "fx", "label": "Only FX"},
)


def match_table(matches: Sequence[Match]) -> list[dict[str, Any]]:
    """Rows for the table widget; the selection is the eager site's, else the FX one's."""
    return [_row(match) for match in matches]


def _row(match: Match) -> dict[str, Any]:
    where = "both" if match.eager and match.fx else ("eager" if match.eager else "fx")
    shown = match.eager or match.fx
    cells = [
        match.label,
        _name(match.eager),
        _name(match.fx),
        _scale(match.eager),
        _scale(match.fx),
        match.why,
    ]
    return {
        "id": match.key,
        "sel": shown.selection if shown is not None else "",
        "kind": shown.kind if shown is not None else "",
        "flags": [where],
        "cells": cells,
        "sort": [*cells[:3], _first(match.eager), _first(match.fx), match.why or None],
        "tips": {},
    }


def _name(row: LedgerRow | None) -> str:
    return f"{row.path} ({row.mechanism})" if row is not None else "—"


def _first(row: LedgerRow | None) -> float | None:
    if row is None or not row.scale or row.cause == "never_observed":
        return None
    return row.scale[0]


def _scale(row: LedgerRow | None) -> str:
    value = _first(row)
    return "" if value is None else number(value)


def match_summary(matches: Sequence[Match]) -> str:
    """One line: how many tensors both flows quantize, and how many only one."""
    both = sum(1 for m in matches if m.eager and m.fx)
    eager = sum(1 for m in matches if m.eager and not m.fx)
    fx = sum(1 for m in matches if m.fx and not m.eager)
    return tag(
        "p",
        f"{count(both, 'tensor')} are quantized by both flows, {eager} by eager mode only, {fx} by "
        "FX only.",
    )
