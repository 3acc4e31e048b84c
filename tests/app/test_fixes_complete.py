"""Every fix that the package can give has a test that does what it says.

A fix is what stands in ``fix=`` of an error or a record. It counts as tried where a text of one of
the files ``test_fixes_*.py`` is a part of it; those files provoke the error, do what it says, and
see that it works. The rules that translate torch's errors have such a test beside theirs.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHORTEST = 10
"""Characters of a fragment; a shorter one would be part of some text by accident."""

CANNOT_BE_TRIED: dict[str, str] = {
    "Install the package again, from its wheel or from a complete checkout": (
        "an installation without its notebooks: the packaging test installs the wheel and finds "
        "them there"
    ),
    "See Model Explorer's documentation": (
        "the pages of another project; what the fix spells out of its format is tried"
    ),
    "Please report this with the call": "a mistake of ours that nobody foresaw",
}
"""Fragments of fixes that no test can try, and why."""


@cache
def fixes() -> dict[str, tuple[str, ...]]:
    """The literal pieces of each fix, by file and line."""
    found: dict[str, tuple[str, ...]] = {}
    for path in sorted((ROOT / "qatexplorer").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        known = dict(_constants(tree))
        for given in _given(tree):
            for number, value in enumerate(_texts(given, known)):
                pieces = tuple(_pieces(value))
                if any(len(piece) >= SHORTEST for piece in pieces):
                    place = f"{path.relative_to(ROOT)}:{value.lineno}"
                    found[f"{place}.{number}" if number else place] = pieces
    return found


def _given(tree: ast.Module) -> Iterator[ast.expr]:
    """What is given as ``fix=``, what a variable ``fix`` is set to on the way there, and what the
    functions return that are called for it."""
    makers: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "fix":
            yield node.value
            if isinstance(node.value, ast.Call) and isinstance(node.value.func, ast.Name):
                makers.add(node.value.func.id)
        elif isinstance(node, (ast.Assign, ast.AugAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Name) and target.id == "fix" for target in targets):
                yield node.value
                if isinstance(node.value, ast.Call) and isinstance(node.value.func, ast.Name):
                    makers.add(node.value.func.id)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name in makers:
            for inner in ast.walk(node):
                if isinstance(inner, ast.Return) and inner.value is not None:
                    yield inner.value


@cache
def tried() -> frozenset[str]:
    """All literal texts of the tests of fixes, but for those of this file."""
    texts: set[str] = set()
    for path in (ROOT / "tests").rglob("test_fixes*.py"):
        if path != Path(__file__).resolve():
            tree = ast.parse(path.read_text(encoding="utf-8"))
            words = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}  # docstrings
            for node in ast.walk(tree):
                text = node.value if isinstance(node, ast.Constant) else None
                if isinstance(text, str) and id(node) not in words:
                    texts.add(text)
    return frozenset(text for text in texts if len(text) >= SHORTEST and " " in text)


def _constants(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            yield node.targets[0].id, node.value


def _texts(value: ast.expr, known: dict[str, ast.expr]) -> Iterator[ast.expr]:
    """The texts that ``value`` can be: both sides of a choice, both parts of a sum, what a constant
    stands for."""
    if isinstance(value, ast.IfExp):
        yield from _texts(value.body, known)
        yield from _texts(value.orelse, known)
    elif isinstance(value, ast.BinOp):
        yield from _texts(value.left, known)
        yield from _texts(value.right, known)
    elif isinstance(value, ast.BoolOp):
        for part in value.values:
            yield from _texts(part, known)
    elif isinstance(value, ast.Name) and value.id in known:
        yield from _texts(known[value.id], known)
    elif isinstance(value, ast.Subscript):
        yield from _texts(value.value, known)
    elif isinstance(value, ast.Dict):
        for part in value.values:
            yield from _texts(part, known)
    elif isinstance(value, (ast.Constant, ast.JoinedStr)):
        yield value


def _pieces(value: ast.expr) -> Iterator[str]:
    parts = value.values if isinstance(value, ast.JoinedStr) else [value]
    for part in parts:
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield part.value.strip(" .")


def is_tried(pieces: tuple[str, ...], texts: frozenset[str]) -> bool:
    """Whether one of ``texts`` is part of a piece, or holds a whole one."""
    long = [piece for piece in pieces if len(piece) >= SHORTEST]
    return any(text in piece or piece in text for piece in long for text in texts)


@pytest.mark.parametrize("place", fixes())
def test_a_fix_has_a_test(place: str) -> None:
    pieces = fixes()[place]
    excused = any(fragment in piece for fragment in CANNOT_BE_TRIED for piece in pieces)
    assert is_tried(pieces, tried()) != excused, (
        f"no test tries {pieces}" if not excused else f"{pieces} is tried and excused as well"
    )


def test_every_excuse_is_of_a_fix_that_is_given() -> None:
    pieces = [piece for found in fixes().values() for piece in found]
    for fragment, why in CANNOT_BE_TRIED.items():
        assert any(fragment in piece for piece in pieces), fragment
        assert len(why) > SHORTEST


def test_the_search_sees_a_fix_without_a_test() -> None:
    """It finds what grep does, and what is not in a test is not taken for tried."""
    count = sum(
        len(re.findall(r"\bfix=", path.read_text(encoding="utf-8")))
        for path in (ROOT / "qatexplorer").rglob("*.py")
    )
    assert 0.75 * count < len(fixes()) < 1.3 * count
    assert not is_tried(("Turn the moon around twice",), tried())
    assert is_tried(("Call model.float() before you hand it over",), tried())
