"""Architectures for the FX flow: small ones written here, timm's families, transformers'."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.ao.nn.quantized import FloatFunctional
from torch.ao.quantization import DeQuantStub, QuantStub

from tests.support.models import SMALL, Case, declare_torchvision_operators, load_timm


class BasicBlock(nn.Module):
    """As torchvision's quantizable ResNet has it: the sum is a FloatFunctional."""

    def __init__(self, inside: int, outside: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.add_relu = FloatFunctional()
        self.downsample: nn.Module | None = None
        if stride != 1 or inside != outside:
            self.downsample = nn.Sequential(
                nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        if self.downsample is not None:
            x = self.downsample(x)
        return self.add_relu.add_relu(y, x)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 with a plain + and one ReLU called three times."""

    def __init__(self, inside: int, middle: int, stride: int = 1) -> None:
        super().__init__()
        outside = middle * 4
        self.conv1, self.bn1 = nn.Conv2d(inside, middle, 1, bias=False), nn.BatchNorm2d(middle)
        self.conv2 = nn.Conv2d(middle, middle, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(middle)
        self.conv3, self.bn3 = nn.Conv2d(middle, outside, 1, bias=False), nn.BatchNorm2d(outside)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = nn.Sequential(
            nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside)
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        y += self.downsample(x)
        return self.relu(y)


class QuantizableResNet(nn.Module):
    """A ResNet with stubs and FloatFunctional, three stages of one block."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.conv1 = nn.Conv2d(3, 8, 3, 1, 1, bias=False)
        self.bn1, self.relu = nn.BatchNorm2d(8), nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = nn.Sequential(BasicBlock(8, 8))
        self.layer2 = nn.Sequential(BasicBlock(8, 16, 2))
        self.layer3 = nn.Sequential(Bottleneck(16, 8, 2))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(32, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(self.quant(x)))))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.dequant(self.fc(torch.flatten(self.avgpool(x), 1)))


class InvertedResidual(nn.Module):
    def __init__(self, inside: int, outside: int, stride: int, expand: int) -> None:
        super().__init__()
        middle = inside * expand
        self.conv = nn.Sequential(
            nn.Conv2d(inside, middle, 1, bias=False),
            nn.BatchNorm2d(middle),
            nn.ReLU6(),
            nn.Conv2d(middle, middle, 3, stride, 1, groups=middle, bias=False),
            nn.BatchNorm2d(middle),
            nn.ReLU6(),
            nn.Conv2d(middle, outside, 1, bias=False),
            nn.BatchNorm2d(outside),
        )
        self.skip = FloatFunctional() if stride == 1 and inside == outside else None

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) if self.skip is None else self.skip.add(x, self.conv(x))


class QuantizableMobileNet(nn.Module):
    """MobileNetV2 in small: depthwise convolutions, ReLU6, FloatFunctional."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU6(),
            InvertedResidual(8, 8, 1, 2),
            InvertedResidual(8, 12, 2, 3),
            InvertedResidual(12, 12, 1, 3),
        )
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(12, classes))

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(self.quant(x))
        x = F.adaptive_avg_pool2d(x, 1).flatten(1)
        return self.dequant(self.classifier(x))


class Inception(nn.Module):
    """Branches joined by cat: observers shared on purpose."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU())
        self.b = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
        self.pool = nn.MaxPool2d(3, 1, 1)
        self.fc = nn.Linear(11, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.a(x), self.b(x), self.pool(x)], 1)
        return self.fc(x.mean((2, 3)))


