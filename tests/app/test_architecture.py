"""The rules that keep the house livable: headless core, short files, short functions."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "qatexplorer"
FILES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))
WIDGET_LIBRARIES = {"ipywidgets", "anywidget", "traitlets", "IPython", "ipykernel"}
PLOT_LIBRARIES = {"plotly", "matplotlib", "bokeh"}
TYPES_ONLY = "TYPE_CHECKING"
MAX_FILE = 800
MAX_FUNCTION = 60


def imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Full names of what is imported anywhere in the file, those for type checkers left out."""
    skipped = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and TYPES_ONLY in ast.unparse(branch.test)
        for statement in branch.body
        for node in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide which room a module is in"
            for alias in node.names:
                yield f"{node.module}.{alias.name}", node.lineno


def forbidden(path: Path) -> set[str]:
    """Prefixes of what the file at ``path`` (relative to the package) may not import."""
    room = path.parts[0]
    if room in ("widgets", "app"):
        return set()
    if room == "views":
        return WIDGET_LIBRARIES | {"qatexplorer.widgets", "torch"}
    rooms = {"qatexplorer.widgets", "qatexplorer.views", "qatexplorer.app"}
    if str(path) == "__init__.py":
        # The front door: `explore` imports the widget, and only when it is called.
        rooms -= {"qatexplorer.widgets"}
    return WIDGET_LIBRARIES | PLOT_LIBRARIES | rooms


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_go_one_way(path: Path) -> None:
    tree = ast.parse((PACKAGE / path).read_text())
    banned = forbidden(path)
    wrong = [
        f"{path}:{line} imports {name}"
        for name, line in imports(tree)
        if any(name == prefix or name.startswith(f"{prefix}.") for prefix in banned)
    ]
    assert not wrong


def test_the_rule_sees_what_it_should() -> None:
    tree = ast.parse("def f():\n    import plotly.express as px\nfrom ipywidgets import HBox\n")
    names = {name for name, _ in imports(tree)}
    assert names == {"plotly.express", "ipywidgets.HBox"}
    assert forbidden(Path("session/session.py")) > WIDGET_LIBRARIES | PLOT_LIBRARIES
    assert forbidden(Path("training/loop.py")) >= {"qatexplorer.widgets", "plotly"}


def test_headless_session_loads_no_widget_library() -> None:
    code = (
        "import sys\n"
        "import qatexplorer as qx\n"
        "example = qx.zoo.load('digits_cnn')\n"
        "session = qx.Session(example.model, example.example_inputs, data=example.data)\n"
        "session.goto('insert')\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules}))\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded = set(ast.literal_eval(done.stdout))
    assert "torch" in loaded
    # traitlets and IPython may come with torch or scikit-learn; these three only come from us.
    assert not loaded & {"ipywidgets", "anywidget", "plotly"}


@pytest.mark.parametrize("path", FILES, ids=str)
def test_a_file_fits_in_a_head(path: Path) -> None:
    text = (PACKAGE / path).read_text()
    assert len(text.splitlines()) <= MAX_FILE, f"{path}: split it by what it does"
    long = [
        f"{path}:{node.lineno} {node.name} has {length} lines"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and (length := _code_lines(node)) > MAX_FUNCTION
    ]
    assert not long


def _code_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function, its docstring left out."""
    first = node.body[0]
    documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    docstring = (first.end_lineno or 0) - first.lineno + 1 if documented else 0
    return (node.end_lineno or 0) - node.lineno + 1 - docstring
