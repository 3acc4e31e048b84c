"""The scales of a weight's groups, as an image: rows of the weight × groups of its columns."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

import plotly.graph_objects as go

from qatexplorer.snapshot.records import FakeQuantSite
from qatexplorer.views.common.alt import span
from qatexplorer.views.common.html import Html, code, terms
from qatexplorer.views.common.names import count, number, plain_dtype
from qatexplorer.views.common.theme import Table, ThemeName, make_figure, theme_of

MOST_ROWS = 256
MOST_COLUMNS = 128
_LISTED = 8
_COLOURS = ((0.0, "#deebf7"), (0.5, "#6baed6"), (1.0, "#08306b"))


def scale_rows(
    site: FakeQuantSite, scale: Sequence[float] | None = None
) -> list[tuple[float, ...]]:
    """Scales of the blocks of a weight, one tuple for each row of the weight; empty where they are
    not known or do not divide into its rows.

    ``scale`` are others than the site's own, such as those of a sample of a training.
    """
    values = tuple(site.scale if scale is None else scale)
    rows = site.tensor_shape[0] if site.tensor_shape else 0
    if not site.blocks or not rows or not values or len(values) % rows:
        return []
    width = len(values) // rows
    return [values[start : start + width] for start in range(0, len(values), width)]


def blocks_figure(
    site: FakeQuantSite,
    theme: ThemeName | bool = "light",
    scale: Sequence[float] | None = None,
) -> go.Figure | None:
    """An image of the scales, dark where a scale is large; None where :func:`scale_rows` is empty.

    Beyond 256 rows or 128 groups a row every n-th is drawn. ``scale``: see :func:`scale_rows`.
    """
    rows = scale_rows(site, scale)
    if not rows:
        return None
    look = theme_of(theme)
    down, across = -(-len(rows) // MOST_ROWS), -(-len(rows[0]) // MOST_COLUMNS)
    z = [list(row[::across]) for row in rows[::down]]
    size = site.block_size or 0
    trace: dict[str, Any] = {
        "type": "heatmap",
        "z": z,
        "x": [index * across for index in range(len(z[0]))],
        "y": [index * down for index in range(len(z))],
        "colorscale": [list(stop) for stop in _COLOURS],
        "colorbar": {"title": {"text": "scale"}, "thickness": 12},
        "hovertemplate": "row %{y}, group %{x}<br>scale %{z:.5g}<extra></extra>",
    }
    what = "group" if len(rows[0]) > 1 else "row"
    layout = {
        "showlegend": False,
        "margin": {"l": 60, "r": 18, "t": 60, "b": 44},
        "xaxis": {
            "title": f"{what} ({size:,} values each)",
            "showgrid": False,
            "dtick": 1 if len(z[0]) <= 12 else None,  # there is no half a group
        },
        "yaxis": {"title": "row of the weight", "autorange": "reversed", "showgrid": False},
    }
    subtitle = _subtitle(rows) + (f" · every {down}th row drawn" if down > 1 else "")
    return make_figure(
        look, f"{site.path}: scales", subtitle, 320, [trace], layout,
        alt=_alt(rows, what), table=_table(rows),
    )  # fmt: skip


def _flat(rows: Sequence[Sequence[float]]) -> list[float]:
    return [value for row in rows for value in row]


def _subtitle(rows: Sequence[Sequence[float]]) -> str:
    every = _flat(rows)
    low, high = min(every), max(every)
    spread = f" · largest scale {number(high / low, 3)} × the smallest" if low > 0 else ""
    return f"{len(rows):,} rows × {len(rows[0]):,}{spread} · median {number(median(every))}"


def _alt(rows: Sequence[Sequence[float]], what: str) -> str:
    every, width = _flat(rows), len(rows[0])
    low, high = min(every), max(every)
    places = [divmod(every.index(value), width) for value in (low, high)]
    least, most = (f"row {row:,}, {what} {column:,}" for row, column in places)
    return (
        f"Scale of {len(every):,} blocks in {len(rows):,} rows: {span(low, high)}, median "
        f"{number(median(every))}. Least at {least}, largest at {most}."
    )


def _table(rows: Sequence[Sequence[float]]) -> Table:
    """The blocks of the largest scales and those of the least."""
    width = len(rows[0])
    ordered = sorted(enumerate(_flat(rows)), key=lambda pair: -pair[1])
    shown = ordered if len(ordered) <= 2 * _LISTED else [*ordered[:_LISTED], *ordered[-_LISTED:]]
    cells = tuple(
        (f"{index // width:,}", f"{index % width:,}", number(value)) for index, value in shown
    )
    return Table(("row", "group", "scale"), cells)


def blocks_terms(site: FakeQuantSite) -> Html:
    """The grid of a fake quant of torchao's, for the inspector."""
    levels = site.quant_max - site.quant_min + 1
    codes = f"{number(site.quant_min)} .. {number(site.quant_max)} ({count(levels, 'level')})"
    if levels < 2:
        codes = "values of a float type, not at even distances"
    return terms(
        [
            ("dtype", code(plain_dtype(site.dtype))),
            ("codes", codes),
            ("one scale for", _unit(site)),
            ("group asked for", None if site.group_asked is None else f"{site.group_asked:,}"),
            ("group used", _used(site)),
            ("scale", _scales(site)),
            ("range observed", _range(site)),
        ]
    )


def _unit(site: FakeQuantSite) -> str:
    words = {
        "group": "each group of values that lie side by side in a row",
        "row": "each row",
        "token": "each token (the last dimension), made anew in each forward",
        "tensor": "the whole tensor",
    }
    return words.get(site.blocks, site.blocks)


def _used(site: FakeQuantSite) -> str | None:
    if site.group_asked is None or site.block_size is None:
        return None
    if site.block_size == site.group_asked:
        return f"{site.block_size:,}, as asked for"
    return f"{site.block_size:,}, and not {site.group_asked:,}"


def _scales(site: FakeQuantSite) -> str:
    if not site.scale:
        return "none is kept between forwards"
    low, high = min(site.scale), max(site.scale)
    blocks = count(len(site.scale), "block")
    if low == high:
        return f"{number(low, 6)} in {blocks}"
    return f"{number(low)} to {number(high)}, median {number(median(site.scale))}; {blocks}"


def _range(site: FakeQuantSite) -> str:
    if site.seen == "dynamic":
        return "none: each tensor that comes gives its own"
    return "not yet: the first forward finds the scale" if site.seen == "nothing" else "found once"
