"""Whether the flows of torchao can run here: which releases of torchao and torch go together."""

from __future__ import annotations

import importlib.util
from importlib import metadata

import torch

NEEDS_TORCH = (2, 11)
NEEDS_TORCHAO = ((0, 18), (0, 19))


def unavailable() -> str:
    """Why no flow of torchao can run here, ``""`` where they can: torchao 0.18 and torch 2.11 or
    newer."""
    running = _release(torch.__version__)
    if importlib.util.find_spec("torchao") is None:
        return "torchao is not installed: pip install 'torchao>=0.18,<0.19'"
    low, high = NEEDS_TORCHAO
    if not low <= _release(metadata.version("torchao")) < high:
        return (
            f"torchao {metadata.version('torchao')} is installed, and the flow watches functions "
            "of 0.18: pip install 'torchao>=0.18,<0.19'"
        )
    if running < NEEDS_TORCH:
        return f"torchao 0.18 needs torch 2.11 or newer, and {torch.__version__} is running"
    return ""


def _release(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int("".join(c for c in minor if c.isdigit()) or 0)
