"""All numbers of one int8 layer, and one of its outputs worked out by hand, as a record."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Arithmetic = Literal["products", "batch norm", "add", "mul", "cat", "quantize", "none"]
"""How an int8 layer computes: sums of products of codes (convolution, linear), one product a
value (batch norm), element by element, from float to codes; ``"none"`` where it has no arithmetic
in integers that could be written down."""


@dataclass(frozen=True, slots=True)
class InputNumbers:
    """An input of an int8 layer.

    Attributes:
        scale, zero_point: of its grid; None for an input in float.
        low, high: smallest and largest code of its dtype.
        dtype: of the tensor. shape: with the batch.
        owner: path of the module of the int8 model (name of the node for an operation of an FX
            graph) that gave the tensor its scale and zero point, ``""`` where that is not known.
        owner_type: class of the module, or the operation.
        fake_quant: path, in the prepared model, of the fake quant they were trained with, ``""``
            where that is not known.
        owner_is: ``"module"`` or ``"node"`` (of an FX graph); ``""`` for a function that was called
            between modules, or where the owner is not known.
        through: what the tensor went through since, which changes no scale, the first first.
    """

    scale: float | None
    zero_point: int | None
    low: int
    high: int
    dtype: str
    shape: tuple[int, ...]
    owner: str = ""
    owner_type: str = ""
    fake_quant: str = ""
    owner_is: Literal["module", "node", ""] = ""
    through: tuple[str, ...] = ()


@dataclass(frozen=True)
class WeightNumbers:
    """The weight of an int8 layer.

    Attributes:
        codes: NumPy array of int8, in torch's shape of the weight, not to be written to.
        scales, zero_points: one an output channel, equal where there is one for the tensor.
        per_channel: whether each output channel has its own.
    """

    codes: Any = field(compare=False)
    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    per_channel: bool


@dataclass(frozen=True, slots=True)
class BiasNumbers:
    """The bias of an int8 layer. It has no fake quant: training does not see its rounding.

    Attributes:
        values: as the module keeps it, float, one an output channel.
        codes: rounded to int32, on the grid of the products. scales: of that grid,
            ``s_x * s_w`` a channel.
        rounding: largest difference that rounding makes, in the unit of the layer's output; at
            most half of the largest of ``scales``.
        rounding_steps: the largest in steps of the output's grid.
    """

    values: tuple[float, ...]
    codes: tuple[int, ...]
    scales: tuple[float, ...]
    rounding: float
    rounding_steps: float


@dataclass(frozen=True, slots=True)
class Multiplier:
    """What takes a sum of products to the output's grid: ``s_x * s_w / s_y``.

    Attributes:
        value: as a number. mantissa, shift: the same in fixed point as integer hardware writes
            it, ``mantissa * 2 ** -(31 + shift)``, mantissa from 2**30 to 2**31 (with the sign of
            ``value``); worked out here from ``value``, not read from a kernel.
    """

    value: float
    mantissa: int
    shift: int


@dataclass(frozen=True, slots=True)
class OutputNumbers:
    """The output of an int8 layer.

    Attributes:
        scale, zero_point: of its grid; None for an output in float.
        low, high: the smallest and largest code that the kernel can give: those of the dtype, and
            for a fused ReLU the zero point as smallest.
        relu: whether a ReLU is fused into the kernel. dtype, shape: of the tensor.
        trained_low, trained_high: codes that the fake quant clamps to (``reduce_range`` makes that
            0 to 127), None where the fake quant is not known.
    """

    scale: float | None
    zero_point: int | None
    low: int
    high: int
    relu: bool
    dtype: str
    shape: tuple[int, ...]
    trained_low: int | None = None
    trained_high: int | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the arithmetic: what it is called, how it is written, what it gives."""

    name: str
    formula: str
    value: float


@dataclass(frozen=True, slots=True)
class Worked:
    """One output by hand.

    Attributes:
        sample: which one of the batch. output: channel, then the position (of an operation element
            by element all places behind the batch in torch's order).
        input_codes: codes that the kernel multiplies, window by window in the order of the weight
            (input channel, then kernel positions); padding has the zero point. weight_codes: the
            same of the weight.
        padded: how many of them are padding.
        steps: from the codes to the code. code: what they give.
        code_float_bias: the same where the bias is added without rounding, None without a bias.
        kernel_code: what the kernel gave.
        given: the float value that a quantization takes, None elsewhere.
        number: of the input that a concatenation takes this output from.
        tie: whether the value lies half way between two codes (to 0.0001 steps).
    """

    sample: int
    output: tuple[int, ...]
    input_codes: tuple[int, ...]
    weight_codes: tuple[int, ...]
    padded: int
    steps: tuple[Step, ...]
    code: int
    code_float_bias: int | None
    kernel_code: int
    given: float | None = None
    number: int = 0
    tie: bool = False


@dataclass(frozen=True, slots=True)
class Agreement:
    """How often arithmetic by hand gives the kernel's code.

    Attributes:
        bias: how the bias is added: rounded to int32, or as the float that it is; ``""`` for an
            operation without one.
        outputs: compared. equal: of them. largest: difference in codes.
        ties: of those that differ, how many lie half way between two codes (to 0.0001 steps).
    """

    bias: Literal["int32", "float", ""]
    outputs: int
    equal: int
    largest: int
    ties: int = 0


@dataclass(frozen=True)
class Int8Numbers:
    """All numbers of an int8 layer, from one run of the int8 model on the example input.

    Attributes:
        path: of the module, or name of the node for an operation of an FX graph.
        call: how many calls of it came before in the forward. calls: in all.
        kind: in words, e.g. ``"Conv2d with ReLU"``. type: class of the module, ``""`` for a node.
        operation: that torch ran, e.g. ``"quantized.conv2d_relu"``. engine: that it ran on.
        arithmetic: see :data:`Arithmetic`. sentence: why there is none, for ``"none"``.
        inputs: all of them. output: of the layer.
        weight, bias: None where it has none.
        multipliers: one an output channel for ``"products"`` and ``"batch norm"``; one an input
            for ``"add"`` and ``"cat"``; one for ``"mul"``.
        offsets: of a batch norm, what is added a channel, in steps of the output.
        geometry: of a convolution: stride, padding, dilation, groups and the like.
        worked: one output by hand. agreement: over all outputs, one for each way to add the bias.
        total: number of outputs; where that is too many, fewer are compared.
        saturates: whether the probe of the engines has found that this one cuts off sums on this
            CPU (:func:`~qatexplorer.quantizers.engine_probe.probe_engine`).
    """

    path: str
    call: int
    calls: int
    kind: str
    type: str
    operation: str
    engine: str
    arithmetic: Arithmetic
    inputs: tuple[InputNumbers, ...]
    output: OutputNumbers
    sentence: str = ""
    weight: WeightNumbers | None = None
    bias: BiasNumbers | None = None
    multipliers: tuple[Multiplier, ...] = ()
    offsets: tuple[float, ...] = ()
    geometry: tuple[tuple[str, tuple[int, ...]], ...] = ()
    worked: Worked | None = None
    agreement: tuple[Agreement, ...] = ()
    total: int = 0
    saturates: bool = False

    @property
    def nearest(self) -> Agreement | None:
        """The way to add the bias that gives the kernel's code most often."""
        return max(self.agreement, key=lambda one: one.equal, default=None)
