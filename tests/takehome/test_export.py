"""The folder of an exported model: rebuilt without unpickling, run elsewhere, whole or not."""

from __future__ import annotations

import errno
import json
import os
import resource
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional as F

import qatexplorer as qx
from qatexplorer.errors import ExportError, StoppedError
from qatexplorer.takehome import export as exporting
from tests.support.training_models import SmallNet, batches, data, one_thread  # noqa: F401


def trained(flow: str = "eager") -> qx.Session:
    torch.manual_seed(0)
    session = qx.Session(
        SmallNet().train(), batches(1)[0][0], flow=flow, qconfig="onednn", data=data(2)
    )
    session.calibrate(1)
    return session


@pytest.mark.parametrize("flow", ["eager", "fx"])
def test_onnx_has_qdq_nodes_and_says_how_far_it_is(flow: str, tmp_path: Path) -> None:
    session = trained(flow)
    made = session.export(tmp_path / "x")
    assert made.onnx is not None, made.notes
    graph = onnx.load(str(tmp_path / "x" / "model.onnx"))
    onnx.checker.check_model(graph)
    kinds = [node.op_type for node in graph.graph.node]
    assert made.onnx is not None
    assert made.onnx.quantize == kinds.count("QuantizeLinear") > 0
    assert made.onnx.dequantize == kinds.count("DequantizeLinear") > 0
    run = onnxruntime.InferenceSession(str(tmp_path / "x" / "model.onnx"))
    assert session.data is not None
    inputs = [session.options.example_inputs, *(x for x, _ in session.data.eval)]
    largest, same, count = 0.0, 0, 0
    for x in inputs:
        found = torch.from_numpy(run.run(None, {run.get_inputs()[0].name: x.numpy()})[0])
        wanted = session.int8(x)
        spread = max(float(wanted.max() - wanted.min()), float(wanted.abs().max()))
        largest = max(largest, float((found - wanted).abs().max()) / spread)
        same += int((found.argmax(1) == wanted.argmax(1)).sum())
        count += len(x)
    assert made.onnx.samples == count
    assert made.onnx.largest == pytest.approx(largest)
    assert made.onnx.same_answer == pytest.approx(same / count)


def test_codes_and_scales_lie_there_as_plain_tensors(tmp_path: Path) -> None:
    session = trained()
    session.export(tmp_path / "x", evaluate=False)
    with safe_open(tmp_path / "x" / "int8.safetensors", "pt") as file:
        tree = json.loads(file.metadata()["tree"])
        weight: Any = session.int8.conv.weight()  # type: ignore[operator,union-attr]
        assert tree["conv.weight"] == {"quantized": "conv.weight", "axis": 0}
        assert torch.equal(file.get_tensor("conv.weight.codes"), weight.int_repr())
        assert torch.equal(file.get_tensor("conv.weight.scales"), weight.q_per_channel_scales())


def test_more_inputs_and_outputs_by_name(tmp_path: Path) -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, a: Tensor, b: Tensor) -> dict[str, Tensor]:
            return {"a": self.one(a), "b": self.two(b)}

    x = {"a": torch.randn(2, 4), "b": torch.randn(2, 4)}
    session = qx.Session(Both().train(), x, flow="fx", qconfig="onednn", data=([(x, 0)], [(x, 0)]))
    session.calibrate(1)
    made = session.export(tmp_path / "x", evaluate=False)
    there: dict[str, Any] = {"__name__": "walk"}
    exec((tmp_path / "x" / "walk.py").read_text(encoding="utf-8"), there)
    int8 = there["load"](Both().train(), str(tmp_path / "x"))
    wanted = session.int8(**x)
    assert all(torch.equal(int8(**x)[key], wanted[key]) for key in wanted)
    assert made.onnx is not None or made.notes


def test_what_onnx_cannot_express_is_a_note_and_the_rest_is_written(tmp_path: Path) -> None:
    class Strange(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return torch.special.bessel_j0(self.fc(x))

    x = torch.randn(2, 4)
    session = qx.Session(Strange().train(), x, flow="fx", qconfig="onednn", data=([(x, x)], []))
    session.calibrate(1)
    made = session.export(tmp_path / "x", evaluate=False)
    assert made.onnx is None
    assert "model.onnx" not in made.files
    assert any("bessel_j0" in note for note in made.notes), made.notes
    assert "int8.safetensors" in made.files


def test_without_onnx_installed_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "missing", lambda: ("onnxruntime",))
    made = trained().export(tmp_path / "x", evaluate=False)
    assert any("pip install onnxruntime" in note for note in made.notes)


# -- folders --------------------------------------------------------------------------------------


def test_a_folder_with_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ExportError, match="holds files already"):
        trained().export(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(ExportError, match="is a file"):
        trained().export(tmp_path / "mine.txt")


def test_an_empty_folder_is_used(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    assert "README.md" in trained().export(tmp_path / "x", evaluate=False).files


def test_a_file_that_outgrows_what_the_system_allows_leaves_nothing_behind(tmp_path: Path) -> None:
    """What each library says of it is its own; to the user it is one sentence."""
    x = torch.randn(2, 64)
    net = nn.Sequential(nn.Linear(64, 1024)).train()
    session = qx.Session(net, x, flow="fx", qconfig="onednn", data=([(x, x)], [(x, x)]))
    session.calibrate(1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, hard))  # the weights are 64 kB
    try:
        with pytest.raises(ExportError, match="cannot be written: File too large"):
            session.export(tmp_path / "x", evaluate=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []
    assert session.export(tmp_path / "x", evaluate=False).files  # the model is still there


@pytest.mark.parametrize("writer", ["onnx", "pt2"])
def test_a_full_disk_is_not_taken_for_a_model_that_cannot_be_written(
    writer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def saved(_program: Any, file: Any) -> None:
        file.write(b"program")
        monkeypatch.setattr(Path, "write_bytes", full)

    if writer == "onnx":
        monkeypatch.setattr(torch.onnx, "export", full)
    else:
        monkeypatch.setattr(torch.export, "export", lambda *_: None)
        monkeypatch.setattr(torch.export, "save", saved)
    with pytest.raises(ExportError, match="No space left"):
        trained().export(tmp_path / "x", evaluate=False)
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_no_disk_takes(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="File name too long"):
        trained().export(tmp_path / ("x" * 300), evaluate=False)


def test_it_stops_where_it_says_what_it_does(tmp_path: Path) -> None:
    steps: list[str] = []
    session = trained()
    with pytest.raises(StoppedError, match="the export was stopped"):
        session.export(tmp_path / "x", progress=steps.append, should_stop=lambda: "ONNX" in steps)
    assert steps[-1] == "ONNX"
    assert list(tmp_path.iterdir()) == []


def test_observers_that_have_seen_no_data_are_in_the_card(tmp_path: Path) -> None:
    session = qx.Session(SmallNet().train(), batches(1)[0][0], qconfig="onednn")
    made = session.export(tmp_path / "x")
    assert "No observer has seen data" in made.notes[0]
    assert "No observer has seen data" in (tmp_path / "x" / "README.md").read_text("utf-8")
    assert not any("observer" in note for note in trained().export(tmp_path / "y").notes)


def test_a_functional_layer_keeps_no_plain_data(tmp_path: Path) -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3, 4))

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, self.weight)

    x = torch.randn(2, 4)
    session = qx.Session(Functional().train(), x, flow="fx", qconfig="onednn", data=([(x, x)], []))
    session.calibrate(1)
    with pytest.raises(ExportError, match="plain data"):
        session.export(tmp_path / "x", evaluate=False)
    assert list(tmp_path.iterdir()) == []
