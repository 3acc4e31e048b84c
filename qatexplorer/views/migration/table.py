"""The places of a migration as rows of a table, in the order of the forward."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qatexplorer.migration.records import Cell, Migration, Place, Rounding
from qatexplorer.migration.words import codes, differs_words, grid_range, scale_words, zero_words
from qatexplorer.snapshot.records import Snapshot
from qatexplorer.views.common.names import HOW_IT_RUNS

DASH = "–"


def place_columns(found: Migration) -> list[dict[str, Any]]:
    """A column a flow that takes the model, between the place and what is to be said of it."""
    flows = [{"label": c.flow, "width": "minmax(190px, 1.6fr)", "tip": c.title}
             for c in found.taken]  # fmt: skip
    return [
        {"label": "Tensor", "width": "minmax(220px, 2fr)"},
        *flows,
        {"label": "Differs in", "width": "112px",
         "tip": "What is not the same in all flows that round it; “tensor in …”: also without any "
         "rounding"},
        {"label": "Why not in all", "width": "minmax(240px, 2.4fr)"},
    ]  # fmt: skip


def place_rows(found: Migration) -> list[dict[str, Any]]:
    """Rows for the table widget; the key of its place is what a row selects, see
    :func:`selection_of`."""
    return [_row(found, place) for place in found.places]


def selection_of(found: Migration, key: str, snapshot: Snapshot) -> str:
    """What the page can select at the stage of ``snapshot`` for a place: the fake quant of its own
    flow, else the module; ``""`` where it has neither."""
    cells = found.by_place.get(key, {})
    mine = cells.get(snapshot.flow)
    site = mine.rounding.site if mine is not None and mine.rounding is not None else ""
    if site in snapshot.site_by_path:
        return f"site:{site}"
    path = next((cell.place.path for cell in cells.values()), "")
    module = next((m for m in snapshot.modules if m.origin == path and m.origin), None)
    return f"module:{module.path}" if module is not None else ""


def place_filters(found: Migration) -> list[dict[str, str]]:
    """Filters with how many rows each leaves, those that leave none left out."""
    names = {"alike": "Alike in all", "differs": "Differs"}
    names |= {f"only-{c.flow}": f"Only {c.flow}" for c in found.taken}
    rows = [_flags(found, place) for place in found.places]
    counts = {flag: sum(flag in row for row in rows) for flag in names}
    return [
        {"flag": flag, "label": f"{names[flag]} ({number:,})"}
        for flag, number in counts.items()
        if number
    ]


def _row(found: Migration, place: Place) -> dict[str, Any]:
    cells = found.by_place[place.key]
    shown = [cells[column.flow] for column in found.taken]
    text = [cell_text(cell) for cell in shown]
    differs = differs_words(found, place.key)
    why = why_text(cells)
    tips = {at: _tip(cell.rounding) for at, cell in enumerate(shown, 1) if cell.rounding}
    if place.source:
        tips[0] = place.source
    row = [place.label, *text, differs, why]
    return {
        "id": place.key,
        "sel": place.key,
        "kind": place.kind,
        "flags": _flags(found, place),
        "cells": row,
        "sort": [place.label, *map(_first, shown), differs or None, why or None],
        "tips": {str(at): tip for at, tip in tips.items()},
    }


def _flags(found: Migration, place: Place) -> list[str]:
    only = found.only_in(place.key)
    if only:
        return [f"only-{only}"]
    if found.differences(place.key):
        return ["differs"]
    return ["alike"] if found.agree(place.key) else []


def cell_text(cell: Cell) -> str:
    """Codes, scale and zero point in short; a dash where it is not rounded."""
    one = cell.rounding
    if one is None:
        return DASH
    shared = ", shared" if one.shared_with else ""
    return f"{codes(one)}, {scale_words(one)}{shared}"


def why_text(cells: Mapping[str, Cell]) -> str:
    """Why some flows do not round it, each with its name."""
    return " ".join(f"{name}: {cell.why}" for name, cell in cells.items() if cell.why)


def details(one: Rounding) -> list[tuple[str, str]]:
    """(name, value) of all that is known of a rounding."""
    scheme = one.qscheme.removeprefix("torch.")
    channels = f"{scheme}, axis {one.ch_axis}" if one.per_channel else scheme
    seen = ""
    if one.min_val and one.max_val:
        seen = f"{min(one.min_val):.4g} to {max(one.max_val):.4g}"
    found = [
        ("codes", f"{one.dtype.removeprefix('torch.')}, {codes(one)}"),
        ("scheme", channels),
        ("scales" if one.several_scales else "scale", _scales(one)),
        ("grid", grid_range(one)),
        ("observed", seen),
        ("fake quant", f"{one.site} ({one.class_name})"),
        ("runs", HOW_IT_RUNS[one.mechanism]),
        ("shared with", ", ".join(one.shared_with)),
    ]
    return [(name, value) for name, value in found if value]


def _scales(one: Rounding) -> str:
    if not one.scale:
        return "none"
    low, high = min(one.scale), max(one.scale)
    if one.several_scales:
        return f"{len(one.scale):,}, {low:.4g} to {high:.4g}"
    return f"{low:.4g}{zero_words(one)}"


def _tip(one: Rounding) -> str:
    """What the cell does not say."""
    known = dict(details(one))
    said = [one.dtype.removeprefix("torch."), known["scheme"]]
    said += [f"{name} {known[name]}" for name in ("grid", "observed", "runs", "shared with")
             if name in known]  # fmt: skip
    return ", ".join([*said, one.site])


def _first(cell: Cell) -> float | None:
    one = cell.rounding
    return one.scale[0] if one is not None and one.scale else None
