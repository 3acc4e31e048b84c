"""The engines of this machine (libraries that run int8 kernels), and which one is in force."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from qatexplorer.errors import UnknownEngineError

_LOCK = threading.RLock()


def available_engines() -> tuple[str, ...]:
    """Quantized engines of this build of torch on this machine, without ``"none"``."""
    return tuple(e for e in torch.backends.quantized.supported_engines if e != "none")


def check_engine(name: str) -> str:
    """``name`` itself. Raises UnknownEngineError if this machine has no such engine."""
    if name not in available_engines():
        raise UnknownEngineError(
            f"There is no quantized engine {name!r} on this machine.",
            why=f"torch offers {', '.join(available_engines()) or 'none'}.",
            fix="Take one of those.",
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
