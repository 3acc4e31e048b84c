"""R4: 8-bit QAT costs little."""

from __future__ import annotations

from qatexplorer.studies.base import Arm, Reading, Row, Study, Values
from qatexplorer.studies.bench import Bench, measured


def plain(seed: int, bench: Bench) -> Values:
    """With the settings that the zoo suggests for digits_cnn."""
    session = bench.session("digits_cnn", seed)
    epochs = bench.epochs(4)
    session.train(
        epochs,
        lr=3e-4,
        freeze_observer_epoch=round(0.75 * epochs),
        freeze_bn_epoch=round(0.5 * epochs),
        seed=seed,
        telemetry_every=0,
        progress=False,
    )
    return measured(session, "float", "int8")


STUDY = Study(
    "R4",
    "What 8-bit QAT costs",
    "8-bit QAT costs little accuracy.",
    "torchvision, metadata of its quantized models (MobileNetV2 and V3-Large, qnnpack)",
    "digits_cnn beside MobileNetV2 and V3-Large; the qconfig of this CPU's engine, 4 epochs",
    (Arm("qat-plain", plain),),
    (
        Row("float", "float", "71.878; 74.042"),
        Row("int8", "QAT, int8", "71.658; 73.004"),
    ),
    (
        Reading(
            "int8 after QAT is little below float",
            "float",
            "int8",
            "at most",
            1.04,
            "what V3-Large lost",
            "0.22; 1.04",
        ),
    ),
    "ten classes of 8×8 images are easy: the float net has hardly an error that rounding could add "
    "to.",
)
