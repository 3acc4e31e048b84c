"""Records of int8 layers with every case that a page can meet, made by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from qatexplorer.accuracy.int8_layer import Int8Layer
from qatexplorer.accuracy.int8_record import (
    Agreement,
    BiasNumbers,
    InputNumbers,
    Multiplier,
    OutputNumbers,
    Step,
    WeightNumbers,
    Worked,
)
from qatexplorer.views.inspector.int8_layer import Int8Section

STEPS = (
    Step("Sum of the products", "Σ (x − 3) · w", 41.0),
    Step("Times the multiplier", "41 · 0.25", 10.25),
    Step("Rounded, half to even", "round(10.25)", 10),
)
_INPUT = InputNumbers(
    0.5, 3, 0, 255, "quint8", (2, 2, 4), "first<b>", "Linear", "first.fake", "module", ("relu",)
)
_WORKED = Worked(1, (0, 2), (3, 7, 9), (-128, 127, 5), 1, STEPS, 10, 11, 11)

LINEAR = Int8Layer(
    "fc",
    0,
    2,
    "Conv1d with ReLU",
    "ConvReLU1d",
    "quantized.conv1d_relu",
    "x86",
    "products",
    (_INPUT,),
    OutputNumbers(1.0, 4, 4, 255, True, "quint8", (2, 1, 4), 0, 127),
    weight=WeightNumbers(np.zeros((2, 1, 3), dtype=np.int8), (0.5, 0.25), (0, 1), True),
    bias=BiasNumbers((1.0, -2.0), (4, -16), (0.25, 0.125), 0.01, 0.02),
    multipliers=(Multiplier(0.25, 2**30, 1), Multiplier(0.125, 2**30, 2)),
    geometry=(("stride", (1,)), ("groups", (1,))),
    worked=_WORKED,
    agreement=(Agreement("int32", 90, 80, 1, 3), Agreement("float", 90, 89, 1, 1)),
    total=100,
)
SUM = replace(
    LINEAR,
    kind="Addition",
    operation="quantized.add",
    arithmetic="add",
    inputs=(_INPUT, replace(_INPUT, owner="cat", owner_is="", fake_quant="", through=())),
    weight=None,
    bias=None,
    geometry=(),
    worked=replace(_WORKED, weight_codes=(), code_float_bias=None, tie=True),
    agreement=(Agreement("", 100, 40, 9),),
    saturates=True,
)
NONE = replace(
    LINEAR,
    kind="hardswish",
    operation="quantized.hardswish",
    arithmetic="none",
    sentence="It has none.",
    inputs=(replace(_INPUT, scale=None, zero_point=None, dtype="float32", owner=""),),
    output=OutputNumbers(None, None, 0, 0, False, "float32", (2, 4)),
    weight=None,
    bias=None,
    multipliers=(),
    geometry=(),
    worked=None,
    agreement=(),
)

CASES: dict[str, Int8Section] = {
    "a convolution": Int8Section(LINEAR, 2, (1, 4)),
    "the bias as int32 is nearer": Int8Section(
        replace(
            LINEAR,
            agreement=(Agreement("int32", 100, 100, 0), Agreement("float", 100, 90, 1)),
            worked=replace(_WORKED, code=11, padded=0),
        ),
        1,
        (1, 4),
    ),
    "an addition that is off": Int8Section(SUM, 2, (1, 4)),
    "nothing to work out": Int8Section(NONE),
    "being made": Int8Section(),
    "failed": Int8Section(error=ValueError("no <kernel>")),
}
