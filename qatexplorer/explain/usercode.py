"""Telling the user's own source files from torch's and ours."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch

_PACKAGE = Path(__file__).parents[1]
# The embedded examples stand for a user's model.
_OURS = tuple(
    str(entry) for entry in _PACKAGE.iterdir() if entry.name not in ("zoo", "__pycache__")
)
_OTHERS = (str(Path(torch.__file__).parent), *_OURS, "<")


@cache
def is_user_file(filename: str) -> bool:
    """Whether code in ``filename`` is neither torch's nor the explorer's."""
    return not filename.startswith(_OTHERS)
