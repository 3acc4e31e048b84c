"""The releases of torch that the tests have passed on, and a warning on any other.

Imports no torch by itself: the command line asks it before a model is loaded.
"""

from __future__ import annotations

import re
import sys
import threading
import warnings
from importlib import metadata

from qatexplorer.errors import UntestedTorchWarning

TESTED: tuple[str, ...] = ("2.8.0", "2.11.0", "2.13.0", "2.14.1", "2.15.0")
"""Oldest first; ``docs/compatibility.md`` has when, on which Python, and what was run."""

_RELEASE = re.compile(r"(\d+\.\d+)\.\d+(?:\.post\d+)?(?:\+.*)?")
_lock = threading.Lock()
_warned = False


def running_torch() -> str:
    """Version of the torch that is loaded, else of the one that is installed.

    Raises importlib.metadata.PackageNotFoundError where there is none.
    """
    loaded = sys.modules.get("torch")
    return str(loaded.__version__) if loaded is not None else metadata.version("torch")


def is_tested(version: str | None = None) -> bool:
    """Whether ``version`` of torch, by default :func:`running_torch`, is tested.

    Bug-fix releases of a tested release count as tested; alphas, nightlies and builds of a
    vendor's own source do not.
    """
    found = _RELEASE.fullmatch(running_torch() if version is None else version)
    return found is not None and found[1] in {tested.rpartition(".")[0] for tested in TESTED}


def warn_if_untested() -> None:
    """Warn with :class:`~qatexplorer.errors.UntestedTorchWarning`, once per process, if the
    running torch is not tested."""
    global _warned
    with _lock:
        if _warned or is_tested():
            return
        _warned = True
    warnings.warn(
        f"qatexplorer is not tested on torch {running_torch()}. It is tested on "
        f"{', '.join(TESTED)}. The eager flow calls public functions of torch; the FX flow watches "
        "torch's own and raises UnsupportedTorchError where one has moved.",
        UntestedTorchWarning,
        stacklevel=3,
    )
