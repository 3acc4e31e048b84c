"""Whether a quantized engine computes right on this CPU, found out by running it.

An int8 layer adds up products of activation codes (0..255) and weight codes (-128..127). A CPU
with VNNI adds them in 32 bits. On others the fast kernels of oneDNN and fbgemm first add *pairs* of
products in 16 bits and cut off what does not fit there: 2 × 255 × 127 = 64,770 becomes 32,767. No
name and no CPU flag says reliably which kernel runs, so each engine is run once, on a conv and on a
linear layer whose sums are as large as they get, and compared with integer arithmetic.
"""

from __future__ import annotations

import functools
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.ao.quantization import get_default_qat_qconfig

from qatexplorer.quantizers.engine import available_engines, quantized_engine
from qatexplorer.shown import error_line

FULL_CODES = 255
"""Largest activation code of quint8."""
HALF_CODES = 127
"""Largest activation code under ``reduce_range``: two products of it still fit into 16 bits."""
_TOLERATED_STEPS = 1.0  # a sum half way between two steps may be rounded to either

Verdict = Literal["exact", "clamps", "saturates", "fails"]


@dataclass(frozen=True, slots=True)
class EngineProbe:
    """What an engine made of sums that are known from integer arithmetic.

    Errors are the largest difference to integer arithmetic, in steps of an output grid on which
    the largest sum is 127 steps from zero; 0 and 1 (rounding) are right.

    Attributes:
        engine: name in ``torch.backends.quantized.supported_engines``.
        full: error in steps by operation (``"conv"``, ``"linear"``), activation codes to 255.
        half: the same with activation codes to 127, as under ``reduce_range``.
        trained: largest activation code that the fake quants of the engine's own default QAT
            qconfig produce, 255 or 127; None if torch has no such qconfig.
        top: largest code that the int8 kernel gives when a sum leaves the range.
        error: why the engine could not be run, ``""`` if it could.
        seconds: time the probe took.
    """

    engine: str
    full: Mapping[str, float]
    half: Mapping[str, float]
    trained: int | None
    top: int | None
    error: str = ""
    seconds: float = 0.0

    @property
    def verdict(self) -> Verdict:
        """The engine together with its own default QAT qconfig.

        - ``"exact"``: int8 is what the fake quants simulate, to the rounding of a step.
        - ``"saturates"``: for activations that the qconfig trains on, the kernel's sums are cut
          off on the way. Every layer can be far off, and no error is raised.
        - ``"clamps"``: the sums are right, but fake quant and int8 kernel clamp to different
          codes. ``reduce_range`` lets the fake quant clamp at 127 while the int8 kernel goes on
          to 255, so a value past the range that the observer has seen is clipped in training and
          not in int8: the two differ by up to 128 steps there, and nowhere else.
        - ``"fails"``: the kernels raised, see ``error``.
        """
        if self.error:
            return "fails"
        if not self.holds(FULL_CODES if self.trained is None else self.trained):
            return "saturates"
        clamps = self.trained is not None and self.top is not None and self.top > self.trained
        return "clamps" if clamps else "exact"

    def error_at(self, codes: int) -> float | None:
        """Largest error in steps for activation codes up to ``codes``, None if it did not run."""
        if self.error:
            return None
        errors = self.full if codes > HALF_CODES else self.half
        return max(errors.values())

    def holds(self, codes: int) -> bool:
        """Whether sums are right for activation codes up to ``codes``."""
        error = self.error_at(codes)
        return error is not None and error <= _TOLERATED_STEPS


