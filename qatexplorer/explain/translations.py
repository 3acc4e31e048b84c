"""torch's errors about quantized models, in plain words, with a way out.

Each row is one :class:`Rule`. The first whose pattern is found in ``"TypeName: message"`` answers,
so narrow patterns stand above wide ones. ``{op}`` is the operation that torch names (``add``),
``{here}`` the module that was running.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from qatexplorer.explain.blame import Place


@dataclass(frozen=True, slots=True)
class Rule:
    """``id`` names the row in tests; ``pattern`` is a regular expression."""

    id: str
    pattern: str
    why: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Translation:
    """``rule`` is the id of the row that answered, ``""`` if none did."""

    rule: str
    why: str
    remedy: str


_ON_INT8 = r"Could not run 'aten::(?P<op>{ops})(?:\.\w+)?' with arguments from the 'QuantizedCPU'"
ISLAND = (
    "Keep this part in float: set its qconfig to None and put a DeQuantStub before and a QuantStub "
    "after it."
)
FX_ISLAND = (
    "Keep this part in float: give its path or type the qconfig None, or name it in "
    "non_traceable=[…]; FX puts quantize and dequantize around it."
)
_FLOAT_FUNCTIONAL = (
    "Make ff = torch.ao.nn.quantized.FloatFunctional() in __init__ (one for each place) and call "
    "ff.add(a, b), ff.mul(a, b), ff.add_scalar(a, 2.0), ff.mul_scalar(a, 2.0), ff.add_relu(a, b) "
    "or ff.cat([...]). "
)
_LAYERS = r"addmm|mm|linear|_slow_conv2d_forward|slow_conv\w*|thnn_conv\w*|mkldnn\w*|convolution\w*"

RULES: tuple[Rule, ...] = (
    Rule(
        "cuda",
        r"from the '(?:Quantized)?CUDA' backend|not compiled with CUDA|no NVIDIA driver",
        "torch has no int8 kernels for this on a GPU; converted eager models run on the CPU.",
        "Convert and run a copy on the CPU: copy.deepcopy(model).cpu().eval(), inputs.cpu().",
    ),
    Rule(
        "float-into-int8",
        r"Could not run 'quantized::(?P<op>[\w.]+)' with arguments from the 'CPU' backend",
        "The int8 layer at {here} got a float tensor: no QuantStub quantizes its input.",
        "Put a QuantStub before it (and a DeQuantStub at the end), wrap the model in QuantWrapper, "
        "or let add_quant_dequant wrap each layer; or set its qconfig to None to keep it in float.",
    ),
    Rule(
        "quantized-twice",
        r"Could not run 'aten::quantize_per_\w+' with arguments from the 'QuantizedCPU'",
        "A QuantStub got a tensor that is int8 already: the model has stubs of its own and was "
        "wrapped as well, or two stubs follow each other.",
        "Do not wrap a model that has stubs; or put a DeQuantStub before the second QuantStub.",
    ),
    Rule(
        "arithmetic",
        _ON_INT8.format(ops=r"add_?|sub_?|rsub|mul_?|div_?|addcmul|addcdiv"),
        "{here} computes '{op}' on int8 tensors. The result needs a scale of its own, and a plain "
        "operator has no observer that could have learned one.",
        _FLOAT_FUNCTIONAL + "Write a - b as add of mul_scalar(b, -1).",
    ),
    Rule(
        "batch-norm",
        _ON_INT8.format(ops=r"(?:native_|cudnn_|_native_)?batch_norm\w*|_batch_norm\w*"),
        "A batch, layer, group or instance norm computes in float at {here} and got an int8 "
        "tensor: it was not fused into a convolution and has no int8 version.",
        "For a batch norm right after a convolution use nn.BatchNorm2d and put it in the list of "
        "fused modules. Otherwise: " + ISLAND,
    ),
    Rule(
        "layer-left-float",
        _ON_INT8.format(ops=_LAYERS)
        + r"|mat1 and mat2 must have the same dtype, but got Q\w+ and \w+"
        + r"|Input type \(c10::q\w+\) and (?:bias|weight) type",
        "A layer with float weights at {here} got an int8 tensor. torch swaps exact types only: "
        "a subclass of nn.Linear or nn.Conv2d, F.linear, F.conv2d, a matrix product, or a layer "
        "with qconfig None stays in float.",
        "Use nn.Linear or nn.Conv2d itself, register the subclass in the mapping given to "
        "convert, or keep this part in float between a DeQuantStub and a QuantStub.",
    ),
    Rule(
        "int8-with-float",
        r"Could not run 'aten::(?P<op>qscheme|q_scale|q_zero_point|int_repr)\S*' with arguments "
        r"from the 'CPU'|promoteTypes with quantized numbers is not handled",
        "{here} mixes an int8 tensor with a float one, for example a parameter (cls_token, a "
        "positional embedding), a mask or an input that no QuantStub has seen.",
        "Quantize the other tensor with a QuantStub of its own and use FloatFunctional for the "
        "operation. Or: " + ISLAND,
    ),
    Rule(
        "no-int8-kernel",
        _ON_INT8.format(ops=r"\w+"),
        "'{op}' at {here} has no int8 kernel, and what reaches it is an int8 tensor.",
        ISLAND,
    ),
    Rule(
        "scalar-arithmetic",
        r"empty_strided not supported on quantized tensors",
        "{here} computes with an int8 tensor and a number, or with broadcasting, by a plain "
        "operator (*, /, a gate like scale * x), which quantized tensors do not support.",
        _FLOAT_FUNCTIONAL + "Or: " + ISLAND,
    ),
    Rule(
        "per-channel-tensor",
        r"only on uniformly quantized tensor|only supports? per.?tensor",
        "{here} treats an int8 tensor with one scale per channel (an int8 weight) as a plain one.",
        "Call the layer instead of computing with its weight, or use weight().dequantize().",
    ),
    Rule(
        "weight-is-a-method",
        r"'(?:function|method|builtin_function_or_method)' object has no attribute",
        "The code reads layer.weight as a tensor. In an int8 layer weight is a method.",
        "Do not read .weight in forward (take the dtype of an input instead), or set that layer's "
        "qconfig to None.",
    ),
    Rule(
        "weight-through-wrapper",
        r"'QuantWrapper' object has no attribute '(?P<op>\w+)'",
        "The code reads .{op} of a layer that was put into a QuantWrapper, which does not pass "
        "attributes on.",
        "Leave this layer unwrapped (qconfig None), or read layer.module.{op}.",
    ),
    Rule(
        "attention",
        # Older releases do not name the class that they got.
        r"only works for Linear(?:, got NonDynamicallyQuantizableLinear)?$",
        "Torch's QAT mapping lists a subclass of nn.Linear that its swap then refuses (a defect of "
        "torch): nn.MultiheadAttention holds one, NonDynamicallyQuantizableLinear.",
        "Pass qat_mapping='attention': torch's table without that class, with which attention "
        "becomes torch.ao.nn.quantizable.MultiheadAttention. Or set its qconfig to None.",
    ),
    Rule(
        "never-ran",
        r"min .*inf.* should be (?:less|smaller) than max|min \[?.*inf.*max .*-inf",
        "A fake quant has never seen a tensor, so it has no range: its layer did not run in "
        "training, or its weight was used by F.linear or F.conv2d and not by calling the layer.",
        "Call the layer itself, run all branches in training, or set this layer's qconfig to None.",
    ),
    Rule(
        "lstm-without-state",
        r"Expected LSTM custom module inputs to be",
        "FX converts an LSTM as a custom module only where it is called with its state, and {here} "
        "is called with the input alone.",
        "Write self.lstm(x, (h0, c0)) with zeros for the state; or use flow='eager'.",
    ),
    Rule(
        "fusion-for-eval-only",
        r"Cannot fuse (?:train|eval) modules",
        "The backend config (or the list of modules) asks for a fusion that torch has for models "
        "in eval mode only; onednn's backend config fuses conv and add in this way.",
        "Leave backend_config=None or take 'native' or 'fbgemm'; int8 runs on the same engine.",
    ),
    Rule(
        "fx-output",
        r"Unhandled type for returned node",
        "The model returns something beside tensors (a number, text), which FX's prepare refuses.",
        "Return tensors only (a wrapper around the model can pick them), or use flow='eager'.",
    ),
    Rule(
        "functional-without-bias",
        r"quantized::\w+_prepack\(\) is missing value for argument 'bias'",
        "FX packs the weight of a functional convolution together with its bias, and {here} calls "
        "it without one (a gap of torch's lowering).",
        "Pass a bias of zeros to F.conv2d, or use nn.Conv2d, or set that function to None in the "
        "QConfigMapping.",
    ),
    Rule(
        "embedding",
        r"Embedding quantization is only supported with|Embedding weights requires a qscheme",
        "An embedding needs a qconfig of its own kind; the one it inherited is for convolutions.",
        "Set its qconfig to torch.ao.quantization.float_qparams_weight_only_qconfig, or to None.",
    ),
    Rule(
        "integer-input",
        r"expected scalar type Float but found (?:Long|Int|Short|Char|Byte|Bool)\b",
        "A fake quant at {here} got whole numbers (token ids, a mask). Only float values can be "
        "quantized.",
        "Do not wrap the whole model: put the QuantStub after the embedding.",
    ),
    Rule(
        "dtype",
        r"expected scalar type Float but found (?:Half|BFloat16|Double)"
        r"|not implemented for '(?:Half|BFloat16)'",
        "torch's fused fake quant computes in float32 only; {here} has another dtype (half(), "
        "bfloat16(), double() or autocast).",
        "Train in float32 (model.float(), inputs.float(), no autocast), or take a qconfig "
        "with the unfused FakeQuantize (get_default_qat_qconfig(backend, version=0)).",
    ),
    Rule(
        "transposed-per-channel",
        r"Per Channel Quantization is currently disabled for transposed conv",
        "torch cannot convert a transposed convolution with one weight scale per channel.",
        "Give it a qconfig with a per-tensor weight (the 'qnnpack' one), or None.",
    ),
    Rule(
        "prelu",
        r"^IndexError: Dimension out of range .*expected to be in range of \[-1, 0\], but got 1",
        "The weight of nn.PReLU has one dimension; torch's convert asks for the scale of a second "
        "one when the weight observer is per channel.",
        "Set the qconfig of the PReLU to None (between a DeQuantStub and a QuantStub), or use ReLU "
        "or LeakyReLU.",
    ),
    Rule(
        "nan-range",
        r"`?zero_point`? must be between `?quant_min`?|zero_point must be between",
        "A range holds NaN: a batch had NaN or Inf, or a batch norm has a gamma of zero, which "
        "torch's fused conv-bn divides by.",
        "Check the data; train the float model first; or build it with zero_init_last=False.",
    ),
    Rule(
        "qint8-activation",
        r"Expected input data type QUInt8 but got QInt8|data type of input should be QUint8",
        "Activations are quantized to qint8; torch's eager int8 layers take quint8 only.",
        "Use quint8 for activations (0..255) in the qconfig; weights stay qint8.",
    ),
    Rule(
        "tuple-output",
        r"fake_quant\w*\(\): argument '(?:input|self)'.* must be Tensor, not (?P<op>\w+)",
        "{here} returns a {op}, and the fake quant of its output takes one tensor (nn.GRU, a block "
        "that returns several tensors).",
        "Set the qconfig of that module to None.",
    ),
    Rule(
        "one-sample",
        r"Expected more than 1 value per channel when training",
        "A batch norm in train mode needs more than one value per channel; this batch has one "
        "sample.",
        "Use drop_last=True in the DataLoader, or a larger batch.",
    ),
    Rule(
        "view",
        r"view size is not compatible with input tensor's size and stride",
        "{here} calls view, or a function that does (group_norm), on a tensor that lies in memory "
        "in another order; int8 convolutions give channels-last tensors.",
        "Use reshape, flatten or contiguous() instead of view; keep a group norm in float.",
    ),
)


def translate(error: BaseException, place: Place | None = None) -> Translation:
    """Why ``error`` happened and what to do.

    Unknown errors give torch's own first line and the advice to keep that part in float.
    """
    message = str(error).strip()
    text = f"{type(error).__name__}: {message}"
    here = _here(place)
    for rule in RULES:
        match = re.search(rule.pattern, text, re.DOTALL)
        if match:
            found = match.groupdict().get("op") or "the operation"
            words = {"op": found, "here": here}
            return Translation(rule.id, rule.why.format(**words), rule.remedy.format(**words))
    first = message.splitlines()[0] if message else type(error).__name__
    return Translation("", f"torch says: {first}", f"If {here} need not be quantized: {ISLAND}")


def _here(place: Place | None) -> str:
    if place is None or place.path is None:
        return "this place"
    name = repr(place.path) if place.path else "the model itself"
    return f"{name} ({place.type_name})" if place.type_name else name
