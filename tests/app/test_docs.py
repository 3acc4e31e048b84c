"""The documents are true: rooms, files, links, commands and public names that they name exist."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path

import pytest
import torch

import qatexplorer as qx
from qatexplorer.checks.rules import RULES, Found, rule
from qatexplorer.explain.translations import Rule
from qatexplorer.flows.base import FlowOptions
from qatexplorer.flows.qconfig import resolve_qconfig
from tests.support.rooms import PACKAGE, ROOMS, ROOT

DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "notebooks" / "README.md"]
)
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
# Where a path in a document may begin.
ROOTS = (ROOT, PACKAGE, ROOT / "notebooks")
NOT_THERE = {"zoo/my_example.py", "walk.py"}  # what the document says how to write


def rooms_of(text: str) -> list[str]:
    """The rooms of the table between the two marks, in order; a folder ends in a slash."""
    table = re.search(r"<!-- rooms:.*?-->(.*)<!-- /rooms -->", text, re.DOTALL)
    assert table
    return re.findall(r"^\| `([\w/]+)` \|", table[1], re.MULTILINE)


def test_the_map_has_the_rooms_in_the_order_of_imports() -> None:
    assert [room.rstrip("/") for room in rooms_of(ARCHITECTURE)] == list(ROOMS)


def test_the_map_has_the_folders_and_files_that_exist() -> None:
    there = {path.name + "/" for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    there |= {path.stem for path in PACKAGE.glob("*.py")}
    assert set(rooms_of(ARCHITECTURE)) == there


def test_the_map_has_the_public_names() -> None:
    section = ARCHITECTURE.partition("## Public names")[2].partition("Public are")[0]
    assert sorted(re.findall(r"`qx\.(\w+)`", section)) == sorted(qx.__all__)


@pytest.mark.parametrize("name", [name for name in qx.__all__ if name != "__version__"])
def test_what_is_public_says_what_it_is(name: str) -> None:
    assert (getattr(qx, name).__doc__ or "").strip()


def missing_paths(text: str) -> list[str]:
    """Files in backticks that lie nowhere they could; a pattern must find something."""
    named = set(re.findall(r"`([\w./*-]+/?[\w*-]+\.(?:py|js|mjs|md|toml|ipynb))`", text))
    return sorted(
        path
        for path in named - NOT_THERE
        if not any(next(iter(root.glob(path)), None) for root in ROOTS)
        and not ("/" not in path and next(iter(PACKAGE.rglob(path)), None))
    )


def missing_links(text: str, folder: Path) -> list[str]:
    """Links to files that are not there, and to headings that the file does not have."""
    found = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        name, _, heading = target.partition("#")
        if "://" in target:
            continue
        file = folder / name if name else None
        if file is not None and not file.exists():
            found.append(target)
        elif heading:
            lines = (file.read_text() if file is not None else text).splitlines()
            titles = {line.lstrip("# ").lower().replace(" ", "-") for line in lines if "#" in line}
            found += [] if heading in titles else [target]
    return found


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_links_exist(path: Path) -> None:
    text = path.read_text()
    assert not missing_paths(text)
    assert not missing_links(text, path.parent)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_to_run_exist(path: Path) -> None:
    modules = set(re.findall(r"python -m ((?:tests|qatexplorer)[\w.]*)", path.read_text()))
    assert not [name for name in modules if importlib.util.find_spec(name) is None]


def test_examples_of_code_are_python() -> None:
    for path in DOCUMENTS:
        for block in re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL):
            ast.parse(block)


def block_with(words: str) -> str:
    """The block of Python in CONTRIBUTING that has ``words``."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    (found,) = [b for b in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if words in b]
    return str(found)


def test_the_flow_that_is_shown_is_one() -> None:
    model = torch.nn.Linear(2, 2)
    names = {"my_prepare": lambda given: given, "my_convert": lambda given: given.eval()}
    try:
        exec(block_with("class MyFlow"), names)
        flow = qx.flows.get_flow("mine")
    finally:
        qx.flows.FLOWS.pop("mine", None)
    assert (flow.prepared_stage, flow.train_stage, flow.int8_stage) == ("place", "learn", "finish")
    options = FlowOptions(resolve_qconfig("onednn"), torch.zeros(1, 2))
    assert flow.apply("place", model, options).model is model
    assert not flow.apply("finish", model, options).model.training


def test_the_rule_of_the_checks_that_is_shown_finds_something() -> None:
    names = {"__name__": "mine", "rule": rule, "Found": Found, "nn": torch.nn}
    conv = torch.nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular")
    session = qx.Session(torch.nn.Sequential(conv).train(), torch.zeros(1, 1, 8, 8), stubs="model")
    try:
        exec("from __future__ import annotations\n" + block_with("circular-padding"), names)
        (found,) = session.check().with_id("circular-padding")
        assert RULES["QX000"].title == "A convolution pads in a circle"
    finally:
        RULES.pop("QX000", None)
    assert (found.path, found.severity) == ("0", "warning")


def test_the_rule_that_is_shown_answers() -> None:
    (rule,) = eval(block_with("group-norm"), {"Rule": Rule})
    raised = (
        "Could not run 'aten::native_group_norm' with arguments from the 'QuantizedCPU' backend"
    )
    assert re.search(rule.pattern, f"NotImplementedError: {raised}")
    assert rule.why.format(here="layer")


def test_the_metric_that_is_shown_is_one() -> None:
    function = block_with("def top3").partition("session =")[0]
    names: dict[str, object] = {"torch": torch}
    exec(function, names)
    scores = torch.tensor([[9.0, 8, 7, 1], [9, 8, 7, 1]])
    assert names["top3"](scores, torch.tensor([2, 3])) == 0.5  # type: ignore[operator]


def test_every_notebook_is_in_the_list() -> None:
    listed = (ROOT / "notebooks" / "README.md").read_text()
    assert not [n.name for n in (ROOT / "notebooks").glob("*.ipynb") if n.name not in listed]


def test_what_is_missing_is_found(tmp_path: Path) -> None:
    (tmp_path / "there.md").write_text("# One heading\n")
    text = "`views/nowhere.py` `facts.py` [a](gone.md) [b](there.md#one-heading) [c](there.md#two)"
    assert missing_paths(text) == ["views/nowhere.py"]
    assert missing_links(text, tmp_path) == ["gone.md", "there.md#two"]
