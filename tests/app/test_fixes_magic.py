"""Each fix of ``%qat``, done to the letter in a real IPython shell."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from qatexplorer.widgets.explorer.explorer import Explorer

MAKES_NET = "net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))"


class Notebook:
    """Cells that are run in a shell, with data and inputs but without a model."""

    def __init__(self, shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
        self.shell, self._capsys = shell, capsys

    def run(self, code: str) -> Any:
        result = self.shell.run_cell(code)
        result.raise_error()
        return result.result

    def opens(self, line: str) -> Explorer:
        """The explorer that ``line`` gives: it holds a session and no message of an error."""
        explorer = self.run(line)
        assert isinstance(explorer, Explorer)
        assert explorer.session is not None, explorer.message.html
        return explorer

    def printed(self, code: str, *, succeeds: bool) -> str:
        self._capsys.readouterr()
        assert self.shell.run_cell(code).success is succeeds
        found = self._capsys.readouterr()
        return re.sub(r"\x1b\[[\d;]*m", "", found.out + found.err)

    def refused(self, line: str) -> str:
        text = self.printed(line, succeeds=False)
        assert "UsageError: %qat: " in text
        return text


@pytest.fixture
def empty(capsys: pytest.CaptureFixture[str]) -> Iterator[Notebook]:
    """A notebook in which the cell that makes the model has not been run."""
    shell = InteractiveShell()
    shell.run_line_magic("load_ext", "qatexplorer")
    torch.manual_seed(0)
    x, y = torch.randn(12, 4), torch.randint(0, 3, (12,))
    loader = DataLoader(TensorDataset(x, y), batch_size=4)
    shell.user_ns.update(loader=loader, batch=x[:2], torch=torch, nn=nn)
    yield Notebook(shell, capsys)
    shell.run_line_magic("unload_ext", "qatexplorer")


@pytest.fixture
def notebook(empty: Notebook) -> Notebook:
    empty.run(MAKES_NET)
    return empty


def test_two_models(notebook: Notebook) -> None:
    text = notebook.refused("%qat net --inputs batch --example digits_mlp")
    assert "net and --example are two models" in text
    assert "Name one of the two" in text
    of_mine = notebook.opens("%qat net --inputs batch").session
    assert of_mine is not None
    assert of_mine.snapshot.modules[0].type_name == "Sequential"
    assert notebook.opens("%qat --example digits_mlp").examples.value == "digits_mlp"


@pytest.mark.parametrize("options", ["--data loader", "--inputs batch", "--data loader --flow fx"])
def test_no_model(notebook: Notebook, options: str) -> None:
    fix = notebook.refused(f"%qat {options}")
    assert "there is no model before the options" in fix
    assert "Write %qat model --" in fix
    notebook.run("model = net")
    notebook.opens(f"%qat model {options}")
    as_written = fix.split("Write ")[1].split(" …")[0]
    notebook.opens(f"{as_written} loader")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("inputs", "batch"),
        ("data", "loader"),
        ("loss", "nn.CrossEntropyLoss()"),
        ("metric", "lambda output, target: float((output.argmax(1) == target).float().mean())"),
        ("qconfig", "qnnpack"),
        ("flow", "fx"),
        ("stubs", "layers"),
        ("engine", "qnnpack"),
    ],
)
def test_an_option_without_a_value(notebook: Notebook, name: str, value: str) -> None:
    more = "" if name in ("inputs", "data") else "--inputs batch "
    fix = notebook.refused(f"%qat net {more}--{name}")
    assert f"Write it after --{name}" in fix
    assert "Write it after --" in fix
    notebook.opens(f"%qat net {more}--{name} {value}")


def test_an_example_without_a_name(notebook: Notebook) -> None:
    assert "Write it after --example" in notebook.refused("%qat --example")
    notebook.opens("%qat --example digits_mlp")


def test_a_model_whose_cell_has_not_been_run(empty: Notebook) -> None:
    fix = empty.refused("%qat net --inputs batch")
    assert "there is no 'net' in this notebook" in fix
    assert "Run the cell that makes it first" in fix
    empty.run(MAKES_NET)
    empty.opens("%qat net --inputs batch")


def test_inputs_whose_cell_has_not_been_run(notebook: Notebook) -> None:
    fix = notebook.refused("%qat net --inputs images")
    assert "Run the cell that makes it first" in fix
    notebook.run("images = torch.randn(2, 4)")
    notebook.opens("%qat net --inputs images")


def test_a_mistyped_name_is_the_one_it_asks_for(notebook: Notebook) -> None:
    fix = notebook.refused("%qat nett --inputs batch")
    meant = re.search(r"Did you mean (\w+)", fix)
    assert meant is not None
    notebook.opens(f"%qat {meant[1]} --inputs batch")
    fix = notebook.refused("%qat classifier --inputs batch")
    listed = re.search(r"Models in this notebook: ([\w, ]+)\.", fix)
    assert listed is not None
    for name in listed[1].split(", "):
        notebook.opens(f"%qat {name} --inputs batch")


def test_what_is_not_python(notebook: Notebook) -> None:
    fix = notebook.refused("%qat net --inputs torch.zeros(")
    assert "`%qat?` has examples" in fix
    shown = notebook.printed(fix.split("`")[1], succeeds=True)
    notebook.run("model = net")
    examples = re.findall(r"^ +((?:explorer = )?%qat (?!\[).*?)(?:  +.*)?$", shown, re.MULTILINE)
    assert len(examples) >= 3
    for example in examples:
        if "224" in example:  # an image, for a model that takes one
            notebook.run("model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU())")
        if example.startswith("explorer ="):
            notebook.run(example)
            assert notebook.shell.user_ns["explorer"].session is not None
        else:
            notebook.opens(example)
        notebook.run("model = net")


def test_what_raises(notebook: Notebook) -> None:
    expression = "torch.zeros(2, 4) @ torch.zeros(3, 4)"
    fix = notebook.refused(f"%qat net --inputs {expression}")
    assert "--inputs 'torch.zeros(2, 4) @ torch.zeros(3, 4)' raised RuntimeError" in fix
    assert "Run it in a cell of its own and look at its traceback" in fix
    shown = notebook.printed(expression, succeeds=False)
    assert "Traceback" in shown
    assert expression in shown
    assert "mat1 and mat2 shapes cannot be multiplied" in shown
    notebook.opens("%qat net --inputs torch.zeros(2, 4) @ torch.zeros(4, 4)")


def test_an_option_that_does_not_exist(notebook: Notebook) -> None:
    fix = notebook.refused("%qat net --inputs batch --flwo fx")
    meant = re.search(r"Did you mean (--\w+)\?", fix)
    assert meant is not None
    session = notebook.opens(f"%qat net --inputs batch {meant[1]} fx").session
    assert session is not None
    assert session.flow.name == "fx"
    fix = notebook.refused("%qat net --inputs batch --zzz 3")
    assert "Did you mean" not in fix
    assert "The options are --" in fix
    listed = re.findall(r"--(\w+)", fix.split("The options are ")[1])
    values: dict[str, str] = {
        "inputs": "batch",
        "data": "loader",
        "loss": "nn.CrossEntropyLoss()",
        "metric": "lambda output, target: 1.0",
        "qconfig": "qnnpack",
        "flow": "eager",
        "stubs": "model",
        "engine": "qnnpack",
        "example": "digits_mlp",
    }
    assert sorted(listed) == sorted(values)
    for name in listed:
        model = "" if name == "example" else "net "
        inputs = "" if name in ("inputs", "data", "example") else "--inputs batch "
        notebook.opens(f"%qat {model}{inputs}--{name} {values[name]}")


def test_an_option_that_is_given_twice(notebook: Notebook) -> None:
    fix = notebook.refused("%qat net --inputs batch --flow fx --flow eager")
    assert "--flow is given twice" in fix
    assert "Leave one of them out" in fix
    for flow in ("fx", "eager"):
        session = notebook.opens(f"%qat net --inputs batch --flow {flow}").session
        assert session is not None
        assert session.flow.name == flow
