"""The numbers of an int8 layer as plain text, and sentences about them that the page shows too."""

from __future__ import annotations

from qatexplorer.accuracy.int8_record import Agreement, InputNumbers, Int8Numbers, Worked
from qatexplorer.shown import columns, listed

FIXED_POINT = (
    "The multiplier in fixed point, as integer hardware writes it, is mantissa · 2^−(31 + shift). "
    "It is worked out here, not read from a kernel."
)
"""What mantissa and shift are."""

_CODES = 256


def owner_text(given: InputNumbers) -> str:
    """Who has given an input its scale, in words; ``""`` where that is not known."""
    if not given.owner:
        return ""
    text = f"{given.owner} ({given.owner_type})"
    if given.fake_quant:
        text += f", from fake quant {given.fake_quant}"
    if given.through:
        text += f"; then through {listed(given.through, 3)}"
    return text


def bias_text(layer: Int8Numbers) -> str:
    """What is to be known of the rounding of the bias; ``""`` without one."""
    bias = layer.bias
    if bias is None:
        return ""
    return (
        "The bias has no fake quant: training sees no rounding of it. Rounded to int32, to a "
        "multiple of s_x · s_w, it moves by at most half of that: here by at most "
        f"{bias.rounding:.3g}, which is {bias.rounding_steps:.3g} steps of the output."
    )


def weight_text(layer: Int8Numbers) -> str:
    """Dtype, shape and grids of the weight; ``""`` without one."""
    weight = layer.weight
    if weight is None:
        return ""
    shape = " × ".join(map(str, weight.codes.shape))
    each = "a scale a channel" if weight.per_channel else "one scale for all"
    zeros = sorted(set(weight.zero_points))
    text = f"int8, {shape}, {each}"
    return f"{text}, zero point {zeros[0]}" if len(zeros) == 1 else text


def agreement_text(layer: Int8Numbers) -> tuple[str, ...]:
    """How the arithmetic compares with the kernel, in sentences."""
    nearest = layer.nearest
    lines = [_one(found, found is nearest) for found in layer.agreement]
    if nearest is None:
        return ()
    others = [one for one in layer.agreement if one is not nearest]
    if others and nearest.largest <= 1 and nearest.equal > others[0].equal:
        how = {
            "float": "added the bias as float and rounded only the result",
            "int32": "rounded the bias to int32 first",
        }[nearest.bias]
        lines.append(f"Here the kernel of engine {layer.engine} does as if it {how}.")
    if nearest.largest > 1:
        lines.append(
            f"The kernel of engine {layer.engine} gives something else than this arithmetic: up to "
            f"{nearest.largest} codes apart. Rounding alone makes 1."
        )
        if layer.saturates:
            lines.append(
                f"The probe of the engines has found that {layer.engine} cuts off sums on this CPU."
            )
    if nearest.outputs < layer.total:
        lines.append(f"Compared are the first {nearest.outputs:,} of {layer.total:,} outputs.")
    return tuple(lines)


def _one(found: Agreement, nearest: bool) -> str:
    how = {
        "int32": "With the bias as int32",
        "float": "With the bias left in float",
        "": "By hand",
    }[found.bias]
    text = f"{how} {found.equal:,} of {found.outputs:,} codes equal the kernel's"
    apart = found.outputs - found.equal
    if not apart:
        return f"{text}."
    text += f", the largest difference is {found.largest}"
    if found.ties and nearest:
        text += (
            f"; {found.ties:,} of the {apart:,} that differ lie half way between two codes (to "
            "0.0001 steps), where float32 decides"
        )
    return f"{text}."


def clamp_text(layer: Int8Numbers) -> str:
    """Between which codes the kernel clamps, and whether training did the same."""
    out = layer.output
    if out.scale is None:
        return ""
    text = f"{out.low} to {out.high}"
    if out.relu:
        text += ", from the zero point as a ReLU is fused in"
    if out.trained_high is not None and out.dtype == "quint8" and out.trained_high < out.high:
        text += f"; the fake quant clamps to {out.trained_low} to {out.trained_high} (reduce_range)"
    return text


def place_text(worked: Worked) -> str:
    """Which output it is: ``"sample 0, channel 3, at 4, 4"``."""
    first = f"sample {worked.sample}"
    if worked.output:
        first += f", channel {worked.output[0]}"
    rest = ", ".join(str(one) for one in worked.output[1:])
    return f"{first}, at {rest}" if rest else first


def number(value: float) -> str:
    """A value of a step: whole ones as such."""
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else f"{value:.9g}"


