"""Each fix of a silence list that cannot be understood, done to the letter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qatexplorer.checks.silence import read_silences, silences
from qatexplorer.errors import InputError

FORM = 'silence = [{ id = "QX101", path = "body.*", reason = "…" }]'
GOOD = FORM.replace("QX101", "QX908")
TABLE = "[tool.qatexplorer.check]\n"


def fails(file: Path, text: str, *says: str) -> InputError:
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read_silences(file)
    assert all(part in caught.value.message for part in (str(file), *says))
    return caught.value


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "pyproject.toml"


def works(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")
    (one,) = read_silences(file)
    assert (one.id, one.path) == ("QX908", "body.*")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('silence = "QX908"', "silence is no list"),
        ('silence = { id = "QX908" }', "silence is no list"),
        ('silence = ["QX908"]', "entry 1 of silence: 'QX908' is no table"),
        ('silence = [{ id = "QX908" }]', "entry 1 of silence: reason is missing"),
        ('silence = [{ id = "QX908", reason = " " }]', "reason is missing"),
        ('silence = [{ reason = "why" }]', "id is missing"),
        ('silence = [{ id = 908, reason = "why" }]', "id is missing or no text"),
        ('silence = [{ id = "QX908", reason = "why", file = "x" }]', "'file' is none of"),
        ('silence = [{ id = "QX908", reason = "a" }, { id = "QX908" }]', "entry 2"),
    ],
)
def test_write_the_form_that_is_shown(file: Path, line: str, says: str) -> None:
    error = fails(file, TABLE + line, says)
    assert error.fix == f"Write {FORM}."
    works(file, TABLE + GOOD)


def test_name_a_rule_that_there_is(file: Path) -> None:
    error = fails(file, TABLE + FORM.replace("QX101", "QX000"), "entry 1", "no rule 'QX000'")
    assert "The rules are " in error.fix
    assert "QX908" in error.fix
    works(file, TABLE + GOOD)


def test_correct_it_there(file: Path) -> None:
    error = fails(file, TABLE + "silence = [}", "is not TOML", "line 2")
    assert error.fix == "Correct it there."
    works(file, TABLE + GOOD)


@pytest.mark.parametrize("text", ["tool = 1\n", "[tool]\nqatexplorer = 'x'\n"])
def test_write_the_table(file: Path, text: str) -> None:
    error = fails(file, text, "is no table")
    assert error.fix.startswith("Write [tool.qatexplorer.check], and below it ")
    works(file, TABLE + GOOD)


def test_remove_what_there_is_not(file: Path) -> None:
    error = fails(file, f"{TABLE}silense = []\n{GOOD}", "no setting 'silense'")
    assert error.fix.startswith("Remove it. What there is: ")
    works(file, TABLE + GOOD)


def test_name_a_file_that_can_be_read(file: Path) -> None:
    with pytest.raises(InputError, match="cannot be read") as caught:
        silences(str(file))
    assert caught.value.fix == "Name a pyproject.toml that is there and is UTF-8 text."
    file.write_bytes(b"name = '\xff'")
    with pytest.raises(InputError, match="cannot be read"):
        silences(file)
    works(file, TABLE + GOOD)


@pytest.mark.parametrize("given", ["", {"id": "QX908", "reason": "a"}, 3])
def test_a_list_is_wanted(given: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError):
        silences(given)
    assert silences([{"id": "QX908", "reason": "a"}])[0].id == "QX908"
