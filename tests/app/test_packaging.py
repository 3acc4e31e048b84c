"""What is shipped, and that README, CI and Binder install the same thing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import qatexplorer
from qatexplorer._tested import TESTED
from tests.tools import compatibility

ROOT = Path(__file__).resolve().parents[2]
DATA_SUFFIXES = {".js", ".css", ".safetensors", ".typed", ".json", ".j2", ".svg"}
BUNDLES = ("graph", "html", "panel", "plot", "stagebar", "table", "tree")
PYPROJECT = (ROOT / "pyproject.toml").read_text()
README = (ROOT / "README.md").read_text()
TEST = "'.[test,dev]'"


def requirements(section: str) -> dict[str, str]:
    """Name → version range of a list in pyproject.toml (tomllib needs Python 3.11)."""
    block = re.search(rf"^{section} = \[\n(.*?)^\]", PYPROJECT, re.MULTILINE | re.DOTALL)
    assert block is not None
    found = re.findall(r'^  "([A-Za-z0-9_-]+)([^"]*)"', block[1], re.MULTILINE)
    return dict(found)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*.whl"))


def test_wheel_holds_every_data_file_and_the_notebooks(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    data = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "qatexplorer").rglob("*")
        if path.suffix in DATA_SUFFIXES or path.name == "py.typed" or path.name == "LICENSE"
    }
    assert {f"qatexplorer/widgets/bundled/{name}.js" for name in BUNDLES} <= data
    assert "qatexplorer/widgets/common/base.css" in data
    assert any(name.endswith(".safetensors") for name in data)
    assert "qatexplorer/py.typed" in data
    assert data <= names
    notebooks = {f"qatexplorer/notebooks/{p.name}" for p in (ROOT / "notebooks").glob("*.ipynb")}
    assert "qatexplorer/notebooks/dashboard.ipynb" in notebooks
    assert notebooks <= names


def test_wheel_holds_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    stem = f"qatexplorer-{qatexplorer.__version__}"
    assert tops == {"qatexplorer", f"{stem}.dist-info", f"{stem}.data"}
    # What goes beside the package, to where Jupyter looks: Voila's template and nothing else.
    beside = {n for n in names if n.startswith(f"{stem}.data/")}
    template = f"{stem}.data/data/share/jupyter/voila/templates/qatexplorer/"
    assert beside == {template + "conf.json", template + "index.html.j2"}
    assert not [name for name in names if "__pycache__" in name or ".ipynb_checkpoints" in name]
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert sum(info.file_size for info in zipfile.ZipFile(wheel).infolist()) < 5_000_000


@pytest.mark.slow
def test_wheel_runs_away_from_the_checkout(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    code = (
        "import qatexplorer as qx\n"
        "from qatexplorer.app import launch\n"
        "example = qx.zoo.load('digits_cnn')\n"
        "print(qx.__version__, example.model(*example.example_inputs).shape[1])\n"
        "print(qx.__file__)\n"
        "print(launch.notebooks_folder())\n"
    )
    env = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == f"{qatexplorer.__version__} 10"
    assert Path(lines[1]).is_relative_to(site)
    assert Path(lines[2]).is_relative_to(site)


def pins() -> dict[str, str]:
    """Name → release of ``constraints.txt``."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def test_torch_and_python_have_a_lower_bound_and_no_upper_one() -> None:
    lowest = TESTED[0].rpartition(".")[0]
    assert requirements("dependencies")["torch"] == f">={lowest}"
    assert re.search(r'^requires-python = "(.*)"$', PYPROJECT, re.MULTILINE)[1] == ">=3.10"
    assert f"torch {lowest} or newer on Python 3.10 or newer" in README
    # A torchvision of its own would let pip choose a torch to go with it.
    assert not {"torch", "torchvision"} & requirements("test").keys()


def test_what_is_said_to_be_tested_has_a_result_in_the_table() -> None:
    results = compatibility.kept()
    assert compatibility.TABLE.read_text() == compatibility.table(results)
    assert compatibility.passed_on(results) == TESTED
    pythons = {".".join(result["python"].split(".")[:2]) for result in results}
    assert pythons == set(re.findall(r'"Programming Language :: Python :: (3\.\d+)"', PYPROJECT))
    assert set(pins()) == {"torch", "torchvision", "executorch"}
    daily = {(r["torch"].partition("+")[0], r["torchvision"]) for r in results}
    assert (pins()["torch"], pins()["torchvision"]) in daily


def junit(folder: Path, name: str, cases: str, torch: str = "2.99.1+cpu") -> Path:
    properties = "".join(
        f'<property name="{key}" value="{value}" />'
        for key, value in {"torch": torch, "python": "3.12.1"}.items()
    )
    path = folder / f"{name}.xml"
    path.write_text(
        '<testsuites><testsuite timestamp="2026-11-26T00:51:31+00:00">'
        f"<properties>{properties}</properties>{cases}</testsuite></testsuites>"
    )
    return path


