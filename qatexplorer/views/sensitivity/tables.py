"""A ranking of fake quants, and the points of a proposal, as rows of tables."""

from __future__ import annotations

from typing import Any

from qatexplorer.accuracy.records import Proposal, Sensitivity
from qatexplorer.evaluate.evaluation import format_size
from qatexplorer.views.common.names import KINDS, number, share

_EXACT = 2
"""Columns, the last ones, that the exact method alone fills."""

COLUMNS = (
    {"label": "Fake quant", "width": "minmax(170px, 2fr)", "mono": True},
    {"label": "Kind", "width": "108px"},
    {"label": "Score", "width": "84px", "number": True},
    {"label": "Only this on", "width": "112px", "number": True},
    {"label": "All but this", "width": "108px", "number": True},
)
FILTERS = (
    {"flag": "weight", "label": "Weights"},
    {"flag": "activation", "label": "Activations"},
)
POINT_COLUMNS = (
    {"label": "Modules", "width": "76px", "number": True},
    {"label": "Metric", "width": "84px", "number": True},
    {"label": "Parameters", "width": "96px", "number": True},
    {"label": "Quantized MACs", "width": "126px", "number": True},
    {"label": "Which", "width": "minmax(160px, 1fr)", "mono": True},
)


def ranking_columns(found: Sensitivity) -> list[dict[str, Any]]:
    """Those of :data:`COLUMNS` that there is something to say in."""
    exact = any(row.only is not None or row.without is not None for row in found.rows)
    return list(COLUMNS if exact else COLUMNS[:-_EXACT])


def said_of(path: str, owner: str) -> str:
    """The path of a fake quant, with its owner where it does not begin with it: torch numbers those
    of a graph."""
    return path if not owner or path.startswith(f"{owner}.") else f"{owner} · {path}"


def ranking_rows(found: Sensitivity) -> list[dict[str, Any]]:
    """Rows for the table widget, the most costly first; ``sel`` is the fake quant."""
    rows = []
    for row in found.rows:
        look = KINDS["weight" if row.kind == "weight" else "output"]
        rows.append(
            {
                "id": row.path,
                "sel": f"site:{row.path}",
                "kind": "weight" if row.kind == "weight" else "output",
                "flags": [row.kind],
                "cells": [
                    said_of(row.path, row.owner),
                    f"{look.mark} {row.kind}",
                    number(row.score, 3),
                    "" if row.only is None else number(row.only),
                    "" if row.without is None else number(row.without),
                ],
                "sort": [row.path, row.kind, row.score, row.only, row.without],
                "tips": {"0": f"of {row.owner}" if row.owner else ""},
            }
        )
    return rows


def point_rows(found: Proposal) -> list[dict[str, Any]]:
    """Rows for the table widget; ``sel`` is ``"point:<number>"``."""
    rows = []
    for index, point in enumerate(found.points):
        which = ", ".join(point.modules) or "everything quantized"
        rows.append(
            {
                "id": f"point:{index}",
                "sel": f"point:{index}",
                "kind": "",
                "flags": [],
                "cells": [
                    f"{len(point.modules):,}",
                    number(point.metric),
                    format_size(point.size_bytes),
                    share(point.share_int8),
                    which,
                ],
                "sort": [
                    len(point.modules),
                    point.metric,
                    point.size_bytes,
                    point.share_int8,
                    which,
                ],
                "tips": {"4": which},
            }
        )
    return rows
