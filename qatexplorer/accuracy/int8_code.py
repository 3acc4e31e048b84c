"""A NumPy script that repeats one output of an int8 layer."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from qatexplorer.accuracy.int8_record import Int8Numbers, Worked

_WIDTH = 96


def numpy_code(layer: Int8Numbers) -> str:
    """Needs NumPy only and leaves the code in ``code``; ``""`` where there is nothing by hand."""
    worked = layer.worked
    if worked is None:
        return ""
    place = ", ".join(map(str, worked.output))
    lines = [
        f"# Output ({place}) of sample {worked.sample} of {layer.path}, by hand.",
        f"# torch: {layer.operation}, engine {layer.engine}.",
        "import numpy as np",
        "",
    ]
    body = _products(layer, worked) if layer.arithmetic == "products" else _other(layer, worked)
    out = layer.output
    lines += body
    lines += [
        f"output_zero_point, low, high = {out.zero_point}, {out.low}, {out.high}",
        "# np.rint rounds half to even.",
        "code = int(np.clip(np.rint(steps) + output_zero_point, low, high))",
        f"print(code)  # the kernel gave {worked.kernel_code}",
        "",
    ]
    return "\n".join(lines)


def _products(layer: Int8Numbers, worked: Worked) -> list[str]:
    weight, given, channel = layer.weight, layer.inputs[0], worked.output[0]
    assert weight is not None
    lines = [
        *_array("input_codes", worked.input_codes),
        *_array("weight_codes", worked.weight_codes),
        f"input_scale, input_zero_point = {given.scale!r}, {given.zero_point}",
        f"weight_scale = {weight.scales[channel]!r}",
        f"weight_zero_point = {weight.zero_points[channel]}",
        f"output_scale = {layer.output.scale!r}",
        "product_scale = input_scale * weight_scale",
        "products = (input_codes - input_zero_point) * (weight_codes - weight_zero_point)",
        "accumulator = int(products.sum())",
    ]
    if layer.bias is not None:
        lines.append(f"bias = {layer.bias.values[channel]!r}")
        nearest = layer.nearest
        if nearest is not None and nearest.bias == "float":
            lines += [
                "# As measured on this layer, the kernel does as if it did not round the bias;",
                "# integer hardware would add bias_int32.",
                "bias_int32 = int(np.rint(bias / product_scale))",
                "accumulator = accumulator + bias / product_scale",
            ]
        else:
            lines += [
                "bias_int32 = int(np.rint(bias / product_scale))",
                "accumulator = accumulator + bias_int32",
            ]
    return [
        *lines,
        "multiplier = product_scale / output_scale",
        "steps = accumulator * multiplier",
    ]


def _other(layer: Int8Numbers, worked: Worked) -> list[str]:
    codes, inputs, step = worked.input_codes, layer.inputs, layer.output.scale
    head = [f"output_scale = {step!r}"]
    if layer.arithmetic == "quantize":
        return [*head, f"value = {worked.given!r}", "steps = value / output_scale"]
    if layer.arithmetic == "batch norm":
        channel = worked.output[0]
        return [
            f"multiplier = {layer.multipliers[channel].value!r}",
            f"offset = {layer.offsets[channel]!r}",
            f"steps = ({codes[0]} - {inputs[0].zero_point}) * multiplier + offset",
        ]
    if layer.arithmetic == "cat":
        given = inputs[worked.number]
        return [
            *head,
            f"steps = ({codes[0]} - {given.zero_point}) * {given.scale!r} / output_scale",
        ]
    a, b = inputs
    if layer.arithmetic == "add":
        return [
            *head,
            f"a = ({codes[0]} - {a.zero_point}) * {a.scale!r}",
            f"b = ({codes[1]} - {b.zero_point}) * {b.scale!r}",
            "steps = (a + b) / output_scale",
        ]
    return [
        *head,
        f"product = ({codes[0]} - {a.zero_point}) * ({codes[1]} - {b.zero_point})",
        f"steps = product * {a.scale!r} * {b.scale!r} / output_scale",
    ]


def _array(name: str, values: Sequence[int]) -> list[str]:
    text = ", ".join(map(str, values))
    rows = textwrap.wrap(text, _WIDTH - 4)
    return [f"{name} = np.array([", *(f"    {row}" for row in rows), "], dtype=np.int64)"]
