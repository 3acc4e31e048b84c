"""R10: 4-bit weights without training."""

from __future__ import annotations

from functools import partial

from qatexplorer.flows.quant_spec import QuantSpec
from qatexplorer.studies.base import Arm, Reading, Row, Study, Values
from qatexplorer.studies.bench import Bench, all_layers, measured
from qatexplorer.zoo.digits_depthwise import per_tensor_qconfig

NETS = {"plain": "digits_cnn", "depthwise": "digits_depthwise plain"}
_WEIGHT = QuantSpec(
    bits=4, signed=True, scheme="symmetric", fake_quant="FakeQuantize", observer="MinMaxObserver"
)
_ACTIVATION = QuantSpec(fake_quant="FakeQuantize", observer="MinMaxObserver")


def four_bits(kind: str, seed: int, bench: Bench) -> Values:
    """4-bit weights and 8-bit activations, calibrated: min-max, then histograms."""
    session = bench.session(NETS[kind], seed, qconfig=per_tensor_qconfig())
    all_layers(session, _WEIGHT, _ACTIVATION)
    found = session.cure("ranges", activation="histogram", weight="histogram")
    return {
        f"{kind}, float": measured(session, "float")["float"],
        f"{kind}, min-max": 100.0 * found.before.value,
        f"{kind}, histogram": 100.0 * found.after.value,
    }


STUDY = Study(
    "R10",
    "4-bit weights without training",
    "4-bit weights without training collapse, and the range rule matters.",
    "MQBench, ImageClassification benchmark page (W4A8)",
    "digits_cnn beside ResNet-18, digits_depthwise before its channels are stretched beside "
    "MobileNetV2; one scale for each weight tensor, 4-bit weights in int8 layers; torch's "
    "HistogramObserver beside the published MSE range",
    tuple(Arm(f"four-bits-{kind}", partial(four_bits, kind)) for kind in NETS),
    (
        Row("plain, float", "plain, float", "71.06"),
        Row("plain, min-max", "plain, W4A8, min-max", "52.25"),
        Row("plain, histogram", "plain, W4A8, histogram"),
        Row("depthwise, float", "depthwise, float", "72.68"),
        Row("depthwise, min-max", "depthwise, W4A8, min-max", "27.61"),
        Row("depthwise, histogram", "depthwise, W4A8, histogram", "35.71 (MSE)"),
    ),
    (
        Reading("the plain net loses", "plain, float", "plain, min-max", published="18.81"),
        Reading(
            "the depthwise net loses", "depthwise, float", "depthwise, min-max", published="45.07"
        ),
        Reading(
            "the smallest squared error is better than min-max (depthwise)",
            "depthwise, histogram",
            "depthwise, min-max",
            published="8.10",
        ),
        Reading(
            "the smallest squared error is better than min-max (plain)",
            "plain, histogram",
            "plain, min-max",
        ),
    ),
    "torch's HistogramObserver searches with 256 codes, however few there are, so at 4 bits its "
    "range is not that of the smallest error. MQBench's MSE observer searches with the 16.",
)
