"""Where runs are kept when nothing else is said. Imports no torch and no widget."""

from __future__ import annotations

import os

DEFAULT_FOLDER = "qatexplorer-runs"
RUNS_VARIABLE = "QATEXPLORER_RUNS"


def default_folder() -> str:
    """``$QATEXPLORER_RUNS``, which the command line sets to a folder where it was started; else
    one in the working directory of the process."""
    return os.environ.get(RUNS_VARIABLE, DEFAULT_FOLDER)
