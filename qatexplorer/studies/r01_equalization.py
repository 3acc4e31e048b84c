"""R1: cross-layer equalization brings depthwise nets back."""

from __future__ import annotations

from qatexplorer.studies.base import Arm, Reading, Row, Study, Values
from qatexplorer.studies.bench import Bench, measured
from qatexplorer.zoo.digits_depthwise import per_tensor_qconfig


def depthwise(seed: int, bench: Bench) -> Values:
    """Int8 after calibration, after equalization, and after bias correction on top of it."""
    session = bench.session("digits_depthwise", seed, qconfig=per_tensor_qconfig())
    session.goto(session.flow.prepared_stage)
    before = measured(session, "float", "ptq")
    session.cure("equalization")
    session.calibrate()
    equalized = measured(session, "int8")["int8"]
    session.cure("biases")
    corrected = measured(session, "int8")["int8"]
    return {
        "depthwise, float": before["float"],
        "depthwise, int8": before["ptq"],
        "depthwise, equalized": equalized,
        "depthwise, equalized and biases": corrected,
    }


def plain(seed: int, bench: Bench) -> Values:
    """The same of the net without depthwise layers."""
    session = bench.session("digits_cnn", seed, qconfig=per_tensor_qconfig())
    session.goto(session.flow.prepared_stage)
    before = measured(session, "float", "ptq")
    session.cure("equalization")
    session.calibrate()
    return {
        "plain, float": before["float"],
        "plain, int8": before["ptq"],
        "plain, equalized": measured(session, "int8")["int8"],
    }


STUDY = Study(
    "R1",
    "Equalization without training",
    "One scale for each weight tensor ruins a depthwise net after calibration alone; cross-layer "
    "equalization alone brings it back; plain nets do not need it.",
    "github.com/XGZhang11/DFQ, github.com/KwangHoonAn/Quantizations; paper arXiv 1906.04721",
    "digits_depthwise beside MobileNetV2, digits_cnn beside ResNet-18; int8 after calibration, one "
    "scale for each weight tensor; torch.ao.quantization._equalize.equalize",
    (Arm("equalize-depthwise", depthwise), Arm("equalize-plain", plain)),
    (
        Row("depthwise, float", "depthwise, float", "71.81"),
        Row("depthwise, int8", "depthwise, int8", "0.10"),
        Row("depthwise, equalized", "depthwise, equalized, int8", "70.32"),
        Row(
            "depthwise, equalized and biases",
            "depthwise, equalized and biases corrected, int8",
            "70.79",
        ),
        Row("plain, float", "plain, float", "69.76"),
        Row("plain, int8", "plain, int8", "69.13"),
        Row("plain, equalized", "plain, equalized, int8", "69.2"),
    ),
    (
        Reading(
            "int8 of the depthwise net is below float",
            "depthwise, float",
            "depthwise, int8",
            published="71.71",
        ),
        Reading(
            "equalization raises it",
            "depthwise, equalized",
            "depthwise, int8",
            published="70.22",
        ),
        Reading(
            "equalization alone brings it back",
            "depthwise, float",
            "depthwise, equalized",
            "at most",
            1.49,
            "what MobileNetV2 still lost",
            "1.49",
        ),
        Reading(
            "bias correction adds to it",
            "depthwise, equalized and biases",
            "depthwise, equalized",
            published="0.47",
        ),
        Reading(
            "the plain net does not need it",
            "plain, float",
            "plain, int8",
            "at most",
            0.63,
            "what ResNet-18 lost",
            "0.63",
        ),
    ),
    "digits_depthwise has one block whose channels were stretched, MobileNetV2 has unequal "
    "channels in all of its blocks: ours keeps what the other blocks know.",
)
