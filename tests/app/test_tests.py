"""Rules of the tests themselves."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests import conftest

TESTS = Path(__file__).resolve().parents[1]
SHARED_TESTS = {"faults/test_fx_faults.py": "tests.faults.test_session_faults"}
"""It runs the tests of the eager flow again, with sessions of the other one."""


def test_what_tests_share_is_in_support() -> None:
    """No file imports from a file of tests, not even in the text of a child process."""
    found = {
        str(path.relative_to(TESTS)): module
        for path in TESTS.rglob("*.py")
        for module in re.findall(r"(?:from|import) (tests(?:\.\w+)*\.test_\w+)", path.read_text())
    }
    assert found == SHARED_TESTS


def test_what_is_listed_as_slow_is_there() -> None:
    lines = (TESTS / "slow.txt").read_text(encoding="utf-8").splitlines()
    listed = [line.rstrip(" *") for line in lines if not line.startswith("#")]
    assert listed
    for name in listed:
        path, _, function = name.partition("::")
        text = (TESTS.parent / path).read_text(encoding="utf-8")
        assert f"def {function.rpartition('::')[2]}(" in text, name


def test_a_long_test_is_one_case_of_a_daily_one() -> None:
    """Never the only one of what it holds: the mark stands with a parameter, on no function."""
    texts = {path: path.read_text(encoding="utf-8") for path in TESTS.rglob("test_*.py")}
    marked = [text for path, text in texts.items() if path.name != Path(__file__).name]
    decorated = [
        text for text in marked if re.search(r"@pytest\.mark\.long|pytestmark.*long", text)
    ]
    assert decorated == []
    assert sum("pytest.mark.long" in text for text in marked) >= 3


@pytest.mark.parametrize(
    ("asked", "run"), [("", ["daily"]), ("not browser", ["daily"]), ("long", ["daily", "long"])]
)
def test_what_is_long_runs_where_it_is_asked_for(asked: str, run: list[str]) -> None:
    """pytest itself then takes what the expression says."""

    def item(name: str) -> Any:
        return SimpleNamespace(name=name, get_closest_marker=lambda mark: mark == name or None)

    items, told = [item("daily"), item("long")], []
    hook = SimpleNamespace(pytest_deselected=lambda items: told.extend(items))
    conftest._leave_out_long(
        SimpleNamespace(option=SimpleNamespace(markexpr=asked), hook=hook),  # type: ignore[arg-type]
        items,
    )
    assert [one.name for one in items] == run
    assert {one.name for one in (*items, *told)} == {"daily", "long"}
