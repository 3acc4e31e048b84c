"""Findings as SARIF 2.1.0, the format in which code hosts and editors take results of checks.

https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from qatexplorer._version import __version__
from qatexplorer.checks.pages import rule_page
from qatexplorer.checks.records import Finding, Findings, Severity, Skipped
from qatexplorer.checks.rules import RULES, Rule

SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
VERSION = "2.1.0"
LEVELS: Mapping[Severity, str] = {"error": "error", "warning": "warning", "info": "note"}
_ROOT = "%SRCROOT%"
_FINGERPRINT = "qatexplorer/v1"

Locate = Callable[[Finding], str]
"""``"file:line"`` of a finding, with a path that can be opened, or ``""`` for none."""


def to_sarif(
    findings: Findings, *, locate: Locate = lambda finding: finding.source, root: Path | None = None
) -> dict[str, Any]:
    """One SARIF log of one run, as plain data for JSON.

    The module's path is a logical location; the place that ``locate`` gives is the physical one,
    relative to the folder ``root`` (None: the current one) if it lies below it. Silenced findings
    are suppressed results with the user's reason, rules that could not be asked notifications.
    """
    base = (root or Path.cwd()).absolute()
    rules = sorted(RULES.values(), key=lambda rule: rule.id)
    index = {rule.id: number for number, rule in enumerate(rules)}
    seen: Counter[str] = Counter()
    results = [
        _result(finding, index, locate(finding), base, seen)
        for finding in (*findings.found, *findings.silenced)
    ]
    driver = {
        "name": "qatexplorer",
        "semanticVersion": __version__,
        "version": __version__,
        "rules": [_rule(rule) for rule in rules],
    }
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "invocations": [
            {
                "executionSuccessful": True,
                "toolExecutionNotifications": _notifications(findings.skipped, index),
            }
        ],
        "results": results,
    }
    return {"$schema": SCHEMA, "version": VERSION, "runs": [run]}


def _rule(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.id,
        "name": "".join(word.capitalize() for word in rule.name.split("-")),
        "shortDescription": {"text": f"{rule.title}."},
        "fullDescription": {"text": rule.cause},
        "help": {
            "text": f"{rule.symptom}\n\n{rule.cause}\n\n{rule.fix}",
            "markdown": rule_page(rule),
        },
        "defaultConfiguration": {"level": LEVELS[rule.severity]},
        "properties": {"tags": ["quantization", rule.name]},
    }


def _result(
    finding: Finding, index: Mapping[str, int], place: str, base: Path, seen: Counter[str]
) -> dict[str, Any]:
    fix = f" Fix: {finding.fix}" if finding.fix else ""
    where = f"{finding.place}: " if finding.path or finding.source else ""
    result: dict[str, Any] = {
        "ruleId": finding.id,
        "ruleIndex": index[finding.id],
        "level": LEVELS[finding.severity],
        "message": {"text": f"{where}{finding.message}{fix}"},
        "locations": [location] if (location := _location(finding, place, base)) else [],
        "partialFingerprints": {_FINGERPRINT: _fingerprint(finding, seen)},
        "properties": {"stage": finding.stage, "path": finding.path, "fix": finding.fix},
    }
    if finding.silenced:
        result["suppressions"] = [
            {"kind": "external", "status": "accepted", "justification": finding.silenced}
        ]
    return result


def _location(finding: Finding, place: str, base: Path) -> dict[str, Any]:
    name = finding.path.rpartition(".")[2]
    logical = {"fullyQualifiedName": finding.path, "name": name, "kind": "member"}
    location: dict[str, Any] = {"logicalLocations": [logical]} if finding.path else {}
    if place:
        file, line = split_place(place)
        artifact = _artifact(file, base)
        location["physicalLocation"] = {"artifactLocation": artifact}
        if line:
            location["physicalLocation"]["region"] = {"startLine": line}
    return location


def split_place(place: str) -> tuple[str, int]:
    """File and line of ``"file:line"``; line 0 where there is none."""
    file, colon, line = place.rpartition(":")
    return (file, int(line)) if colon and line.isdigit() else (place, 0)


def _artifact(file: str, base: Path) -> dict[str, str]:
    path = Path(file)
    if path.is_absolute() and not path.is_relative_to(base):
        return {"uri": path.as_uri()}
    inside = path.relative_to(base) if path.is_absolute() else path
    return {"uri": quote(inside.as_posix()), "uriBaseId": _ROOT}


def _fingerprint(finding: Finding, seen: Counter[str]) -> str:
    """The same as long as rule, module and file are, wherever in the file the line moves."""
    file, _ = split_place(finding.source)
    key = "|".join((finding.id, finding.path, Path(file).name))
    seen[key] += 1
    return hashlib.sha256(f"{key}|{seen[key]}".encode()).hexdigest()[:32]


def _notifications(skipped: Iterable[Skipped], index: Mapping[str, int]) -> list[dict[str, Any]]:
    return [
        {
            "level": "note",
            "message": {"text": f"{one.id} {one.name} could not be checked: {one.why}"},
            "associatedRule": {"id": one.id, "index": index[one.id]},
        }
        for one in skipped
    ]
