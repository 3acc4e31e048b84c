"""What a session refuses, and why: no data, a training going on."""

from __future__ import annotations

from qatexplorer.data import Data
from qatexplorer.errors import BusyError, NoDataError


def needed(data: Data | None, purpose: str) -> Data:
    """``data``. Raises NoDataError if there is none."""
    if data is None:
        raise NoDataError(
            f"{purpose} needs data, and the session has none.",
            fix="Pass data={'train': loader, 'eval': loader} of (input, target) batches.",
        )
    return data


def busy(what: str) -> BusyError:
    """The error of what would change a model that is being trained."""
    return BusyError(
        f"cannot {what} while a training run is going on.",
        fix="Stop the run first, or wait for it; the model is kept.",
    )


def in_training(prepared_stage: str) -> BusyError:
    """The error of a forward beside a training step: it would change what its backward needs."""
    return BusyError(
        "cannot run the model while it is being trained.",
        fix=f"Stop the run, wait for it, or look at stage {prepared_stage!r}.",
    )


def measuring(what: str, measured: str) -> BusyError:
    """The error of what would change a model whose copy is being measured."""
    return BusyError(
        f"cannot {what} while {measured} is measured.",
        fix="Stop the measurement first, or wait for it.",
    )
