"""How one tensor is to be fake-quantized, as plain data, and torch's own object made of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, cast, get_args

import torch
from torch import nn
from torch.ao.quantization import FakeQuantize, FusedMovingAvgObsFakeQuantize
from torch.ao.quantization._learnable_fake_quantize import _LearnableFakeQuantize
from torch.ao.quantization.observer import (
    HistogramObserver,
    MinMaxObserver,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    PerChannelMinMaxObserver,
)

from qatexplorer.errors import QConfigError
from qatexplorer.flows.percentile import PercentileObserver

ObserverName = Literal[
    "MovingAverageMinMaxObserver", "MinMaxObserver", "HistogramObserver", "PercentileObserver"
]
FakeQuantName = Literal["FusedMovingAvgObsFakeQuantize", "FakeQuantize", "_LearnableFakeQuantize"]
Scheme = Literal["affine", "symmetric"]

LEARNED = "_LearnableFakeQuantize"
_FUSED = "FusedMovingAvgObsFakeQuantize"
_MOVING = "MovingAverageMinMaxObserver"
FEWEST_BITS, MOST_BITS = 2, 8
_PERCENTILE = "PercentileObserver"
_AVERAGING = 0.01
_SHARE = 99.99
_FLOAT_EPS = torch.finfo(torch.float32).eps

_OBSERVERS: dict[tuple[str, bool], type] = {
    ("MovingAverageMinMaxObserver", False): MovingAverageMinMaxObserver,
    ("MovingAverageMinMaxObserver", True): MovingAveragePerChannelMinMaxObserver,
    ("MinMaxObserver", False): MinMaxObserver,
    ("MinMaxObserver", True): PerChannelMinMaxObserver,
    ("HistogramObserver", False): HistogramObserver,
    ("PercentileObserver", False): PercentileObserver,
}
_FAKE_QUANTS: dict[str, Any] = {
    "FusedMovingAvgObsFakeQuantize": FusedMovingAvgObsFakeQuantize,
    "FakeQuantize": FakeQuantize,
    "_LearnableFakeQuantize": _LearnableFakeQuantize,
}
_QSCHEMES = {
    ("affine", False): torch.per_tensor_affine,
    ("symmetric", False): torch.per_tensor_symmetric,
    ("affine", True): torch.per_channel_affine,
    ("symmetric", True): torch.per_channel_symmetric,
}


@dataclass(frozen=True)
class QuantSpec:
    """One fake quant in plain data, in torch's own names.

    Attributes:
        bits: 2 to 8. signed: codes from ``-2**(bits-1)``, dtype qint8; else from 0, quint8.
        scheme: ``"affine"`` or ``"symmetric"`` (around zero).
        per_channel: a scale for each slice along axis 0, the output channels of a weight.
        observer: finds the range; its per-channel sibling where ``per_channel``.
            ``"HistogramObserver"`` takes that with the smallest squared error, for which torch
            counts with 256 codes, however few there are; ``"PercentileObserver"`` is ours.
        averaging_constant: of a moving-average observer, above 0 and at most 1.
        percentile: of a PercentileObserver, above 50 and at most 100: what is above it, and as
            large a share at the other end, is cut off.
        fake_quant: the class. ``"_LearnableFakeQuantize"`` learns its step size in training.
        reduce_range: half of the codes, as the fbgemm kernels without VNNI need them.
        narrow_range: the lowest code stays unused, so that signed codes are symmetric too.
        eps: smallest scale.

    Raises QConfigError for what torch cannot make, naming the attribute.
    """

    bits: int = 8
    signed: bool = False
    scheme: Scheme = "affine"
    per_channel: bool = False
    observer: ObserverName = "MovingAverageMinMaxObserver"
    averaging_constant: float = _AVERAGING
    fake_quant: FakeQuantName = "FusedMovingAvgObsFakeQuantize"
    reduce_range: bool = False
    narrow_range: bool = False
    eps: float = _FLOAT_EPS
    percentile: float = _SHARE

    def __post_init__(self) -> None:
        _check_types(self)
        _check_together(self)

    @property
    def dtype(self) -> torch.dtype:
        """That torch stores the codes in: one byte each, however few the bits are."""
        return torch.qint8 if self.signed else torch.quint8

    @property
    def full_range(self) -> tuple[int, int]:
        """(quant_min, quant_max) before ``reduce_range``."""
        low = -(2 ** (self.bits - 1)) if self.signed else 0
        return low + int(self.narrow_range), low + 2**self.bits - 1

    @property
    def quant_range(self) -> tuple[int, int]:
        """(quant_min, quant_max) that the fake quant clamps to."""
        low, high = self.full_range
        return (low // 2, high // 2) if self.reduce_range else (low, high)

    @property
    def qscheme(self) -> torch.qscheme:
        """Torch's word for ``scheme`` and ``per_channel``."""
        return _QSCHEMES[self.scheme, self.per_channel]

    @property
    def learned(self) -> bool:
        """Whether its step size is a parameter."""
        return self.fake_quant == LEARNED

    @property
    def by_size(self) -> bool:
        """Whether torch's object has to know how many channels there are."""
        return self.learned and self.per_channel

    def factory(self, channels: int | None = None) -> Callable[[], nn.Module]:
        """What a ``QConfig`` takes: ``with_args(…)`` of torch's class. ``channels`` is the length
        of axis 0, which a step size learned per channel has to know."""
        low, high = self.full_range
        options: dict[str, Any] = {
            "observer": _OBSERVERS[self.observer, self.per_channel],
            "quant_min": low,
            "quant_max": high,
            "dtype": self.dtype,
            "qscheme": self.qscheme,
        }
        if self.observer == _MOVING and self.averaging_constant != _AVERAGING:
            options["averaging_constant"] = self.averaging_constant
        if self.observer == _PERCENTILE:
            options["percentile"] = self.percentile
        if self.reduce_range:
            options["reduce_range"] = True
        if self.eps != _FLOAT_EPS:
            options["eps"] = self.eps
        if self.learned:
            options["use_grad_scaling"] = True
            if self.per_channel and channels is not None:
                options["channel_len"] = channels
        made: Callable[[], nn.Module] = _FAKE_QUANTS[self.fake_quant].with_args(**options)
        return made

    def make(self, channels: int | None = None) -> nn.Module:
        """The fake quant itself, see :meth:`factory`."""
        made: nn.Module = made_by(self.factory(channels))
        return made

    def to_json(self) -> dict[str, Any]:
        """Plain data: what differs from the defaults, and always the bits."""
        mine = {f.name: getattr(self, f.name) for f in fields(self)}
        return {k: v for k, v in mine.items() if k == "bits" or v != getattr(_DEFAULT, k)}

    @staticmethod
    def from_json(kept: Mapping[str, Any]) -> QuantSpec:
        """What :meth:`to_json` made. Raises QConfigError for a key or value it does not have."""
        known = [f.name for f in fields(QuantSpec)]
        for key in kept:
            if key not in known:
                raise QConfigError(
                    f"a fake quant has no setting {key!r}.",
                    fix=f"Its settings are {', '.join(known)}.",
                )
        return QuantSpec(**kept)

    def __str__(self) -> str:
        kind = "int" if self.signed else "uint"
        parts = [f"{kind}{self.bits}", self.scheme]
        parts.append("per channel" if self.per_channel else "per tensor")
        parts.append(
            "learned step size" if self.learned else self.observer.removesuffix("Observer")
        )
        if self.reduce_range:
            parts.append("reduce_range")
        return ", ".join(parts)


