"""One output of an int8 layer by hand, step by step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from qatexplorer.accuracy import int8_arithmetic as arithmetic
from qatexplorer.accuracy.int8_arithmetic import TIE, Channels, grid, window
from qatexplorer.accuracy.int8_operands import Operands, index_of
from qatexplorer.accuracy.int8_record import Step, Worked
from qatexplorer.quantizers.integers import centred


def worked(
    operands: Operands, channels: Channels | None, sample: int, place: tuple[int, ...]
) -> Worked:
    """The output at ``place`` (channel, then position) of ``sample``."""
    index = index_of(operands, sample, place)
    kernel = int(operands.result.int_repr()[index])
    if operands.arithmetic == "products":
        assert channels is not None
        return _products(operands, channels, sample, place, kernel)
    by_element: dict[str, Callable[[Operands, tuple[int, ...]], _Found]] = {
        "add": _add,
        "mul": _mul,
        "cat": _cat,
        "quantize": _quantize,
        "batch norm": _batch_norm,
    }
    found = by_element[operands.arithmetic](operands, index)
    ending, code = _rounded(operands, found.value)
    steps = (*found.steps, *ending)
    return Worked(
        sample,
        place,
        found.codes,
        (),
        0,
        steps,
        code,
        None,
        kernel,
        found.given,
        found.number,
        _is_tie(found.value),
    )


def _is_tie(value: float) -> bool:
    return abs(value - math.floor(value) - 0.5) < TIE


@dataclass(frozen=True)
class _Found:
    """Codes of the inputs, the steps up to ``value`` in steps of the output; see ``Worked``."""

    codes: tuple[int, ...]
    steps: tuple[Step, ...]
    value: float
    given: float | None = None
    number: int = 0


def _products(
    operands: Operands,
    channels: Channels,
    sample: int,
    place: tuple[int, ...],
    kernel: int,
) -> Worked:
    channel = place[0]
    found = window(operands, sample, channel, place[1:], channels)
    zero = grid(operands.inputs[0])[1]
    pairs = zip(found.input_codes, found.weight_codes, strict=True)
    total = sum((x - zero) * (w - found.weight_zero) for x, w in pairs)
    multiplier = float(channels.multipliers[channel])
    minus = f" − {found.weight_zero}" if found.weight_zero else ""
    sum_of = f"Σ (x − {zero}) · (w{minus})" if minus else f"Σ (x − {zero}) · w"
    steps = [Step("Sum of the products", sum_of, float(total))]
    exact = None
    if channels.bias is not None and channels.bias_codes is not None:
        whole = int(channels.bias_codes[channel])
        unrounded = float(channels.bias[channel] / channels.scales[channel])
        exact = _rounded(operands, (total + unrounded) * multiplier)[1]
        steps.append(Step("Plus the bias as int32", f"{total} {_signed(whole)}", total + whole))
        total += whole
    value = total * multiplier
    steps.append(Step("Times the multiplier", f"{total} · {multiplier:.9g}", value))
    ending, code = _rounded(operands, value)
    return Worked(
        sample,
        place,
        found.input_codes,
        found.weight_codes,
        found.padded,
        (*steps, *ending),
        code,
        exact,
        kernel,
        tie=_is_tie(value),
    )


def _signed(number: float) -> str:
    shown = f"{abs(number):.9g}" if isinstance(number, float) else str(abs(number))
    return f"− {shown}" if number < 0 else f"+ {shown}"


def _rounded(operands: Operands, value: float) -> tuple[tuple[Step, ...], int]:
    """The last steps, the same for all: round, add the zero point, clamp."""
    zero = grid(operands.result)[1]
    low, high = operands.clamp
    whole = round(value)  # Python rounds half to even, as the kernels do
    code = min(max(whole + zero, low), high)
    clamp = f"min(max({whole + zero}, {low}), {high})"
    why = "ReLU: not below the zero point" if operands.relu else "codes of the dtype"
    return (
        Step("Rounded, half to even", f"round({value:.9g})", whole),
        Step("Plus the output's zero point", f"{whole} + {zero}", whole + zero),
        Step(f"Clamped to {low} … {high} ({why})", clamp, code),
    ), code


def _code(operands: Operands, number: int, index: tuple[int, ...]) -> int:
    tensor = operands.inputs[number]
    return int(torch.broadcast_to(tensor.int_repr(), operands.result.shape)[index])


def _add(operands: Operands, index: tuple[int, ...]) -> _Found:
    step = grid(operands.result)[0]
    codes, steps, total = [], [], 0.0
    for number, (tensor, name) in enumerate(zip(operands.inputs, "ab", strict=True)):
        scale, zero = grid(tensor)
        code = _code(operands, number, index)
        factor = scale / step
        part = (code - zero) * factor
        text = f"({code} − {zero}) · {factor:.9g}"
        steps.append(Step(f"Input {name} in output steps", text, part))
        codes.append(code)
        total += part
    written = f"{steps[0].value:.9g} {_signed(steps[1].value)}"
    steps.append(Step("Sum", written, total))
    return _Found(tuple(codes), tuple(steps), total)


def _mul(operands: Operands, index: tuple[int, ...]) -> _Found:
    (a, b), step = operands.inputs, grid(operands.result)[0]
    codes = _code(operands, 0, index), _code(operands, 1, index)
    product = (codes[0] - grid(a)[1]) * (codes[1] - grid(b)[1])
    factor = grid(a)[0] * grid(b)[0] / step
    text = f"({codes[0]} − {grid(a)[1]}) · ({codes[1]} − {grid(b)[1]})"
    steps = (
        Step("Product", text, product),
        Step("Times the multiplier", f"{product} · {factor:.9g}", product * factor),
    )
    return _Found(codes, steps, product * factor)


def _cat(operands: Operands, index: tuple[int, ...]) -> _Found:
    at = index[operands.dim]
    number = 0
    while at >= operands.inputs[number].shape[operands.dim]:
        at -= int(operands.inputs[number].shape[operands.dim])
        number += 1
    tensor = operands.inputs[number]
    inside = (*index[: operands.dim], at, *index[operands.dim + 1 :])
    code = int(tensor.int_repr()[inside])
    scale, zero = grid(tensor)
    factor = scale / grid(operands.result)[0]
    value = (code - zero) * factor
    step = Step(f"Input {number} in output steps", f"({code} − {zero}) · {factor:.9g}", value)
    return _Found((code,), (step,), value, number=number)


def _quantize(operands: Operands, index: tuple[int, ...]) -> _Found:
    value, scale = float(operands.inputs[0][index]), grid(operands.result)[0]
    step = Step("Divided by the scale", f"{value:.9g} / {scale:.9g}", value / scale)
    return _Found((), (step,), value / scale, value)


def _batch_norm(operands: Operands, index: tuple[int, ...]) -> _Found:
    factors, offsets = arithmetic.norm_of(operands)
    factor, offset = float(factors[index[1]]), float(offsets[index[1]])
    zero = grid(operands.inputs[0])[1]
    code = int(centred(operands.inputs[0])[index]) + zero
    scaled = (code - zero) * factor
    steps = (
        Step("Times the multiplier", f"({code} − {zero}) · {factor:.9g}", scaled),
        Step("Plus the offset", f"{scaled:.9g} {_signed(offset)}", scaled + offset),
    )
    return _Found((code,), steps, scaled + offset)
