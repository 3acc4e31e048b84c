"""The user's hooks, and which of them the prepared model still has."""

from __future__ import annotations

from dataclasses import dataclass

from qatexplorer.checks.subject import Subject
from qatexplorer.errors import TraceFailedError
from qatexplorer.flows.user_hooks import WHY, HookPlace, hooks_left, in_order


@dataclass(frozen=True)
class HookSurvey:
    """Hooks of the float model by place: ``lost`` are on no module of the prepared model.

    ``untraced``: there is none, because FX cannot trace the model without them.
    """

    hooks: tuple[HookPlace, ...]
    lost: tuple[HookPlace, ...]
    untraced: bool = False


def hook_survey(subject: Subject) -> HookSurvey:
    """Look where your hooks go

    Nothing is run: a hook that is not on any module of the prepared model cannot be called. The
    model is prepared only if it has hooks.
    """
    here = hooks_left(subject.base)
    if not here:
        return HookSurvey((), ())
    try:
        kept = hooks_left(subject.maker.rebuild(subject.flow.prepared_stage))
    except TraceFailedError as error:
        if WHY[True] not in (error.why or ""):
            raise
        return HookSurvey(in_order(here), in_order(here), untraced=True)
    return HookSurvey(in_order(here), in_order(here - kept))
