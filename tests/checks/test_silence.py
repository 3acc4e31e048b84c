"""Silenced findings: by rule and path, with a reason, from a list or from pyproject.toml."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import qatexplorer as qx
from qatexplorer.checks.records import Finding, Findings, Skipped
from qatexplorer.checks.silence import Silence, find_pyproject, read_silences, silenced, silences
from qatexplorer.errors import InputError


def finding(id: str = "QX908", path: str = "body.conv", source: str = "") -> Finding:
    return Finding(id, "int8-fails", "error", path, "convert", "It fails.", source=source)


def paths(findings: Findings, entries: Any) -> tuple[list[str], list[str]]:
    """Paths of those kept and of those silenced; what is unused is left out."""
    after = silenced(findings, silences(entries))
    kept = [one.path for one in after if one.id != "QX990"]
    return kept, [one.path for one in after.silenced]


@pytest.mark.parametrize(
    ("glob", "quiet"),
    [
        ("body.conv", ["body.conv"]),
        ("body.*", ["body.conv", "body.fc"]),
        ("*", ["body.conv", "body.fc", "head", ""]),
        (None, ["body.conv", "body.fc", "head", ""]),
        ("Body.*", []),
        ("body", []),
        ("net.py:*", [""]),
    ],
)
def test_an_entry_covers_what_its_glob_matches(glob: str | None, quiet: list[str]) -> None:
    every = [finding(path=path) for path in ("body.conv", "body.fc", "head")]
    every += [finding(path="", source="net.py:3"), finding("QX909", "body.conv")]
    entry = {"id": "QX908", "reason": "why", **({} if glob is None else {"path": glob})}
    kept, silent = paths(Findings(tuple(every)), [entry])
    assert silent == quiet
    assert sorted([*kept, *silent]) == sorted(one.path for one in every)


def test_a_silenced_finding_has_the_reason_and_does_not_count() -> None:
    after = silenced(Findings((finding(),)), [Silence("QX908", "stays float")])
    assert (len(after), after.counts["error"]) == (0, 0)
    assert [one.silenced for one in after.silenced] == ["stays float"]
    assert "1 silenced" in repr(after)
    assert after.to_json()["silenced"][0]["silenced"] == "stays float"


def test_a_rule_is_named_by_name_too() -> None:
    assert silences([{"id": "int8-fails", "reason": "why"}])[0].id == "QX908"


def test_an_entry_that_matches_nothing_is_reported() -> None:
    entries = silences([{"id": "QX908", "path": "gone.*", "reason": "why"}])
    (unused,) = silenced(Findings(), entries)
    assert (unused.id, unused.severity) == ("QX990", "info")
    assert "'gone.*'" in unused.message
    assert "QX908 int8-fails" in unused.message


def test_an_entry_of_a_rule_that_could_not_be_asked_is_not_called_unused() -> None:
    findings = Findings(skipped=(Skipped("QX908", "int8-fails", "no data"),))
    assert not silenced(findings, [Silence("QX908", "why")]).found


def write(folder: Path, text: str) -> Path:
    file = folder / "pyproject.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_the_list_of_a_pyproject_is_read(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        "[tool.qatexplorer.check]\nsilence = [\n"
        '  { id = "QX908", path = "body.*", reason = "größer" },\n'
        '  { id = "stays-float", reason = "meant" },\n]\n',
    )
    one, two = read_silences(file)
    assert (one.id, one.path, one.reason) == ("QX908", "body.*", "größer")
    assert (two.id, two.path, two.file, two.number) == ("QX914", "*", str(file), 2)
    assert silences(str(file)) == silences(file) == (one, two)


@pytest.mark.parametrize("text", ["", "[project]\nname = 'x'\n", "[tool.ruff]\n"])
def test_a_pyproject_without_the_table_silences_nothing(tmp_path: Path, text: str) -> None:
    assert read_silences(write(tmp_path, text)) == ()


def test_the_nearest_pyproject_is_found(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert find_pyproject(tmp_path / "a" / "b") != tmp_path / "pyproject.toml"
    outer = write(tmp_path, "")
    assert find_pyproject(tmp_path / "a" / "b") == outer
    inner = write(tmp_path / "a", "")
    assert find_pyproject(tmp_path / "a" / "b") == inner


def test_a_session_takes_the_list() -> None:
    model = nn.Sequential(nn.Linear(4, 2)).train()
    session = qx.Session(model, torch.zeros(2, 4))
    session.warns = False
    loud = session.check()
    assert loud.with_id("no-stub")
    entry = {"id": "no-stub", "reason": "a stub comes in the deployment"}
    quiet = session.check(silence=[entry])
    assert len(quiet) == len(loud) - 1
    assert not quiet.with_id("no-stub")
    assert not session.last_check.errors
    assert [one.silenced for one in quiet.silenced] == [entry["reason"]]
    with pytest.raises(InputError, match="There is no rule 'QX000'"):
        session.check(silence=[{"id": "QX000", "reason": "why"}])
