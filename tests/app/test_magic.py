"""``%load_ext qatexplorer`` and ``%qat`` in a real IPython shell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from qatexplorer.app import magic
from qatexplorer.widgets.explorer.explorer import Explorer


@pytest.fixture
def shell() -> Iterator[InteractiveShell]:
    """A shell of its own with a model, data and inputs in it."""
    made = InteractiveShell()
    made.run_line_magic("load_ext", "qatexplorer")
    torch.manual_seed(0)
    x, y = torch.randn(12, 4), torch.randint(0, 3, (12,))
    made.user_ns.update(
        net=nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)),
        netting="a word",
        loader=DataLoader(TensorDataset(x, y), batch_size=4),
        batch=x[:2],
        pair={"x": x[:2]},
        torch=torch,
        nn=nn,
    )
    yield made
    made.run_line_magic("unload_ext", "qatexplorer")


def run(shell: InteractiveShell, code: str) -> Any:
    result = shell.run_cell(code)
    result.raise_error()
    return result.result


def refused(shell: InteractiveShell, code: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What is printed for a cell that fails; never a traceback."""
    capsys.readouterr()
    assert not shell.run_cell(code).success
    printed = capsys.readouterr()
    text = printed.out + printed.err
    assert "Traceback" not in text
    assert "UsageError" in text
    return text


def test_opens_a_model_with_the_first_batch_of_its_data(shell: InteractiveShell) -> None:
    explorer = run(shell, "%qat net --data loader")
    assert isinstance(explorer, Explorer)
    assert explorer.session is not None
    assert explorer.session.data is not None
    assert explorer.session.data.train is explorer.session.data.eval is shell.user_ns["loader"]
    assert explorer.session.flow.name == "eager"
    assert explorer.session.snapshot.modules[0].type_name == "Sequential"


def test_takes_expressions_as_they_stand(shell: InteractiveShell) -> None:
    code = "explorer = %qat net --inputs torch.randn(2, 4) --flow fx --qconfig qnnpack"
    run(shell, code)
    session = shell.user_ns["explorer"].session
    assert session.flow.name == "fx"
    assert session.options.qconfig.name == "qnnpack"
    assert tuple(session.options.example_inputs.shape) == (2, 4)
    run(shell, 'e = %qat nn.Sequential(nn.Linear(4, 2)) --inputs {"input": batch} --stubs model')
    assert shell.user_ns["e"].session.options.stubs == "model"


def test_opens_an_example_and_a_session(shell: InteractiveShell) -> None:
    explorer = run(shell, "%qat --example digits_mlp")
    assert explorer.examples.value == "digits_mlp"
    shell.user_ns["session"] = explorer.session
    assert run(shell, "%qat session").session is explorer.session


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("%qat nett", ["no 'nett'", "net"]),
        ("%qat model_of_mine", ["no 'model_of_mine'", "Models in this notebook: net"]),
        ("%qat net --inputs", ["--inputs has no value"]),
        ("%qat net --inputs torch.zeros(", ["is not Python"]),
        ("%qat net --inputs torch.zeros(2) + [1, 2, 3, 4].foo", ["raised AttributeError"]),
        ("%qat net --flwo fx", ["no option --flwo", "Did you mean --flow"]),
        ("%qat net --flow fx --flow eager", ["given twice"]),
        ("%qat net --example digits_cnn", ["two models"]),
        ("%qat --data loader", ["no model before"]),
    ],
)
def test_says_what_is_wrong_without_a_traceback(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str], line: str, words: list[str]
) -> None:
    text = refused(shell, line, capsys)
    for word in words:
        assert word in text


def test_input_that_does_not_fit_is_reported_in_the_widget(shell: InteractiveShell) -> None:
    explorer = run(shell, "%qat net --inputs torch.zeros(2, 5)")
    assert explorer.session is None
    assert explorer.message.html


def test_options_inside_brackets_and_quotes_are_text() -> None:
    model, options = magic.parse('make("--flow x", [-1 --2]) --inputs f("a --data b") --flow fx')
    assert model == 'make("--flow x", [-1 --2])'
    assert options == {"inputs": 'f("a --data b")', "flow": "fx"}


@pytest.mark.parametrize(
    ("line", "wanted", "unwanted"),
    [
        ("%qat ", {"net"}, {"netting", "loader"}),
        ("%qat ne", {"net"}, {"netting"}),
        ("e = %qat ne", {"net"}, {"netting"}),
        ("%qat net --f", {"--flow"}, {"--inputs"}),
        ("%qat net --inp", {"--inputs"}, {"--input"}),
        ("%qat net --flow fx --", {"--inputs", "--data"}, {"--flow"}),
        ("%qat net --flow ", {"eager", "fx"}, {"net"}),
        ("%qat net --data ", {"loader"}, {"net", "batch", "netting"}),
        ("%qat net --inputs ", {"batch", "pair"}, {"loader", "netting"}),
        ("%qat net --stubs l", {"layers"}, {"model"}),
        ("%qat --example digits_", {"digits_cnn", "digits_mlp"}, {"net"}),
    ],
)
@pytest.mark.parametrize("jedi", [False, True])
def test_completes_names_and_options(
    shell: InteractiveShell, line: str, wanted: set[str], unwanted: set[str], jedi: bool
) -> None:
    shell.Completer.use_jedi = jedi
    with provisionalcompleter():
        found = {c.text for c in shell.Completer.completions(line, len(line))}
    assert wanted <= found
    assert not unwanted & found


def test_help_names_every_option(shell: InteractiveShell) -> None:
    text = magic.QatMagics.qat.__doc__ or ""
    for option in (*magic.EXPRESSIONS, *magic.NAMES):
        assert f"--{option}" in text
    assert shell.object_inspect("%qat")["docstring"]


def test_unload_takes_it_away(shell: InteractiveShell) -> None:
    shell.run_line_magic("unload_ext", "qatexplorer")
    assert shell.find_line_magic("qat") is None
    shell.run_line_magic("load_ext", "qatexplorer")
    assert shell.find_line_magic("qat") is not None
