"""What the kernel of an int8 layer computes with, read off the call that torch made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from qatexplorer.accuracy.int8_record import Arithmetic
from qatexplorer.accuracy.int8_run import Call
from qatexplorer.quantizers.integers import Geometry, tensor_grid

_NAMES = {
    "linear": "Linear",
    "conv1d": "Conv1d",
    "conv2d": "Conv2d",
    "conv3d": "Conv3d",
    "conv_transpose1d": "ConvTranspose1d",
    "conv_transpose2d": "ConvTranspose2d",
    "conv_transpose3d": "ConvTranspose3d",
    "batch_norm2d": "BatchNorm2d",
    "batch_norm3d": "BatchNorm3d",
    "add": "Addition",
    "mul": "Multiplication",
    "cat": "Concatenation",
    "quantize_per_tensor": "Quantization",
}
_OF_ITS_OWN: dict[str, Arithmetic] = {
    "add": "add",
    "mul": "mul",
    "cat": "cat",
    "batch_norm2d": "batch norm",
    "batch_norm3d": "batch norm",
    "quantize_per_tensor": "quantize",
}
_PRODUCTS = frozenset(name for name in _NAMES if name.startswith(("linear", "conv")))
_FUSED_IN_FLOAT = frozenset(
    ["linear_leaky_relu", "linear_tanh", "conv2d_add", "conv2d_add_relu"],
)


@dataclass(frozen=True)
class Operands:
    """The parts of a call.

    Attributes:
        name: of the operation, without ``_relu``. kind: in words. arithmetic, sentence: see
            :class:`~qatexplorer.accuracy.int8_record.Int8Numbers`.
        relu: whether one is fused. inputs: tensors of values. result: of the call.
        weight: int8 tensor, or None. bias: float tensor, or None. geometry: of a convolution.
        norm: of a batch norm its weight, bias, mean and variance (float64) and epsilon.
        dim: of a concatenation.
    """

    name: str
    kind: str
    arithmetic: Arithmetic
    sentence: str
    relu: bool
    inputs: tuple[Tensor, ...]
    result: Tensor
    weight: Tensor | None = None
    bias: Tensor | None = None
    geometry: Geometry | None = None
    norm: tuple[Tensor, Tensor, Tensor, Tensor, float] | None = None
    dim: int = 0

    @property
    def channel_axis(self) -> int:
        """Of the output channels in :attr:`result`."""
        return self.result.dim() - 1 if self.name == "linear" else 1

    @property
    def clamp(self) -> tuple[int, int]:
        """The smallest and largest code of the result; 0, 0 for a float one."""
        low, high = codes_of(self.result)
        grid = tensor_grid(self.result)
        return (max(low, grid[1]) if self.relu and grid else low), high


def operands_of(call: Call) -> Operands:
    """The parts of ``call``."""
    full = call.operation
    name = full.rpartition(".")[2]
    relu = name.endswith("_relu") and name not in _FUSED_IN_FLOAT
    name = name.removesuffix("_relu") if relu else name
    inputs, result = tuple(call.inputs), _result(call)
    kind = _NAMES.get(name, name)
    kind = f"{kind} with ReLU" if relu else kind
    weight, bias, geometry = _packed(call, name)
    arithmetic = _arithmetic(name, inputs, result, weight)
    return Operands(
        name,
        kind,
        arithmetic,
        _sentence(name, full, result) if arithmetic == "none" else "",
        relu,
        inputs,
        result,
        weight,
        bias,
        geometry,
        _norm(call) if arithmetic == "batch norm" else None,
        _dim(call, result) if arithmetic == "cat" else 0,
    )


def _result(call: Call) -> Tensor:
    made = call.result
    while isinstance(made, (tuple, list)):
        made = made[0]
    assert isinstance(made, Tensor)
    return made


def _arithmetic(
    name: str, inputs: tuple[Tensor, ...], result: Tensor, weight: Tensor | None
) -> Arithmetic:
    if tensor_grid(result) is None or not inputs or not result.numel():
        return "none"
    if name in _PRODUCTS:
        known = weight is not None and tensor_grid(inputs[0]) is not None
        return "products" if known else "none"
    if name == "quantize_per_tensor":
        return "quantize"
    if any(tensor_grid(one) is None for one in inputs):
        return "none"
    if name in ("add", "mul") and len(inputs) != 2:  # with a number, it is another operation
        return "none"
    return _OF_ITS_OWN.get(name, "none")


def _sentence(name: str, full: str, result: Tensor) -> str:
    if "dynamic" in name:
        return (
            "A dynamic layer has no input scale and no output scale to show: it finds the scale of "
            "its input anew in each forward, and gives float."
        )
    if name.startswith("embedding"):
        return (
            "An embedding multiplies nothing: it looks up rows of codes and gives them as float, "
            "(code − zero point) × scale, with a scale a row."
        )
    if name == "dequantize":
        return "It gives float: each value is (code − zero point) × scale."
    if name in _PRODUCTS:
        return (
            "torch does not give back the codes of this layer's weight on this engine: its sums of "
            "products cannot be worked out. Its grids are shown."
        )
    if name in _FUSED_IN_FLOAT:
        return (
            f"{full} does more than a sum of products before it rounds to its output's grid; that "
            "is not repeated here. Its weight and its grids are shown."
        )
    if not result.is_quantized:
        return f"{full} gives float: there is no output grid to work towards."
    return (
        f"{full} is no sum or product of codes with a multiplier, which is what is worked out "
        "here. Its grids are shown."
    )


def _packed(call: Call, name: str) -> tuple[Tensor | None, Tensor | None, Geometry | None]:
    packed: Any = next((a for a in call.args if isinstance(a, torch.ScriptObject)), None)
    base = name.removesuffix("_dynamic")
    if packed is None or "fp16" in name:
        return None, None, None
    if base.startswith("linear"):
        weight, bias = torch.ops.quantized.linear_unpack(packed)
        return weight, bias, None
    if not base.startswith("conv"):
        return None, None, None
    kernel = base.partition("_add")[0]
    try:
        weight, bias = getattr(torch.ops.quantized, f"{kernel}_unpack")(packed)
    except RuntimeError:  # qnnpack packs a Conv3d and cannot unpack it
        return None, None, None
    dims = weight.dim() - 2  # one dimension is packed as two

    def last(values: Any) -> tuple[int, ...]:
        return tuple(int(value) for value in values)[-dims:]

    geometry = Geometry(
        last(packed.stride()),
        last(packed.padding()),
        last(packed.dilation()),
        int(packed.groups()),
        bool(packed.transpose()),
        last(packed.output_padding()),
    )
    return weight, bias, geometry


def _norm(call: Call) -> tuple[Tensor, Tensor, Tensor, Tensor, float]:
    _, weight, bias, mean, var, eps, *_ = call.args
    channels = mean.numel()
    weight = torch.ones(channels) if weight is None else weight
    bias = torch.zeros(channels) if bias is None else bias
    parts = [t.detach().double() for t in (weight, bias, mean, var)]
    return parts[0], parts[1], parts[2], parts[3], float(eps)


def _dim(call: Call, result: Tensor) -> int:
    given = call.args[1] if len(call.args) > 1 else call.kwargs.get("dim", 0)
    return int(given) % result.dim()


def codes_of(tensor: Tensor) -> tuple[int, int]:
    """Smallest and largest code of its dtype; 0, 0 for a float tensor."""
    if not tensor.is_quantized:
        return 0, 0
    limits = torch.iinfo(tensor.int_repr().dtype)
    return int(limits.min), int(limits.max)


def places_of(operands: Operands) -> tuple[int, ...]:
    """Sizes of an output of one sample: channels, then the other dimensions."""
    shape = tuple(int(n) for n in operands.result.shape)
    if operands.name == "linear" and len(shape) > 1:
        return (shape[-1], *shape[1:-1])
    return shape[1:] if len(shape) > 1 else shape


def index_of(operands: Operands, sample: int, place: tuple[int, ...]) -> tuple[int, ...]:
    """Where in the result the output at ``place`` (channel first) is."""
    if operands.result.dim() < 2:
        return place
    if operands.name == "linear":
        return (sample, *place[1:], place[0])
    return (sample, *place)