class SqueezeExcite(nn.Module):
    """A gate: sigmoid with fixed qparams, product of two tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.reduce, self.expand = nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        gate = torch.sigmoid(self.expand(F.relu(self.reduce(F.adaptive_avg_pool2d(x, 1)))))
        return self.fc((x * gate).mean((2, 3)))


class UNet(nn.Module):
    """Down, up by interpolation, and a skip joined by cat."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.middle = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, 2, 1)
        self.up = nn.Conv2d(12, 5, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        skip = F.relu(self.down(x))
        y = F.interpolate(F.relu(self.middle(skip)), scale_factor=2.0)
        return self.up(torch.cat([y, skip], 1)).mean((2, 3))


class AttentionBlock(nn.Module):
    """Attention from matrix products, softmax and layer norm."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        weights = torch.softmax(self.q(y) @ self.k(y).transpose(-2, -1), dim=-1)
        x = x + self.out(weights @ self.v(y))
        return x + self.down(F.gelu(self.up(x)))


class TinyViT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 4, 4)
        self.position = nn.Parameter(torch.randn(1, 4, 8) * 0.02)
        self.blocks = nn.Sequential(AttentionBlock(), AttentionBlock())
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2) + self.position
        return self.head(self.blocks(x).mean(1))


class Mixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.channels = nn.Linear(16, 16), nn.Linear(3, 3)
        self.norm = nn.LayerNorm(3)
        self.head = nn.Linear(3, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2)
        x = x + F.hardswish(self.tokens(x))
        x = x.permute(0, 2, 1)
        return self.head((x + self.channels(self.norm(x))).mean(1))


class FunctionalWeights(nn.Module):
    """F.conv2d and F.linear on parameters of its own: weight fake quants that are graph nodes."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(4, 3, 3, 3) * 0.1)
        self.weight = nn.Parameter(torch.randn(5, 4) * 0.1)
        self.bias = nn.Parameter(torch.zeros(5))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.conv2d(x, self.kernel, padding=1))
        return F.linear(x.mean((2, 3)), self.weight, self.bias)


class Flattened(nn.Module):
    """flatten as method, function or module, after a pool and before a linear layer."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.conv, self.relu = nn.Conv2d(3, 4, 3), nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.flatten = nn.Flatten() if how == "module" else None
        self.how = how
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu(self.conv(x)))
        if self.flatten is not None:
            return self.fc(self.flatten(x))
        return self.fc(x.flatten(1) if self.how == "method" else torch.flatten(x, 1))


class Masking(nn.Module):
    """Looks at values: torch.fx cannot trace it, and need not when it is left as one call."""

    def forward(self, x: Tensor) -> Tensor:
        if x.abs().max() > 100:
            x = x.clamp(-100, 100)
        return x


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.inner = nn.Sequential(Masking(), nn.ReLU())
        self.fc = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.inner(self.conv(x)).mean((2, 3)))


class Recurrent(nn.Module):
    """An LSTM between two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.embed, self.lstm = nn.Linear(6, 6), nn.LSTM(6, 5)
        self.head = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.lstm(self.embed(self.quant(x)))
        return self.dequant(self.head(y))


