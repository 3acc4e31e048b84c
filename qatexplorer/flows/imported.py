"""Importing torchao and ExecuTorch when they are needed, without what they say as they are loaded.

torchao warns of each of its libraries for GPUs that it cannot load, on any machine without one, and
torch of a registration of torchao's. ExecuTorch loads coremltools, which warns of each package that
is newer than it is and of what only macOS has. None of it says anything of the user's model.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_LOUD = ("torchao", "torch.utils._pytree", "coremltools")


def imported(name: str) -> Any:
    """The module ``name`` of torchao or ExecuTorch. Raises ImportError."""
    if name in sys.modules:
        return sys.modules[name]
    with errors_only():
        return importlib.import_module(name)


@contextmanager
def errors_only() -> Iterator[None]:
    """Inside, what loads torchao (transformers does, where it is installed) says errors only."""
    loggers = [logging.getLogger(name) for name in _LOUD]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
