"""Rules whose findings the session makes itself while it steps and tries int8."""

from __future__ import annotations

from qatexplorer.checks.rules import declare

declare(
    "QX901", "eval-mode", "error", "traced",
    "The model is in eval mode.",
    """

    Symptom:
        prepare_qat only works on models in training mode
    Cause:
        Quantization-aware training fuses batch norms that learn, and torch's eager prepare_qat
        refuses a model in eval mode. FX takes it without a word, and its batch norms and dropouts
        then stay in eval mode.
    Fix:
        Call model.train() before. In a session: session.use_train_mode().
    Sources:
        https://github.com/pytorch/pytorch/issues/87679
    """,
)  # fmt: skip

declare(
    "QX902", "post-training-qconfig", "error", "qconfig",
    "Observers stand where fake quants belong.",
    """

    Symptom:
        Training changes nothing: accuracy in int8 is that of post-training quantization.
    Cause:
        The qconfig is one of get_default_qconfig(), which makes observers. They measure and round
        nothing, so training never feels what int8 does. torch does not warn.
    Fix:
        Take get_default_qat_qconfig(), or pass its backend's name as qconfig=.
    Sources:
        https://github.com/pytorch/pytorch/issues/125564
    """,
)  # fmt: skip

declare(
    "QX903", "engine-saturates", "error", "int8",
    "The int8 engine saturates on this CPU.",
    """

    Symptom:
        The int8 model's outputs are far off on one machine and right on another, with no error.
    Cause:
        Without VNNI instructions the u8 x s8 kernels add pairs of products in 16 bits and clamp
        there. A qconfig that uses all 256 codes of an activation then overflows.
    Fix:
        Take the engine and qconfig that the probe of this CPU chooses: leave both away.
    Sources:
        https://github.com/pytorch/pytorch/issues/103646
    """,
)  # fmt: skip

declare(
    "QX904", "engine-clamps", "info", "int8",
    "Training clamps at half of the codes, int8 does not.",
    """

    Symptom:
        int8 differs from the fake-quant model where values pass the observed range.
    Cause:
        The x86 and fbgemm qconfigs set reduce_range: their fake quants clamp to 0..127, while the
        int8 kernels use 0..255.
    Fix:
        On a CPU that is exact with all codes, take the qconfig that uses them.
    Sources:
        https://github.com/pytorch/pytorch/issues/44939
    """,
)  # fmt: skip

declare(
    "QX905", "int8-differs", "warning", "int8",
    "An operation on int8 tensors takes the first one's scale.",
    """

    Symptom:
        int8 is wrong after torch.cat, and the fake-quant model is right.
    Cause:
        A plain torch.cat of int8 tensors gives its result the scale of the first one, and cuts off
        what does not fit.
    Fix:
        Use torch.ao.nn.quantized.FloatFunctional().cat, which has a scale of its own, or FX.
    Sources:
        https://github.com/pytorch/pytorch/issues/46604
    """,
)  # fmt: skip

declare(
    "QX906", "cannot-prepare", "error", "inserted",
    "The model cannot be prepared.",
    """

    Symptom:
        prepare_qat or prepare_qat_fx raises.
    Cause:
        torch's own error, with the module it was at, stands in the finding.
    Fix:
        The finding offers the changes of settings that a trial has shown to help.
    Sources:
        https://github.com/pytorch/pytorch/issues/118165
    """,
)  # fmt: skip

declare(
    "QX907", "no-stub", "error", "int8",
    "Nothing turns the float input into int8.",
    """

    Symptom:
        Could not run 'quantized::conv2d.new' with arguments from the 'CPU' backend
    Cause:
        In eager mode the input is quantized by a QuantStub of the model, and this one has none.
    Fix:
        Put a QuantStub first and a DeQuantStub last in forward, or session.configure(stubs=...).
    Sources:
        https://github.com/pytorch/pytorch/issues/34583
    """,
)  # fmt: skip

declare(
    "QX908", "int8-fails", "error", "int8",
    "The int8 model does not run.",
    """

    Symptom:
        Could not run 'aten::...' with arguments from the 'QuantizedCPU' backend
    Cause:
        An int8 tensor comes to an operation that has no int8 kernel, or a float one to an int8
        module. The finding names the operation and the line.
    Fix:
        The finding offers the changes of settings that a trial has shown to help.
    Sources:
        https://github.com/pytorch/pytorch/issues/98596
    """,
)  # fmt: skip

declare(
    "QX909", "nothing-quantized", "error", "inserted",
    "No weight gets a fake quant.",
    """

    Symptom:
        The "int8" model equals the float model to the last bit, and is as large.
    Cause:
        No module of the model is of a type that torch's mapping has, its qconfig is None, or the
        model is one bare layer: torch swaps children only.
    Fix:
        Give the model a qconfig; wrap a bare layer in nn.Sequential.
    Sources:
        https://discuss.pytorch.org/t/101782
    """,
)  # fmt: skip

declare(
    "QX911", "never-observed", "error", "trained",
    "No observer has seen data.",
    """

    Symptom:
        must run observer before calling calculate_qparams. Returning default scale and zero point
    Cause:
        The scales are the initial ones. What is converted now computes with scale 1.
    Fix:
        Train, or call session.calibrate().
    Sources:
        https://github.com/pytorch/pytorch/issues/28951
    """,
)  # fmt: skip

declare(
    "QX912", "unseen", "warning", "trained",
    "Some observers have seen no data, others have.",
    """

    Symptom:
        A branch that runs seldom is wrong in int8.
    Cause:
        Their layers have not run on what the model was trained or calibrated with.
    Fix:
        Train or calibrate on data that reaches them; a module that never runs does no harm.
    Sources:
        https://github.com/pytorch/pytorch/issues/28951
    """,
)  # fmt: skip

declare(
    "QX913", "bad-scale", "error", "trained",
    "A scale is 0, infinite or NaN.",
    """

    Symptom:
        The loss is NaN and stays so; a histogram observer raises on NaN.
    Cause:
        One batch with NaN or infinite values is enough: a moving average never forgets it.
    Fix:
        Find the batch, reset, and train again.
    Sources:
        https://github.com/alibaba/TinyNeuralNetwork/issues/337
    """,
)  # fmt: skip

declare(
    "QX914", "stays-float", "info", "int8",
    "Layers keep a float weight in the int8 model.",
    """

    Symptom:
        The int8 model is larger or slower than expected.
    Cause:
        Their type has no int8 module, their qconfig is None, or FX leaves them.
    Fix:
        session.ledger().floats says why, layer by layer.
    Sources:
        https://github.com/pytorch/ao/issues/3609
    """,
)  # fmt: skip
