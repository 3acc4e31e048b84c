"""What cannot work in the eager flow is reported in the same words in the FX flow, and FX's own."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.ao.quantization import QConfigMapping, get_default_qat_qconfig_mapping

import qatexplorer as qx
from qatexplorer import errors
from qatexplorer.session import Session

# The very tests of the eager flow: the fixture below makes their sessions FX ones.
from tests.faults.test_session_faults import (  # noqa: F401
    test_already_prepared_or_converted,
    test_bad_settings_change_nothing_of_a_session,
    test_busy_while_training,
    test_deepcopy_of_its_own_that_raises,
    test_errors_survive_copying,
    test_eval_mode,
    test_forward_that_raises,
    test_inputs_of_another_form,
    test_inputs_that_do_not_fit,
    test_lazy_modules,
    test_nan_loss_keeps_the_last_good_state,
    test_no_data,
    test_no_inputs_and_no_data,
    test_not_a_module,
    test_not_copyable_names_module_and_attribute,
    test_on_a_gpu_that_is_not_there,
    test_on_meta_or_on_two_devices,
    test_other_dtypes,
    test_qconfig_for_what_the_model_does_not_have,
    test_qconfig_whose_factory_raises,
    test_settings_that_cannot_be_used,
    test_unknown_setting_of_a_run,
)
from tests.support.models import Branching, NoStubs, PlainAdd, image
from tests.support.models_fx import Masked, rgb
from tests.support.refusals import VECTOR, refused


@pytest.fixture(autouse=True)
def in_fx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qx, "Session", functools.partial(Session, flow="fx"))


def test_the_sessions_are_fx_ones() -> None:
    assert qx.Session(NoStubs().train(), (image(),)).flow.name == "fx"


def test_unknown_stage_and_a_step_past_the_end() -> None:
    session = qx.Session(NoStubs().train(), (image(),))
    error = refused(errors.UnknownStageError, lambda: session.goto("quantize"))
    assert "reference" not in error.fix
    assert "lower" in error.fix
    session.goto("lower")
    refused(errors.StageError, session.step)
    assert session.stage == "lower"


def test_model_that_cannot_be_traced_names_line_and_module() -> None:
    session = qx.Session(Masked().train(), (rgb(),))
    error = refused(errors.TraceFailedError, session.step)
    assert error.where == "inner.0"
    assert "Masking.forward at models_fx.py:" in error.message
    assert "non_traceable=['inner.0']" in error.fix
    assert "flow='eager'" in error.fix
    assert session.stage == session.reached == "float"
    assert session.snapshot.graph is not None
    assert session.snapshot.graph.origin == "recorded forward"
    assert session.model(rgb()).shape == (4, 5)


def test_root_that_cannot_be_traced() -> None:
    error = refused(errors.TraceFailedError, qx.Session(Branching().train(), VECTOR).step)
    assert error.where == ""
    assert "models.py:" in error.message
    assert "submodule" in error.fix


def test_a_call_that_fails_half_way_shows_what_came_before() -> None:
    """One torch call makes five stages: those it reached can be looked at."""

    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.head = nn.Embedding(9, 4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.words(x))

    session = qx.Session(Words().train(), (torch.arange(5),))
    error = refused(errors.StageError, lambda: session.goto("train"))
    assert "float_qparams" in error.why + error.fix + error.message
    assert session.stage == session.reached
    assert session.reached in ("propagate", "swap", "fuse", "trace")
    assert session.model(torch.arange(5)).shape == (5, 3)
    again = refused(errors.StageError, session.step)
    assert again.message == error.message
    session.configure(qconfig={"": "onednn", nn.Embedding: None})
    assert session.goto("insert").sites


def test_unknown_names_are_said_where_the_mapping_is_laid_on_the_model() -> None:
    mapping = get_default_qat_qconfig_mapping("onednn").set_module_name("fc9", None)
    session = qx.Session(NoStubs().train(), (image(),), qconfig=mapping)
    error = refused(errors.QConfigError, lambda: session.goto("insert"))
    assert "'fc9'" in error.message
    assert "fc1" in error.fix
    assert session.stage == "fuse"
    session.configure(qconfig=QConfigMapping().set_global(None))
    assert session.goto("insert").sites == ()


@pytest.mark.parametrize(
    "settings",
    [
        {"non_traceable": ["nowhere"]},
        {"non_traceable": [""]},
        {"non_traceable": [3]},
        {"non_traceable": [int]},
        {"prepare_custom_config": 3},
        {"convert_custom_config": [1]},
        {"prepare_custom_config": {"float_to_observed_custom_module_class": {"never": {}}}},
        {"prepare_custom_config": {"preserved_attributes": ["nothing"]}},
        {"backend_config": "npu"},
        {"backend_config": 3},
        {"qat_mapping": "everything"},
    ],
    ids=str,
)
def test_custom_settings_that_cannot_be_used(settings: dict[str, Any]) -> None:
    make = functools.partial(qx.Session, NoStubs().train(), (image(),))
    refused(errors.CustomConfigError, lambda: make(**settings))
    session = make()
    session.goto("insert")
    if "qat_mapping" not in settings:
        refused(errors.CustomConfigError, lambda: session.configure(**settings))
        assert session.stage == "insert"


class Scaled(nn.Module):
    """An optional argument, and (if asked for) a number in what it returns."""

    def __init__(self, number: bool = False) -> None:
        super().__init__()
        self.fc, self.number = nn.Linear(6, 4), number

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Any:
        y = self.fc(x)
        if mask is not None:
            y = y * mask
        return {"logits": y, "length": 4} if self.number else y


def test_optional_argument_that_is_not_given() -> None:
    """Tracing writes down the branch with a mask; torch's own call does not notice."""
    session = qx.Session(Scaled().train(), VECTOR)
    error = refused(errors.TraceFailedError, session.step)
    assert "does not run on the example inputs at test_fx_faults.py:" in error.message
    assert "only the arguments you use" in error.fix
    assert session.stage == "float"
    given = qx.Session(Scaled().train(), (VECTOR[0], torch.ones(4, 4)))
    assert given.goto("insert").sites


def test_number_in_the_output() -> None:
    session = qx.Session(Scaled(number=True).train(), (VECTOR[0], torch.ones(4, 4)))
    error = refused(errors.StageError, lambda: session.goto("insert"))
    assert "tensors only" in error.fix
    assert session.stage == "swap"


class Own(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


class ObservedOwn(Own):
    @classmethod
    def from_float(cls, module: nn.Module) -> nn.Module:
        raise RuntimeError("an error that no rule knows")


def test_advice_needs_no_stubs() -> None:
    """Where the eager flow says DeQuantStub and QuantStub, FX has its own way."""
    session = qx.Session(
        nn.Sequential(nn.Linear(6, 6), Own(), nn.Linear(6, 4)).train(),
        VECTOR,
        non_traceable=[Own],
        prepare_custom_config={"float_to_observed_custom_module_class": {Own: ObservedOwn}},
    )
    error = refused(errors.StageError, lambda: session.goto("insert"))
    assert "no rule knows" in error.message
    assert session.stage == "swap"
    assert "non_traceable=[…]" in error.fix
    assert "DeQuantStub" not in str(error)


def test_plus_runs_in_int8_without_being_rewritten() -> None:
    x = torch.randn(4, 6)  # of zeros no engine has to know the range
    session = qx.Session(PlainAdd().train(), (x,))
    session.goto("train")
    session.model(x)
    assert session.goto("lower").stage == "lower"
    assert session.preflight().ok
