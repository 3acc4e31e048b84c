"""R9: learned step sizes at 2 bits."""

from __future__ import annotations

from dataclasses import replace

from qatexplorer.flows.quant_spec import FakeQuantName, QuantSpec
from qatexplorer.studies.base import Arm, Reading, Row, Study, Values
from qatexplorer.studies.bench import Bench, measured

EPOCHS = 12
_WEIGHT = QuantSpec(bits=2, signed=True, scheme="symmetric", fake_quant="FakeQuantize")
_ACTIVATION = QuantSpec(bits=2, fake_quant="FakeQuantize")


def _two_bits(name: str, kind: FakeQuantName, seed: int, bench: Bench) -> Values:
    session = bench.session("digits_cnn", seed)
    weight, activation = replace(_WEIGHT, fake_quant=kind), replace(_ACTIVATION, fake_quant=kind)
    session.set_qconfig("", weight=weight, activation=activation)
    # First and last layer have 8 bits, and so has the image, as is usual.
    for path in ("quant", "conv1", "fc"):
        session.set_qconfig(path, weight=replace(weight, bits=8))
    for path in ("quant", "fc"):
        session.set_qconfig(path, activation=replace(activation, bits=8))
    session.train(bench.epochs(EPOCHS), lr=1e-3, seed=seed, telemetry_every=0, progress=False)
    values = measured(session, "float", "fake_quant")
    return {"float": values["float"], name: values["fake_quant"]}


def fixed(seed: int, bench: Bench) -> Values:
    """Ranges by a moving average of minimum and maximum."""
    return _two_bits("moving average", "FakeQuantize", seed, bench)


def learned(seed: int, bench: Bench) -> Values:
    """Step sizes are parameters."""
    return _two_bits("learned", "_LearnableFakeQuantize", seed, bench)


STUDY = Study(
    "R9",
    "Learned step sizes at 2 bits",
    "Learned step sizes beat fixed rules at 2 bits.",
    "QTool's table; arXiv 1902.08153",
    "digits_cnn beside ResNet-18, weights and activations 2 bits, first and last layer 8, "
    f"{EPOCHS} epochs, fake-quant accuracy; torch's _LearnableFakeQuantize against its moving "
    "average (published: against DoReFa)",
    (Arm("two-bits-moving-average", fixed), Arm("two-bits-learned", learned)),
    (
        Row("float", "float"),
        Row("moving average", "moving average, 2/2 bits", "64.1 (DoReFa)"),
        Row("learned", "learned step sizes, 2/2 bits", "67.6 (67.3 reproduced)"),
    ),
    (Reading("learned step sizes are better", "learned", "moving average", published="3.5 (3.2)"),),
    "the published rule that learned step sizes are compared with is another one than ours. "
    f"Our step sizes learn for {20 * EPOCHS} steps, at a hundredth of the rate of the weights.",
)