def kernel_text(worked: Worked) -> str:
    """Whether the kernel gave the same."""
    if worked.code == worked.kernel_code:
        return f"The kernel gave {worked.kernel_code} too."
    text = f"The kernel gave {worked.kernel_code}."
    if worked.code_float_bias == worked.kernel_code:
        text += " So does this arithmetic when the bias is not rounded to int32 first."
    elif worked.tie:
        text += (
            " The value lies half way between two codes (to 0.0001 steps), where float32 decides."
        )
    return text


def layer_text(layer: Int8Numbers) -> str:
    """All of it, in lines."""
    call = f", call {layer.call} of {layer.calls}" if layer.calls > 1 else ""
    lines = [f"{layer.path}: {layer.kind} in int8 ({layer.operation}, engine {layer.engine}{call})"]
    if layer.sentence:
        lines.append(layer.sentence)
    for count, given in enumerate(layer.inputs):
        name = "input" if len(layer.inputs) == 1 else f"input {count}"
        lines.append(_grid_line(name, given.scale, given.zero_point, given.dtype))
        if owner_text(given):
            lines.append(f"  given by {owner_text(given)}")
    out = layer.output
    lines.append(_grid_line("output", out.scale, out.zero_point, out.dtype))
    if clamp_text(layer):
        lines.append(f"  clamped to {clamp_text(layer)}")
    lines += [f"{name}: {', '.join(map(str, values))}" for name, values in layer.geometry]
    if weight_text(layer):
        lines.append(f"weight: {weight_text(layer)}")
    lines += list(agreement_text(layer))
    if layer.worked is not None:
        lines += ["", *_worked_lines(layer, layer.worked)]
    if bias_text(layer):
        lines += ["", bias_text(layer)]
    rows = channel_rows(layer)
    if rows:
        lines += ["", FIXED_POINT, *columns(rows, right=range(len(rows[0])))]
    return "\n".join(lines)


def _grid_line(name: str, scale: float | None, zero: int | None, dtype: str) -> str:
    if scale is None:
        return f"{name}: {dtype}, in float" if "float" in dtype else f"{name}: {dtype}"
    return f"{name}: {dtype}, scale {scale:.9g}, zero point {zero}"


def _worked_lines(layer: Int8Numbers, worked: Worked) -> list[str]:
    lines = [f"By hand: {place_text(worked)}"]
    if worked.weight_codes:
        pad = f", {worked.padded} of them padding" if worked.padded else ""
        lines.append(f"  {len(worked.input_codes)} input codes{pad}: {_codes(worked.input_codes)}")
        lines.append(f"  weight codes: {_codes(worked.weight_codes)}")
    lines += [f"  {step.name}: {step.formula} = {number(step.value)}" for step in worked.steps]
    return [*lines, f"  {kernel_text(worked)}"]


def _codes(codes: tuple[int, ...]) -> str:
    more = f" … and {len(codes) - _CODES:,} more" if len(codes) > _CODES else ""
    return " ".join(map(str, codes[:_CODES])) + more


def channel_rows(layer: Int8Numbers) -> list[tuple[str, ...]]:
    """A row a channel (or an input) with all that it has of its own, under a row of names; empty
    for a layer that has nothing of that kind."""
    if not layer.multipliers:
        return []
    by_channel = layer.arithmetic in ("products", "batch norm")
    head = ["channel" if by_channel else "input"]
    if layer.arithmetic == "mul":
        head = ["inputs"]
    bias, weight = layer.bias, layer.weight
    own_zeros = weight is not None and len(set(weight.zero_points)) > 1
    head += ["weight scale"] if weight is not None else []
    head += ["weight zero point"] if own_zeros else []
    head += ["bias", "bias scale", "bias as int32"] if bias is not None else []
    head += ["multiplier", "mantissa", "shift"]
    head += ["offset"] if layer.offsets else []
    rows = [tuple(head)]
    for at, multiplier in enumerate(layer.multipliers):
        row = [str(at) if layer.arithmetic != "mul" else "both"]
        if weight is not None:
            row.append(f"{weight.scales[at]:.6g}")
            row += [str(weight.zero_points[at])] if own_zeros else []
        if bias is not None:
            row += [f"{bias.values[at]:.6g}", f"{bias.scales[at]:.6g}", str(bias.codes[at])]
        row += [f"{multiplier.value:.9g}", str(multiplier.mantissa), str(multiplier.shift)]
        if layer.offsets:
            row.append(f"{layer.offsets[at]:.6g}")
        rows.append(tuple(row))
    return rows
