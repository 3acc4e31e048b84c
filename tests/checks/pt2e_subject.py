"""Subjects of the flow pt2e, made without a session, so that one rule can be asked alone."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from qatexplorer.checks.records import Findings
from qatexplorer.checks.rules import RULES
from qatexplorer.checks.run import check
from qatexplorer.checks.subject import Subject
from qatexplorer.errors import QatExplorerError
from qatexplorer.flows.base import FlowOptions, StageResult, copy_sharing_parameters
from qatexplorer.flows.pt2e import Pt2eFlow
from qatexplorer.flows.qconfig import resolve_qconfig
from qatexplorer.quantizers.facts import any_seen

Work = Callable[[Any, Any], Any]
"""Does something to a prepared model with its inputs, as a training does."""


@dataclass(frozen=True)
class Made:
    result: StageResult
    warnings: tuple[str, ...] = ()
    joins: tuple[str, ...] = ()


class Maker:
    """Makes models at a stage by the flow's own calls."""

    def __init__(self, model: nn.Module, options: FlowOptions) -> None:
        self.flow, self.base, self.options = Pt2eFlow(), model, options

    def rebuild(
        self, stage: str, *, own: bool = False, options: FlowOptions | None = None
    ) -> nn.Module:
        model = copy_sharing_parameters(self.base)
        for name in self.flow.calls_to(stage):
            model = self.flow.apply(name, model, options or self.options).model
        return model

    def convert_copy(
        self,
        candidate: nn.Module,
        stage: str = "",
        watching: Callable[[nn.Module], AbstractContextManager[Any]] | None = None,
    ) -> Made:
        stage = stage or self.flow.int8_stage
        result = self.flow.apply(stage, candidate, self.options, lambda _s, _r: None)
        with watching(result.model) if watching is not None else nullcontext(), torch.no_grad():
            result.model(*self.options.example_inputs)
        return Made(result)

    def translated(self, error: Exception, model: nn.Module) -> QatExplorerError:
        raise error


def subject_of(
    model: nn.Module,
    inputs: tuple[Any, ...],
    quantizer: Any = None,
    work: Work | None = None,
    lower: bool = False,
) -> Subject:
    """A subject at the prepared stage, or, with ``work``, after that; ``lower`` makes its int8
    model too."""
    options = FlowOptions(resolve_qconfig(None, None), inputs, quantizer=quantizer)
    maker = Maker(model, options)
    subject = Subject(maker, model, maker.flow, options)
    if work is not None or lower:
        prepared = maker.rebuild("insert")
        prepared(*inputs)
        if work is not None:
            work(prepared, inputs)
        subject.work, subject.work_stage = prepared, "train"
        subject.observed = any_seen(prepared)
        if lower:
            subject.int8 = maker.convert_copy(copy_sharing_parameters(prepared)).result.model
    return subject


def findings(rule: str, subject: Subject) -> Findings:
    """Of one rule, which must not fail."""
    return check(subject, rules=[RULES[rule]], strict=True)
