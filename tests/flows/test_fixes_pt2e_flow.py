"""Each fix of the PT2E flow, and of FX for models that it cannot trace, done to the letter."""

from __future__ import annotations

import copy
import importlib
import importlib.util
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import qatexplorer as qx
from qatexplorer.errors import QatExplorerError, StageError, TraceFailedError
from qatexplorer.flows import FLOWS
from qatexplorer.flows import pt2e as flow_file
from qatexplorer.flows.pt2e import Pt2eFlow
from qatexplorer.flows.pt2e_quantizers import make_quantizer
from tests.support.models_pt2e import load_language
from tests.support.pt2e import converted, images, linears, options_of, rows, walked

theirs = pytest.importorskip("torchao.quantization.pt2e.quantizer")


class Peeks(nn.Module):
    """A line that looks at a tensor's values, or not."""

    def __init__(self, looks: bool) -> None:
        super().__init__()
        self.fc, self.looks = nn.Linear(6, 4), looks

    def forward(self, x: Tensor) -> Tensor:
        if self.looks:
            x = x if x.sum() > 0 else -x
        return self.fc(torch.where(x > 0, x, -x))


def reported(model: nn.Module, inputs: Any, flow: str, quantizer: Any = None) -> QatExplorerError:
    with pytest.raises(QatExplorerError) as raised:
        goes_through(model, inputs, flow, quantizer)
    return raised.value


def goes_through(model: nn.Module, inputs: Any, flow: str, quantizer: Any = None) -> bool:
    settings = {} if quantizer is None else {"quantizer": quantizer}
    session = qx.Session(model.train(), inputs, flow=flow, **settings)
    session.goto(session.flow.prepared_stage)
    return bool(session.snapshot.sites)


def test_a_model_that_looks_at_values() -> None:
    error = reported(Peeks(True), rows(), "pt2e")
    assert isinstance(error, TraceFailedError)
    assert error.where == ""
    assert "Peeks.forward at test_fixes_pt2e_flow.py:" in error.message
    assert "Write that line without looking at values of tensors" in error.fix
    assert goes_through(Peeks(False), rows(), "pt2e")
    assert "or use flow='eager', which runs forward as it is." in error.fix
    assert goes_through(Peeks(True), rows(), "eager")


class Vendors(theirs.Quantizer):
    """A vendor's quantizer, which asserts what the net is not."""

    def _annotate_linears(self, model: Any) -> None:
        for node in model.graph.nodes:
            if node.target is torch.ops.aten.linear.default:
                assert isinstance(node.args[1], nn.Module), "Expected an nn.Module instance"

    def annotate(self, model: Any) -> Any:
        self._annotate_linears(model)
        return model

    def validate(self, model: Any) -> None:
        """Nothing to assert."""


class Cnn(nn.Module):
    """That of the report: convolution, batch norm, pool and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.act = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()
        self.pool, self.fc = nn.AdaptiveAvgPool2d((1, 1)), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.flatten(self.pool(self.act(self.bn(self.conv(x)))), 1))


def test_what_a_vendors_quantizer_asserts_is_told_with_the_node_and_the_line() -> None:
    x = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(22))
    error = reported(Cnn(), x, "pt2e", Vendors())
    assert error.where == "fc"
    assert "Vendors.annotate failed at node linear (aten.linear.default)" in error.message
    assert "which test_fixes_pt2e_flow.py:" in error.message
    assert "AssertionError: Expected an nn.Module instance" in error.message
    assert "Leave quantizer=None, torchao's X86InductorQuantizer, to see whether" in error.fix
    assert goes_through(Cnn(), x, "pt2e")


class Twice(nn.Module):
    """A batch norm called twice, or two of them."""

    def __init__(self, own: bool) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)
        self.norm = nn.BatchNorm2d(4)
        self.last = nn.BatchNorm2d(4) if own else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.norm(self.first(x)))
        return self.norm(x) if self.last is None else self.last(x)


def test_a_module_that_is_called_twice() -> None:
    error = reported(Twice(False), images(), "pt2e")
    assert "ValueError: Input partition has more than one output node" in error.message
    assert error.why.endswith("has as many outputs: norm.")
    fix = "Give each call a module of its own, or use another quantizer: quantizer='xnnpack'."
    assert error.fix == fix
    assert goes_through(Twice(True), images(), "pt2e")
    assert goes_through(Twice(False), images(), "pt2e", "xnnpack")


def test_what_torchaos_own_quantizer_asserts(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_self: Any, _model: Any) -> None:
        raise ValueError("not this one")

    own = type(make_quantizer("x86"))
    monkeypatch.setattr(own, "validate", fails)
    error = reported(linears(), rows(), "pt2e")
    assert error.fix == "Use another quantizer, for example quantizer='xnnpack', or flow='fx'."
    assert goes_through(linears(), rows(), "pt2e", "xnnpack")
    assert goes_through(linears(), rows(), "fx")


@pytest.mark.parametrize("method", ["transform_for_annotation", "annotate", "validate"])
def test_each_method_of_a_quantizer_is_named(method: str) -> None:
    def fails(_self: Any, model: Any) -> Any:
        raise ValueError("no such thing")

    mine = type("Mine", (Vendors,), {"annotate": lambda _self, model: model, method: fails})
    flow, options = Pt2eFlow(), options_of((rows(),), mine())
    exported = flow.apply("export", linears(), options).model
    with pytest.raises(StageError) as raised:
        flow.apply("insert", exported, options)
    # It was at no node.
    assert raised.value.message == f"Mine.{method} failed: ValueError: no such thing"
    assert raised.value.where is None


@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama", "vit"])
def test_models_of_transformers_that_fx_refuses(kind: str) -> None:
    model, inputs = load_language(kind)
    error = reported(model, inputs, "fx")
    assert "transformers wraps forward in functions that take *args and **kwargs" in error.why
    named = [name for name in FLOWS if f"flow={name!r}" in error.fix]
    assert named[:2] == ["eager", "pt2e"]
    assert "Use flow='pt2e'" in error.fix
    assert "which does not trace with torch.fx; or flow='eager'" in error.fix
    tried = ("pt2e",) if kind != "bert" else named
    assert all(goes_through(model, inputs, flow) for flow in tried)


def test_where_the_flows_that_export_cannot_run_the_fix_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(flow_file.importlib.util, "find_spec", lambda _name: None)
    model, inputs = load_language("bert")
    fix = reported(model, inputs, "fx").fix
    assert "Use flow='eager'. flow='pt2e' takes such models too, and cannot run here: " in fix
    assert "torchao is not installed: pip install 'torchao>=0.18,<0.19'" in fix
    monkeypatch.undo()
    assert goes_through(model, inputs, "pt2e")


class InvalidCxxCompiler(RuntimeError):
    """The name that inductor's own has."""


