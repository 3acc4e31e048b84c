"""Which library runs the int8 kernels."""

from __future__ import annotations

import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from qatexplorer.errors import UnknownEngineError

_LOCK = threading.RLock()

_REASONS = {
    "onednn": "onednn trains on the whole range 0..255 that the int8 kernels use, and runs on "
    "this CPU.",
    "x86": "onednn is not available here; x86 is torch's next best on this CPU. Its fake quants "
    "train on 0..127 (reduce_range) while the int8 layers clamp to 0..255, so the two can differ.",
    "fbgemm": "onednn and x86 are not available here. fbgemm's fake quants train on 0..127 "
    "(reduce_range) while the int8 layers clamp to 0..255, so the two can differ.",
    "qnnpack": "qnnpack is the engine for ARM and the only one here; it trains on 0..255 with one "
    "scale per weight tensor.",
}


@dataclass(frozen=True, slots=True)
class Backend:
    """A backend name (qconfig and engine share it) and one sentence on why it was taken."""

    name: str
    reason: str


def available_engines() -> tuple[str, ...]:
    """Quantized engines of this build of torch on this machine, without ``"none"``."""
    return tuple(e for e in torch.backends.quantized.supported_engines if e != "none")


def default_backend() -> Backend:
    """The backend to quantize for when none is named. Raises UnknownEngineError if there is none.

    On ARM it is qnnpack, since onednn's int8 kernels are made for x86 CPUs.
    """
    engines = available_engines()
    arm = platform.machine().lower() in ("aarch64", "arm64")
    order = ("qnnpack", "onednn") if arm else ("onednn", "x86", "fbgemm", "qnnpack")
    for name in order:
        if name in engines:
            return Backend(name, _reason(name, engines))
    raise UnknownEngineError(
        "This build of torch has no quantized engine.",
        why=f"torch.backends.quantized.supported_engines is {list(engines)}.",
        remedy="Install torch's official wheel for your platform.",
    )


def _reason(name: str, engines: tuple[str, ...]) -> str:
    if name == "qnnpack" and len(engines) > 1:
        return "This is an ARM CPU, for which qnnpack is made; it trains on the whole range 0..255."
    return _REASONS[name]


def check_engine(name: str) -> str:
    """``name`` itself. Raises UnknownEngineError if this machine has no such engine."""
    if name not in available_engines():
        raise UnknownEngineError(
            f"There is no quantized engine {name!r} on this machine.",
            why=f"torch offers {', '.join(available_engines()) or 'none'}.",
            remedy="Take one of those.",
        )
    return name


@contextmanager
def quantized_engine(name: str | None) -> Iterator[str]:
    """``torch.backends.quantized.engine`` is ``name`` inside and what it was before after.

    The engine belongs to the process: one caller at a time is inside (a lock, re-entrant on one
    thread). None keeps the present engine. Gives the engine's name; raises UnknownEngineError.
    """
    if name is not None:
        check_engine(name)
    with _LOCK:
        before = torch.backends.quantized.engine
        try:
            if name is not None and name != before:
                torch.backends.quantized.engine = name
            yield torch.backends.quantized.engine
        finally:
            if torch.backends.quantized.engine != before:
                torch.backends.quantized.engine = before
