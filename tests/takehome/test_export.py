"""The folder of an exported model: rebuilt without unpickling, run elsewhere, whole or not."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

import qatexplorer as qx
from qatexplorer.errors import ExportError
from qatexplorer.takehome import export as exporting
from tests.support.models import NARROW, load_timm
from tests.support.training_models import SmallNet, batches, data, one_thread  # noqa: F401

ROOT = Path(__file__).resolve().parents[2]


def trained(flow: str = "eager") -> qx.Session:
    torch.manual_seed(0)
    session = qx.Session(
        SmallNet().train(), batches(1)[0][0], flow=flow, qconfig="onednn", data=data(2)
    )
    session.calibrate(1)
    return session


@pytest.mark.parametrize("flow", ["eager", "fx"])
@pytest.mark.parametrize("name", qx.zoo.names())
def test_a_fresh_process_rebuilds_the_model(name: str, flow: str, tmp_path: Path) -> None:
    example = qx.zoo.load(name)
    settings = {k: v for k, v in example.suggested.items() if k == "qconfig"}
    stubs = "layers" if (name, flow) == ("digits_mlp", "eager") else "none"
    session = qx.Session(
        example.model, example.example_inputs, flow=flow, stubs=stubs, data=example.data, **settings
    )
    session.calibrate(4)
    folder = tmp_path / "int8"
    made = session.export(folder)
    child = f"""
import pickle, sys, torch
sys.path[:0] = [{str(folder)!r}, {str(ROOT)!r}]
import walk
from qatexplorer import zoo
example = zoo.load({name!r})
for parameter in example.model.parameters():
    torch.nn.init.constant_(parameter, 0.5)  # any weights
def refuse(*_, **__): raise AssertionError("unpickled")
pickle.load = pickle.loads = torch.load = refuse
int8 = walk.load(example.model, {str(folder)!r})
with torch.no_grad():
    torch.save(int8(*example.example_inputs), {str(tmp_path / "made.pt")!r})
"""
    subprocess.run([sys.executable, "-c", child], check=True, capture_output=True, text=True)
    wanted = session.int8(*example.example_inputs)
    assert torch.equal(torch.load(tmp_path / "made.pt", weights_only=True), wanted)
    assert torch.equal(load_file(folder / "example.safetensors")["outputs"], wanted)
    assert made.onnx is not None
    assert made.onnx.same_answer is not None
    assert made.onnx.same_answer > 0.9  # calibrated only, many of its answers are close
    card = (folder / "README.md").read_text(encoding="utf-8")
    value = session.evaluate(latency=False)["int8"].metric
    assert value is not None
    assert f"{value.value:.4f}" in card
    assert torch.__version__ in card


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


def test_a_model_that_we_did_not_write(tmp_path: Path) -> None:
    model, x = load_timm("resnet18", **NARROW)
    session = qx.Session(model, x, flow="fx", qconfig="qnnpack", data=([(x, x)], [(x, x)]))
    session.calibrate(1)
    made = session.export(tmp_path / "x", evaluate=False)
    assert made.onnx is not None
    assert "walk.py" in made.files


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


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    session = trained()
    monkeypatch.setattr(exporting, "save_file", full)
    with pytest.raises(ExportError, match="No space left"):
        session.export(tmp_path / "x", evaluate=False)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    assert session.export(tmp_path / "x", evaluate=False).files  # the model is still there


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
