"""The code that findings on qconfigs, fake quants and training offer, tried as it is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.ao.quantization import get_default_qat_qconfig, get_default_qat_qconfig_mapping

import qatexplorer as qx
from qatexplorer.checks.records import Finding
from tests.checks import examples_observers, examples_settings, examples_training
from tests.checks.examples import EXAMPLES, Example
from tests.support.training_models import one_thread

_ = one_thread, examples_observers, examples_settings, examples_training

NAMES = {
    "torch": torch,
    "get_default_qat_qconfig": get_default_qat_qconfig,
    "get_default_qat_qconfig_mapping": get_default_qat_qconfig_mapping,
}


def of(*rules: str) -> list[Any]:
    # Those of PT2E and torchao are in test_fixes_exported.py.
    cases = [case for case in EXAMPLES if case.rule in rules and type(case) is Example]
    return [pytest.param(case, id=f"{case.rule}-{case.name}") for case in cases]


def broken(case: Example) -> tuple[qx.Session, Finding]:
    model, inputs = case.broken()
    session = qx.Session(model, inputs, **case.settings)
    session.warns = False
    if case.walk is not None:
        case.walk(session)
    return session, session.check().with_id(case.rule)[0]


@pytest.mark.parametrize("case", of("QX302", "QX303", "QX304", "QX305", "QX306"))
def test_the_qconfig_offered_ends_the_finding(case: Example) -> None:
    _session, finding = broken(case)
    assert finding.fix.startswith("qconfig=")
    model, inputs = case.broken()
    fixed = qx.Session(model, inputs, **{**case.settings, **eval(f"dict({finding.fix})", NAMES)})
    fixed.warns = False
    found = fixed.check()
    assert case.rule in found.checked
    assert not found.with_id(case.rule)


@pytest.mark.parametrize("case", of("QX402", "QX404", "QX403", "QX408"))
def test_the_line_for_the_prepared_model_ends_the_finding(case: Example) -> None:
    session, finding = broken(case)
    model: Any = session.model
    eval(finding.fix, {**NAMES, "model": model})
    if case.rule in ("QX402", "QX408"):
        owner = finding.path.removesuffix(".weight_fake_quant")
        model.get_submodule(f"{owner}.weight_fake_quant").enable_observer()
    inputs: Tensor = session.options.example_inputs
    model(inputs)
    found = session.check()
    assert case.rule in found.checked
    assert not found.with_id(case.rule)


@pytest.mark.parametrize("case", of("QX433", "QX435"))
def test_the_training_offered_ends_the_finding(case: Example) -> None:
    session, finding = broken(case)
    epochs = len(session.run.history.epochs) if session.run is not None else 0
    offered = finding.fix.removesuffix(")").partition("(")[2]
    model, inputs = case.broken()
    again = qx.Session(model, inputs, **case.settings)
    again.warns = False
    settings = {"epochs": epochs, "lr": model.plan.lr, **eval(f"dict({offered})")}
    again.train(telemetry_every=1, progress=False, **settings)
    found = again.check()
    assert case.rule in found.checked
    assert not found.with_id(case.rule)
