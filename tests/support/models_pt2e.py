"""Architectures for the PT2E flow: smallest ones of timm and transformers, random weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.against_torch import torchs_models
from tests.support.models import ZOO, Case, declare_torchvision_operators, load_timm
from tests.support.models_fx import ALL_FX, TIMM_FX, WRITTEN, load_transformer

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
    *(
        Case(f"transformers_{kind}", lambda k=kind: load_language(k))
        for kind in ("bert", "gpt2", "llama", "vit", "distilbert", "t5_encoder")
    ),
    Case("transformers_resnet", lambda: load_transformer("resnet")),
)
"""Twenty; four of them are of the kind that torch.fx cannot trace."""


def inputs_of(x: Any) -> Any:
    return x if isinstance(x, dict) else (x,)


_TORCHS = (
    "ConvBnReLUModel",
    "ModelWithSequentialFusion",
    "ModelForFusionWithBias",
    "ModelMultipleOps",
    "ResNetBase",
    "ModelForLinearBNFusion",
    "LinearReluAddModel",
    "FunctionalConvReluConvModel",
    "FunctionalLinearReluLinearModel",
    "ActivationsTestModel",
    "NormalizationTestModel",
    "RNNDynamicModel",
)


def _of_torch(name: str) -> Any:
    def make() -> tuple[nn.Module, Any]:
        found = next(one for one in torchs_models.SIMPLE if one.name == name)
        model, inputs = found.make()
        return model, inputs[0]

    return make


def _of_torchvision(name: str, size: int) -> Any:
    def make() -> tuple[nn.Module, Tensor]:
        declare_torchvision_operators()
        models = pytest.importorskip("torchvision.models", exc_type=ImportError)
        given = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
        return models.get_model(name, weights=None, num_classes=10, **given), torch.randn(
            2, 3, size, size
        )

    return make


_VISION = (
    ("squeezenet1_1", 64),
    ("shufflenet_v2_x0_5", 64),
    ("mobilenet_v3_small", 64),
    ("mnasnet0_5", 64),
    ("googlenet", 64),
    ("swin_t", 64),
)


def every_case() -> tuple[Case, ...]:
    """All architectures that the tests have, each once: those of ``models``, ``models_fx``, the
    above, and some of torch's own tests and of torchvision."""
    cases = (
        *ALL_FX,
        *ZOO,
        *ARCHITECTURES,
        *(Case(f"torch_{name}", _of_torch(name)) for name in _TORCHS),
        *(Case(f"torchvision_{name}", _of_torchvision(name, size)) for name, size in _VISION),
    )
    return tuple({case.name: case for case in cases}.values())
