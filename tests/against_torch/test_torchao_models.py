"""Language and vision models of transformers in the torchao flow: FX cannot trace most of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import qatexplorer as qx
from tests.support.models import declare_torchvision_operators

ao = pytest.importorskip("torchao.quantization")
qat = pytest.importorskip("torchao.quantization.qat")

SMALL: dict[str, Any] = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1}
IDS = torch.randint(0, 60, (2, 6), generator=torch.Generator().manual_seed(0))
IMAGE = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def transformers() -> Any:
    declare_torchvision_operators()
    return pytest.importorskip("transformers", exc_type=ImportError)


def bert(t: Any) -> tuple[nn.Module, Any]:
    config = t.BertConfig(vocab_size=60, intermediate_size=64, max_position_embeddings=32, **SMALL)
    return t.BertForSequenceClassification(config), {"input_ids": IDS}


def gpt2(t: Any) -> tuple[nn.Module, Any]:
    config = t.GPT2Config(vocab_size=60, n_embd=32, n_head=2, n_layer=1, n_positions=32)
    return t.GPT2LMHeadModel(config), {"input_ids": IDS}


def llama(t: Any) -> tuple[nn.Module, Any]:
    config = t.LlamaConfig(vocab_size=60, intermediate_size=64, **SMALL)
    return t.LlamaForCausalLM(config), {"input_ids": IDS}


def vit(t: Any) -> tuple[nn.Module, Any]:
    config = t.ViTConfig(image_size=16, patch_size=8, intermediate_size=64, num_labels=4, **SMALL)
    return t.ViTForImageClassification(config), {"pixel_values": IMAGE}


MODELS: dict[str, Callable[[Any], tuple[nn.Module, Any]]] = {
    "bert": bert, "gpt2": gpt2, "llama": llama, "vit": vit,
}  # fmt: skip


def build(name: str) -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    model, inputs = MODELS[name](transformers())
    return model.train(), inputs


def train(model: nn.Module, inputs: Any) -> list[float]:
    torch.manual_seed(1)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = model(**inputs).logits.square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("name", MODELS)
def test_the_same_as_torchaos_own_calls(name: str) -> None:
    model, inputs = build(name)
    session = qx.Session(model, inputs, flow="torchao")
    session.goto("prepare")
    made = session.snapshots["prepare"]
    assert sum(site.kind == "weight" for site in made.sites) >= 1
    config = ao.Int8DynamicActivationIntxWeightConfig(
        weight_dtype=torch.int4,  # type: ignore[attr-defined]
        weight_granularity=ao.PerGroup(32),
    )
    theirs, _ = build(name)
    ao.quantize_(theirs, qat.QATConfig(config, step="prepare"))
    assert repr(session.model) == repr(theirs)
    assert train(session.model, inputs) == train(theirs, inputs)
    session.goto("convert")
    ao.quantize_(theirs.eval(), qat.QATConfig(config, step="convert"))
    with torch.no_grad():
        mine, others = session.int8(**inputs).logits, theirs(**inputs).logits
    assert torch.equal(mine, others)
    assert session.snapshots["convert"].graph is not None
