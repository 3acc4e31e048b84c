"""Findings as SARIF hold against the schema of OASIS, and say what the findings say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from qatexplorer.checks.records import Finding, Findings, Fix, Skipped
from qatexplorer.checks.rules import RULES
from qatexplorer.checks.sarif import to_sarif

SCHEMA = json.loads(Path(__file__).with_name("sarif-schema-2.1.0.json").read_text())
VALIDATOR = jsonschema.Draft4Validator(SCHEMA)


def finding(**given: Any) -> Finding:
    usual = {
        "id": "QX908",
        "name": "int8-fails",
        "severity": "error",
        "path": "body.conv",
        "stage": "convert",
        "message": "It <b>fails</b>.",
        "fix": "model.body.conv.padding = (1,)",
        "fixes": (Fix("Do", "configure", (("qconfig", object()),), "session.configure()"),),
    }
    return Finding(**{**usual, **given})


def the_run(findings: Findings, **given: Any) -> dict[str, Any]:
    log = json.loads(json.dumps(to_sarif(findings, **given), allow_nan=False))
    VALIDATOR.validate(log)
    assert log["version"] == "2.1.0"
    assert log["$schema"] == SCHEMA["id"]
    (run,) = log["runs"]
    return dict(run)


def test_the_schema_is_one_and_sees_a_fault() -> None:
    jsonschema.Draft4Validator.check_schema(SCHEMA)
    log = to_sarif(Findings((finding(),)))
    log["runs"][0]["results"][0]["level"] = "fatal"
    with pytest.raises(jsonschema.ValidationError, match="fatal"):
        VALIDATOR.validate(log)


def test_no_finding_is_a_run_without_results() -> None:
    run = the_run(Findings())
    assert run["results"] == []
    assert run["invocations"][0]["executionSuccessful"] is True


def test_every_rule_is_described() -> None:
    rules = the_run(Findings())["tool"]["driver"]["rules"]
    assert [one["id"] for one in rules] == sorted(RULES)
    for one in rules:
        rule = RULES[one["id"]]
        assert rule.title in one["shortDescription"]["text"]
        assert rule.cause in one["help"]["text"]
        assert f"# {rule.id}" in one["help"]["markdown"]


def test_a_result_has_level_place_message_and_rule() -> None:
    every = [finding(severity=one) for one in ("error", "warning", "info")]
    run = the_run(Findings(tuple(every)))
    assert [one["level"] for one in run["results"]] == ["error", "warning", "note"]
    rules = run["tool"]["driver"]["rules"]
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"] == "QX908"
        text = result["message"]["text"]
        assert all(part in text for part in ("body.conv", "It <b>fails</b>.", "padding = (1,)"))
        (logical,) = result["locations"][0]["logicalLocations"]
        assert (logical["fullyQualifiedName"], logical["name"]) == ("body.conv", "conv")
        assert "physicalLocation" not in result["locations"][0]


def test_a_source_is_a_file_and_a_line_below_the_root(tmp_path: Path) -> None:
    inside, outside = tmp_path / "my models.py", Path("/elsewhere/net.py")
    places = {"a": f"{inside}:12", "b": f"{outside}:3", "c": "net.py", "d": ""}
    found = tuple(finding(path=path) for path in places)
    run = the_run(Findings(found), locate=lambda one: places[one.path], root=tmp_path)
    physical = [one["locations"][0].get("physicalLocation") for one in run["results"]]
    assert physical == [
        {
            "artifactLocation": {"uri": "my%20models.py", "uriBaseId": "%SRCROOT%"},
            "region": {"startLine": 12},
        },
        {"artifactLocation": {"uri": outside.as_uri()}, "region": {"startLine": 3}},
        {"artifactLocation": {"uri": "net.py", "uriBaseId": "%SRCROOT%"}},
        None,
    ]


def test_a_finding_of_the_whole_model_without_a_place_has_no_location() -> None:
    (result,) = the_run(Findings((finding(path=""),)))["results"]
    assert result["locations"] == []


def test_the_silenced_are_suppressed_with_the_reason() -> None:
    quiet = finding(silenced="that block stays float")
    run = the_run(Findings((finding(path="other"),), (quiet,)))
    loud, suppressed = run["results"]
    assert "suppressions" not in loud
    (one,) = suppressed["suppressions"]
    assert (one["kind"], one["justification"]) == ("external", "that block stays float")


def test_a_fingerprint_outlives_a_moved_line_and_tells_findings_apart() -> None:
    def prints(*findings: Finding) -> list[str]:
        results = the_run(Findings(findings))["results"]
        return [one["partialFingerprints"]["qatexplorer/v1"] for one in results]

    here = finding(path="", source="net.py:3")
    assert prints(here) == prints(finding(path="", source="net.py:30", message="Other words."))
    several = prints(here, here, finding(), finding(path="x"), finding(id="QX909"))
    assert len(set(several)) == 5
    assert several == prints(here, here, finding(), finding(path="x"), finding(id="QX909"))


def test_rules_that_could_not_be_asked_are_notifications() -> None:
    run = the_run(Findings(skipped=(Skipped("QX908", "int8-fails", "no data"),)))
    (note,) = run["invocations"][0]["toolExecutionNotifications"]
    assert note["associatedRule"]["id"] == "QX908"
    assert "no data" in note["message"]["text"]
