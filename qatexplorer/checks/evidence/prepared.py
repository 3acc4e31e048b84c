"""The prepared model, for rules that read its fake quants and weights without running it."""

from __future__ import annotations

from torch import nn

from qatexplorer.checks.subject import Subject
from qatexplorer.flows.base import ROLES


def prepared_model(subject: Subject) -> nn.Module:
    """The prepared model

    The one being worked on if it has its fake quants, else a copy that shares the parameters.
    """
    role = subject.flow.stage(subject.work_stage).role if subject.work_stage else "float"
    if subject.work is not None and ROLES.index(role) >= ROLES.index("inserted"):
        return subject.work
    return subject.maker.rebuild(subject.flow.prepared_stage)
