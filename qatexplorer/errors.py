"""Errors for the user: what happened, where in their model, why, and what to do.

Every error of this package derives from :class:`QatExplorerError`. Widgets show ``message``,
``where``, ``why`` and ``fix``; scripts catch the type.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path


class QatExplorerError(Exception):
    """Base of all errors raised on purpose.

    Args:
        message: what happened, one sentence.
        where: module path in the user's model (``""`` is the root, None is nowhere).
        why: the reason, as far as it is known.
        fix: what to do about it.
    """

    def __init__(
        self, message: str, *, where: str | None = None, why: str = "", fix: str = ""
    ) -> None:
        self.message = message
        self.where = where
        self.why = why
        self.fix = fix
        super().__init__(self.full_text())

    def full_text(self) -> str:
        """All parts as plain text, one per line."""
        parts = [self.message]
        if self.where is not None:
            parts.append(f"Where: {self.where or 'the model itself (root)'}")
        if self.why:
            parts.append(f"Why: {self.why}")
        if self.fix:
            parts.append(f"What to do: {self.fix}")
        return "\n".join(parts)

    def __reduce__(self) -> tuple[object, ...]:
        state = (type(self), self.message, self.where, self.why, self.fix)
        return (_rebuild, state)


def _rebuild(
    cls: type[QatExplorerError], message: str, where: str | None, why: str, fix: str
) -> QatExplorerError:
    return cls(message, where=where, why=why, fix=fix)


class InputError(QatExplorerError):
    """What was handed in cannot be used."""


class NotAModuleError(InputError, TypeError):
    """The model is not a ``torch.nn.Module``."""


class ExampleInputError(InputError):
    """The example inputs do not fit the model, or its forward raises on them."""


class EvalModeError(InputError):
    """The model is in eval mode; quantization-aware training needs train mode."""


class DeviceError(InputError):
    """Parameters are on a device that cannot be used (no GPU, meta, two devices)."""


class DtypeError(InputError):
    """Parameters have a dtype that torch's fake quants cannot handle."""


class AlreadyPreparedError(InputError):
    """The model already holds fake quants, observers or int8 modules."""


class NotCopyableError(InputError):
    """``copy.deepcopy`` fails on the model; ``where`` names the module and attribute."""


class UnknownEngineError(InputError, ValueError):
    """No such quantized engine on this machine."""


class QConfigError(InputError, ValueError):
    """The qconfig cannot be understood, or names a module or type the model lacks."""


class FusionError(InputError, ValueError):
    """A list of modules cannot be fused."""


class CustomConfigError(InputError, ValueError):
    """A custom config, a backend config or a non-traceable module cannot be understood."""


class EditError(InputError, ValueError):
    """An edit of the session's copy does not fit the model, or there is none of that name."""


class UnknownExampleError(InputError, KeyError):
    """No such embedded example."""

    __str__ = Exception.__str__


class OverlayError(InputError, ValueError):
    """Numbers for the graph that cannot be understood, or that name what the model lacks."""


class FactoryError(InputError):
    """``package.module:factory`` cannot be imported or does not return a model and inputs."""


class StageError(QatExplorerError):
    """A stage failed; the session stays at the last good one."""


class UnknownStageError(StageError, ValueError):
    """The flow has no stage of that name."""


class TraceFailedError(StageError):
    """torch.fx cannot trace the model; ``where`` is the module whose forward it cannot follow."""


class ConvertError(StageError):
    """torch's ``convert`` raised; ``source`` is the line of the user's that made the operation it
    was at, ``""`` if unknown."""

    source: str = ""


class Int8RunError(StageError):
    """The converted model raises when it runs; ``op`` is the operation, ``source`` its line."""

    def __init__(
        self,
        message: str,
        *,
        where: str | None = None,
        why: str = "",
        fix: str = "",
        op: str = "",
        source: str = "",
    ) -> None:
        super().__init__(message, where=where, why=why, fix=fix)
        self.op = op
        self.source = source


class TrainingError(QatExplorerError):
    """Training could not start or go on; the last good state is kept."""


class NoDataError(TrainingError):
    """Training or evaluation was asked for and no data was given."""


class DivergedError(TrainingError):
    """The loss is NaN or infinite; ``where`` is the first module whose output is not finite."""


class CheckpointError(TrainingError):
    """A checkpoint cannot be written, read, or put into this model."""


class RunFolderError(InputError):
    """A folder holds no run, holds one already, or cannot be written."""


class ExportError(QatExplorerError):
    """What was to be taken home cannot be written; nothing of it is left behind."""


class ReportError(QatExplorerError):
    """A report cannot be written; what was there before stays."""


class BusyError(QatExplorerError):
    """The session cannot change while a training run is going on."""


class StoppedError(QatExplorerError):
    """It was asked to stop, and did; nothing of it is kept."""


class UnsupportedTorchError(QatExplorerError):
    """An internal of torch that is watched has moved in this release."""


class QatExplorerWarning(UserWarning):
    """Base of all warnings given on purpose: nothing failed, and it is hardly what was meant."""


class UntestedTorchWarning(QatExplorerWarning):
    """The running release of torch is none of those that this version is tested on."""


class EngineWarning(QatExplorerWarning):
    """The int8 engine in use computes something else on this CPU than the fake quants simulate."""


class PostTrainingQConfigWarning(QatExplorerWarning):
    """A qconfig has observers where fake quants belong: training there simulates nothing."""


def warn(message: str, kind: type[QatExplorerWarning] = QatExplorerWarning) -> None:
    """Emit a warning that names the caller's line outside of this package."""
    here = str(Path(__file__).parent)
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_code.co_filename.startswith(here):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, kind, stacklevel=level)
