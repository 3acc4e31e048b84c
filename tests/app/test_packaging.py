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

ROOT = Path(__file__).resolve().parents[2]
DATA_SUFFIXES = {".js", ".css", ".safetensors", ".typed", ".json", ".j2", ".svg"}
BUNDLES = ("graph", "html", "panel", "plot", "stagebar", "table", "tree")
PYPROJECT = (ROOT / "pyproject.toml").read_text()
README = (ROOT / "README.md").read_text()


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


def test_torch_is_the_tested_release_alone() -> None:
    import torch

    assert requirements("dependencies")["torch"] == "==2.13.0"
    assert torch.__version__.split("+")[0] == "2.13.0"
    # A torchvision of its own would let pip choose a torch to go with it.
    assert not {"torch", "torchvision"} & requirements("test").keys()


def test_binder_brings_what_the_package_asks_for() -> None:
    lines = (ROOT / "binder" / "environment.yml").read_text().splitlines()
    listed = dict(
        match.groups() for line in lines if (match := re.match(r"  - ([a-z-]+)(.*)$", line))
    )
    wanted = requirements("dependencies")
    torch_range = wanted.pop("torch")
    assert listed["pytorch-cpu"] == "=" + torch_range.removeprefix("==").rpartition(".")[0] + ".*"
    assert {name: listed.get(name) for name in wanted} == wanted
    for script in ("postBuild", "start"):
        assert os.access(ROOT / "binder" / script, os.X_OK)


def test_ci_installs_what_the_readme_says() -> None:
    extras = re.search(r"pip install '(\.\[[a-z,]+\])' && .* -m pytest", README)
    assert extras is not None
    script = (ROOT / ".ci" / "run").read_text()
    assert f"install --quiet --disable-pip-version-check '{extras[1]}'" in script
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    assert script.rstrip().splitlines()[-1].endswith('-m pytest "$@"')


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

    commands = re.findall(r"qatexplorer ((?:dashboard|lab|inspect)[^#\n`]*)", README)
    assert len(commands) >= 5
    for command in commands:
        words = command.split()
        if words != ["inspect"]:
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
