"""Each fix of the PT2E flow, done to the letter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import qatexplorer as qx
from qatexplorer.errors import InputError, RunFolderError, TraceFailedError, UnsupportedTorchError
from qatexplorer.flows import pt2e, pt2e_quantizers

pytest.importorskip("torchao")
X = torch.randn(2, 6, generator=torch.Generator().manual_seed(0))


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2)).train()


class Depends(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc(x)
        return y * 2 if bool(y.sum() > 0) else y


def test_what_export_cannot_follow_runs_in_eager() -> None:
    session = qx.Session(Depends().train(), X, flow="pt2e")
    with pytest.raises(TraceFailedError, match=r"torch\.export cannot export Depends") as raised:
        session.step()
    assert "or use flow='eager', which runs forward as it is." in raised.value.fix
    session.configure(flow="eager", stubs="model")
    assert session.goto("train").sites


def test_an_older_torch_has_two_flows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.9.1")
    with pytest.raises(UnsupportedTorchError) as raised:
        qx.Session(net(), X, flow="pt2e")
    assert "needs torch 2.11 or newer, and 2.9.1 is running" in raised.value.why
    assert raised.value.fix == "Use flow='eager' or flow='fx'."
    for flow in ("eager", "fx"):
        assert qx.Session(net(), X, flow=flow, stubs="none").goto("train")


@pytest.mark.parametrize("version", ["0.17.0", "0.19.1"])
def test_another_torchao_says_which_one(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(pt2e.metadata, "version", lambda name: version)
    with pytest.raises(UnsupportedTorchError) as raised:
        qx.Session(net(), X, flow="pt2e")
    assert f"orchao {version} is installed" in raised.value.why
    assert "Run pip install 'torchao>=0.18,<0.19'" in raised.value.fix


def test_a_quantizer_of_another_name() -> None:
    with pytest.raises(InputError, match="there is no quantizer 'qnn'") as raised:
        qx.Session(net(), X, flow="pt2e", quantizer="qnn")
    assert "Names are 'x86', 'arm'" in raised.value.fix
    assert "; or pass the object itself." in raised.value.fix
    qx.Session(net(), X, flow="pt2e", quantizer="x86")
    qx.Session(net(), X, flow="pt2e", quantizer=pt2e_quantizers.make_quantizer("x86"))


@pytest.mark.parametrize("wrong", [dict, object()])
def test_what_is_no_quantizer(wrong: Any) -> None:
    with pytest.raises(InputError, match="is no quantizer of PT2E") as raised:
        qx.Session(net(), X, flow="pt2e", quantizer=wrong)
    assert (
        "Pass an object of a class derived from torchao.quantization.pt2e.quantizer."
        "Quantizer, for example quantizer='x86'."
    ) in raised.value.fix
    assert qx.Session(net(), X, flow="pt2e", quantizer="x86").goto("insert").sites


def test_a_quantizer_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    named = pt2e_quantizers.Named("", ("no_such_package.quantizer",), lambda m: m)
    monkeypatch.setitem(pt2e_quantizers.QUANTIZERS, "xnnpack", named)  # type: ignore[arg-type]
    session = qx.Session(net(), X, flow="pt2e", quantizer="xnnpack")
    with pytest.raises(qx.errors.QatExplorerError, match="'xnnpack' is not installed") as raised:
        session.goto("insert")
    assert "Use quantizer='x86', which comes with torchao." in raised.value.fix
    session.configure(quantizer="x86")
    assert session.goto("insert").sites


def test_a_run_with_a_quantizer_of_its_own() -> None:
    mine = pt2e_quantizers.make_quantizer("x86")
    kept = qx.Session(net(), X, flow="pt2e", quantizer=mine)._models.settings.to_json()
    with pytest.raises(RunFolderError) as raised:
        qx.Session(net(), X, flow="pt2e")._models.settings.from_json(kept)
    assert "Make the session with the quantizer= that the run was made with." in raised.value.fix
    again = qx.Session(net(), X, flow="pt2e", quantizer=mine)
    assert "quantizer" not in again._models.settings.from_json(kept)


def test_what_lowering_left_unrunnable_runs() -> None:
    """Flatten behind a convolution: torchao's lowered model raises, ours says what it changed."""
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).train()
    x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    session = qx.Session(model, x, flow="pt2e", data=([(x, torch.zeros(4).long())],) * 2)
    session.train(epochs=1)
    session.goto("lower")
    assert any("aten.reshape" in note for note in session.snapshot.notes)
    reference = session._models.view("fold")(x)
    assert torch.allclose(
        session._models.view("lower")(x), reference, atol=float(reference.abs().max()) / 50
    )
