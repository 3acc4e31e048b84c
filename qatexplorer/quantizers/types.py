"""Names for what is true of fake quants and of the modules around them, and torch's own types."""

from __future__ import annotations

import re
from typing import Literal

import torch.ao.nn.quantized as nnq
from torch import Tensor, nn
from torch.ao.nn.intrinsic.modules.fused import _FusedModule
from torch.ao.nn.quantized import FloatFunctional, FXFloatFunctional, QFunctional
from torch.ao.quantization import DeQuantStub, QuantStub, QuantWrapper

SiteKind = Literal["weight", "input", "output"]
"""What a fake quant quantizes: a parameter; the input of the model, of an island, or (torchao) of
its owner; a module's output."""

Mechanism = Literal["forward", "hook", "node", "unused"]
"""How a fake quant runs: called in its owner's ``forward``, by a forward hook on its owner, as a
node of an FX graph, or not at all."""

Seen = Literal["nothing", "partly", "all", "fixed", "derived", "dynamic"]
"""What the observer of a fake quant has seen: no data, data in some of its channels only, data in
every channel; or there is nothing to see, because the operation fixes the range, because the scale
is computed of those of other fake quants, or because each tensor that comes gets a range of its
own."""

Compute = Literal[
    "int8", "reference", "stored", "boundary", "stub", "functional", "container", "layer"
]
"""What a module does in the model as it is now: run an int8 kernel; describe one (weights on the
grid, arithmetic in float); hold one of torchao's tensors as its weight, which stores integers with
their scales; turn float into int8 or back; mark a place; hold an operation whose
result has a fake quant; hold other modules and nothing else; or compute in what it is given."""

State = Literal["", "float", "int8", "mixed"]
"""In what a module computes in the int8 model that its stage leads to: ``""`` before there are
fake quants, and for what computes nothing. Of a container it is that of what is inside. A layer
whose weight torchao stores as integers counts as ``"int8"``, however it multiplies."""

QUANTIZED_DTYPES = frozenset({"torch.quint8", "torch.qint8", "torch.qint32"})
FUNCTIONAL_CLASSES = (FloatFunctional, FXFloatFunctional, QFunctional)
STUBS = (QuantStub, DeQuantStub)
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict, QuantWrapper)

_INT8 = ("torch.ao.nn.quantized.", "torch.ao.nn.intrinsic.quantized.")
_REFERENCE = "torch.ao.nn.quantized.reference."
_BOUNDARIES = (nnq.Quantize, nnq.DeQuantize)


def compute_of(module: nn.Module) -> Compute:
    """What ``module`` does, from its class."""
    if isinstance(module, _BOUNDARIES):
        return "boundary"
    if isinstance(module, (FloatFunctional, FXFloatFunctional)):
        return "functional"
    if isinstance(module, STUBS):
        return "stub"
    if holds_torchao_tensor(module):
        return "stored"
    # Torch's int8 modules have no base class of their own: the place of the class tells. One that
    # a user has derived from them computes as they do.
    for kind in type(module).__mro__:
        name = f"{kind.__module__}."
        if name.startswith(_REFERENCE):
            return "reference"
        if name.startswith(_INT8):
            return "int8"
        if kind.__module__.startswith("torch."):
            break
    return "container" if is_container(module) else "layer"


def holds_torchao_tensor(module: nn.Module) -> bool:
    """Whether its weight is one of torchao's tensors: integers (or float8) with their scales."""
    weight = own_weight(module)
    return weight is not None and is_torchao_tensor(weight)


def own_weight(module: nn.Module) -> Tensor | None:
    """The parameter called "weight" that it holds itself, also of a scripted part, whose table of
    parameters is no dict."""
    return next((p for name, p in module._parameters.items() if name == "weight"), None)


def is_torchao_tensor(tensor: Tensor) -> bool:
    """Whether it is a tensor of a class of torchao's."""
    return type(tensor) not in (Tensor, nn.Parameter) and any(
        kind.__module__.startswith("torchao.") for kind in type(tensor).__mro__
    )


def is_int8_module(module: nn.Module) -> bool:
    """Whether it is one of torch's modules that compute in int8."""
    return compute_of(module) == "int8"


def is_container(module: nn.Module) -> bool:
    """Whether it only holds other modules: it has no forward of its own, or torch's that hands on
    to its children. FX keeps the modules that it has traced through as such empty modules."""
    if isinstance(module, CONTAINERS) and not isinstance(module, _FusedModule):
        return True
    return getattr(type(module), "forward", None) is nn.Module.forward


_MOVING = frozenset(
    [
        "flatten",
        "unflatten",
        "view",
        "reshape",
        "view_as",
        "reshape_as",
        "permute",
        "transpose",
        "t",
        "movedim",
        "swapaxes",
        "swapdims",
        "moveaxis",
        "squeeze",
        "unsqueeze",
        "getitem",
        "select",
        "narrow",
        "index_select",
        "chunk",
        "split",
        "unbind",
        "tensor_split",
        "contiguous",
        "detach",
        "clone",
        "expand",
        "expand_as",
        "repeat",
        "repeat_interleave",
        "tile",
        "flip",
        "roll",
        "pixel_shuffle",
        "pixel_unshuffle",
        "channel_shuffle",
        "gather",
        "take",
        "identity",
        "alias",
        "to",
        "float",
        "type_as",
    ]
)
DROPPING = frozenset(["dropout", "dropout1d", "dropout2d", "dropout3d", "feature_dropout"])
_SELECTING = frozenset(
    [
        "max_pool1d",
        "max_pool2d",
        "max_pool3d",
        "max_pool1d_with_indices",
        "max_pool2d_with_indices",
        "max_pool3d_with_indices",
        "adaptive_max_pool1d",
        "adaptive_max_pool2d",
        "adaptive_max_pool3d",
        "amax",
    ]
)
BOUNDING = frozenset(["relu", "relu6", "hardtanh", "clamp", "clip", "clamp_min", "clamp_max"])

KEEPING = _MOVING | DROPPING | _SELECTING | BOUNDING
"""Operations whose results are values that they were given, or a constant bound."""

ON_INT8 = KEEPING | frozenset(
    [
        "cat",
        "stack",
        "gelu",
        "sigmoid",
        "tanh",
        "leaky_relu",
        "avg_pool1d",
        "avg_pool2d",
        "avg_pool3d",
        "adaptive_avg_pool1d",
        "adaptive_avg_pool2d",
        "adaptive_avg_pool3d",
        "mean",
        "interpolate",
        "pad",
        "topk",
        "max",
        "min",
        "sort",
    ]
)
"""Operations that run on an int8 tensor as they do on a float one (seen by running them)."""

_OPERATION_OF = {
    "Upsample": "interpolate",
    "UpsamplingNearest2d": "interpolate",
    "UpsamplingBilinear2d": "interpolate",
    "AlphaDropout": "alpha_dropout",
    "Unflatten": "unflatten",
}


def operation_of(module: nn.Module) -> str:
    """Name of the operation that one of torch's layers without parameters runs, e.g.
    ``"max_pool2d"`` for ``nn.MaxPool2d``; ``""`` for modules that are not torch's."""
    kind = next((k for k in type(module).__mro__ if k.__module__.startswith("torch.nn.")), None)
    if kind is None or kind is nn.Module:
        return ""
    name = kind.__name__
    if name in _OPERATION_OF:
        return _OPERATION_OF[name]
    if kind.__module__ == "torch.nn.modules.padding":
        return "pad"
    words = name.replace("ReLU", "Relu").replace("GELU", "Gelu")
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", words).lower()
