"""torch's errors about quantized models, in plain words, with a way out.

Each row is one :class:`Rule`. The first whose pattern is found in ``"TypeName: message"`` answers,
so narrow patterns stand above wide ones. ``{op}`` is the operation that torch names (``add``),
``{here}`` the module that was running.
"""

from __future__ import annotations

import re
import traceback
from dataclasses import dataclass

from qatexplorer.explain.blame import Place


@dataclass(frozen=True, slots=True)
class Rule:
    """``id`` names the row in tests; ``pattern`` is a regular expression.

    ``fx_fix`` stands for ``fix`` where FX made the model: it needs no stubs.
    """

    id: str
    pattern: str
    why: str
    fix: str
    fx_fix: str = ""

    def fix_in(self, in_fx: bool) -> str:
        """What to do, in the flow that made the model."""
        if in_fx and self.fx_fix:
            return self.fx_fix
        return self.fix.replace(ISLAND, FX_ISLAND) if in_fx else self.fix


@dataclass(frozen=True, slots=True)
class Translation:
    """``rule`` is the id of the row that answered, ``""`` if none did."""

    rule: str
    why: str
    fix: str


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
        "two-devices",
        r"Expected all tensors to be on the same device|found at least two devices"
        r"|is not on the expected device",
        "{here} computes with tensors on two devices. Inputs and targets are moved to the model's "
        "device, and the model to the CPU to convert it; a tensor that is a plain attribute, "
        "or is made with a fixed device= in forward, stays where it is.",
        "Register it with register_buffer('name', tensor), or make it with device=x.device.",
    ),
    Rule(
        "float-into-int8",
        r"Could not run 'quantized::(?P<op>[\w.]+)' with arguments from the 'CPU' backend",
        "The int8 layer at {here} got a float tensor: no QuantStub quantizes its input.",
        "Put a QuantStub before it (and a DeQuantStub at the end), wrap the model in QuantWrapper, "
        "or let add_quant_dequant wrap each layer; or set its qconfig to None to keep it in float.",
        FX_ISLAND,
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
        _FLOAT_FUNCTIONAL
        + "Write a - b as add of mul_scalar(b, -1), and a / 2 as mul_scalar(a, 0.5). For a "
        "division by a tensor: " + ISLAND,
    ),
    Rule(
        "qnnpack-add",
        r"failed to create QNNPACK (?P<op>Add) operator",
        "The qnnpack engine adds two int8 tensors at {here}, and needs scales within 2**-14 to "
        "2**8 of the result's. One of them has next to no range beside the other, as a branch has "
        "that gives zeros (a batch norm's gamma of zero, an input of zeros).",
        "Train, or calibrate on real data, so that both branches give something. Or take another "
        "engine with a qconfig that it is right with: qconfig='x86' sets both.",
    ),
    Rule(
        "batch-norm",
        _ON_INT8.format(ops=r"(?:native_|cudnn_|_native_)?batch_norm\w*|_batch_norm\w*"),
        "A batch, layer, group or instance norm computes in float at {here} and got an int8 "
        "tensor: it was not fused into a convolution and has no int8 version.",
        "For a batch norm right after a convolution use nn.BatchNorm2d and put it in the list of "
        "fused modules. For others use the modules nn.LayerNorm, nn.GroupNorm or nn.InstanceNorm2d "
        "with their default affine weights (affine=True), which have int8 versions. Otherwise: "
        + ISLAND,
    ),
    Rule(
        "layer-left-float",
        _ON_INT8.format(ops=_LAYERS)
        + r"|mat1 and mat2 must have the same dtype, but got Q\w+ and \w+"
        + r"|Input type \(c10::q\w+\) and (?:bias|weight) type",
        "A layer with float weights at {here} got an int8 tensor. torch swaps exact types only: "
        "a subclass of nn.Linear or nn.Conv2d, F.linear, F.conv2d, a matrix product, or a layer "
        "with qconfig None stays in float.",
        "Use nn.Linear or nn.Conv2d itself; for a matrix product call ff.matmul(a, b) of an ff = "
        "torch.ao.nn.quantized.FloatFunctional() made in __init__. Or: " + ISLAND,
        "Use nn.Linear or nn.Conv2d itself. Or: " + FX_ISLAND,
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
        "Call the layer instead of computing with its weight. Or: " + ISLAND,
    ),
    Rule(
        "weight-is-a-method",
        r"'(?:function|method|builtin_function_or_method)' object has no attribute",
        "The code reads layer.weight as a tensor. In an int8 layer weight is a method.",
        "Do not read .weight in forward (take the dtype of an input instead). Or: " + ISLAND,
    ),
    Rule(
        "weight-through-wrapper",
        r"'QuantWrapper' object has no attribute '(?P<op>\w+)'",
        "The code reads .{op} of a layer that was put into a QuantWrapper, which does not pass "
        "attributes on.",
        "Give this layer the qconfig None, so that it is not wrapped. Or, if what is read is no "
        "weight (an int8 layer has it as a method), read layer.module.{op}.",
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
        r"Expected LSTM custom module inputs to be"
        r"|AssertionError: and len\(node\.args\[1\]\) == 2",  # torch 2.8 asserts without a word
        "FX converts an LSTM as a custom module only where it is called with its state, and {here} "
        "is called with the input alone.",
        "Write self.lstm(x, (h0, c0)) with the state as a buffer of zeros (register_buffer) or as "
        "an argument of forward: FX puts no fake quant on zeros made in forward from x.shape. Or "
        "use flow='eager'.",
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
        "functional-arguments",
        r"quantized::\w+_prepack\(\) (?:is missing value for argument '(?P<op>\w+)'"
        r"|Expected a value of type 'List\[int\]')",
        "FX hands the arguments of a functional convolution to the int8 kernel as {here} writes "
        "them, and the kernel wants all of them, with one number for each dimension (a gap of "
        "torch's lowering).",
        "Use nn.Conv2d. Or write all arguments out, with your values: F.conv2d(x, weight, bias, "
        "(1, 1), (0, 0), (1, 1), 1); bias may be None. Or set that function to None in the "
        "QConfigMapping.",
    ),
    Rule(
        "other-engine",
        r"Didn't find engine for operation quantized::(?P<op>\w+)",
        "The int8 operation {op} at {here} exists for another quantized engine only. A backend "
        "config of one engine with another one in force asks for such operations.",
        "Leave backend_config=None, or run on the engine of the backend config (engine='onednn' "
        "for conv with an addition).",
    ),
    Rule(
        "embedding",
        r"Embedding quantization is only supported with|Embedding weights requires a qscheme",
        "An embedding needs a qconfig of its own kind; the one it inherited is for convolutions.",
        "Set its qconfig to torch.ao.quantization.default_embedding_qat_qconfig (the qconfig of "
        "that kind with a fake quant in it), or to None.",
    ),
    Rule(
        "integer-input",
        r"expected scalar type Float but found (?:Long|Int|Short|Char|Byte|Bool)\b",
        "A fake quant at {here} got whole numbers (token ids, a mask). Only float values can be "
        "quantized.",
        "Do not wrap the whole model: put the QuantStub after the embedding.",
        "Give the operation that takes whole numbers the qconfig None, by path or type.",
    ),
    Rule(
        "dtype",
        r"expected scalar type Float but found (?:Half|BFloat16|Double)"
        r"|not implemented for '(?:Half|BFloat16)'",
        "torch's fused fake quant computes in float32 only; {here} has another dtype (half(), "
        "bfloat16(), double() or autocast).",
        "Train in float32 (model.float(), inputs.float(), no autocast). To keep autocast, take a "
        "qconfig with the unfused FakeQuantize: get_default_qat_qconfig(backend, version=0).",
    ),
    Rule(
        "transposed-per-channel",
        r"Per Channel Quantization is currently disabled for transposed conv",
        "torch cannot convert a transposed convolution with one weight scale per channel.",
        "Give it a qconfig with a per-tensor weight (the 'qnnpack' one). Or: " + ISLAND,
    ),
    Rule(
        "prelu",
        r"^IndexError: Dimension out of range .*expected to be in range of \[-1, 0\], but got 1",
        "The weight of nn.PReLU has one dimension; torch's convert asks for the scale of a second "
        "one when the weight observer is per channel.",
        "Give it a qconfig with a per-tensor weight (the 'qnnpack' one), or use ReLU or LeakyReLU. "
        "Or: " + ISLAND,
    ),
    Rule(
        "nan-range",
        r"`?zero_point`? must be between `?quant_min`?|zero_point must be between",
        "A range holds NaN: a batch had NaN or Inf, or a batch norm has a gamma of zero, which "
        "torch's fused conv-bn divides by.",
        "Check the data; train the float model first; build it with zero_init_last=False; or set "
        "module._enable_slow_path_for_better_numerical_stability = True on the fused modules.",
    ),
    Rule(
        "qint8-activation",
        r"Expected (?:input|activation) data type QUInt8 but got QInt8"
        r"|data type of input should be QUint8",
        "Activations are quantized to qint8; torch's eager int8 layers take quint8 only.",
        "Use quint8 for activations (0..255) in the qconfig; weights stay qint8.",
    ),
    Rule(
        "tuple-output",
        r"fake_quant\w*\(\): argument '(?:input|self)'.* must be Tensor, not (?P<op>\w+)",
        "{here} returns a {op}, and the fake quant of its output takes one tensor (nn.GRU, a block "
        "that returns several tensors).",
        "Set the qconfig of that module to None.",
        "If it is x.chunk, x.split or x.unbind whose pieces are used as one list: name each piece, "
        "as in a, b = x.chunk(2, 1); torch.cat([a, b], 1). Otherwise: " + FX_ISLAND,
    ),
    Rule(
        "transposed-batch-norm",
        r"Fusing ConvTranspose\+BatchNorm not yet supported in QAT",
        "FX fuses each batch norm with the convolution before it, and for a transposed convolution "
        "torch has no fused module that trains. A qconfig of None does not prevent it.",
        "Fold the batch norm first: model.up = torch.nn.utils.fuse_conv_bn_eval(model.up.eval(), "
        "model.bn.eval(), transpose=True) and model.bn = nn.Identity(), with your names for the "
        "two, then model.train(). Or use flow='eager', which leaves the two apart.",
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


def translate(
    error: BaseException, place: Place | None = None, *, in_fx: bool = False
) -> Translation:
    """Why ``error`` happened and what to do; ``in_fx`` says that FX made the model.

    Unknown errors give torch's own first line and the advice to keep that part in float.
    """
    message = str(error).strip()
    text = f"{type(error).__name__}: {message or _line_that_raised(error)}"
    here = _here(place)
    for rule in RULES:
        match = re.search(rule.pattern, text, re.DOTALL)
        if match:
            found = match.groupdict().get("op") or "the operation"
            words = {"op": found, "here": here}
            return Translation(
                rule.id, rule.why.format(**words), rule.fix_in(in_fx).format(**words)
            )
    first = message.splitlines()[0] if message else type(error).__name__
    island = FX_ISLAND if in_fx else ISLAND
    return Translation("", f"torch says: {first}", f"If {here} need not be quantized: {island}")


def _line_that_raised(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return (frames[-1].line or "") if frames else ""


def _here(place: Place | None) -> str:
    if place is None or place.path is None:
        return "this place"
    name = repr(place.path) if place.path else "the model itself"
    return f"{name} ({place.type_name})" if place.type_name else name
