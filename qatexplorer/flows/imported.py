"""Importing torchao when it is needed, without what it says while it is loaded.

It warns of each of its libraries for GPUs that it cannot load, on any machine without one, and
torch of a registration of torchao's. Neither says anything of the user's model.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_LOUD = ("torchao", "torch.utils._pytree")


def imported(name: str) -> Any:
    """The module ``name`` of torchao. Raises ImportError."""
    if name in sys.modules:
        return sys.modules[name]
    with _errors_only():
        return importlib.import_module(name)


@contextmanager
def _errors_only() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in _LOUD]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
