"""Rules of the tests themselves."""

from __future__ import annotations

import re
from pathlib import Path

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
