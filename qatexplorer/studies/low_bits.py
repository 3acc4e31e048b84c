"""Arms with few bits, which R6, R7 and R8 share: a training for each seed, bits and treatment."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch

from qatexplorer.flows.quant_spec import QuantSpec
from qatexplorer.session.session import Session
from qatexplorer.studies.base import Arm, Values
from qatexplorer.studies.bench import Bench, all_layers, measured
from qatexplorer.zoo.digits_depthwise import per_tensor_qconfig

NET = "digits_depthwise plain"
EPOCHS = 8
EIGHT_BITS = QuantSpec(signed=True, scheme="symmetric", fake_quant="FakeQuantize")

TREATMENTS: dict[str, dict[str, Any]] = {
    "": {"oscillation": "every step"},
    " dampened": {"oscillation": "every step", "dampen_weights": 0.01},
    " frozen": {"freeze_weights": 0.02, "freeze_weights_from": 0.04},
}
"""Settings of a training, by what is said after the bits."""
TITLES = {"": "QAT", " dampened": "QAT, dampened", " frozen": "QAT, oscillating weights frozen"}
"""What each of them is called."""

HERE = (
    "digits_depthwise before its channels are stretched; one scale for each weight tensor, first "
    f"and last layer 8 bits, activations 8 bits, {EPOCHS} epochs, fake-quant accuracy"
)


def with_bits(bits: int, seed: int, bench: Bench) -> Session:
    """A session whose weights have ``bits`` but for the first and the last layer, as is usual;
    activations have 8."""
    session = bench.session(NET, seed, qconfig=per_tensor_qconfig())
    few = QuantSpec(bits=bits, signed=True, scheme="symmetric", fake_quant="FakeQuantize")
    all_layers(session, few, but={"stem": EIGHT_BITS, "fc": EIGHT_BITS})
    return session


def trained(bits: int, treatment: str, seed: int, bench: Bench) -> Values:
    """Trained with ``bits``; with its batch norms measured anew; its weights rounded to fewer bits
    without training; and the share of weights that went back and forth at the end."""
    session = with_bits(bits, seed, bench)
    run = session.train(
        bench.epochs(EPOCHS),
        lr=1e-3,
        seed=seed,
        telemetry_every=10,
        progress=False,
        **TREATMENTS[treatment],
    )
    weights = session.copy_model().state_dict()
    name = f"{bits} bits{treatment}"
    found = measured(session, "float")
    found[name] = measured(session, "fake_quant")["fake_quant"]
    assert run.telemetry is not None
    _, shares = run.telemetry.table("reversing")
    known = shares[-1][~np.isnan(shares[-1])]
    if known.size:  # there are none after the first step of a run
        found[f"{name}, reversing"] = 100.0 * float(known.mean())
    session.cure("batch_norms")
    found[f"{name}, norms anew"] = measured(session, "fake_quant")["fake_quant"]
    if bits == 4:
        found |= {f"{name}, then {n}": rounded(weights, n, seed, bench) for n in (3, 2)}
    return found


def rounded(weights: dict[str, torch.Tensor], bits: int, seed: int, bench: Bench) -> float:
    """Accuracy of trained ``weights`` with other ``bits``, calibrated and not trained."""
    session = with_bits(bits, seed, bench)
    session.goto(session.flow.train_stage)
    mine = {k: v for k, v in weights.items() if "fake_quant" not in k and "post_process" not in k}
    session.model.load_state_dict(mine, strict=False)
    session.calibrate()
    return measured(session, "fake_quant")["fake_quant"]


def calibrated(seed: int, bench: Bench) -> Values:
    """The float net with few bits, calibrated and not trained."""
    found = {}
    for bits in (3, 2):
        session = with_bits(bits, seed, bench)
        session.calibrate()
        found[f"float, then {bits}"] = measured(session, "fake_quant")["fake_quant"]
    return found


def arm(bits: int, treatment: str = "") -> Arm:
    """The arm of a training with ``bits``."""
    name = f"low-bits-{bits}{treatment.replace(' ', '-')}"
    return Arm(name, partial(trained, bits, treatment))


CALIBRATED = Arm("low-bits-calibrated", calibrated)