def made_by(factory: Callable[[], Any]) -> Any:
    """What ``factory`` makes, without torch's warning of ``reduce_range``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return factory()


def spec_of(fake_quant: Any) -> QuantSpec | None:
    """The :class:`QuantSpec` that makes the same as ``fake_quant`` (an object of torch's), None
    where there is none, as for fixed ranges and classes of the user's."""
    name = next((n for n, kind in _FAKE_QUANTS.items() if type(fake_quant) is kind), None)
    watching: Any = getattr(fake_quant, "activation_post_process", None)
    seen = next((key for key, kind in _OBSERVERS.items() if type(watching) is kind), None)
    scheme = next(
        (key for key, q in _QSCHEMES.items() if q == getattr(watching, "qscheme", None)), None
    )
    if name is None or seen is None or scheme is None or seen[1] != scheme[1]:
        return None
    assert watching is not None
    reduced = bool(getattr(watching, "reduce_range", False))
    low, high = int(watching.quant_min), int(watching.quant_max)
    if reduced:
        low, high = 2 * low, 2 * high + 1
    signed = watching.dtype == torch.qint8
    # The range is from 0 or around zero, and its lowest code may be left out.
    bits = (high + 1).bit_length() - (0 if signed else 1)
    try:
        spec = QuantSpec(
            bits=bits,
            signed=signed,
            scheme=cast(Scheme, scheme[0]),
            per_channel=scheme[1],
            observer=cast(ObserverName, seen[0]),
            averaging_constant=float(getattr(watching, "averaging_constant", _AVERAGING)),
            fake_quant=cast(FakeQuantName, name),
            reduce_range=reduced,
            narrow_range=low % 2 == 1,
            eps=float(watching.eps),
            percentile=float(getattr(watching, "percentile", _SHARE)),
        )
    except QConfigError:
        return None
    return spec if _same(spec, fake_quant) else None


def _same(spec: QuantSpec, fake_quant: Any) -> bool:
    """Whether ``spec`` makes what clamps, rounds and observes as ``fake_quant`` does."""
    made: Any = spec.make()
    mine, its = made.activation_post_process, fake_quant.activation_post_process
    observers = (
        "dtype",
        "qscheme",
        "quant_min",
        "quant_max",
        "reduce_range",
        "ch_axis",
        "bins",
        "percentile",
    )
    same = all(getattr(mine, n, None) == getattr(its, n, None) for n in observers)
    scaled = getattr(made, "use_grad_scaling", None) == getattr(
        fake_quant, "use_grad_scaling", None
    )
    constant = getattr(mine, "averaging_constant", None) == getattr(its, "averaging_constant", None)
    return same and scaled and constant and float(mine.eps) == float(its.eps)


def _check_types(spec: QuantSpec) -> None:
    bits = spec.bits
    if type(bits) is not int or not FEWEST_BITS <= bits <= MOST_BITS:
        raise QConfigError(
            f"bits is {bits!r}.",
            why=f"torch's fake quants simulate {FEWEST_BITS} to {MOST_BITS} bits.",
            fix="Give bits a whole number from 2 to 8.",
        )
    for name in ("signed", "per_channel", "reduce_range", "narrow_range"):
        value = getattr(spec, name)
        if type(value) is not bool:
            raise QConfigError(f"{name} is {value!r}.", fix=f"Give {name} true or false.")
    for name, choices in (
        ("scheme", get_args(Scheme)),
        ("observer", get_args(ObserverName)),
        ("fake_quant", get_args(FakeQuantName)),
    ):
        value = getattr(spec, name)
        if value not in choices:
            raise QConfigError(
                f"{name} is {value!r}.", fix=f"Give {name} one of {', '.join(map(repr, choices))}."
            )
    for name in ("averaging_constant", "eps"):
        value = getattr(spec, name)
        if type(value) not in (float, int) or not 0 < value <= 1:
            raise QConfigError(
                f"{name} is {value!r}.", fix=f"Give {name} a number above 0 and at most 1."
            )


def _check_together(spec: QuantSpec) -> None:
    if spec.per_channel and (spec.observer, True) not in _OBSERVERS:
        raise QConfigError(
            f"observer {spec.observer} has no sibling per channel in torch.",
            fix="Set per_channel to false, or observer to 'MinMaxObserver'.",
        )
    if spec.fake_quant == _FUSED and spec.observer != _MOVING:
        raise QConfigError(
            f"fake_quant {_FUSED} takes no {spec.observer}.",
            why="Its kernel averages minimum and maximum itself.",
            fix="Set fake_quant to 'FakeQuantize' with that observer.",
        )
    if spec.observer != _MOVING and spec.averaging_constant != _AVERAGING:
        raise QConfigError(
            f"{spec.observer} has no averaging_constant.",
            fix="Leave averaging_constant out, or set observer to 'MovingAverageMinMaxObserver'.",
        )
    _check_percentile(spec)
    if spec.learned and spec.reduce_range:
        raise QConfigError(
            f"fake_quant {LEARNED} takes no reduce_range.",
            why="torch would halve the codes of its observer and not its own.",
            fix="Leave reduce_range out and take one bit less.",
        )
    if spec.narrow_range and not spec.signed:
        raise QConfigError(
            "narrow_range is for signed codes.",
            why="It leaves out the lowest, so that as many are below zero as above.",
            fix="Leave narrow_range out, or set signed to true.",
        )


def _check_percentile(spec: QuantSpec) -> None:
    value = spec.percentile
    if type(value) not in (float, int) or not 50 < value <= 100:
        raise QConfigError(
            f"percentile is {value!r}.", fix="Give percentile a number above 50 and at most 100."
        )
    if spec.observer != _PERCENTILE and value != _SHARE:
        raise QConfigError(
            f"{spec.observer} has no percentile.",
            fix="Leave percentile out, or set observer to 'PercentileObserver'.",
        )


_DEFAULT = QuantSpec()

ACTIVATION = _DEFAULT
"""Torch's QAT default for activations."""
WEIGHT = QuantSpec(signed=True, scheme="symmetric", per_channel=True)
"""Torch's QAT default for weights with a scale per channel."""
