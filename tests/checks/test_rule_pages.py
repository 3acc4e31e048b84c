"""The pages of the rules are what the rules say: ``python -m tests.tools.rule_pages``."""

from __future__ import annotations

import re

import pytest

from qatexplorer.checks.pages import rule_page, rules_index
from qatexplorer.checks.rules import RULES, Rule
from tests.tools.rule_pages import COMMAND, FOLDER, pages


@pytest.mark.parametrize("name", pages())
def test_a_page_is_what_the_rule_says(name: str) -> None:
    file = FOLDER / name
    there = file.read_text(encoding="utf-8") if file.exists() else "no such file"
    assert there == pages()[name], f"docs/rules/{name} is stale. Run: {COMMAND}"


def test_there_is_no_page_of_a_rule_that_is_no_more() -> None:
    stale = {file.name for file in FOLDER.iterdir()} - set(pages())
    assert not stale, f"Run: {COMMAND}"


def a_rule(**given: str) -> Rule:
    usual = {"symptom": "x", "cause": "y", "fix": "z", "title": "T"}
    return Rule(
        "QX101", "a-rule", "error", "int8", sources=("https://a.example/1",), ask=None,
        family="f", **{**usual, **given},
    )  # fmt: skip


def test_a_page_begins_with_what_the_user_sees() -> None:
    page = rule_page(a_rule(symptom="RuntimeError: boom <T>", cause="Because."))
    headings = re.findall(r"^## (.*)$", page, re.MULTILINE)
    assert headings[:3] == ["What you see", "Why", "What to do"]
    assert "```text\nRuntimeError: boom <T>\n```" in page
    assert "`convert` (eager), `lower` (fx)" in page
    assert "- <https://a.example/1>" in page
    assert 'silence = [{ id = "QX101"' in page


def test_a_message_that_the_code_had_to_break_is_one_line() -> None:
    long = "word " * 18 + "wordy"
    assert len(long) > 90
    page = rule_page(a_rule(symptom=f"{long}\nand more\nAnother message"))
    assert f"{long} and more\nAnother message\n" in page


def test_code_is_code_and_signs_mean_themselves() -> None:
    cause = "A <b> and __init__ and *x*, not `*y*`:\n\n    a = b * c\n      d\n\nMore."
    page = rule_page(a_rule(cause=cause))
    assert "A \\<b> and \\_\\_init\\_\\_ and \\*x\\*, not `*y*`:" in page
    assert "```python\na = b * c\n  d\n```\n\nMore." in page


def test_the_table_has_every_rule_with_a_link() -> None:
    text = rules_index(RULES.values())
    assert re.findall(r"^\| \[(QX\d+)\]\(\1\.md\)", text, re.MULTILINE) == sorted(RULES)
    assert "a \\| b" in rules_index([a_rule(title="a | b")])


def test_what_a_page_links_to_is_there() -> None:
    checks = (FOLDER.parent / "checks.md").read_text(encoding="utf-8")
    assert "\n## Silencing\n" in checks
    assert set(re.findall(r"\]\(([^)]+)\)", rule_page(a_rule()))) == {"../checks.md#silencing"}
