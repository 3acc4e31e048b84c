"""The dataflow graph as SVG, laid out here: in layers from top to bottom, groups open as far as
there is room."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from qatexplorer.views.common.theme import LIGHT
from qatexplorer.views.static.svg import drawing, element, fitted

MAX_MARKS = 48
_BOX_W, _BOX_H = 168.0, 34.0
_GAP_X, _GAP_Y, _PAD = 26.0, 24.0, 16.0
_FILL = {"float": "#f3f4f6", "fq": "#e8f1fb", "int8": "#e6f6ef"}
_STROKE = {"float": "#8b949e", "fq": "#0072b2", "int8": "#00795a"}
_WORDS = (("float", "float"), ("fq", "fake-quantized"), ("int8", "int8"))
_KIND_OF = {"W": "weight", "I": "input", "A": "output"}


def graph_svg(scene: Mapping[str, Any], most: int = MAX_MARKS) -> str:
    """The graph of :func:`qatexplorer.views.graph.scene.build_scene` with at most ``most`` boxes
    (or as many as the model itself has at its top).

    Groups are opened one level after another while there is room; a closed one is drawn as one box
    that says how many operations it holds. ``""`` if the scene has nothing to draw.
    """
    if not scene.get("nodes"):
        return ""
    boxes = _boxes(scene, most)
    edges = _edges_between(scene, boxes)
    places, width, height = _places(list(boxes), edges)
    parts = [_edge(places[a], places[b]) for a, b in edges]
    parts += [_box(box, places[key], scene) for key, box in boxes.items()]
    shut = sum(1 for box in boxes.values() if box.get("children"))
    label = f"Dataflow graph: {len(scene['nodes'])} operations in {len(boxes)} boxes"
    if shut:
        label += f", {shut} of them closed groups"
    width = max(width, 420.0)
    return drawing(width, height + 24, label, _legend(height + 14), *parts)


def _boxes(scene: Mapping[str, Any], most: int) -> dict[str, dict[str, Any]]:
    """What is drawn, by id, in execution order: operations, and groups that stay closed."""
    groups = {group["id"]: group for group in scene["groups"]}
    nodes = {node["id"]: node for node in scene["nodes"]}
    root = next(iter(groups))
    shown: list[str] = list(groups[root]["children"])
    while True:
        # The smallest first: a few large ones would leave no room for the others.
        closed = sorted((k for k in shown if k in groups), key=lambda k: len(groups[k]["children"]))
        room = most - len(shown)
        fits = next((k for k in closed if len(groups[k]["children"]) - 1 <= room), None)
        if fits is None:
            break
        at = shown.index(fits)
        shown[at : at + 1] = groups[fits]["children"]
    return {key: groups.get(key) or nodes[key] for key in shown}


def _edges_between(
    scene: Mapping[str, Any], boxes: Mapping[str, Mapping[str, Any]]
) -> list[tuple[str, str]]:
    parents = {item["id"]: item.get("parent") for item in (*scene["groups"], *scene["nodes"])}

    def box_of(item: str | None) -> str | None:
        while item is not None and item not in boxes:
            item = parents.get(item)
        return item

    owner = [box_of(node["id"]) for node in scene["nodes"]]
    found: dict[tuple[str, str], None] = {}
    for source, target, back in scene["edges"]:
        a, b = owner[source], owner[target]
        if a is not None and b is not None and a != b and not back:
            found[(a, b)] = None
    return list(found)


_Place = tuple[float, float]


def _places(
    keys: Sequence[str], edges: Sequence[tuple[str, str]]
) -> tuple[dict[str, _Place], float, float]:
    """Upper left corner of each box; width and height of all."""
    order = {key: i for i, key in enumerate(keys)}
    before: dict[str, list[str]] = defaultdict(list)
    for a, b in edges:
        if order[a] < order[b]:  # a group that is called twice can close a cycle
            before[b].append(a)
    layer: dict[str, int] = {}
    for key in keys:
        layer[key] = max((layer[a] + 1 for a in before[key]), default=0)
    rows: dict[int, list[str]] = defaultdict(list)
    for key in keys:
        rows[layer[key]].append(key)
    centre: dict[str, float] = {}
    for number in sorted(rows):
        row = rows[number]
        wanted = {
            key: sum(centre[a] for a in before[key]) / len(before[key]) if before[key] else 0.0
            for key in row
        }
        row.sort(key=lambda key: (wanted[key], order[key]))
        middle = sum(wanted.values()) / len(row)
        step = _BOX_W + _GAP_X
        for at, key in enumerate(row):
            centre[key] = middle + (at - (len(row) - 1) / 2) * step
    left = min(centre.values()) - _BOX_W / 2
    width = max(centre.values()) + _BOX_W / 2 - left + 2 * _PAD
    places = {
        key: (centre[key] - _BOX_W / 2 - left + _PAD, layer[key] * (_BOX_H + _GAP_Y) + _PAD)
        for key in keys
    }
    height = (max(rows) + 1) * (_BOX_H + _GAP_Y) - _GAP_Y + 2 * _PAD
    return places, width, height


def _edge(a: _Place, b: _Place) -> str:
    x1, y1 = a[0] + _BOX_W / 2, a[1] + _BOX_H
    x2, y2 = b[0] + _BOX_W / 2, b[1]
    bend = _GAP_Y * 0.6
    far = y2 - y1 > _BOX_H + _GAP_Y
    if far and abs(x1 - x2) < _BOX_W:  # past the boxes between them
        side = max(x1, x2) + _BOX_W / 2 + 9
        path = (
            f"M{x1:.0f} {y1:.0f}C{x1:.0f} {y1 + bend:.0f} {side:.0f} {y1 + 2:.0f} "
            f"{side:.0f} {y1 + _GAP_Y + 8:.0f}L{side:.0f} {y2 - _GAP_Y - 8:.0f}"
            f"C{side:.0f} {y2 - 2:.0f} {x2:.0f} {y2 - bend:.0f} {x2:.0f} {y2 - 3:.0f}"
        )
    else:
        path = (
            f"M{x1:.0f} {y1:.0f}C{x1:.0f} {y1 + bend:.0f} {x2:.0f} {y2 - bend:.0f} "
            f"{x2:.0f} {y2 - 3:.0f}"
        )
    head = f"M{x2 - 4:.0f} {y2 - 6:.0f}L{x2:.0f} {y2:.0f}L{x2 + 4:.0f} {y2 - 6:.0f}z"
    return element("path", d=path, fill="none", stroke="#8b949e") + element(
        "path", d=head, fill="#8b949e"
    )


def _box(box: Mapping[str, Any], place: _Place, scene: Mapping[str, Any]) -> str:
    x, y = place
    group = "children" in box
    how = _precision(box)
    sites = scene.get("sites") or {}
    letters = [str(sites.get(m["site"], {}).get("letter", "")) for m in box.get("marks") or ()]
    name = str(box.get("label") or box.get("path") or "")
    sub = f"{box['ops']} operations" if group and box.get("ops") else str(box.get("sub") or "")
    tip = str(box.get("path") or name)
    parts = [
        element("title", escape(tip)),
        element(
            "rect", x=x, y=y, width=_BOX_W, height=_BOX_H, rx=6 if group else 4,
            fill=_FILL[how], stroke=_STROKE[how], stroke_width=2 if box.get("changed") else 1,
            stroke_dasharray="5 3" if group else None,
        ),
        element("text", escape(fitted(name, _BOX_W - 14)), x=x + 8, y=y + 14, fill=LIGHT.fg,
                font_weight=600),
        element("text", escape(fitted(sub, _BOX_W - 14, 10)), x=x + 8, y=y + 27, fill=LIGHT.muted,
                font_size=10),
    ]  # fmt: skip
    for at, letter in enumerate(filter(None, letters[:4])):
        parts.append(_mark(letter, x + _BOX_W - 10 - 15 * at, y + _BOX_H - 1))
    return element("g", *parts)


def _mark(letter: str, x: float, y: float) -> str:
    colour = {str(k): v for k, v in LIGHT.kinds.items()}.get(_KIND_OF.get(letter, ""), LIGHT.muted)
    return element("circle", cx=x, cy=y, r=7, fill=colour) + element(
        "text", escape(letter), x=x, y=y + 3, fill="#ffffff", font_size=9, text_anchor="middle"
    )


def _precision(box: Mapping[str, Any]) -> str:
    if "precision" in box:
        return str(box["precision"]) if box["precision"] in _FILL else "float"
    if box.get("int8"):
        return "int8"
    return "fq" if any((box.get("sites") or {}).values()) else "float"


def _legend(y: float) -> str:
    parts, x = [], _PAD
    for how, words in _WORDS:
        parts.append(element("rect", x=x, y=y - 9, width=11, height=11, rx=2, fill=_FILL[how],
                             stroke=_STROKE[how]))  # fmt: skip
        parts.append(element("text", words, x=x + 16, y=y, fill=LIGHT.muted, font_size=10))
        x += 32 + 6 * len(words)
    for letter, kind in _KIND_OF.items():
        parts.append(_mark(letter, x + 7, y - 4))
        parts.append(element("text", kind, x=x + 18, y=y, fill=LIGHT.muted, font_size=10))
        x += 32 + 6 * len(kind)
    return "".join(parts)
