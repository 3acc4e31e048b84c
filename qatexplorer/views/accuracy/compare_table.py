"""A comparison of float, fake quant and int8 as rows of a table, the worst place first."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from qatexplorer.accuracy.records import APART_STEPS, CompareRow, Comparison, RowKind
from qatexplorer.views.common.names import count, number, share

DASH = "–"
_FORM = "int8"
_CHARACTER_PX = 8
_HUGE = 1e300
_FLAGS: dict[RowKind, tuple[str, str]] = {
    "module": ("module", "module"),
    "operation": ("operation", "operation"),
    "fake quant": ("fake-quant", "fake quant"),
    "weight": ("weight", "weight"),
    "output": ("outputs", "output"),
}
_NO_INT8 = "Not known: int8 has no tensor at this place that could be compared with float."
_NO_FAKE_QUANT = "Not known: fake quant has no tensor at this place that could be compared."
_NO_STEPS = "Not known: it takes the grid of a fake quant at this place, and both tensors."
_NO_CODES = "Not known: it takes int8 codes and fake-quant codes of one grid at this place."
_NO_GRID = "Not known: it takes the grid of a fake quant at this place."
_NOT_OWN = "Not known: only the row of a fake quant or weight whose grid is known has it."


@dataclass(frozen=True)
class Column:
    """A number of :class:`~qatexplorer.accuracy.records.CompareRow`.

    ``label`` heads the column, ``meaning`` says what it is, ``why`` why a place may have none.
    """

    field: str
    label: str
    meaning: str
    why: str
    write: Callable[[float], str] = number
    width: str = "106px"

    @property
    def head(self) -> dict[str, Any]:
        """What the table widget needs of it."""
        tip = self.meaning[:1].upper() + self.meaning[1:]
        return {"label": self.label, "width": self.width, "number": True, "tip": tip}

    def value(self, row: CompareRow) -> float | None:
        found: float | None = getattr(row, self.field)
        return found

    def text(self, row: CompareRow) -> str:
        """The number for a user, a dash where there is none."""
        value = self.value(row)
        return DASH if value is None else self.write(value)


_steps = partial(number, digits=3)
_cosine = partial(number, digits=6)

NUMBERS = (
    Column("sqnr_int8_db", "int8, dB", "SQNR of int8 against float", _NO_INT8),
    Column(
        "sqnr_fake_quant_db",
        "fake quant, dB",
        "SQNR of fake quant against float, all fake quants on",
        _NO_FAKE_QUANT,
        width="122px",
    ),
    Column(
        "isolated_sqnr_db",
        "alone, dB",
        "SQNR against float with only this fake quant on",
        _NOT_OWN,
    ),
    Column(
        "agreement",
        "codes equal",
        "share of int8 codes that equal the fake-quant codes",
        _NO_CODES,
        share,
    ),
    Column(
        "max_steps", "apart, steps", "largest difference of int8 and fake quant", _NO_CODES, _steps
    ),
    Column(
        "mean_steps",
        "mean apart, steps",
        "mean difference of int8 and fake quant",
        _NO_CODES,
        _steps,
        "144px",
    ),
    Column("cosine_int8", "int8, cosine", "cosine similarity of int8 and float", _NO_INT8, _cosine),
    Column(
        "cosine_fake_quant",
        "fake quant, cosine",
        "cosine similarity of fake quant and float",
        _NO_FAKE_QUANT,
        _cosine,
        "150px",
    ),
    Column(
        "max_error_steps",
        "max error, steps",
        "largest difference of fake quant and float",
        _NO_STEPS,
        _steps,
        "134px",
    ),
    Column(
        "mean_error_steps",
        "mean error, steps",
        "mean difference of fake quant and float",
        _NO_STEPS,
        _steps,
        "142px",
    ),
    Column(
        "kl",
        "KL, nats",
        "Kullback-Leibler divergence of the histograms, float to fake quant",
        "Not known: it takes a fake quant with one grid for all values at this place.",
        _steps,
    ),
    Column(
        "clipped",
        "clipped",
        "share of float values outside of the grid",
        "Not known: only the row of a fake quant with one grid, or of a weight, has it.",
        share,
    ),
    Column(
        "clipping_error",
        "clipping error",
        "part of the mean squared error that comes from clipping",
        _NOT_OWN,
        _steps,
        "122px",
    ),
    Column(
        "rounding_error",
        "rounding error",
        "part of the mean squared error that comes from rounding",
        _NOT_OWN,
        _steps,
        "126px",
    ),
    Column("step", "step", "step of the grid, the mean over channels", _NO_GRID),
)
"""The numbers of a row, in the order of the table."""

COLUMNS: tuple[dict[str, Any], ...] = (
    {"label": "Place", "width": "minmax(210px, 2fr)", "mono": True},
    {"label": "Kind", "width": "88px"},
    *(one.head for one in NUMBERS[:5]),
    {"label": "Cause", "width": "minmax(160px, 2fr)"},
    *(one.head for one in NUMBERS[5:]),
    {"label": "Type", "width": "minmax(110px, 1fr)"},
    {"label": "Of", "width": "minmax(110px, 1fr)", "mono": True},
    {"label": "Position", "width": "86px", "number": True},
    {"label": "Call", "width": "64px", "number": True},
    {"label": "Values", "width": "90px", "number": True},
)


def numbers_of(form: str) -> tuple[Column, ...]:
    """:data:`NUMBERS` of a comparison whose converted model is called ``form``."""
    if form == _FORM:
        return NUMBERS

    def named(one: Column) -> Column:
        label, meaning = one.label.replace(_FORM, form), one.meaning.replace(_FORM, form)
        longer = _CHARACTER_PX * max(0, len(label) - len(one.label))
        width = f"{int(one.width.removesuffix('px')) + longer}px"
        return replace(
            one, label=label, meaning=meaning, why=one.why.replace(_FORM, form), width=width
        )

    return tuple(map(named, NUMBERS))


def columns_of(form: str) -> list[dict[str, Any]]:
    """:data:`COLUMNS` of a comparison whose converted model is called ``form``."""
    heads = {one.label: new.head for one, new in zip(NUMBERS, numbers_of(form), strict=True)}
    return [heads.get(column["label"], column) for column in COLUMNS]


def model_of(form: str) -> str:
    """The converted model as a noun: ``"int8"``, ``"the converted model"``."""
    return form if form == _FORM else f"the {form} model"


def in_form(form: str) -> str:
    """``"in int8"``, ``"when converted"``."""
    return f"in {form}" if form == _FORM else f"when {form}"


def sorted_db(row: CompareRow) -> float | None:
    """SQNR of int8, dB, of fake quant where int8 has none; None where neither is known."""
    for value in (row.sqnr_int8_db, row.sqnr_fake_quant_db):
        if value is not None and not math.isnan(value):
            return value
    return None


def key_of(position: int) -> str:
    """How table and figures name the row at ``position`` of ``Comparison.rows``."""
    return f"row:{position}"


def position_of(key: str) -> int | None:
    """The position that a key of :func:`key_of` stands for."""
    head, _, rest = key.partition(":")
    return int(rest) if head == "row" and rest.isdecimal() else None


def name_of(row: CompareRow) -> str:
    """The place of a row, with the call where it is not the first."""
    place = row.path or "the model"
    return f"{place}, call {row.call + 1}" if row.call else place


def compare_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """Rows for the table widget, the lowest SQNR first (:func:`sorted_db`) and what has none last;
    ``sel`` is the key of the row."""

    def order(entry: tuple[int, CompareRow]) -> tuple[bool, float, int]:
        worst = sorted_db(entry[1])
        return worst is None, worst or 0.0, entry[0]

    return [
        _row(*entry, comparison.form) for entry in sorted(enumerate(comparison.rows), key=order)
    ]


def compare_filters(comparison: Comparison) -> list[dict[str, str]]:
    """A button for each kind of place that there is, and one for where int8 and fake quant part."""
    kinds = [row.kind for row in comparison.rows]
    found = [
        {"flag": flag, "label": count(kinds.count(kind), noun)}
        for kind, (flag, noun) in _FLAGS.items()
        if kind in kinds
    ]
    apart = sum(map(is_apart, comparison.rows))
    if apart:
        found.append({"flag": "apart", "label": f"≠ {apart:,} apart"})
    return found if len(found) > 1 else []


def is_apart(row: CompareRow) -> bool:
    """Whether int8 and fake quant are more than a rounding apart at this place."""
    return row.max_steps is not None and row.max_steps > APART_STEPS


def _row(position: int, row: CompareRow, form: str) -> dict[str, Any]:
    flag, noun = _FLAGS[row.kind]
    numbers = numbers_of(form)
    texts = [one.text(row) for one in numbers]
    sorts = [_sortable(one.value(row)) for one in numbers]
    values = f"{row.values:,}" if row.values else ""
    ends = [row.type, row.owner, f"{row.index:,}", f"{row.call + 1:,}", values]
    key = key_of(position)
    # Places of the columns in the table: two before the numbers, the cause after five of them.
    places = [2 + at + (at >= 5) for at in range(len(numbers))]
    tips = {
        str(place): one.why
        for place, one in zip(places, numbers, strict=True)
        if one.value(row) is None
    }
    return {
        "id": key,
        "sel": key,
        "kind": "warning" if is_apart(row) else "info",
        "flags": [flag, *(["apart"] if is_apart(row) else [])],
        "cells": [row.path or "the model", noun, *texts[:5], row.cause, *texts[5:], *ends],
        "sort": [
            row.path,
            noun,
            *sorts[:5],
            row.cause,
            *sorts[5:],
            *(row.type, row.owner, row.index, row.call, row.values),
        ],
        "tips": tips,
    }


def _sortable(value: float | None) -> float | None:
    """A number as JSON has it: nothing for NaN, a very large one for infinity."""
    if value is None or math.isnan(value):
        return None
    return max(-_HUGE, min(_HUGE, value))