class Attending(nn.Module):
    """nn.MultiheadAttention between stubs."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.attention = nn.MultiheadAttention(8, 2)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.quant(x)
        y, _ = self.attention(x, x, x)
        return self.dequant(self.head(y))


def rgb(size: int = 8) -> Tensor:
    return torch.randn(4, 3, size, size)


WRITTEN = (
    Case("quantizable_resnet", lambda: (QuantizableResNet(), rgb(16))),
    Case("quantizable_mobilenet", lambda: (QuantizableMobileNet(), rgb(16))),
    Case("inception", lambda: (Inception(), rgb())),
    Case("squeeze_excite", lambda: (SqueezeExcite(), rgb())),
    Case("unet", lambda: (UNet(), rgb())),
    Case("tiny_vit", lambda: (TinyViT(), rgb())),
    Case("mixer", lambda: (Mixer(), rgb(4))),
    Case("functional_weights", lambda: (FunctionalWeights(), rgb())),
    Case("flatten_method", lambda: (Flattened("method"), rgb())),
    Case("flatten_function", lambda: (Flattened("function"), rgb())),
    Case("flatten_module", lambda: (Flattened("module"), rgb())),
    Case("masked", lambda: (Masked(), rgb())),
    Case("recurrent", lambda: (Recurrent(), torch.randn(3, 4, 6))),
    Case("attending", lambda: (Attending(), torch.randn(3, 4, 8))),
)
_FAMILIES: tuple[tuple[str, int, dict[str, Any]], ...] = (
    ("resnet18", 32, {"zero_init_last": False}),
    ("resnet18", 32, {}),
    ("mobilenetv3_small_050", 32, {}),
    ("mobilenetv2_035", 32, {}),
    ("efficientnet_lite0", 32, {}),
    ("regnetx_002", 32, {"zero_init_last": False}),
    ("lcnet_050", 32, {}),
    ("ghostnet_050", 32, {}),
    ("convnext_atto", 32, {}),
    ("mnasnet_small", 32, {}),
    ("repvgg_a0", 32, {}),
    ("vgg11_bn", 32, {}),
    ("densenet121", 32, {}),
    ("hardcorenas_a", 32, {}),
    ("resnet26d", 32, {"zero_init_last": False}),
    ("vit_tiny_patch16_224", 32, {"img_size": 32, "depth": 2}),
    ("mobilevitv2_050", 64, {}),
)


def _named(name: str, settings: dict[str, Any]) -> str:
    zero = name.startswith("resnet18") and not settings
    return f"timm_{name}" + ("_gamma_zero" if zero else "")


TIMM_FX = tuple(
    Case(_named(name, settings), lambda n=name, s=size, kw=settings: load_timm(n, s, **kw))
    for name, size, settings in _FAMILIES
)


def load_transformer(kind: str) -> tuple[nn.Module, dict[str, Tensor]]:
    """A transformers model of two small layers with random weights, and token ids or pixels."""
    declare_torchvision_operators()
    transformers = pytest.importorskip("transformers", exc_type=ImportError)
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {"vocab_size": 50, "intermediate_size": 32, "max_position_embeddings": 32}
    ids = {"input_ids": torch.randint(0, 50, (2, 7))}
    if kind == "bert":
        config = transformers.BertConfig(**size, **text)
        return transformers.BertForSequenceClassification(config), ids
    if kind == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=50,
            n_positions=32,
            n_embd=16,
            n_layer=1,
            n_head=2,
            bos_token_id=0,
            eos_token_id=0,
        )
        return transformers.GPT2LMHeadModel(config), ids
    if kind == "vit":
        config = transformers.ViTConfig(**size, intermediate_size=32, image_size=16, patch_size=8)
        return transformers.ViTForImageClassification(config), {
            "pixel_values": torch.randn(2, 3, 16, 16)
        }
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"
    )
    return transformers.ResNetForImageClassification(config), {
        "pixel_values": torch.randn(4, 3, 16, 16)
    }


class FeedForward(nn.Module):
    """BERT's own feed-forward block with its residual and layer norm."""

    def __init__(self) -> None:
        super().__init__()
        declare_torchvision_operators()
        transformers = pytest.importorskip("transformers", exc_type=ImportError)
        from transformers.models.bert.modeling_bert import BertIntermediate, BertOutput

        config = transformers.BertConfig(hidden_size=16, intermediate_size=32)
        self.up, self.down = BertIntermediate(config), BertOutput(config)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.down(self.up(x), x).mean(1))


def resnet_layers() -> nn.Module:
    """transformers' ResNet without the checks around it that torch.fx cannot trace."""
    declare_torchvision_operators()
    pytest.importorskip("transformers", exc_type=ImportError)
    from transformers.models.resnet.modeling_resnet import ResNetBasicLayer

    blocks = (ResNetBasicLayer(3, 8, stride=2), ResNetBasicLayer(8, 8))
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))


def gpt2_block() -> nn.Module:
    """GPT2's block of Conv1D layers, which compute with the size of their input."""
    declare_torchvision_operators()
    transformers = pytest.importorskip("transformers", exc_type=ImportError)
    from transformers.models.gpt2.modeling_gpt2 import GPT2MLP

    return GPT2MLP(32, transformers.GPT2Config(n_embd=16, bos_token_id=0, eos_token_id=0))


WHOLE_TRANSFORMERS = tuple(
    Case(f"transformers_{kind}", lambda k=kind: load_transformer(k))
    for kind in ("bert", "gpt2", "vit", "resnet")
)
TRANSFORMERS = (
    *WHOLE_TRANSFORMERS,
    Case("transformers_bert_feed_forward", lambda: (FeedForward(), torch.randn(4, 5, 16))),
    Case("transformers_resnet_layers", lambda: (resnet_layers(), rgb(16))),
    Case("transformers_gpt2_block", lambda: (gpt2_block(), torch.randn(4, 5, 16))),
)
ALL_FX = (*SMALL, *WRITTEN, *TIMM_FX, *TRANSFORMERS)
