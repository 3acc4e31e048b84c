"""Rules on the user's own hooks."""

from __future__ import annotations

from collections.abc import Iterator

from qatexplorer.checks.evidence.hook_survey import hook_survey
from qatexplorer.checks.rules import Found, rule
from qatexplorer.checks.subject import Subject
from qatexplorer.flows.user_hooks import WHY, way_out


@rule("QX910", "lost-hook", "warning", "fused")
def lost_hook(subject: Subject) -> Iterator[Found]:
    """A hook of the user's does not run any more

    Symptom:
        A dict of features lacks a key (KeyError), or holds an old tensor: silently wrong.
    Cause:
        Fusion moves the pre-hooks of the first and the forward hooks of the last module of a
        group; those on the others hang on parts that the fused module never calls. In FX the graph
        calls layers only: hooks on blocks and on the model itself are gone, and those on layers
        that are fused. Swapping drops backward hooks.
    Fix:
        Register the hook on the last module of the group (a pre-hook on the first) or on the block
        around it, or return the tensor from forward. In FX, return it.
    Sources:
        https://github.com/pytorch/pytorch/issues/37151
        https://discuss.pytorch.org/t/prepare-qat-on-module-removes-hooks/72137
    """
    if subject.flow.prepared_stage in subject.snapshots:
        return  # the session has seen for itself which of them still run
    traced = subject.flow.by_graph
    survey = subject.get(hook_survey)
    what = "will not run in the prepared model"
    if survey.untraced:
        what = "does not run while FX traces, and the model cannot be traced without"
    for place in survey.lost:
        yield Found(
            place.path,
            f"Your {place} {what}. {WHY[traced]}",
            way_out(place, subject.options.fusion, traced),
        )