def test_a_result_becomes_the_row_of_its_torch_and_python(tmp_path: Path) -> None:
    good = '<testcase classname="tests.a.one" name="b" />'
    bad = good.replace("tests.a", "tests.z") + '<testcase time="0.1" />'
    bad += '<testcase classname="tests.a.two" name="c[x|y]"><failure message="E | it&#10;broke"/>'
    bad += '</testcase><testcase classname="tests.a.two" name="d"><skipped message="no GPU"/>'
    bad += "</testcase>"
    first = compatibility.read([junit(tmp_path, "one", good), junit(tmp_path, "two", bad)])
    assert (first["ran"], first["skipped"]) == ({"a": 2, "z": 1}, {"no GPU": 1})
    assert first["failed"] == {"tests.a.two::c[x|y]": "E | it broke"}
    fixed = junit(tmp_path, "three", '<testcase classname="tests.a.two" name="c[x|y]" />')
    assert compatibility.read([tmp_path / "two.xml", fixed])["failed"] == {}
    rows = compatibility.with_result([], first)
    (row,) = compatibility.table(rows).removeprefix(compatibility.HEAD).splitlines()
    assert row == (
        "| 2.99.1+cpu | 3.12.1 | none | 2026-11-26 | 2 | 1 | 1 | a 2, z 1 | "
        "failed: `tests.a.two::c[x\\|y]`: E \\| it broke<br>skipped 1: no GPU |"
    )
    assert compatibility.passed_on(rows) == ()
    again = compatibility.with_result(rows, compatibility.read([junit(tmp_path, "one", good)]))
    assert [r["ran"] for r in again] == [{"a": 1}]
    assert compatibility.passed_on(again) == ("2.99.1",)
    older = compatibility.read([junit(tmp_path, "old", good, torch="2.100.0")])
    assert [r["torch"] for r in compatibility.with_result(again, older)] == [
        "2.99.1+cpu",
        "2.100.0",
    ]
    with pytest.raises(ValueError, match="different environments"):
        compatibility.read([tmp_path / "one.xml", tmp_path / "old.xml"])


def test_binder_brings_what_the_package_asks_for() -> None:
    lines = (ROOT / "binder" / "environment.yml").read_text().splitlines()
    listed = dict(
        match.groups() for line in lines if (match := re.match(r"  - ([a-z-]+)(.*)$", line))
    )
    found = requirements("dependencies")
    wanted = {name: range for name, range in found.items() if ";" not in range}  # older Pythons
    del wanted["torch"]
    assert listed["pytorch-cpu"] == "=" + pins()["torch"].rpartition(".")[0] + ".*"
    assert {name: listed.get(name) for name in wanted} == wanted
    for script in ("postBuild", "start"):
        assert os.access(ROOT / "binder" / script, os.X_OK)


def test_ci_installs_what_the_readme_says() -> None:
    commands = re.findall(r"pip install (.*) && \.venv/bin/(.*)$", README, re.MULTILINE)
    assert [what for what, _ in commands] == [f"-c constraints.txt {w}" for w in (".", TEST)]
    assert commands[1][1] == "python -m pytest"
    script = (ROOT / ".ci" / "run").read_text()
    assert f"install --quiet --disable-pip-version-check {commands[1][0]}" in script
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    whole = script[script.index("\nfi\n# What can run") :]
    parts = re.findall(r'-m pytest -m ("[^"]*"|\w+)', whole)
    assert parts == ['"not browser and not alone"', '"alone and not browser"', "browser"]
    assert re.search(r"--cov-append --cov-fail-under=9\d$", whole, re.MULTILINE)


def test_ci_checks_the_javascript_and_needs_node_for_it() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert "nodejs npm" in script
    assert "npm --prefix tests/js ci" in script
    assert "npm --prefix tests/js run --silent check" in script
    tools = json.loads((ROOT / "tests" / "js" / "package.json").read_text())
    check = tools["scripts"]["check"]
    assert {"types", "lint", "test", "fresh"} <= set(re.findall(r"\w+", check))
    # Exact versions, from whatever registry a machine uses.
    lock = json.loads((ROOT / "tests" / "js" / "package-lock.json").read_text())
    packages = [entry for path, entry in lock["packages"].items() if path]
    assert packages
    assert all("integrity" in entry and "resolved" not in entry for entry in packages)


def test_readme_names_commands_that_exist() -> None:
    from qatexplorer.app.cli import _parser

    commands = re.findall(r"qatexplorer ((?:dashboard|lab|inspect|check)[^#\n`]*)", README)
    assert len(commands) >= 7
    for command in commands:
        words = command.split()
        if words not in (["inspect"], ["check"]):
            _parser().parse_args(words)


@pytest.mark.slow
def test_readme_script_runs(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    script = next(block for block in blocks if "session.int8" in block)
    shortened = script.replace("session.train(**example.training)", "session.train(epochs=1)")
    assert shortened != script
    exec(compile(shortened, "README.md", "exec"), {})
    out = capsys.readouterr().out
    assert "block3.depthwise.weight_fake_quant weight swap forward" in out
    assert "int8" in out


def test_no_trace_of_the_machine_it_was_made_on() -> None:
    """Shipped text names no folder of a developer's machine and no package index."""
    words = ("/work/", "/tmp/venv", "/root/", "pypi.org/simple", "registry.npmjs")
    for path in [*(ROOT / "qatexplorer").rglob("*"), *ROOT.glob("*.md"), *ROOT.glob("binder/*")]:
        if path.is_file() and path.suffix not in (".safetensors", ".pyc"):
            text = path.read_text()
            assert not [word for word in words if word in text], path
