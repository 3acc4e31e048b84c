"""What the errors of taking home advise, done, works."""

from __future__ import annotations

import errno
import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import qatexplorer as qx
from qatexplorer.errors import ExportError, InputError
from qatexplorer.flows import FLOWS
from qatexplorer.flows.eager import EagerFlow
from qatexplorer.takehome import pte as pte_file
from qatexplorer.training import team
from tests.support.rooms import ROOT
from tests.support.scripts import assert_the_same
from tests.support.training_models import SmallNet, batches, one_thread  # noqa: F401


def session(flow: str = "eager") -> qx.Session:
    torch.manual_seed(0)
    return qx.Session(SmallNet().train(), batches(1)[0][0], flow=flow, qconfig="onednn")


def calibrated() -> qx.Session:
    torch.manual_seed(0)
    pairs = batches(2)
    made = qx.Session(SmallNet().train(), pairs[0][0], qconfig="onednn", data=(pairs, pairs))
    made.calibrate(1)
    return made


def test_a_flow_without_a_script(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.support.toy_flow import ToyFlow

    FLOWS.pop("toy", None)  # importing it has put it there
    monkeypatch.setitem(FLOWS, "toy", ToyFlow)
    with pytest.raises(InputError) as caught:
        session("toy").script()
    assert caught.value.fix == "Use flow='eager', 'fx' or 'pt2e'."
    monkeypatch.delitem(FLOWS, "toy")
    assert isinstance(session().flow, EagerFlow)
    assert "prepare_qat(" in session().script()
    assert "prepare_qat_fx(" in session("fx").script()


class Two(team.Alone):
    """As the first of two processes of which the other adds nothing."""

    size = 2


def test_a_run_of_several_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = batches(2)

    def made() -> qx.Session:
        torch.manual_seed(0)
        return qx.Session(SmallNet().train(), pairs[0][0], qconfig="onednn", data=(pairs, pairs))

    together = made()
    monkeypatch.setattr(team, "_current", Two())
    together.train(1, progress=False)
    monkeypatch.undo()
    with pytest.raises(
        InputError, match="made by 2 processes, and a script trains in one"
    ) as caught:
        together.script()
    assert caught.value.fix == (
        "Take these weights home with session.export(folder), or train in one process and write "
        "the script then."
    )
    assert "in 2 processes" in (together.export(tmp_path / "x").folder / "walk.py").read_text()
    there: dict[str, Any] = {"__name__": "walk"}
    exec((tmp_path / "x" / "walk.py").read_text(encoding="utf-8"), there)
    int8 = there["load"](SmallNet().train(), str(tmp_path / "x"))
    assert torch.equal(int8(pairs[0][0]), together.int8(pairs[0][0]))
    alone = made()
    alone.train(1, progress=False)
    assert_the_same(alone, alone.script(), lambda: made().copy_model("float"))


def test_a_folder_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(ExportError) as caught:
        calibrated().export(tmp_path, evaluate=False)
    assert caught.value.fix == "Give the name of a folder that is not there."
    assert calibrated().export(tmp_path / "new", evaluate=False).files


def test_a_disk_without_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ExportError) as caught:
        calibrated().export(tmp_path / "x", evaluate=False)
    assert caught.value.fix == "Choose a folder on a disk with room, where you may write."
    monkeypatch.undo()
    assert calibrated().export(tmp_path / "x", evaluate=False).files


def test_a_functional_layer(tmp_path: Path) -> None:
    class Functional(nn.Module):
        def __init__(self, module: bool) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 3)
            self.module = module

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x) if self.module else F.linear(x, self.fc.weight, self.fc.bias)

    x = torch.randn(2, 4)

    def export(module: bool) -> Any:
        made = qx.Session(
            Functional(module).train(), x, flow="fx", qconfig="onednn", data=([(x, x)], [])
        )
        made.calibrate(1)
        return made.export(tmp_path / "x", evaluate=False)

    with pytest.raises(ExportError) as caught:
        export(module=False)
    wanted = "Call the layer as a module (nn.Linear) instead of torch.nn.functional.linear."
    assert caught.value.fix == wanted
    assert export(module=True).files


def linear(**settings: Any) -> qx.Session:
    pytest.importorskip("torchao")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3)).train()
    pairs = [(torch.randn(2, 4), torch.tensor([0, 2]))]
    session = qx.Session(model, pairs[0][0], data=(pairs, pairs), **settings)
    session.warns = False
    return session


@pytest.mark.parametrize(
    ("settings", "used"),
    [
        ({"flow": "eager"}, "flow 'eager' does not round"),
        ({"flow": "pt2e"}, "the quantizer X86Inductor does not round"),
    ],
)
def test_a_pte_of_a_model_that_xnnpack_does_not_run(
    settings: Any, used: str, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=used) as caught:
        linear(**settings).export(tmp_path / "net.pte")
    assert caught.value.fix == "Start with Session(…, flow='pt2e', quantizer='xnnpack')."
    if _has_executorch():
        pte_file.require_pte(linear(flow="pt2e").flow, "xnnpack")  # raises nothing


def test_a_pte_that_is_there_and_one_without_data(tmp_path: Path) -> None:
    if not _has_executorch():
        pytest.skip("executorch is not installed: pip install 'qatexplorer[executorch]'")
    session, file = linear(flow="pt2e", quantizer="xnnpack"), tmp_path / "net.pte"
    with pytest.raises(ExportError, match=r"no \.pte can be written: ") as caught:
        session.export(file)
    assert caught.value.fix == (
        "Let the observers see data with session.calibrate() or session.train()."
    )
    session.calibrate(1)
    session.export(file)
    assert file.stat().st_size
    with pytest.raises(ExportError) as caught:
        session.export(file)
    assert caught.value.fix == "Give the name of a file that is not there."
    assert session.export(tmp_path / "other.pte").files == ("other.pte",)


def _has_executorch() -> bool:
    return importlib.util.find_spec("executorch") is not None


def test_a_pte_without_executorch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = linear(flow="pt2e", quantizer="xnnpack")
    monkeypatch.setattr(pte_file.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(ExportError) as caught:
        session.export(tmp_path / "net.pte")
    assert caught.value.fix == "Run pip install 'qatexplorer[executorch]'"
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert "\nexecutorch = [" in text.partition("[project.optional-dependencies]")[2]
