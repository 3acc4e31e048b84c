"""What to write in place of an operation that does not run on int8 tensors."""

from __future__ import annotations

from qatexplorer.checks.evidence.int8_flow import Refused

_FUNCTIONAL = "torch.ao.nn.quantized.FloatFunctional()"
_ARITHMETIC = {
    "add": "{ff}.add(a, b)",
    "iadd": "{ff}.add(a, b)",
    "radd": "{ff}.add(a, b)",
    "mul": "{ff}.mul(a, b)",
    "imul": "{ff}.mul(a, b)",
    "rmul": "{ff}.mul(a, b)",
    "multiply": "{ff}.mul(a, b)",
    "sub": "{ff}.add(a, {minus}.mul_scalar(b, -1.0))",
    "isub": "{ff}.add(a, {minus}.mul_scalar(b, -1.0))",
    "subtract": "{ff}.add(a, {minus}.mul_scalar(b, -1.0))",
    "matmul": "{ff}.matmul(a, b)",
    "rmatmul": "{ff}.matmul(a, b)",
    "bmm": "{ff}.matmul(a, b)",
}
_WITH_NUMBER = {
    "add": "{ff}.add_scalar(x, c)",
    "iadd": "{ff}.add_scalar(x, c)",
    "radd": "{ff}.add_scalar(x, c)",
    "mul": "{ff}.mul_scalar(x, c)",
    "imul": "{ff}.mul_scalar(x, c)",
    "rmul": "{ff}.mul_scalar(x, c)",
    "multiply": "{ff}.mul_scalar(x, c)",
    "sub": "{ff}.add_scalar(x, -c)",
    "isub": "{ff}.add_scalar(x, -c)",
    "subtract": "{ff}.add_scalar(x, -c)",
    "rsub": "{ff}.add_scalar({minus}.mul_scalar(x, -1.0), c)",
    "div": "{ff}.mul_scalar(x, 1 / c)",
    "idiv": "{ff}.mul_scalar(x, 1 / c)",
    "truediv": "{ff}.mul_scalar(x, 1 / c)",
    "itruediv": "{ff}.mul_scalar(x, 1 / c)",
    "divide": "{ff}.mul_scalar(x, 1 / c)",
}
_NUMBERLESS = {"neg": "{ff}.mul_scalar(x, -1.0)", "negative": "{ff}.mul_scalar(x, -1.0)"}
_MODULES = {
    "linear": "nn.Linear",
    "conv1d": "nn.Conv1d",
    "conv2d": "nn.Conv2d",
    "conv3d": "nn.Conv3d",
    "layer_norm": "nn.LayerNorm",
    "group_norm": "nn.GroupNorm",
    "instance_norm": "nn.InstanceNorm2d(…, affine=True)",
    "batch_norm": "nn.BatchNorm2d",
    "hardswish": "nn.Hardswish",
    "elu": "nn.ELU",
}
"""Functions whose modules torch converts to int8."""


def replacement(refused: Refused) -> str:
    """What to write for this place, as code where one line can say it."""
    name, others = refused.name, refused.others
    at = f" at {refused.source}" if refused.source else ""
    if name == "quantize_per_tensor":
        return f"Take one of the two QuantStubs away, or put a DeQuantStub before {refused.path}."
    if "float" in others and name in _ARITHMETIC:
        written = _filled(_ARITHMETIC[name])
        return f"Quantize the other tensor with a QuantStub of its own, and {_made(written, at)}"
    written = ""
    if "number" in others and "int8" not in others:
        written = _WITH_NUMBER.get(name, "")
    elif "int8" in others or not others:
        written = _NUMBERLESS.get(name, "") or (_ARITHMETIC.get(name, "") if others else "")
    if not refused.in_torch and written:
        made = _made(_filled(written), at)
        return made[0].upper() + made[1:]
    if name == "view":
        return f"Write reshape in place of view{at}: int8 convolutions give channels-last tensors."
    if not refused.in_torch and name in _MODULES:
        return (
            f"Make an {_MODULES[name]} in __init__ and call it in place of {name}{at}: it has an "
            "int8 version."
        )
    what = f"nn.{refused.in_torch}" if refused.in_torch else name
    return (
        f"Keep {what} float: a DeQuantStub before it and a QuantStub after it{at}. Or wrap each "
        "layer, session.configure(stubs='layers'), or use flow='fx', which leave it float."
    )


def _filled(code: str) -> str:
    return code.format(ff="self.ff", minus="self.minus")


def _made(code: str, at: str) -> str:
    names = [name for name in ("ff", "minus") if f"self.{name}." in code]
    made = " and ".join(f"self.{name} = {_FUNCTIONAL}" for name in names)
    return f"make {made} in __init__, and write {code}{at}, with one such module for each place."
