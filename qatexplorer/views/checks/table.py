"""Findings as rows of a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from qatexplorer.checks.records import SEVERITIES, Finding
from qatexplorer.views.common.findings import LOOKS, severity_counts

COLUMNS = (
    {"label": "Severity", "width": "96px"},
    {"label": "Rule", "width": "70px", "mono": True},
    {"label": "Where", "width": "minmax(120px, 1fr)", "mono": True},
    {"label": "What", "width": "minmax(220px, 3fr)"},
    {"label": "Bites at", "width": "108px"},
)


def finding_rows(
    findings: Sequence[Finding], title_of: Callable[[str], str]
) -> list[dict[str, Any]]:
    """Rows for the table widget, in the order given; ``sel`` is the key of the finding.

    ``title_of`` gives the title of a stage by its name.
    """
    rows = []
    for finding in findings:
        look, stage = LOOKS[finding.severity], title_of(finding.stage)
        rows.append(
            {
                "id": finding.key,
                "sel": finding.key,
                "kind": finding.severity,
                "flags": [finding.severity],
                "cells": [
                    f"{look.mark} {look.word}",
                    finding.id,
                    finding.place,
                    finding.message,
                    stage,
                ],
                "sort": [
                    SEVERITIES.index(finding.severity),
                    finding.id,
                    finding.place,
                    finding.message,
                    stage,
                ],
            }
        )
    return rows


def finding_filters(findings: Sequence[Finding]) -> list[dict[str, str]]:
    """A button for each severity that there is, if there is more than one."""
    counts = severity_counts(findings)
    if len(counts) < 2:
        return []
    return [
        {"flag": severity, "label": f"{LOOKS[severity].mark} {n:,} {word}"}
        for severity, n, word in counts
    ]
