"""Node data of Google's Model Explorer, as JSON: read, checked and written.

The format is that of ``model_explorer.node_data_builder`` (``ModelNodeData.save_to_file`` and
``GraphNodeData.save_to_file``) and of ``NodeDataProviderData`` in its page::

    {graph id: {"name": text, "results": {node: {"value": number or text, "bgColor": css}, …},
                "gradient": [{"stop": 0 to 1, "bgColor": hex, "textColor": hex}, …]}, …}

The data of one graph may stand without the graph's id around it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qatexplorer.errors import OverlayError

MAX_BYTES = 64 * 2**20
MAX_RESULTS = 1_000_000

GRADIENT = ("#00224e", "#35456c", "#666970", "#948e77", "#c8b866", "#fee838")
"""Cividis, from low to high: safe for colour-blind eyes, and the same in grey."""

_CATEGORIES = ("#e69f00", "#56b4e9", "#cc79a7", "#009e73", "#f0e442", "#0072b2", "#d55e00")
_WHERE = "See Model Explorer's documentation of custom node data."


def read(
    source: str | os.PathLike[str] | Mapping[str, Any], graph_id: str | None
) -> tuple[str, dict[str, float | str]]:
    """(name, value by node) of one graph. Raises OverlayError, and OSError for a bad file."""
    file = Path(source) if isinstance(source, (str, os.PathLike)) else None
    data = _parsed(file) if file is not None else source
    if not isinstance(data, Mapping):
        raise _wrong(f"it is a {_json_type(data)}, not an object")
    key, graph = _graph(data, graph_id)
    results = graph["results"]
    if len(results) > MAX_RESULTS:
        raise _wrong(f"it has {len(results):,} results, more than {MAX_RESULTS:,}")
    name = graph.get("name") or (file.stem if file is not None else key)
    if not isinstance(name, str):
        raise _wrong(f"its name is a {_json_type(name)}, not text")
    return name, {node: _value(node, entry) for node, entry in results.items()}


def _parsed(file: Path) -> Any:
    with file.open("rb") as stream:
        raw = stream.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        raise _wrong(f"{file.name} is larger than {MAX_BYTES // 2**20} MiB")
    try:
        return json.loads(raw, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deep" if isinstance(error, RecursionError) else str(error)
        raise _wrong(f"{file.name} is no JSON: {reason}") from error


def _no_constant(name: str) -> Any:
    raise ValueError(f"JSON has no {name}")


def _graph(data: Mapping[str, Any], graph_id: str | None) -> tuple[str, Mapping[str, Any]]:
    if _is_graph(data) and graph_id is None:
        return "", data
    graphs = {key: graph for key, graph in data.items() if _is_graph(graph)}
    if not graphs:
        raise _wrong("no graph in it has an object of results")
    if graph_id is None and len(graphs) == 1:
        return next(iter(graphs.items()))
    if graph_id is None or graph_id not in graphs:
        names = ", ".join(repr(key) for key in list(graphs)[:12])
        raise OverlayError(
            f"there are {len(graphs)} graphs in it."
            if graph_id is None
            else f"there is no graph {graph_id!r} in it.",
            fix=f"Choose one with graph_id=: {names}.",
        )
    return graph_id, graphs[graph_id]


def _is_graph(graph: Any) -> bool:
    return isinstance(graph, Mapping) and isinstance(graph.get("results"), Mapping)


def _value(node: Any, entry: Any) -> float | str:
    if not isinstance(node, str):
        raise _wrong(f"the node {node!r} is no text")
    if not isinstance(entry, Mapping) or "value" not in entry:
        raise _wrong(f"the result of {node!r} is no object with a value")
    value = entry["value"]
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise _wrong(f"the value of {node!r} is a {_json_type(value)}, not a number or text")
    if not isinstance(value, str):
        try:
            return float(value)
        except OverflowError as error:
            raise _wrong(f"the value of {node!r} is too large") from error
    return value


def document(
    graph_id: str, title: str, rows: Mapping[str, float | str], high_is_good: bool
) -> dict[str, Any]:
    """The node data of one graph. What is to be looked at first gets the yellow end."""
    graph: dict[str, Any] = {"name": title}
    words = list(dict.fromkeys(value for value in rows.values() if isinstance(value, str)))
    if words:
        colours = {word: _CATEGORIES[i % len(_CATEGORIES)] for i, word in enumerate(words)}
        graph["results"] = {
            node: {"value": value, "bgColor": colours[str(value)], "textColor": "#000000"}
            for node, value in rows.items()
        }
    else:
        graph["results"] = {node: {"value": value} for node, value in rows.items()}
        stops = GRADIENT[::-1] if high_is_good else GRADIENT
        graph["gradient"] = [
            {"stop": i / (len(stops) - 1), "bgColor": colour, "textColor": text_on(colour)}
            for i, colour in enumerate(stops)
        ]
    return {graph_id: graph}


def write(path: str | os.PathLike[str], data: Mapping[str, Any]) -> None:
    """Write node data as JSON; raises OSError."""
    Path(path).write_text(json.dumps(data, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def luminance(colour: str) -> float:
    """Relative luminance of ``"#rrggbb"``, 0 to 1, as WCAG defines it."""
    parts = [int(part, 16) / 255 for part in re.findall("..", colour.lstrip("#"))]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def text_on(colour: str) -> str:
    """Black or white, whichever can be read better on ``colour``: always 4.5:1 or more."""
    light = luminance(colour)
    return "#000000" if (light + 0.05) / 0.05 >= 1.05 / (light + 0.05) else "#ffffff"


def _json_type(value: Any) -> str:
    names = {dict: "object", list: "list", str: "text", bool: "flag", type(None): "null"}
    return names.get(type(value), "number" if isinstance(value, (int, float)) else "thing")


def _wrong(what: str) -> OverlayError:
    return OverlayError(
        f"this is no node data of Model Explorer: {what}.",
        fix='Expected: {"<graph id>": {"results": {"<node>": {"value": 1.0}}}}. ' + _WHERE,
    )
