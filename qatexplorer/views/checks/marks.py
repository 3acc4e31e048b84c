"""Marks at the places of findings, for tree and graph."""

from __future__ import annotations

from collections.abc import Sequence

from qatexplorer.checks.records import SEVERITIES, Finding
from qatexplorer.snapshot.records import Snapshot
from qatexplorer.views.common.findings import LOOKS, findings_summary, selection_of

Mark = dict[str, str]


def finding_marks(
    findings: Sequence[Finding], snapshot: Snapshot, first: Snapshot | None = None
) -> dict[str, Mark]:
    """By selection string: ``severity`` of the worst finding there or inside, its ``mark``,
    ``inside`` (``"1"`` if none is at the place itself, else ``""``) and ``words``."""
    own: dict[str, list[Finding]] = {}
    inside: dict[str, list[Finding]] = {}
    for finding in findings:
        selection = selection_of(finding, snapshot, first)
        if not selection:
            continue
        own.setdefault(selection, []).append(finding)
        for path in _around(selection, snapshot):
            inside.setdefault(f"module:{path}", []).append(finding)
    marks = {place: _mark(found, True) for place, found in inside.items() if place not in own}
    marks.update((place, _mark(found, False)) for place, found in own.items())
    return marks


def _mark(findings: Sequence[Finding], inside: bool) -> Mark:
    worst = min((one.severity for one in findings), key=SEVERITIES.index)
    words = findings_summary(findings) + (" inside" if inside else "")
    return {
        "severity": worst,
        "mark": LOOKS[worst].mark,
        "words": words,
        "inside": "1" if inside else "",
    }


def _around(selection: str, snapshot: Snapshot) -> list[str]:
    """Paths of the modules around a place, the model itself among them."""
    kind, _, place = selection.partition(":")
    if kind == "site":
        owner = snapshot.site_by_path[place].owner
        return [owner, *_parents(owner)] if owner != place else _parents(owner)
    if kind == "node" and snapshot.graph is not None:
        scope = next(node.scope for node in snapshot.graph.nodes if node.id == place)
        return [scope, *_parents(scope)]
    return _parents(place)


def _parents(path: str) -> list[str]:
    parts = path.split(".")
    return [".".join(parts[:n]) for n in range(len(parts) - 1, 0, -1)] + ([""] if path else [])
