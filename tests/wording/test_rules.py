"""What messages say: torch's errors in plain words, and the errors of this package."""

from __future__ import annotations

import inspect
import textwrap

from syrupy.assertion import SnapshotAssertion

from qatexplorer import errors
from qatexplorer.explain.translations import RULES
from qatexplorer.views.common.story import message_html
from tests.support.page_text import visible_text


def _rule(rule: object) -> str:
    """The rule as its user reads it in both flows."""
    eager, fx = rule.fix_in(False), rule.fix_in(True)  # type: ignore[attr-defined]
    rows = [f"## {rule.id}", f"Why: {rule.why}", f"Fix: {eager}"]  # type: ignore[attr-defined]
    if fx != eager:
        rows.append(f"Fix in FX: {fx}")
    return "\n".join(textwrap.fill(row, 100, subsequent_indent="  ") for row in rows)


def test_every_rule_of_the_translations(wording: SnapshotAssertion) -> None:
    assert wording == "\n\n".join(_rule(rule) for rule in RULES) + "\n"


def _classes() -> list[type[BaseException]]:
    found = [
        value
        for value in vars(errors).values()
        if inspect.isclass(value) and issubclass(value, (errors.QatExplorerError, Warning))
    ]
    return [klass for klass in found if klass.__module__ == errors.__name__]


def test_every_class_of_error(wording: SnapshotAssertion) -> None:
    rows = []
    for klass in _classes():
        bases = ", ".join(base.__name__ for base in klass.__bases__)
        says = " ".join((inspect.getdoc(klass) or "").split("Args:")[0].split())
        rows.append(f"{klass.__name__} ({bases}): {says}")
    assert wording == "\n".join(rows) + "\n"


def test_the_parts_of_a_message(wording: SnapshotAssertion) -> None:
    """The same parts in a script and on the page, and what an error of another package becomes."""
    parts = {"where": "block.conv", "why": "it is so.", "fix": "Do this."}
    reported = errors.StageError("stage 'convert' failed.", **parts)
    at_root = errors.InputError("no input.", where="")
    texts = [
        *(str(error) for error in (reported, at_root)),
        *(
            visible_text(message_html(error))
            for error in (reported, at_root, ZeroDivisionError("division by zero\nat a line"))
        ),
    ]
    assert wording == "\n\n".join(texts) + "\n"
