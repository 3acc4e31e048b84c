"""Records as tables, for those who have pandas."""

from __future__ import annotations

import importlib
from typing import Any

from qatexplorer.errors import InputError


def require_pandas() -> Any:
    """The module ``pandas``. Raises InputError if it is not installed."""
    try:
        return importlib.import_module("pandas")
    except ImportError as error:
        raise InputError(
            "pandas is not installed, so there is no DataFrame to make.",
            why=f"{type(error).__name__}: {error}",
            fix="Install it (pip install pandas); nothing else in qatexplorer needs it.",
        ) from error
