"""The command line: what it prints, its exit codes, and what it hands to the servers."""

from __future__ import annotations

import importlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import qatexplorer
from qatexplorer.app import cli, launch
from qatexplorer.app.listing import SCHEMA, SCHEMA_VERSION

ROOT = Path(qatexplorer.__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands set variables for the kernels to come; no test may see another's."""
    for name in (launch.MODEL_VARIABLE, launch.EXAMPLE_VARIABLE, "PYTHONPATH", "JUPYTER_PATH"):
        monkeypatch.setenv(name, os.environ.get(name, ""))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    source = (
        "import torch\n"
        "def make():\n"
        "    print('made')\n"
        "    return torch.nn.Sequential(torch.nn.Linear(4, 2)), torch.zeros(2, 4)\n"
    )
    (tmp_path / "cli_models.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("cli_models", None)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Keep the servers from starting; what they would have got instead."""
    seen: dict[str, Any] = {}

    def launched(argv: list[str]) -> None:
        seen.update(argv=argv, env=dict(os.environ))

    monkeypatch.setattr("voila.app.Voila.launch_instance", launched)
    monkeypatch.setattr("jupyterlab.labapp.LabApp.launch_instance", launched)
    return seen


def test_inspect_prints_types_and_fake_quants(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", "zoo:digits_cnn"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("stage insert, 18 modules, 9 fake quants")
    conv = next(line for line in lines if line.startswith("conv1 "))
    assert conv.split() == ["conv1", "Conv2d", "→", "ConvBnReLU2d", "yes", "W", "A"]
    weight = next(line for line in lines if line.startswith("fc.weight_fake_quant"))
    assert "forward" in weight
    assert "-128..127" in weight
    stub = next(line for line in lines if line.startswith("quant.activation_post_process"))
    assert stub.split()[1:4] == ["input", "insert", "hook"]


def test_inspect_json_is_pure_and_has_a_schema(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["inspect", "cli_models:make", "--to", "swap", "--json"]) == 0
    captured = capsys.readouterr()
    assert "made" in captured.err
    reported = json.loads(captured.out, parse_constant=lambda name: pytest.fail(name))
    assert (reported["schema"], reported["schema_version"]) == (SCHEMA, SCHEMA_VERSION)
    assert (reported["stage"], reported["flow"]) == ("swap", "eager")
    linear = next(module for module in reported["modules"] if module["path"] == "0")
    assert (linear["type_before"], linear["qualified_type"].split(".")[3]) == ("Linear", "qat")
    assert [site["kind"] for site in reported["sites"]] == ["weight"]


def test_qconfig_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", "zoo:digits_cnn", "--qconfig", "x86", "--json"]) == 0
    reported = json.loads(capsys.readouterr().out)
    outputs = [site for site in reported["sites"] if site["kind"] == "output"]
    assert {site["quant_max"] for site in outputs} == {127}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["inspect", "zoo:digits_cm"], "or 'digits_cnn'"),
        (["inspect", "nowhere_at_all:make"], "no module 'nowhere_at_all'"),
        (["inspect", "zoo:digits_cnn", "--to", "insret"], "no stage 'insret'"),
        (["inspect", "zoo:digits_cnn", "--qconfig", "tensorrt"], "tensorrt"),
        (["dashboard", "--model", "nowhere_at_all:make"], "no module 'nowhere_at_all'"),
        (["dashboard", "--example", "digit"], "no embedded example 'digit'"),
    ],
)
def test_our_errors_are_one_message_and_exit_code_1(
    arguments: list[str], says: str, served: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 1
    captured = capsys.readouterr()
    assert says in captured.err
    assert "What to do:" in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""
    assert not served


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["explode"],
        ["inspect"],
        ["dashboard", "--port", "0"],
        ["dashboard", "--port", "http"],
        ["dashboard", "--model", "a:b", "--example", "digits_cnn"],
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.strip() == f"qatexplorer {qatexplorer.__version__}"


def test_port_in_use_is_reported(
    served: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for command in ("dashboard", "lab"):
            assert cli.main([command, "--port", str(port)]) == 1
            assert f"port {port} of 127.0.0.1 cannot be used" in capsys.readouterr().err
        assert launch.claim_port(None, port) > port
    assert launch.claim_port(port, 1) == port
    assert not served


def test_dashboard_stays_on_loopback_and_hands_the_model_over(
    project: Path, served: dict[str, Any]
) -> None:
    assert cli.main(["dashboard", "--no-browser", "--model", "cli_models:make"]) == 0
    assert "--Voila.ip=127.0.0.1" in served["argv"]
    assert "--no-browser" in served["argv"]
    assert Path(served["argv"][0]).name == "dashboard.ipynb"
    assert served["env"][launch.MODEL_VARIABLE] == "cli_models:make"
    assert launch.EXAMPLE_VARIABLE not in served["env"]
    assert str(project) in served["env"]["PYTHONPATH"].split(os.pathsep)


def test_dashboard_example(served: dict[str, Any]) -> None:
    assert cli.main(["dashboard", "--example", "digits_mlp", "--theme", "dark"]) == 0
    assert served["env"][launch.EXAMPLE_VARIABLE] == "digits_mlp"
    assert launch.MODEL_VARIABLE not in served["env"]
    assert "--theme=dark" in served["argv"]
    assert "--no-browser" not in served["argv"]


def test_variables_are_those_the_dashboard_reads() -> None:
    from qatexplorer.app import dashboard

    assert launch.MODEL_VARIABLE == dashboard.MODEL_VARIABLE
    assert launch.EXAMPLE_VARIABLE == dashboard.EXAMPLE_VARIABLE


@pytest.mark.slow
@pytest.mark.parametrize(("given", "size"), [((), 1), (("--warm-kernels", "0"), 0)])
def test_a_kernel_waits_for_the_dashboards_page(
    served: dict[str, Any], given: tuple[str, ...], size: int
) -> None:
    assert cli.main(["dashboard", "--no-browser", *given]) == 0
    argv = served["argv"]
    assert f"--WarmKernels.size={size}" in argv
    kind = next(a for a in argv if "multi_kernel_manager_class" in a).partition("=")[2]
    module, _, name = kind.rpartition(".")
    assert hasattr(importlib.import_module(module), name)


def test_a_wrong_number_of_kernels_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(["dashboard", "--warm-kernels", "many"])
    assert left.value.code == 2
    assert "'many' is not a number of kernels" in capsys.readouterr().err


def test_voila_finds_the_template_and_it_links_nothing_outside(served: dict[str, Any]) -> None:
    assert cli.main(["dashboard", "--no-browser"]) == 0
    code = (
        "from voila.paths import collect_template_paths as find\n"
        "print(*find(['voila', 'nbconvert'], 'qatexplorer', prune=True), sep='\\n')\n"
    )
    env = {**os.environ, "JUPYTER_PATH": served["env"]["JUPYTER_PATH"]}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    folders = [Path(line) for line in done.stdout.splitlines()]
    ours = (folders[0] / "index.html.j2").read_text()
    assert folders[0].name == "qatexplorer"
    cut = ours.split("replace('")[1].split("'")[0]
    # The stock page has its links in the form, and the block, that ours takes them out of.
    stock = next(
        (folder / "index.html.j2").read_text()
        for folder in folders
        if folder.parts[-3:] == ("voila", "templates", "lab")
    )
    block = stock.split("{%- block notebook_css")[1].split("endblock notebook_css")[0]
    links = [line.strip() for line in stock.splitlines() if "https://cdn" in line]
    assert links
    assert all(link.startswith(cut) and link in block for link in links)


def test_lab_copies_notebooks_once_and_keeps_the_users_changes(
    tmp_path: Path, served: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "mine"
    assert cli.main(["lab", "--no-browser", "--dir", str(folder)]) == 0
    assert {"quickstart.ipynb", "dashboard.ipynb"} <= {path.name for path in folder.iterdir()}
    assert f"--ServerApp.root_dir={folder}" in served["argv"]
    assert "--ServerApp.ip=127.0.0.1" in served["argv"]
    assert not any("token" in argument for argument in served["argv"])
    (folder / "quickstart.ipynb").write_text("changed")
    capsys.readouterr()
    assert cli.main(["lab", "--no-browser", "--dir", str(folder)]) == 0
    assert (folder / "quickstart.ipynb").read_text() == "changed"
    assert "copied" not in capsys.readouterr().out


def test_lab_folder_that_cannot_be_made(
    tmp_path: Path, served: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert cli.main(["lab", "--dir", str(tmp_path / "file" / "below")]) == 1
    assert "--dir" in capsys.readouterr().err
    assert not served


@pytest.mark.slow
def test_a_closed_pipe_is_no_error() -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = f"{sys.executable} -m qatexplorer.app.cli inspect zoo:digits_cnn --json | head -1"
    done = subprocess.run(command, shell=True, env=env, capture_output=True, text=True)
    assert done.stdout == "{\n"
    assert "BrokenPipe" not in done.stderr
