"""Findings as plain data for a page: mark, word and sentence of each, and labels of its buttons."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from qatexplorer.checks.records import SEVERITIES, Finding, Severity
from qatexplorer.snapshot.records import Snapshot


@dataclass(frozen=True)
class Look:
    """How a severity is written: a mark and a word, so that colour is never the only signal."""

    mark: str
    word: str


LOOKS: dict[Severity, Look] = {
    "error": Look("✖", "error"),
    "warning": Look("▲", "warning"),
    "info": Look("●", "note"),
}


def finding_entries(findings: Iterable[Finding], snapshot: Snapshot) -> list[dict[str, Any]]:
    """What the news bar draws, in the order given.

    Each has ``id``, ``severity``, ``mark``, ``word``, ``message``, ``fix`` (in words), ``select``
    (selection string of the place, ``""`` if the stage in view has none) and ``fixes``, a list of
    ``label`` and ``code``.
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
            "select": _selection(finding.path, snapshot),
            "fixes": [{"label": fix.label, "code": fix.code} for fix in finding.fixes],
        }
        for finding in findings
    ]


def _selection(path: str, snapshot: Snapshot) -> str:
    if path in snapshot.site_by_path:
        return f"site:{path}"
    return f"module:{path}" if path and path in snapshot.by_path else ""


def findings_summary(findings: Sequence[Finding]) -> str:
    """``"1 error, 2 notes"``, the worst first; ``""`` for none."""
    counts = Counter(finding.severity for finding in findings)
    return ", ".join(
        f"{counts[one]:,} {LOOKS[one].word}{'' if counts[one] == 1 else 's'}"
        for one in SEVERITIES
        if counts[one]
    )
