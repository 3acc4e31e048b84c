"""``package.module:factory``: every form that is taken, and what is said about the rest."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from qatexplorer.app.load_model import load_factory, load_model
from qatexplorer.errors import FactoryError, UnknownExampleError

SOURCE = """
import torch
from torch import nn
from types import SimpleNamespace

example_inputs = (torch.ones(2, 4),)
batches = [(torch.zeros(2, 4), torch.zeros(2, dtype=torch.long))]
instance = nn.Linear(4, 2)

def alone(): return nn.Linear(4, 2)
def with_own(): return nn.Linear(4, 2)
with_own.example_inputs = torch.zeros(3, 4)
def pair(): return nn.Linear(4, 2), (torch.zeros(2, 4),)
def triple(): return nn.Linear(4, 2), torch.zeros(2, 4), {"train": batches, "eval": batches}
def thing(): return SimpleNamespace(model=nn.Linear(4, 2), example_inputs=(torch.zeros(1, 4),))
class Group:
    @staticmethod
    def make(): return nn.Linear(4, 2), torch.zeros(2, 4)
def nothing(): return None
def a_class(): return nn.Linear, torch.zeros(1)
def bad_data(): return nn.Linear(4, 2), torch.zeros(2, 4), iter(batches)
def no_inputs(): return nn.Linear(4, 2), None
def raises():
    return torch.nn.functional.cross_entropy(torch.zeros(2, 3), None)
def leaves(): raise SystemExit(3)
def late():
    import my_late_helper
    return my_late_helper.model, torch.zeros(2, 4)
"""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "my_models.py").write_text(SOURCE)
    (tmp_path / "my_late_helper.py").write_text("import torch\nmodel = torch.nn.Linear(4, 2)\n")
    (tmp_path / "my_bare.py").write_text("import torch\ndef make(): return torch.nn.Linear(4, 2)\n")
    (tmp_path / "my_broken.py").write_text("x = 1\n\nx = 1 / 0\n")
    (tmp_path / "my_typo.py").write_text("x = 1\ndef make(:\n")
    (tmp_path / "my_needy.py").write_text("x = 1\nimport surely_not_installed\n")
    (tmp_path / "my_script.py").write_text("import sys\nsys.exit('usage: …')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("my_")]:
        del sys.modules[name]


@pytest.mark.parametrize("name", ["alone", "pair", "thing", "Group.make", "with_own", "late"])
def test_forms_without_data(name: str) -> None:
    path = list(sys.path)
    loaded = load_factory(f"my_models:{name}")
    assert isinstance(loaded.model, torch.nn.Linear)
    assert loaded.example_inputs is not None
    assert loaded.data is None
    assert sys.path == path


def test_inputs_of_a_lone_model_come_from_the_factory_before_the_module() -> None:
    assert load_factory("my_models:with_own").example_inputs.shape == (3, 4)
    assert load_factory("my_models:alone").example_inputs[0].shape == (2, 4)


def test_data_is_taken() -> None:
    data = load_factory("my_models:triple").data
    assert data is not None
    assert len(list(data.train)) == 1


def test_example_like_object_with_suggestions() -> None:
    loaded = load_factory("qatexplorer.zoo.digits_depthwise:example")
    assert "qconfig" in loaded.suggested
    assert loaded.data is not None
    assert load_model("zoo:digits_depthwise").suggested["epochs"] == loaded.suggested["epochs"]


def test_zoo_prefix(project: Path) -> None:
    with pytest.raises(UnknownExampleError):
        load_model("zoo:digits_cn")
    (project / "zoo.py").write_text("from my_models import pair as make\n")
    try:
        assert isinstance(load_model("zoo:make").model, torch.nn.Linear)
    finally:
        sys.modules.pop("zoo", None)


@pytest.mark.parametrize(
    ("spec", "says", "where", "fix"),
    [
        ("my_models", "does not name a factory", None, "package.module:factory"),
        ("my_models:", "does not name a factory", None, "package.module:factory"),
        ("my_models:pa ir", "not a Python name", None, "package.module:factory"),
        ("./my_models.py:pair", "is a file", None, "my_models:pair"),
        ("my_absent:pair", "no module 'my_absent'", None, "in the folder that holds it"),
        ("my_models.sub:pair", "no module 'my_models.sub'", None, "in the folder that holds it"),
        ("my_needy:make", "no module 'surely_not_installed'", "my_needy.py:2", "Install it"),
        ("my_broken:make", "ZeroDivisionError", "my_broken.py:3", "import my_broken"),
        ("my_typo:make", "SyntaxError", "my_typo.py:2", "import my_typo"),
        ("my_script:make", "SystemExit", "my_script.py:2", "__main__"),
        ("my_models:pear", "has no 'pear'", "my_models.py", "Did you mean pair"),
        ("my_models:instance", "is a Linear", "my_models.py", "function without arguments"),
        ("my_models:example_inputs", "is a tuple", "my_models.py", "function without arguments"),
        ("my_models:nothing", "returned None", None, "Return (model, example_inputs)"),
        ("my_models:a_class", "the class Linear itself", None, "Return (model, example_inputs)"),
        ("my_models:no_inputs", "no example inputs", None, "example_inputs = …"),
        ("my_bare:make", "no example inputs", None, "example_inputs = …"),
        ("my_models:bad_data", "data that cannot be used", None, "pair"),
        ("my_models:raises", "TypeError", "my_models.py:24", "Call it yourself"),
        ("my_models:leaves", "SystemExit", "my_models.py:25", "Call it yourself"),
    ],
)
def test_what_goes_wrong_is_reported(spec: str, says: str, where: str | None, fix: str) -> None:
    path = list(sys.path)
    with pytest.raises(FactoryError) as caught:
        load_factory(spec)
    error = caught.value
    assert says in error.message
    assert fix in error.fix
    assert (error.where or "").endswith(where or "")
    assert sys.path == path
