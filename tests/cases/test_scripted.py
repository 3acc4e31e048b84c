"""TorchScript: a part of the model is one float box, a whole model is refused."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import qatexplorer as qx
from qatexplorer import errors

from .models import (
    FLOWS,
    Gate,
    Tabular,
    TwoWays,
    assert_untouched,
    batches,
    fake_quants,
    session_of,
    state_of,
    to_int8,
)

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")]


def table() -> Tensor:
    return torch.randn(8, 6)


def data() -> Any:
    return batches(table, lambda x: x[:, :3].argmax(1), 8)


def scripted(module: nn.Module) -> nn.Module:
    return torch.jit.script(module)


def traced(module: nn.Module) -> nn.Module:
    return torch.jit.trace(module, torch.randn(8, 8))


def loaded(module: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(module), file)
    file.seek(0)
    return torch.jit.load(file)  # type: ignore[no-any-return]


MAKES = {"script": scripted, "trace": traced, "load": loaded}


@pytest.mark.parametrize("stubs", ["none", "layers"])
@pytest.mark.parametrize("make", MAKES)
def test_a_scripted_part_in_eager(make: str, stubs: str) -> None:
    torch.manual_seed(0)
    model = Tabular(MAKES[make](Gate(8))).train()
    if stubs == "layers":
        model.quant = model.dequant = nn.Identity()
    _walk(model, "eager", stubs=stubs)


@pytest.mark.parametrize("make", MAKES)
def test_a_scripted_part_in_fx(make: str) -> None:
    torch.manual_seed(0)
    _walk(Tabular(MAKES[make](Gate(8))).train(), "fx")


def _walk(model: Any, flow: str, **settings: Any) -> None:
    before = state_of(model)
    session = session_of(model, (table(),), flow, data=data(), **settings)
    note = session.snapshot.notes[0]
    assert note.startswith("gate is TorchScript")
    assert "stays float" in note
    count = sum(p.numel() for p in model.gate.parameters())
    assert f"That is {count} of the model's parameters" in note
    graph = session.snapshot.graph
    assert graph is not None
    assert [n.path for n in graph.nodes if n.path.startswith("gate")] == ["gate"]
    session.goto("train")
    assert sorted(fake_quants(session)) in (
        ["first.0", "last"],
        ["first.0.module", "last.module"],  # each in a wrapper of its own
    )
    start = {n: p.detach().clone() for n, p in session.model.named_parameters()}
    to_int8(session)
    moved = {n for n, p in session._models.work.named_parameters() if not torch.equal(p, start[n])}
    assert {"gate.script.mix.weight", "gate.script.norm.weight"} <= moved  # it trains along
    assert_untouched(model, before)


def test_a_checkpoint_holds_it_too(tmp_path: Any) -> None:
    torch.manual_seed(0)
    session = session_of(Tabular(scripted(Gate(8))).train(), (table(),), "eager", data=data())
    session.train(2, run_dir=tmp_path / "run", seed=1)
    weights = {n: p.detach().clone() for n, p in session._models.work.named_parameters()}
    torch.manual_seed(0)
    again = session_of(Tabular(scripted(Gate(8))).train(), (table(),), "eager", data=data())
    again.resume(tmp_path / "run", background=False, epochs=2)
    assert all(torch.equal(p, weights[n]) for n, p in again._models.work.named_parameters())


def test_what_a_part_returns_is_quantized_tensor_by_tensor() -> None:
    class Model(Tabular):
        def forward(self, x: Tensor) -> Tensor:
            mixed, gate = self.gate(self.first(self.quant(x)), scale=0.5)
            return self.dequant(self.last(mixed)) + self.dequant(gate).mean(1, keepdim=True)

    session = session_of(Model(scripted(TwoWays(8))).train(), (table(),), "eager", data=data())
    session.goto("insert")
    stubs = [s.path for s in session.snapshot.sites if s.path.startswith("gate.")]
    assert stubs == [f"gate.quant.{i}.activation_post_process" for i in (0, 1)]
    to_int8(session)


def test_looking_leaves_the_part_as_it_was() -> None:
    session = qx.Session(Tabular(scripted(Gate(8))).train(), (table(),))
    session.goto("insert")
    norm = session.model.gate.script.norm
    before = norm.running_mean.clone()
    session.ledger()
    session.histograms()
    session.preflight()
    assert torch.equal(norm.running_mean, before)


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("make", MAKES)
def test_a_whole_archive_is_refused(make: str, flow: str) -> None:
    whole = MAKES[make](Gate(8))
    with pytest.raises(errors.NotAModuleError) as caught:
        qx.Session(whole, (torch.randn(8, 8),), flow=flow)
    assert "torch.jit" in caught.value.message
    assert "Python module" in caught.value.fix
    # The fix, tried: the names are the same.
    again = Gate(8)
    again.load_state_dict(whole.state_dict())
    assert qx.Session(again.train(), (torch.randn(8, 8),), flow=flow).goto("insert").sites
