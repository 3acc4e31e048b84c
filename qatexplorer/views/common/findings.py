"""Findings as plain data for a page: mark, word and sentence of each, and labels of its buttons."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from qatexplorer.checks.records import SEVERITIES, Finding, Severity
from qatexplorer.snapshot.follow import moved_selection
from qatexplorer.snapshot.records import Snapshot


@dataclass(frozen=True)
class Look:
    """How a severity is written: a mark and a word, so that colour is never the only signal."""

    mark: str
    word: str


LOOKS: dict[Severity, Look] = {
    "error": Look("✖", "error"),
    "warning": Look("▲", "warning"),
    "info": Look("●", "info"),
}


def finding_entries(
    findings: Iterable[Finding], snapshot: Snapshot, first: Snapshot | None = None
) -> list[dict[str, Any]]:
    """What the news bar draws, in the order given.

    Each has ``id``, ``severity``, ``mark``, ``word``, ``message``, ``fix`` (in words), ``select``
    (see :func:`selection_of`) and ``fixes``, a list of ``label`` and ``code``.
    """
    return [
        {
            "id": finding.id,
            "name": finding.name,
            "key": finding.key,
            "severity": finding.severity,
            "mark": LOOKS[finding.severity].mark,
            "word": LOOKS[finding.severity].word,
            "message": finding.message,
            "fix": finding.fix,
            "select": selection_of(finding, snapshot, first),
            "fixes": [{"label": fix.label, "code": fix.code} for fix in finding.fixes],
        }
        for finding in findings
    ]


def selection_of(finding: Finding, snapshot: Snapshot, first: Snapshot | None = None) -> str:
    """Selection string of the place of a finding, ``""`` if the stage in view has none.

    It is the fake quant or module of its path; where it has no path, the operation of the graph
    that its source line makes. ``first`` is the float stage: a wrapper may have changed the path
    since.
    """
    path = finding.path
    if not path:
        return _operation_at(finding.source, snapshot) if finding.source else ""
    if path in snapshot.site_by_path:
        return f"site:{path}"
    if first is not None and path in first.by_path:
        return moved_selection(f"module:{path}", first, snapshot)
    return f"module:{path}" if path in snapshot.by_path else ""


def _operation_at(source: str, snapshot: Snapshot) -> str:
    """Of several on that line the first that is no module: a module has a path to be named by."""
    nodes = snapshot.graph.nodes if snapshot.graph is not None else ()
    there = [node for node in nodes if node.source and _same_line(node.source, source)]
    for node in sorted(there, key=lambda node: node.path != ""):
        return f"module:{node.path}" if node.path else f"node:{node.id}"
    return ""


def _same_line(one: str, other: str) -> bool:
    """Whether both name one line; a file may stand there with its folder or without."""
    short, long = sorted((one.replace("\\", "/"), other.replace("\\", "/")), key=len)
    return long == short or long.endswith(f"/{short}")


def findings_summary(findings: Sequence[Finding]) -> str:
    """``"1 error, 2 infos"``, the worst first; ``""`` for none."""
    return ", ".join(f"{n:,} {word}" for _, n, word in severity_counts(findings))


def severity_counts(findings: Sequence[Finding]) -> list[tuple[Severity, int, str]]:
    """Severity, how many, and its word in the right number; the worst first, none left out but
    those that are not there."""
    every = Counter(finding.severity for finding in findings)
    return [
        (one, every[one], LOOKS[one].word + ("" if every[one] == 1 else "s"))
        for one in SEVERITIES
        if every[one]
    ]
