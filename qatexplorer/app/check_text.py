"""Findings as text for a terminal."""

from __future__ import annotations

import textwrap

from qatexplorer.checks.records import SEVERITIES, Finding, Findings, counted
from qatexplorer.views.common.findings import LOOKS

_WIDEST = 100
_INDENT = " " * 4


def as_text(target: str, flow: str, findings: Findings, width: int | None = None) -> str:
    """All findings by severity, each with its place, sentence, fix and page.

    ``width``: of the terminal, to break sentences at; None leaves every sentence on one line.
    """
    lines = [f"{target} ({findings.model}), flow {flow}: {findings.summary()}"]
    for severity in SEVERITIES:
        some = findings.of(severity)
        if some:
            lines += ["", f"{LOOKS[severity].mark} {counted(some)}"]
            for finding in some:
                lines += ["", *_entry(finding, width)]
    return "\n".join([*lines, "", *_ending(findings, width)])


def as_lines(findings: Findings) -> str:
    """A line a finding, for grep; nothing for none."""
    return "\n".join(
        f"{one.place}: {one.severity} {one.id} {one.name}: {' '.join(one.message.split())}"
        for one in findings
    )


def _entry(finding: Finding, width: int | None) -> list[str]:
    stage = f", stage {finding.stage}" if finding.stage else ""
    lines = [f"  {finding.id} {finding.name}: {finding.place}{stage}"]
    lines += _broken(finding.message, width)
    if finding.fix:
        lines += _broken(f"Fix: {finding.fix}", width)
    codes = [fix.code for fix in finding.fixes if fix.code and fix.code not in finding.fix]
    lines += [f"{_INDENT}{'Or' if number else 'In Python'}: {c}" for number, c in enumerate(codes)]
    return [*lines, f"{_INDENT}Docs: {finding.docs} (qatexplorer check --explain {finding.id})"]


def _ending(findings: Findings, width: int | None) -> list[str]:
    count = len(findings.checked)
    lines = [f"{count} {'rule was' if count == 1 else 'rules were'} asked."]
    for why in dict.fromkeys(one.why for one in findings.skipped):
        ids = ", ".join(one.id for one in findings.skipped if one.why == why)
        lines += _broken(f"Could not be asked: {ids}: {why}", width, "")
    for silent in findings.silenced:
        text = f"Silenced: {silent.id} {silent.name}: {silent.place} ({silent.silenced})"
        lines += _broken(text, width, "")
    return lines


def _broken(text: str, width: int | None, indent: str = _INDENT) -> list[str]:
    """The text in lines of the terminal's width; lines of its own stay lines."""
    lines: list[str] = []
    for line in text.splitlines():
        lines += (
            [f"{indent}{line}"]
            if width is None
            else textwrap.wrap(
                line,
                max(20, min(width, _WIDEST)),
                initial_indent=indent,
                subsequent_indent=indent,
                break_long_words=False,
                break_on_hyphens=False,
            )
        )
    return lines