@functools.cache
def probe_engine(engine: str) -> EngineProbe:
    """Run ``engine`` (once per process, a few milliseconds) and say what it is worth here.

    Nothing of the process is changed: the engine is put back, no random number is drawn and the
    number of threads is left alone. An engine that cannot run gives ``error``; raises
    UnknownEngineError for a name that torch does not list.
    """
    start = time.perf_counter()
    full: dict[str, float] = {}
    half: dict[str, float] = {}
    trained, top, error = None, None, ""
    # Creating quantized tensors warns since torch 2.13, and reduce_range has always warned.
    with quantized_engine(engine), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            trained = _trained_codes(engine)
            for operation, run in _RUNS.items():
                full[operation] = _error(run, _task(operation, FULL_CODES))
                half[operation] = _error(run, _task(operation, HALF_CODES))
            task = _task("linear", HALF_CODES)
            top = int(_linear(task.activations, task.weights, 1.0, 0).max())
        except Exception as raised:
            error = error_line(raised)
    return EngineProbe(engine, full, half, trained, top, error, time.perf_counter() - start)


def probe_engines() -> tuple[EngineProbe, ...]:
    """The probes of all engines of this machine, in torch's order."""
    return tuple(probe_engine(name) for name in available_engines())


def _trained_codes(engine: str) -> int | None:
    try:
        return int(get_default_qat_qconfig(engine).activation().quant_max)
    except (AssertionError, AttributeError):  # torch knows no qconfig of that name
        return None


@dataclass(frozen=True, slots=True)
class _Task:
    """Codes to compute with (as float32), and the output codes that integers give."""

    activations: Tensor
    weights: Tensor
    scale: float
    expected: Tensor


@functools.cache
def _task(operation: str, codes: int) -> _Task:
    """A layer of 16 output channels on two samples, enough to reach the fast kernels.

    The channels hold the largest weights of either sign, weights that cancel out only if every
    product is there, and a ramp; the samples hold the largest activation code and a ramp.
    """
    conv = operation == "conv"
    inputs = 16 * 9 if conv else 64
    weights = torch.empty(16, inputs)
    weights[0::4], weights[1::4] = 127.0, -128.0
    weights[2::4] = torch.tensor([127.0, 127.0, -128.0, -128.0]).repeat(inputs // 4)
    weights[3::4] = torch.arange(inputs) * 37 % 256 - 128.0
    weights = weights.reshape(16, 16, 3, 3) if conv else weights
    activations = torch.full((2, 16, 6, 6) if conv else (2, inputs), float(codes))
    ramp = torch.arange(activations[1].numel()) * 11 % (codes + 1)
    activations[1] = ramp.reshape(activations[1].shape)
    x, w = activations.double(), weights.double()
    sums = torch.nn.functional.conv2d(x, w) if conv else x @ w.T
    scale = float(sums.abs().max()) / 127
    expected = (torch.round(sums / scale) + 128).clamp(0, 255)
    return _Task(activations, weights, scale, expected)


_Run = Callable[[Tensor, Tensor, float, int], Tensor]


def _error(run: _Run, task: _Task) -> float:
    """Largest difference in steps between ``run`` and integer arithmetic."""
    found = run(task.activations, task.weights, task.scale, 128)
    return float((found.double() - task.expected).abs().max())


def _quantized(activations: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    channels = len(weights)
    return (
        torch.quantize_per_tensor(activations, 1.0, 0, torch.quint8),
        torch.quantize_per_channel(
            weights, torch.ones(channels), torch.zeros(channels, dtype=torch.long), 0, torch.qint8
        ),
    )


def _conv(activations: Tensor, weights: Tensor, scale: float, zero_point: int) -> Tensor:
    x, w = _quantized(activations, weights)
    packed = torch.ops.quantized.conv2d_prepack(w, None, [1, 1], [0, 0], [1, 1], 1)
    done: Tensor = torch.ops.quantized.conv2d(x, packed, scale, zero_point)
    return done.int_repr()


def _linear(activations: Tensor, weights: Tensor, scale: float, zero_point: int) -> Tensor:
    x, w = _quantized(activations, weights)
    packed = torch.ops.quantized.linear_prepack(w, None)
    done: Tensor = torch.ops.quantized.linear(x, packed, scale, zero_point)
    return done.int_repr()


_RUNS: dict[str, _Run] = {"conv": _conv, "linear": _linear}
