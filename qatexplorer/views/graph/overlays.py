"""An overlay on a scene as plain data: a number and its words for everything that is drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from qatexplorer.snapshot.overlay import Overlay
from qatexplorer.views.common.names import share

_INSIDE = {"sum": "sum of what is inside", "highest": "highest inside", "lowest": "lowest inside"}
_MEANING = {"bad": "high is bad", "good": "high is good", "": ""}


def overlay_picture(overlay: Overlay, scene: Mapping[str, Any]) -> dict[str, Any]:
    """What the browser needs to colour ``scene`` (of :func:`~.scene.build_scene`) by ``overlay``.

    A node has the number of its module or of itself; without one, that of the fake quants drawn at
    it or of what it hides, taken together. A group has the number of its module, else that of all
    inside, taken together as ``overlay.groups`` says.

    Returns:
        A JSON-able dict: ``title``, ``unit``, ``highIs``, ``meaning``, ``note``, ``inside`` (how
        groups are summed up, in words), ``groups``, ``categories``; ``values`` by item id, finite
        (±inf stands at the end of the scale), without those not known; ``texts`` by item id and
        ``sites`` by path of a fake quant, in words; ``low`` and ``high``, the ends of the scale
        (those of nodes and fake quants; of sums the browser chooses them by what is in sight).
    """
    numbers = _numbers(overlay, scene)
    ends = [n for key, (n, _) in numbers.items() if key.startswith("n:")]
    ends += [overlay.values[path] for path in scene["sites"] if path in overlay.values]
    finite = [n for n in ends or [n for n, _ in numbers.values()] if math.isfinite(n)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    if overlay.unit == "share" and low > 0:
        low = 0.0
    total = numbers["g:"][0] if "g:" in numbers and overlay.groups == "sum" else 0.0
    return {
        "title": overlay.title,
        "unit": overlay.unit,
        "highIs": overlay.high_is,
        "meaning": _MEANING[overlay.high_is],
        "note": overlay.note,
        "groups": "" if overlay.categories else overlay.groups,
        "inside": "" if overlay.categories else _INSIDE[overlay.groups],
        "categories": list(overlay.categories),
        "values": {
            key: number if math.isfinite(number) else (high if number > 0 else low)
            for key, (number, _) in numbers.items()
        },
        "texts": {
            key: _text(overlay, number, summed, total) for key, (number, summed) in numbers.items()
        },
        "sites": {
            path: overlay.word(overlay.values[path])
            for path in scene["sites"]
            if path in overlay.values
        },
        "low": low,
        "high": high,
    }


def _numbers(overlay: Overlay, scene: Mapping[str, Any]) -> dict[str, tuple[float, bool]]:
    """Number by item id, and whether it was summed up from what is inside."""
    values = overlay.values
    below = _below(overlay, scene)
    found: dict[str, tuple[float, bool]] = {}
    for node in scene["nodes"]:
        own = values.get(node["path"]) if node["path"] else None
        if own is None:
            own = values.get(node["id"].removeprefix("n:"))
        if own is not None:
            found[node["id"]] = (own, False)
            continue
        marks = {mark["site"] for mark in node["marks"] if mark["site"] in values}
        together = overlay.together([values[path] for path in sorted(marks)])
        if together is None and node["path"]:
            together = overlay.together(below.get(node["path"], ()))
        if together is not None:
            found[node["id"]] = (together, True)
    for group in reversed(scene["groups"]):
        own = values.get(group["path"]) if not group["synthetic"] else None
        if own is not None:
            found[group["id"]] = (own, False)
            continue
        inside = [found[child][0] for child in group["children"] if child in found]
        marks = {mark["site"] for mark in group["marks"] if mark["site"] in values}
        together = overlay.together([*inside, *(values[path] for path in sorted(marks))])
        if together is not None:
            found[group["id"]] = (together, True)
    return found


def _below(overlay: Overlay, scene: Mapping[str, Any]) -> dict[str, list[float]]:
    """Numbers of what is hidden inside the module of a node, by the module's path."""
    paths = {node["path"] for node in scene["nodes"] if node["path"]}
    found: dict[str, list[float]] = {}
    for key, value in overlay.values.items():
        if key in scene["sites"]:
            continue
        around = key.rpartition(".")[0]
        while around and around not in paths:
            around = around.rpartition(".")[0]
        if around:
            found.setdefault(around, []).append(value)
    return found


def _text(overlay: Overlay, number: float, summed: bool, total: float) -> str:
    text = overlay.word(number)
    if total > 0 and number >= 0:
        text += f", {share(number / total)} of the model"
    if summed and not overlay.categories:
        text += f" ({_INSIDE[overlay.groups]})"
    return text
