"""Architectures for the PT2E flow: smallest ones of timm and transformers, random weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.support.models import Case, declare_torchvision_operators, load_timm
from tests.support.models_fx import TIMM_FX, WRITTEN, load_transformer

_TEXT = {"vocab_size": 64, "max_position_embeddings": 32}
_SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def load_language(kind: str) -> tuple[nn.Module, dict[str, Tensor]]:
    """A transformers model of two layers of 32 features, and token ids or pixels."""
    declare_torchvision_operators()
    theirs = pytest.importorskip("transformers", exc_type=ImportError)
    ids = {"input_ids": torch.randint(0, 64, (2, 7))}
    inner = {"intermediate_size": 64}
    if kind == "bert":
        return theirs.BertForSequenceClassification(
            theirs.BertConfig(**_SIZE, **_TEXT, **inner)
        ), ids
    if kind == "llama":
        return theirs.LlamaForCausalLM(theirs.LlamaConfig(**_SIZE, **_TEXT, **inner)), ids
    if kind == "vit":
        config = theirs.ViTConfig(**_SIZE, **inner, image_size=16, patch_size=8)
        return theirs.ViTForImageClassification(config), {"pixel_values": torch.randn(2, 3, 16, 16)}
    special = {"bos_token_id": 0, "eos_token_id": 0}
    if kind == "gpt2":
        sizes = {"n_positions": 32, "n_embd": 32, "n_layer": 2, "n_head": 2}
        return theirs.GPT2LMHeadModel(theirs.GPT2Config(vocab_size=64, **sizes, **special)), ids
    if kind == "distilbert":
        config = theirs.DistilBertConfig(
            vocab_size=64, max_position_embeddings=32, dim=32, n_layers=2, n_heads=2, hidden_dim=64
        )
        return theirs.DistilBertForSequenceClassification(config), ids
    if kind == "t5_encoder":
        config = theirs.T5Config(
            vocab_size=64, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2
        )
        return theirs.T5EncoderModel(config), ids
    raise ValueError(kind)


def _timm(name: str, size: int = 32, **settings: Any) -> Case:
    return Case(f"timm_{name}", lambda: load_timm(name, size, **settings))


_OF_FX = {case.name: case for case in (*TIMM_FX, *WRITTEN)}
_SHARED = (
    "timm_resnet18",
    "timm_mobilenetv3_small_050",
    "timm_mobilenetv2_035",
    "timm_efficientnet_lite0",
    "timm_regnetx_002",
    "timm_ghostnet_050",
    "timm_convnext_atto",
    "timm_densenet121",
    "timm_lcnet_050",
    "timm_repvgg_a0",
    "timm_vit_tiny_patch16_224",
)
ARCHITECTURES = (
    *(_OF_FX[name] for name in _SHARED),
    _timm("deit_tiny_patch16_224", img_size=32, depth=2),
    _timm("mixer_s32_224", img_size=32),
    _timm("mobilevitv2_050", 64),
    *(
        Case(f"transformers_{kind}", lambda k=kind: load_language(k))
        for kind in ("bert", "gpt2", "llama", "vit", "distilbert", "t5_encoder")
    ),
    Case("transformers_resnet", lambda: load_transformer("resnet")),
)
"""Twenty-one; four of them are of the kind that torch.fx cannot trace."""


def inputs_of(x: Any) -> Any:
    return x if isinstance(x, dict) else (x,)
