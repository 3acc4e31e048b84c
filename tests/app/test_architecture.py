"""The rules that keep the house livable: rooms in an order, short files, nothing private shared."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from qatexplorer.flows import FLOWS
from tests.support.rooms import PACKAGE, ROOMS, ROOT

FILES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))

WIDGET_LIBRARIES = {"ipywidgets", "anywidget", "traitlets", "IPython", "ipykernel"}
PLOT_LIBRARIES = {"plotly", "matplotlib", "bokeh"}
MAX_FILE = 800
MAX_FUNCTION = 60

# torch's and Python's own names: there is no public way to the same thing.
TORCHS_PRIVATE = {
    "_get_edge_or_node_to_qspec",  # of torchao: who shares one fake quant
    "_get_edge_or_node_to_group_id",
    "_codegen",  # of a graph: as what its inputs are called
    "_schema",  # of an operation: which arguments it writes to
    "_modules",
    "_parameters",
    "_buffers",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_version",  # of a tensor: how often it was written to
    "_orig_mod",  # what torch.compile wraps
    "_getframe",
    "_tensor_name",  # of the hook of spectral_norm
    "_cdata",  # of a storage: which one it is, also of an empty tensor
}
LIBRARIES = ("torch.", "nn.", "argparse.")  # a private class or function of theirs, by its name
# Another object of the same class, made or compared in one of its methods.
SAME_CLASS = {"self", "cls", "copy", "made", "other"}


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse((PACKAGE / path).read_text())


def imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Full names of what is imported anywhere in the file, for types too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide which room a module is in"
            for alias in node.names:
                yield f"{node.module}.{alias.name}", node.lineno


def room_of(path: Path) -> str:
    return path.parts[0].removesuffix(".py")


def files_of(room: str) -> list[Path]:
    return [path for path in FILES if room_of(path) == room]


@pytest.fixture(autouse=True, scope="module")
def trees_go() -> Iterator[None]:
    """They are a million objects, which every later collection would look at."""
    yield
    tree_of.cache_clear()


def too_high(path: Path, tree: ast.AST) -> list[str]:
    """Imports of the package from rooms that are not below that of ``path``."""
    mine = room_of(path)
    wrong = []
    for name, line in imports(tree):
        first, _, rest = name.partition(".")
        if first != "qatexplorer":
            continue
        room = rest.partition(".")[0]
        room = room if room in ROOMS else "__init__"
        if room != mine and ROOMS.index(room) >= ROOMS.index(mine):
            wrong.append(f"{path}:{line} imports {name}")
    return wrong


def test_the_rooms_are_all_there() -> None:
    assert {room_of(path) for path in FILES} == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_from_rooms_below_it(room: str) -> None:
    assert not [line for path in files_of(room) for line in too_high(path, tree_of(path))]


@pytest.mark.parametrize("room", ROOMS)
def test_libraries_stay_in_their_rooms(room: str) -> None:
    banned: set[str] = set()
    if ROOMS.index(room) < ROOMS.index("widgets"):
        banned |= WIDGET_LIBRARIES
    if ROOMS.index(room) < ROOMS.index("views"):
        banned |= PLOT_LIBRARIES
    if room == "views":
        banned.add("torch")
    for path in files_of(room):
        found = {name.partition(".")[0] for name, _ in imports(tree_of(path))}
        assert not found & banned, path


def test_the_rules_see_what_they_should() -> None:
    tree = ast.parse(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from qatexplorer.session.session import Session\n"
        "def f():\n    import qatexplorer.views.tree\n"
        "from qatexplorer.flows import FLOWS\nfrom qatexplorer import diff, zoo\n"
    )
    wrong = too_high(Path("ledger/answers.py"), tree)
    assert {line.rpartition(" ")[2] for line in wrong} == {
        "qatexplorer.session.session.Session",
        "qatexplorer.diff",
        "qatexplorer.zoo",
        "qatexplorer.views.tree",
    }
    code = "session._lock\nself._lock\nmodule._buffers\nf()._x\nsuper()._y\ntorch._z\n"
    assert [name for _, name in foreign_private(ast.parse(code))] == ["session._lock", "f()._x"]


def test_no_circle_of_imports() -> None:
    modules = {".".join(("qatexplorer", *path.with_suffix("").parts)): path for path in FILES}

    def known(name: str) -> str | None:
        while name and name not in modules:
            if f"{name}.__init__" in modules:
                return f"{name}.__init__"
            name = name.rpartition(".")[0]
        return name or None

    graph = {
        module: {
            found
            for name, _ in imports(tree_of(path))
            if name.startswith("qatexplorer.") and (found := known(name)) and found != module
        }
        for module, path in modules.items()
        if room_of(path) != "__init__"
    }
    done: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, " → ".join((*above[above.index(module) :], module))
        if module in done or module not in graph:
            return
        for found in graph[module]:
            visit(found, (*above, module))
        done.add(module)

    for module in graph:
        visit(module, ())


def foreign_private(tree: ast.AST) -> list[tuple[int, str]]:
    """Private attributes of objects that are not ``self``: (line, name)."""
    return [
        (node.lineno, ast.unparse(node))
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and node.attr not in TORCHS_PRIVATE
        and not (isinstance(node.value, ast.Name) and node.value.id in SAME_CLASS)
        and not ast.unparse(node).startswith(("super().", *LIBRARIES))
    ]


@pytest.mark.parametrize("room", ROOMS)
def test_what_is_private_is_left_alone(room: str) -> None:
    found = {path: foreign_private(tree_of(path)) for path in files_of(room)}
    assert not {path: names for path, names in found.items() if names}


@pytest.mark.parametrize("room", ["views", "ledger", "widgets"])
def test_stages_are_known_by_their_role(room: str) -> None:
    ours = [flow for flow in FLOWS.values() if flow.__module__.startswith("qatexplorer.")]
    names = {stage.name for flow in ours for stage in flow.stages}  # not those of a test's own flow
    names -= {"float", "fold"}  # also a precision; a row of the tree stands for several
    found = {
        (path, node.lineno, node.value)
        for path in files_of(room)
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Constant) and node.value in names
    }
    assert not found


@pytest.mark.slow
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


@pytest.mark.parametrize("room", ROOMS)
def test_a_file_fits_in_a_head(room: str) -> None:
    for path in files_of(room):
        lines = len((PACKAGE / path).read_text().splitlines())
        assert lines <= MAX_FILE, f"{path}: split it by what it does"
    long = [
        f"{path}:{node.lineno} {node.name} has {length} lines"
        for path in files_of(room)
        for node in ast.walk(tree_of(path))
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
