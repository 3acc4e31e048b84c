"""Every sentence that the page can show as it stands in the code, on a list that people read.

A sentence without a placeholder is the same for every model, so it must be true for every model: it
says what a torch call does in general, what a control is for, or it stands behind a condition that
makes it true. The list is a snapshot: a new sentence shows in its diff and has to be judged.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from syrupy.assertion import SnapshotAssertion

from qatexplorer.flows import FLOWS
from tests.support.rooms import PACKAGE

FILES = sorted(
    path.relative_to(PACKAGE)
    for room in ("views", "ledger", "widgets", "flows", "session", "checks", "cures", "advice")
    for path in (PACKAGE / room).rglob("*.py")
)
_WORDS = 5


def literals(path: Path) -> Iterator[str]:
    """Texts of at least five words that stand in the code without a placeholder; no docstrings."""
    tree = ast.parse((PACKAGE / path).read_text())
    silent: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            silent |= {id(part) for part in ast.walk(node) if isinstance(part, ast.Constant)}
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            silent.add(id(node.value))  # a docstring
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in silent
        ):
            text = " ".join(node.value.split())
            if len(re.findall(r"[A-Za-z]{2,}", text)) >= _WORDS and "{" not in text:
                yield text


def sentences(path: Path) -> list[str]:
    return list(dict.fromkeys(literals(path)))


def test_every_sentence_is_on_the_list(wording: SnapshotAssertion) -> None:
    parts = [
        "\n".join([f"## {path.as_posix()}", *(f"- {text}" for text in found)])
        for path in FILES
        if (found := sentences(path))
    ]
    assert wording == "\n\n".join(parts) + "\n"


CLAIMS = re.compile(
    r"\b(this model|your model (is|has)|here (it|the)|the input is|is covered|so nothing|"
    r"every module|all modules|all layers)\b",
    re.IGNORECASE,
)
"""What a sentence of a stage must not say: such a thing is true of some models only."""


@pytest.mark.parametrize("flow", ["eager", "fx"])
def test_a_stage_says_of_its_call_what_is_true_whatever_the_model(flow: str) -> None:
    for stage in FLOWS[flow].stages:
        assert stage.why.endswith(".")
        assert not CLAIMS.search(stage.why), stage.why


def test_the_rule_sees_what_it_should() -> None:
    assert CLAIMS.search("The input is covered by the output of QuantStub.")
    assert not CLAIMS.search("Fake quants become nodes of the graph.")
