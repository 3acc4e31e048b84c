"""A copy taken all the way to int8, before any training: what crashes, and what computes wrong."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn

from qatexplorer.checks.evidence.causes import Cause, Examiner
from qatexplorer.checks.evidence.float_gap import FloatGap, float_gap
from qatexplorer.checks.evidence.float_run import float_run
from qatexplorer.checks.subject import Converted, NoEvidence, Subject
from qatexplorer.errors import QatExplorerError
from qatexplorer.evaluate.pairs import by_nodes
from qatexplorer.evaluate.parity import Parity, ParityRun, run
from qatexplorer.flows.base import copy_sharing_parameters
from qatexplorer.forward.preserve import preserved_rng
from qatexplorer.forward.visit import Place, Sample
from qatexplorer.quantizers.facts import fake_quants, fake_quants_on, flags_of, switch


@dataclass(frozen=True)
class DryRun:
    """What it came to.

    Attributes:
        prepared: the copy that was converted, at the prepared stage and calibrated; None where it
            could not be prepared.
        own: whether it is a copy of the session's model with the ranges that this has seen, and
            not one that has seen the example input only.
        float_gap: None where the prepared model or the float one does not run.
        parity: of fake quant and int8, None where there is no int8 model that runs.
        causes: where the two part, and why as far as that could be shown.
        built: the int8 model; None with ``error``, which says what stopped it.
    """

    prepared: nn.Module | None
    own: bool = False
    float_gap: FloatGap | None = None
    parity: Parity | None = None
    causes: tuple[Cause, ...] = ()
    built: Converted | None = None
    error: QatExplorerError | None = field(default=None, compare=False)


def dry_run(subject: Subject) -> DryRun:
    """Prepared copy: to int8 and back"""
    if not subject.base.training:
        raise NoEvidence("The model is in eval mode, and is not prepared so.")
    maker = subject.maker
    try:
        fresh = maker.rebuild(subject.flow.prepared_stage)
    except Exception as error:
        return DryRun(None, error=maker.translated(error, subject.base))
    gap = None
    try:
        gap = _without_rounding(subject, fresh)
        subject.stop_if_asked()
        prepared, own = _to_convert(subject, fresh)
        with preserved_rng():
            return _converted(subject, prepared, own, gap)
    except QatExplorerError as error:
        return DryRun(fresh, float_gap=gap, error=error)
    except Exception as error:
        return DryRun(fresh, float_gap=gap, error=maker.translated(error, fresh))


def _without_rounding(subject: Subject, fresh: nn.Module) -> FloatGap | None:
    """One forward that calibrates ``fresh`` and is compared with the float model's."""
    flags = {module: flags_of(module) for module in fake_quants(fresh).values()}
    seen: dict[Place, Sample] = {}
    fresh.eval()
    for module in flags:
        switch(module, observer=True, fake_quant=False)
    try:
        with preserved_rng(), torch.no_grad():
            inputs = subject.options.example_inputs
            outputs = run(fresh, inputs, seen, nodes=by_nodes(fresh))
        rounding = {module for module, flag in flags.items() if flag.fake_quant}
        if rounding:
            fake_quants_on(fresh)
    finally:
        for module, flag in flags.items():
            switch(module, observer=flag.observer, fake_quant=flag.fake_quant)
    try:
        floats = subject.get(float_run)
    except NoEvidence:
        return None
    return float_gap(floats, seen, outputs, fresh, subject)


def _to_convert(subject: Subject, fresh: nn.Module) -> tuple[nn.Module, bool]:
    stages = (subject.flow.prepared_stage, subject.flow.train_stage)
    if subject.observed and subject.work is not None and subject.work_stage in stages:
        return copy_sharing_parameters(subject.work), True
    return fresh, False


def _converted(subject: Subject, prepared: nn.Module, own: bool, gap: FloatGap | None) -> DryRun:
    examiner = Examiner(prepared, subject.options.qconfig.backend)
    inputs = subject.options.example_inputs
    comparison: ParityRun | None = None
    try:
        comparison = ParityRun(prepared, inputs, examiner.look, weights_observe=not own)
    except Exception:  # it has just run: what is wrong is said by converting
        comparison = None
    subject.stop_if_asked()
    candidate = copy_sharing_parameters(prepared).eval()
    watching = comparison.watching if comparison is not None else None
    built = subject.maker.convert_copy(candidate, watching=watching)
    parity = comparison.parity if comparison is not None else None
    return DryRun(prepared, own, gap, parity, tuple(examiner.causes), built)
