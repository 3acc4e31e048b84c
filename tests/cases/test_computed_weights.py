"""weight_norm, spectral_norm, pruning and parametrizations, from float to int8."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.nn.utils import spectral_norm as old_spectral_norm
from torch.nn.utils import weight_norm as old_weight_norm

import qatexplorer as qx
from qatexplorer.flows.copying import copied, held_tensors

from .models import (
    FLOWS,
    Vocoder,
    assert_untouched,
    batches,
    fake_quants,
    mean_square,
    mel,
    session_of,
    state_of,
    to_int8,
)

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")]


def pruned(layer: nn.Module) -> nn.Module:
    prune.l1_unstructured(layer, "weight", 0.5)
    return layer


def pruned_twice(layer: nn.Module) -> nn.Module:
    prune.random_unstructured(layer, "weight", 0.2)
    prune.l1_unstructured(layer, "weight", 0.5)
    return layer


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight * 2


def doubled(layer: nn.Module) -> nn.Module:
    return parametrize.register_parametrization(layer, "weight", Doubled())


# How it is put on, the word for it in the note, and the call that the note names.
NORMS: dict[str, tuple[Callable[..., Any], str, str]] = {
    "weight_norm": (old_weight_norm, "weight_norm", "remove_weight_norm(layer)"),
    "spectral_norm": (old_spectral_norm, "spectral_norm", "remove_spectral_norm(layer)"),
    "pruned": (pruned, "pruned", "prune.remove(layer, 'weight')"),
    "pruned twice": (pruned_twice, "pruned", "prune.remove(layer, 'weight')"),
    "new weight_norm": (parametrizations.weight_norm, "parametrization", "remove_parametrizations"),
    "new spectral_norm": (
        parametrizations.spectral_norm,
        "parametrization",
        "remove_parametrizations",
    ),
    "own": (doubled, "parametrization", "remove_parametrizations"),
}
LAYERS = ("first", "up", "flat", "last")


def vocoder(norm: str) -> nn.Module:
    torch.manual_seed(0)
    return Vocoder(NORMS[norm][0]).train()


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("norm", NORMS)
def test_from_float_to_int8(norm: str, flow: str) -> None:
    model = vocoder(norm)
    model(mel())  # the computed weights have a history now, which deepcopy refuses
    before = state_of(model)
    data = batches(
        mel, lambda x: torch.sin(x.mean((1, 2)))[:, None, None, None].expand(2, 2, 16, 5)
    )
    session = session_of(model, (mel(),), flow, data=data, loss=mean_square, metric=mean_square)
    note = " ".join(session.snapshot.notes)
    assert NORMS[norm][1] in note
    assert NORMS[norm][2] in note
    assert all(name in note for name in LAYERS if name != "flat")
    session.goto("train")
    # Neither flow has a QAT version of a transposed convolution, eager none of Conv1d.
    assert set(fake_quants(session)) >= {"flat", "last"}
    assert ("first" in fake_quants(session)) == (flow == "fx")
    to_int8(session)
    assert_untouched(model, before)


@pytest.mark.parametrize("norm", NORMS)
def test_the_copy_computes_the_same(norm: str) -> None:
    model = vocoder(norm).eval()
    x = mel()
    with torch.no_grad():
        wanted = model(x)
        found = qx.Session(model, (x,)).model(x)
    assert torch.allclose(wanted, found, atol=1e-6)


def test_linear_keeps_a_parametrization_that_torch_prepares() -> None:
    model = vocoder("own")
    session = qx.Session(model, (mel(),))
    session.goto("insert")
    assert parametrize.is_parametrized(session.model.flat, "weight")
    assert not parametrize.is_parametrized(session.model.first)
    assert "flat" not in " ".join(session.snapshots["float"].notes)
    # Its fake quant sees the weight as the parametrization computes it.
    seen = []
    session.model.flat.weight_fake_quant.register_forward_pre_hook(lambda m, a: seen.append(a[0]))
    session.model(mel())
    assert torch.equal(seen[0], model.flat.parametrizations.weight.original * 2)


def test_a_frozen_layer_stays_frozen() -> None:
    model = Vocoder(old_weight_norm).train()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith("last"))
    session = qx.Session(model, (mel(),))
    names = {n: p.requires_grad for n, p in session.model.named_parameters()}
    assert names["first.weight"] is True
    assert names["last.bias"] is False


def test_zeros_come_back_by_the_mask_that_the_note_names() -> None:
    model = vocoder("pruned")
    mask = model.flat.weight_mask
    data = batches(mel, lambda x: torch.ones(2, 2, 16, 5))
    session = session_of(model, (mel(),), "eager", data=data, loss=mean_square, metric=mean_square)
    assert "prune.custom_from_mask(layer, 'weight', mask)" in session.snapshot.notes[0]
    session.train(1, lr=1e-2)
    layer = session.model.flat
    assert (layer.weight[mask == 0] != 0).any()
    prune.custom_from_mask(layer, "weight", mask)
    prune.remove(layer, "weight")
    session.goto("convert")
    weight = session.int8.flat.weight().dequantize()
    assert (weight[mask == 0] == 0).all()


def test_modules_of_the_users_own_keep_their_parametrization() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.randn(4))
            self.fc = nn.Linear(4, 2)
            parametrize.register_parametrization(self, "table", Doubled())

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x * self.table)

    session = qx.Session(Own().train(), (torch.rand(2, 4),))
    assert session.snapshot.notes == ()
    assert parametrize.is_parametrized(session.model, "table")


def test_kept_activations_are_copied_without_their_history() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    out = model(torch.ones(1, 3))
    model[0].seen = {"last": [out, (out * 2,)]}
    model[1].holder = type("Holder", (), {})()
    model[1].holder.kept = out
    with pytest.raises(RuntimeError, match="graph leaves"):
        copy.deepcopy(model)
    assert {id(t) for t in held_tensors(model) if t.grad_fn is not None} >= {id(out)}
    twin = copied(model)
    for tensor in (twin[0].seen["last"][0], twin[1].holder.kept):
        assert torch.equal(tensor, out)
        assert tensor is not out
        assert tensor.grad_fn is None
    assert out.grad_fn is not None
    assert qx.Session(model.train(), (torch.ones(2, 3),)).goto("insert").sites


def test_buffers_that_share_memory_share_it_in_the_copy() -> None:
    class Shares(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("whole", torch.arange(6.0))
            self.register_buffer("part", self.whole[2:4])
            self.register_buffer("seen", torch.zeros(3))
            self.window = [self.seen[1:]]
            self.register_buffer("alone", torch.ones(2, 3).t())

    model = Shares()
    twin: Any = copied(model)
    assert twin.whole.untyped_storage().data_ptr() == twin.part.untyped_storage().data_ptr()
    twin.whole.add_(1)
    twin.seen.fill_(5)
    assert twin.part.tolist() == [3.0, 4.0]
    assert twin.window[0].tolist() == [5.0, 5.0]
    assert twin.alone.stride() == model.alone.stride()
    assert model.whole.tolist() == list(range(6))
    assert model.seen.tolist() == [0.0, 0.0, 0.0]