@pytest.mark.parametrize("compiler", [True, False])
def test_what_cannot_be_lowered(monkeypatch: pytest.MonkeyPatch, compiler: bool) -> None:
    _, prepared = walked(linears(), (rows(),))
    prepared.model(rows())
    api = importlib.import_module("torchao.quantization.pt2e.lowering")

    def fails(*_: Any) -> Any:
        raise RuntimeError("no kernel") if compiler else InvalidCxxCompiler("none found")

    monkeypatch.setattr(api, "lower_pt2e_quantized_to_x86", fails)
    with pytest.raises(StageError) as raised:
        converted(prepared.model, (rows(),), "lower")
    if compiler:
        assert (
            "Stay at stage 'fold', or lower that model with your own backend." in raised.value.fix
        )
    else:
        assert "Install g++ (apt-get install g++), or name a compiler in the variable CXX" in (
            raised.value.fix
        )
        assert "stay at stage 'fold'" in raised.value.fix
    assert converted(prepared.model, (rows(),), "fold").model(rows()).shape == (4, 4)
    monkeypatch.undo()  # with a compiler, or another backend
    assert converted(prepared.model, (rows(),), "lower").model(rows()).shape == (4, 4)


class TwoConvolutions(nn.Module):
    """Two, as oneDNN's kernels take them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(x)))


class Int8(theirs.Quantizer):
    """A user's own that rounds as XNNPACK's does, and is of another name."""

    def annotate(self, model: Any) -> Any:
        return make_quantizer("xnnpack").annotate(model)

    def validate(self, model: Any) -> None:
        """Nothing to assert."""


@pytest.mark.parametrize("quantizer", ["xnnpack", Int8()])
def test_what_is_lowered_does_not_run(quantizer: Any) -> None:
    x = (images(),)
    torch.manual_seed(0)
    model = TwoConvolutions().train()
    _, prepared = walked(model, x, quantizer)
    prepared.model(*x)
    with pytest.raises(StageError) as raised:
        Pt2eFlow().apply("lower", copy.deepcopy(prepared.model), options_of(x, quantizer))
    assert "gave does not run: RuntimeError: " in raised.value.message
    assert "uint8, as torchao's quantizers for CPUs round them" in raised.value.why
    if quantizer == "xnnpack":
        assert "XnnpackPartitioner" in raised.value.why
        assert "Stay at stage 'fold': the reference model computes" in raised.value.fix
        assert "session.export('model.pte') writes the one that XNNPACK runs" in raised.value.fix
        reference = converted(prepared.model, x, "fold").model
        assert reference(*x).isfinite().all()  # the file is run in tests/takehome/test_pte.py
        return
    assert raised.value.fix == "Stay at stage 'fold', or use quantizer='x86'."
    _, prepared = walked(model, x, "x86")
    prepared.model(*x)
    assert converted(prepared.model, x, "lower").model(*x).isfinite().all()
