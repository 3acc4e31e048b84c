"""A migration as text for a terminal."""

from __future__ import annotations

import math
import textwrap

from qatexplorer.evaluate.evaluation import format_metric
from qatexplorer.migration.records import FLOAT, Cell, FlowColumn, Migration, Rounding
from qatexplorer.migration.words import (
    OTHER_TENSOR,
    codes,
    db,
    differs_words,
    grid_range,
    missing_words,
    scale_words,
    stub_words,
    without_rounding_words,
)
from qatexplorer.shown import columns

_WIDEST = 100


def as_text(found: Migration, width: int | None = None) -> str:
    """All of it: flows, places, why some are rounded in some flows only, and outputs.

    ``width``: of the terminal, to break sentences at; None leaves every sentence on one line.
    """
    lines = [f"{found.model}: {found.summary()}"]
    if found.taken:
        lines += _broken(f"Scales are of observers that were shown {found.on}.", width, "")
    for column in found.flows:
        lines += ["", *_flow_lines(column, width)]
    if found.places:
        lines += ["", *_places(found)]
        if any(found.other_tensor_in(place.key) for place in found.places):
            lines += ["", *_broken(OTHER_TENSOR, width, "")]
        reasons = _reasons(found, width)
        lines += ["", *reasons] if reasons else []
    if found.outputs:
        lines += ["", *_outputs(found)]
    lines += [line for note in found.notes for line in _broken(note, width, "")]
    return "\n".join(lines)


def _flow_lines(column: FlowColumn, width: int | None) -> list[str]:
    if column.error:
        where = f" (at {column.where})" if column.where else ""
        return _broken(f"{column.flow} refuses this model{where}: {column.error}", width, "")
    lines = [f"{column.flow}: {column.fake_quants:,} fake quants, {column.places:,} places"]
    said = [words for words in (stub_words(column), without_rounding_words(column)) if words]
    lines += [line for words in said for line in _broken(words, width)]
    if column.metric is not None:
        lines.append(f"  {column.metric.name} {format_metric(column.metric)} with fake quants")
    if column.metric_int8 is not None:
        name, value = column.metric_int8.name, format_metric(column.metric_int8)
        lines.append(f"  {name} {value} in int8")
    if column.parity is not None:
        lines += _broken(f"{column.parity.summary()} (example input)", width)
    for words in missing_words(column):
        lines += _broken(words, width)
    return lines


def _places(found: Migration) -> list[str]:
    names = [column.flow for column in found.taken]
    rows = [("place", *names, "differs in")]
    for place in found.places:
        cells = found.by_place[place.key]
        rows.append((place.label, *(_cell(cells[name]) for name in names),
                     differs_words(found, place.key)))  # fmt: skip
    return columns(rows)


def _cell(cell: Cell) -> str:
    return "–" if cell.rounding is None else _rounding(cell.rounding)


def _rounding(one: Rounding) -> str:
    shared = " shared" if one.shared_with else ""
    return f"{codes(one)} {scale_words(one)} {grid_range(one)}{shared}"


def _reasons(found: Migration, width: int | None) -> list[str]:
    lines = []
    for cell in found.cells:
        if cell.why:
            lines += _broken(f"{cell.place.label}, not in {cell.flow}: {cell.why}", width, "")
    return lines


def _outputs(found: Migration) -> list[str]:
    rows = [("outputs, signal to noise", "")]
    rows += [(f"{_named(gap.first)} and {_named(gap.second)}", db(gap.sqnr_db))
             for gap in found.outputs]  # fmt: skip
    if found.metric is not None:
        rows.append((f"{found.metric.name} of float", format_metric(found.metric)))
    return columns(rows)


def _named(name: str) -> str:
    return FLOAT if name == FLOAT else f"{name} (fake quants)"


def _broken(text: str, width: int | None, indent: str = "  ") -> list[str]:
    if width is None or math.isinf(width):
        return [f"{indent}{text}"]
    return textwrap.wrap(
        text,
        max(20, min(width, _WIDEST)),
        initial_indent=indent,
        subsequent_indent=f"{indent}  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
