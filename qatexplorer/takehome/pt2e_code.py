"""The parts of a script that prepare and convert a model in the PT2E flow."""

from __future__ import annotations

import importlib.util

from qatexplorer.flows.pt2e import left_in_float
from qatexplorer.flows.pt2e_quantizers import DEFAULT, QUANTIZERS, leave_out
from qatexplorer.forward.either_mode import in_either_mode
from qatexplorer.takehome import parts
from qatexplorer.takehome.pt2e_parts import exported_program, in_eval_mode, views_made_runnable
from qatexplorer.takehome.writer import Writer, call, indented

_CALLS = "torchao.quantization.pt2e.quantize_pt2e"


def pt2e_prepare(writer: Writer) -> list[str]:
    """From the float model to the prepared one, in torchao's calls."""
    modes, prepare = writer.use(in_either_mode), writer.code.need(_CALLS, "prepare_qat_pt2e")
    arguments = f"*{writer.use(parts.arguments)}(example_inputs)"
    program = f"{writer.use(exported_program)}(model, {arguments})"
    return [
        f"exported = {modes}({program}.module(), True)",
        *_quantizer(writer),
        f"return {modes}({prepare}(exported, quantizer), True)",
    ]


def _quantizer(writer: Writer) -> list[str]:
    chosen = writer.walk.options.quantizer
    name = DEFAULT if chosen is None else chosen
    if not isinstance(name, str):
        what = f"{type(name).__module__}.{type(name).__qualname__}"
        writer.arguments["quantizer"] = f"a new Quantizer like the session's, which is a {what}"
        lines = []
    else:
        named = QUANTIZERS[name]
        home, _, module = next(m for m in named.modules if _is_there(m)).rpartition(".")
        made = f"{writer.use(named.make)}({writer.code.need(home, module)})"
        lines = [f"quantizer = {made}"]
    left = left_in_float(writer.walk.options)
    return [*lines, *(f"{writer.use(leave_out)}(quantizer, {path!r})" for path in left)]


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False


def pt2e_convert(writer: Writer) -> list[str]:
    """The lines of ``to_reference``, ``lower`` and ``to_int8``."""
    need = writer.code.need
    convert = need(_CALLS, "convert_pt2e")
    lower = need("torchao.quantization.pt2e.lowering", "lower_pt2e_quantized_to_x86")
    modes = writer.use(in_either_mode)
    need("typing", "Any")
    writer.convert_needs = ("example_inputs",)
    reference = [
        '"""The program of a copy of a prepared model: float, with quantize and dequantize."""',
        'model = copy.deepcopy(model).to("cpu")',
        f"{writer.use(in_eval_mode)}(model)",
        f"return {modes}({convert}(model), False)",
    ]
    lowered = [
        '"""The int8 model of a reference program, for x86 and batches of this size."""',
        f"inputs = {writer.use(parts.positional)}(reference, example_inputs)",
        "with torch.no_grad():",
        f"    int8 = {lower}(reference, inputs)",
        f"    {writer.use(views_made_runnable)}(int8, inputs)",
        f"return {modes}(int8, False)",
    ]
    int8 = [
        '"""The int8 model of a copy of a prepared one."""',
        "return lower(to_reference(model), example_inputs)",
    ]
    return [
        *call("def to_reference", ["model: nn.Module"], " -> Any:"),
        *indented(reference),
        *("", "", "def lower(reference: Any, example_inputs: Any) -> nn.Module:"),
        *indented(lowered),
        *("", "", "def to_int8(model: nn.Module, example_inputs: Any) -> nn.Module:"),
        *indented(int8),
    ]
