"""Each fix of the command line and of what it opens, done to the letter."""

from __future__ import annotations

import runpy
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import qatexplorer as qx
from qatexplorer import zoo
from qatexplorer.app import launch
from qatexplorer.app.cli import main
from qatexplorer.app.load_model import load_factory, load_model
from qatexplorer.data import main_output
from qatexplorer.errors import InputError, QatExplorerError
from qatexplorer.evaluate.metric import evaluate
from qatexplorer.tables import require_pandas
from tests.support.training_models import data, prepared

SOURCE = """
import torch
from torch import nn
batch = (torch.ones(2, 4), torch.zeros(2, dtype=torch.long))
instance = nn.Linear(4, 2)
def make_model(): return nn.Sequential(nn.Linear(4, 2)).train(), batch[0]
def nothing(): return None
def no_inputs(): return nn.Linear(4, 2), None
def a_class(): return nn.Linear, batch[0]
def asleep(): return nn.Sequential(nn.Linear(4, 2)).eval(), batch[0]
def awake(): return nn.Sequential(nn.Linear(4, 2)).eval().train(), batch[0]
def bad_data(): return nn.Linear(4, 2), batch[0], iter([batch])
def good_data(): return nn.Linear(4, 2), batch[0], [[batch], [batch]]
"""
ALONE = "import torch\ndef make_model(): return torch.nn.Linear(4, 2)\n"
SCRIPT = "def make_model():\n    return torch.nn.Linear(4, 2), torch.ones(2, 4)\n"


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "fix_models.py").write_text(SOURCE)
    (tmp_path / "fix_alone.py").write_text(ALONE)
    inner = tmp_path / "fix_inner"
    inner.mkdir()
    (inner / "nested.py").write_text(SOURCE)
    odd = tmp_path / "odd-folder"
    odd.mkdir()
    (odd / "fix-odd.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    yield tmp_path
    forget()


def forget() -> None:
    for name in [name for name in sys.modules if name.startswith("fix_")]:
        del sys.modules[name]


def rewritten(file: str, source: str) -> Any:
    """The factory of ``file`` once its source is another one."""
    forget()
    path = Path(file)
    path.write_text(source)
    return load_factory(f"{path.stem}:make_model")


def refused(call: Callable[[], Any]) -> str:
    with pytest.raises(QatExplorerError) as caught:
        call()
    return caught.value.fix


CASES: list[tuple[str, Callable[[], Any], Callable[[], Any]]] = [
    (
        "Write it as package.module:factory",
        lambda: load_factory("fix_models"),
        lambda: load_factory("fix_models:make_model"),
    ),
    (
        "Write it as package.module:factory",
        lambda: load_factory("fix-models:make_model"),
        lambda: load_factory("fix_models:make_model"),
    ),
    (
        "Did you mean make_model?",
        lambda: load_factory("fix_models:mak_model"),
        lambda: load_factory("fix_models:make_model"),
    ),
    (
        "Write fix_models:make_model.",
        lambda: load_factory("./fix_models.py:make_model"),
        lambda: load_factory("fix_models:make_model"),
    ),
    (
        "Write fix_inner.nested:make_model.",
        lambda: load_factory("fix_inner/nested.py:make_model"),
        lambda: load_factory("fix_inner.nested:make_model"),
    ),
    (
        "Name a function without arguments. ",
        lambda: load_factory("fix_models:instance"),
        lambda: load_factory("fix_models:make_model"),
    ),
    (
        "Return (model, example_inputs), ",
        lambda: load_factory("fix_models:nothing"),
        lambda: load_factory("fix_models:make_model"),
    ),
    (
        "Return (model, example_inputs), ",
        lambda: load_factory("fix_models:a_class"),
        lambda: load_factory("fix_models:make_model"),
    ),
    (
        "(model, example_inputs, data)",
        lambda: load_factory("fix_models:no_inputs"),
        lambda: load_factory("fix_models:good_data"),
    ),
    (
        "Pass data={'train': loader, 'eval': loader}, a pair, or",
        lambda: load_factory("fix_models:bad_data"),
        lambda: load_factory("fix_models:good_data"),
    ),
    (
        "or the model alone with `example_inputs = …` next to the factory",
        lambda: load_factory("fix_alone:make_model"),
        lambda: rewritten("fix_alone.py", ALONE + "example_inputs = torch.ones(2, 4)\n"),
    ),
    (
        "an object with .model and .example_inputs",
        lambda: load_factory("fix_alone:make_model"),
        lambda: rewritten(
            "fix_alone.py",
            "import torch\nfrom types import SimpleNamespace\ndef make_model(): return "
            "SimpleNamespace(model=torch.nn.Linear(4, 2), example_inputs=torch.ones(2, 4))\n",
        ),
    ),
    (
        "The examples are: digits_",
        lambda: zoo.load("imagenet"),
        lambda: [zoo.load(name) for name in zoo.names() if name.startswith("digits")],
    ),
    (
        "Did you mean 'digits_cnn'",
        lambda: load_model("zoo:digit_cnn"),
        lambda: load_model("zoo:digits_cnn"),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=[c[0][:40] for c in CASES])
def test_the_fix_works(case: Any) -> None:
    text, before, after = case
    fix = refused(before)
    assert text in fix, fix
    assert after() is not None


def test_a_file_that_no_module_name_reaches(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    fix = refused(lambda: load_factory("odd-folder/fix-odd.py:make_model"))
    assert "Write fix_odd:make_model in the folder odd-folder, renamed to fix_odd.py" in fix
    (project / "odd-folder" / "fix-odd.py").rename(project / "odd-folder" / "fix_odd.py")
    monkeypatch.chdir(project / "odd-folder")
    assert load_factory("fix_odd:make_model").model
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    whole = refused(lambda: load_factory(f"{project}/fix_models.py:make_model"))
    assert whole == f"Write fix_models:make_model in the folder {project}."
    monkeypatch.chdir(project)
    assert load_factory("fix_models:make_model").model


def test_a_module_in_another_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory, project: Path
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    fix = refused(lambda: load_factory("fix_models:make_model"))
    assert "Run the command in the folder that holds it, or install it" in fix
    monkeypatch.chdir(project)
    assert load_factory("fix_models:make_model").model
    forget()
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    monkeypatch.syspath_prepend(project)  # what installing it comes to
    assert load_factory("fix_models:make_model").model


def test_a_module_whose_import_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    Path("fix_needy.py").write_text(f"import fix_library\n{SOURCE}")
    fix = refused(lambda: load_factory("fix_needy:make_model"))
    assert "Install it into the environment of this Python" in fix
    assert sys.executable in fix
    packages = tmp_path_factory.mktemp("packages")
    (packages / "fix_library.py").write_text("")
    monkeypatch.syspath_prepend(packages)
    assert load_factory("fix_needy:make_model").model


@pytest.mark.slow
def test_a_module_that_raises_when_it_is_imported() -> None:
    Path("fix_script.py").write_text(f"import torch\n{SCRIPT}raise SystemExit('usage')\n")
    fix = refused(lambda: load_factory("fix_script:make_model"))
    check = [sys.executable, "-c", "import fix_script"]
    assert "until `python -c 'import fix_script'` passes" in fix
    assert subprocess.run(check, capture_output=True).returncode
    assert "Keep training and command line code under `if __name__ == '__main__':`" in fix
    guarded = f"import torch\n{SCRIPT}if __name__ == '__main__':\n    raise SystemExit('usage')\n"
    assert rewritten("fix_script.py", guarded).model
    assert not subprocess.run(check, capture_output=True).returncode
    with pytest.raises(SystemExit):
        runpy.run_path("fix_script.py", run_name="__main__")


def test_a_factory_that_raises() -> None:
    Path("fix_raises.py").write_text(f"{SCRIPT.replace('torch.nn', 'nn')}")
    with pytest.raises(QatExplorerError) as caught:
        load_factory("fix_raises:make_model")
    assert "Call it yourself in a Python prompt and fix what it says" in caught.value.fix
    prompt = [sys.executable, "-c", "import fix_raises; fix_raises.make_model()"]
    said = subprocess.run(prompt, capture_output=True, text=True).stderr
    assert "name 'nn' is not defined" in said
    assert "name 'nn' is not defined" in caught.value.message
    assert rewritten("fix_raises.py", f"import torch\n{SCRIPT}").model


def test_inspect_of_a_model_in_eval_mode(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "fix_models:asleep"]) == 1
    assert "model.train() before you hand the model over" in capsys.readouterr().err
    assert main(["inspect", "fix_models:awake"]) == 0


def test_a_port_that_is_in_use() -> None:
    with socket.socket() as taken, socket.socket() as probe:
        taken.bind((launch.LOOPBACK, 0))
        taken.listen()
        port = taken.getsockname()[1]
        fix = refused(lambda: launch.claim_port(port, 8866))
        assert "Choose another with --port" in fix
        probe.bind((launch.LOOPBACK, 0))
        other = probe.getsockname()[1]
        probe.close()
        assert launch.claim_port(other, 8866) == other
        assert "leave --port out and a free one is taken" in fix
        assert launch.claim_port(None, port) != port


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    fix = refused(lambda: launch.copy_notebooks(tmp_path / "file"))
    assert "Name a folder that you can write to with --dir" in fix
    assert launch.copy_notebooks(tmp_path / "folder")


def test_a_missing_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pandas", None)
        fix = refused(require_pandas)
    assert "Install it (pip install pandas); nothing else in qatexplorer needs it" in fix
    assert require_pandas().DataFrame


def test_outputs_that_no_default_takes() -> None:
    """A loss or a metric of the user's own takes what ours cannot."""
    assert "Pass loss= and metric= functions that take" in refused(lambda: main_output(7))
    model, regression = prepared(), [(x, x.mean((2, 3))) for x, _ in data()[1]]

    def squares(output: Any, target: Any) -> torch.Tensor:
        return ((output.mean(1, keepdim=True) - target) ** 2).mean()

    class Says(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return {"words": "no tensor", "size": len(x)}

    fix = refused(lambda: evaluate(Says(), data()[1]))
    assert "Pass loss= and metric= functions that take what your model returns" in fix
    sized = evaluate(Says(), data()[1], lambda output, target: torch.tensor(output["size"]))
    assert sized.value == 8
    fix = refused(lambda: evaluate(model, regression))
    assert "Pass metric=function(output, target) that fits your task" in fix
    assert "your loss is one, if no other is at hand: metric=loss" in fix
    assert evaluate(model, regression, squares).value > 0
    words = [(x, ["a"] * len(x)) for x, _ in data()[1]]
    with pytest.raises(InputError) as caught:
        evaluate(model, words)
    assert "Pass metric=function(output, target)" in caught.value.fix


def test_a_table_of_another_name() -> None:
    """Every name that the fix lists gives its table."""
    snapshot = qx.Session(nn.Sequential(nn.Linear(4, 2)).train(), torch.ones(2, 4)).goto("insert")
    fix = refused(lambda: snapshot.to_pandas("sides"))
    assert "The tables are: '" in fix
    names = fix.removeprefix("The tables are: ").removesuffix(".").split(", ")
    for name in names:
        assert hasattr(snapshot.to_pandas(name.strip("'")), "columns")
