"""Each fix that the torchao flow gives, done to the letter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import qatexplorer as qx
from qatexplorer.errors import ExportError, InputError, RunFolderError

ao = pytest.importorskip("torchao.quantization")

X = torch.randn(8, 16, generator=torch.Generator().manual_seed(0))
DATA: dict[str, Any] = {
    "train": [(X, torch.arange(8) % 4)],
    "eval": [(X, torch.arange(8) % 4)],
}


def session(base: Any = None) -> qx.Session:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4)).train()
    return qx.Session(model, X, data=DATA, flow="torchao", base_config=base)


def test_keys_are_layers() -> None:
    config = ao.IntxWeightOnlyConfig()
    with pytest.raises(InputError) as caught:
        session({nn.Conv2d: config})
    assert "Use nn.Linear and nn.Embedding as the keys." in str(caught.value)
    assert session({nn.Linear: config, nn.Embedding: config}).goto("convert")


def test_values_are_configurations_of_torchaos() -> None:
    with pytest.raises(InputError) as caught:
        session("int4")
    said = "Pass one of torchao.quantization, such as IntxWeightOnlyConfig()."
    assert said in str(caught.value)
    assert session(ao.IntxWeightOnlyConfig()).goto("convert")


def test_a_run_is_loaded_with_its_base(tmp_path: Path) -> None:
    config = ao.IntxWeightOnlyConfig()
    session(config).train(epochs=1, run_dir=tmp_path / "run")
    with pytest.raises(RunFolderError) as caught:
        session().load_run(tmp_path / "run")
    said = "Make the session with the base_config= that the run was made with."
    assert said in str(caught.value)
    assert session(ao.IntxWeightOnlyConfig()).load_run(tmp_path / "run")


def test_weights_of_torchaos_are_kept_by_torch(tmp_path: Path) -> None:
    made = session()
    made.goto("convert")
    with pytest.raises(ExportError) as caught:
        made.export(tmp_path / "out")
    assert "torch.save(session.int8.state_dict(), path) keeps them." in str(caught.value)
    path = tmp_path / "int4.pt"
    torch.save(made.int8.state_dict(), path)
    kept = torch.load(path, weights_only=True)
    fresh = session()
    fresh.goto("convert")
    fresh.int8.load_state_dict(kept, assign=True)
    with torch.no_grad():
        assert torch.equal(fresh.int8(X), made.int8(X))
